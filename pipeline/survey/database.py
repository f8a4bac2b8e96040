"""A connection to the store's database: one transaction at a time, tried again when the database was away."""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, event

from survey_io.errors import OptionError

from .migrations import LATEST, migrate, require_known, version_of
from .problems import StoreError, explain, is_passing

__all__ = ["DEFAULT_STORE", "Database"]

T = TypeVar("T")
DEFAULT_STORE = "skysift_survey"
FILE = "survey.db"
# Seconds for which a transaction is tried again while the database is away, and the longest pause between two tries.
PATIENCE, LONGEST_PAUSE = 30.0, 4.0
# Seconds that SQLite waits for another process's transaction.
BUSY = 30.0


class Database:
    """The survey's database.

    Parameters
    ----------
    url : str or Path, optional
        A folder (its file ``survey.db`` is SQLite), ``sqlite:///FILE``, or ``postgresql://...``; default: the
        environment variable SKYSIFT_CATALOGUE, or the folder skysift_survey.
    patience : float
        Seconds for which a transaction is tried again while the database is away.

    Attributes
    ----------
    url : str
        As given, a folder made absolute: opens the same store from any process of this machine.
    place : str
        The database for messages, without a password.
    folder : Path or None
        Where files beside the database go; None for a server's.
    """

    def __init__(self, url: str | Path | None = None, *, patience: float = PATIENCE):
        given = os.fspath(url) if url is not None else os.environ.get("SKYSIFT_CATALOGUE") or DEFAULT_STORE
        self.patience = patience
        self._url, self.folder = _parse(given)
        if self._url.get_backend_name() == "sqlite":
            self.url, self.place = f"sqlite:///{self._url.database}", str(self._url.database)
        else:
            self.url = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
            self.place = self._url.set(drivername="postgresql").render_as_string(hide_password=True)
        self._open()

    def _open(self) -> None:
        self._engine = _make_engine(self._url)
        self._writer = self._engine.execution_options(skysift_write=True)
        reading = {"postgresql_readonly": True} if self.is_postgres else {}
        self._reader = self._engine.execution_options(skysift_write=False, **reading)
        self._pid = os.getpid()
        # A store that nobody closed closes its connections when it goes.
        weakref.finalize(self, _dispose, self._engine, self._pid)

    def __getstate__(self) -> dict[str, Any]:
        # What travels to another process is the address: connections do not.
        return {"url": self.url, "patience": self.patience}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Database.__init__(self, state["url"], patience=state["patience"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.place})"

    @property
    def is_postgres(self) -> bool:
        """Whether the database is a PostgreSQL server's."""
        return self._url.get_backend_name() == "postgresql"

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        _dispose(self._engine, self._pid)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do work in one transaction, all of it or nothing; all of it again when the database went away in between.

        Parameters
        ----------
        work : callable
            Takes the connection. It may be called several times, and so has no effects but in the database.

        Raises
        ------
        StoreError
            One line, when the database is away for longer than the patience, or refuses.
        """
        return self._attempt(work, "_writer", self.patience)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do work that only reads, in one transaction that cannot write.

        Raises
        ------
        StoreError
        """
        return self._attempt(work, "_reader", self.patience)

    def schema_version(self) -> int:
        """Version of the tables in the database, 0 where there are none."""
        return self.read(version_of)

    def migrate(self, target: int = LATEST) -> list[int]:
        """Bring the tables to a version, forward or back, in one transaction; returns the versions passed through.

        Raises
        ------
        StoreError, OptionError
        """
        return self.write(lambda connection: self._upgrade(connection, target))

    def _upgrade(self, connection: Connection, target: int) -> list[int]:
        passed = migrate(connection, self.place, target, now=self.now)
        if target == LATEST:
            from .associate import associate, pending

            # Sources that were recorded before objects were kept, or could not be joined at the time.
            for one in pending(connection):
                associate(connection, one)
        return passed

    def prepare(self, *, patience: float, create: bool = True) -> None:
        """Make the tables where there are none, and bring older ones forward.

        Parameters
        ----------
        patience : float
            Seconds to wait for a database that is away.
        create : bool
            Whether a store that does not exist is made.

        Raises
        ------
        StoreError
            No store (without ``create``), a newer skysift's, or a database that cannot be used.
        """
        patience = min(patience, self.patience)
        self.require_place(create=create)
        version = self._attempt(version_of, "_reader", patience)
        require_known(version, self.place)
        if version == 0 and not create:
            raise self._no_store()
        if version < LATEST:
            self._attempt(lambda connection: self._upgrade(connection, LATEST), "_writer", patience)

    def require_place(self, *, create: bool) -> None:
        """Make the folder of SQLite's file, or refuse when the file is missing.

        Raises
        ------
        StoreError
        """
        if self.is_postgres:
            return
        file = Path(self.place)
        if not create and not file.exists():
            raise self._no_store()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{file.parent}: expected a folder for the survey's store, it cannot be made: {error.strerror}; give "
                "another with --catalogue"
            ) from None

    def _no_store(self) -> StoreError:
        return StoreError(
            f"{self.place}: expected a survey's store, there is none; check the address, or let skysift detect "
            "--catalogue make one"
        )

    def now(self, connection: Connection) -> str:
        """The database's time, ISO 8601 in UTC with milliseconds."""
        return connection.execute(sa.select(self.time())).scalar_one()

    def time(self) -> sa.ColumnElement[str]:
        """The database's time as an expression."""
        if self.is_postgres:
            shape = "YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\""
            return sa.func.to_char(sa.func.timezone("UTC", sa.func.clock_timestamp()), shape)
        return sa.func.strftime("%Y-%m-%dT%H:%M:%fZ", "now")

    def _attempt(self, work: Callable[[Connection], T], engine: str, patience: float) -> T:
        if self._pid != os.getpid():
            # A forked child must leave the parent's connections alone: not use them, not close them.
            self._engine.dispose(close=False)
            self._open()
        until, pause = time.monotonic() + patience, 0.1
        while True:
            try:
                with getattr(self, engine).begin() as connection:
                    return work(connection)
            except (sa.exc.DBAPIError, *_driver_errors(self._engine)) as error:
                left = until - time.monotonic()
                if not is_passing(error) or left <= 0:
                    raise explain(error, self.place) from error
                self._engine.dispose()
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)


def _dispose(engine: sa.Engine, pid: int) -> None:
    # In a forked child the connections are the parent's: to close them here would end them there.
    if pid == os.getpid():
        engine.dispose()


def _driver_errors(engine: sa.Engine) -> tuple[type[Exception], ...]:
    # Bulk inserts use the driver itself, whose errors SQLAlchemy does not wrap.
    return (engine.dialect.loaded_dbapi.Error,)


def _parse(given: str) -> tuple[sa.URL, Path | None]:
    """The database's URL and the folder of what lies beside it."""
    if "://" not in given:
        path = Path(given).absolute()
        if path.is_file():
            return sa.URL.create("sqlite", database=str(path)), path.parent
        return sa.URL.create("sqlite", database=str(path / FILE)), path
    try:
        url = sa.make_url(given)
    except sa.exc.ArgumentError:
        url = None
    kind = None if url is None else url.drivername.split("+")[0]
    if url is None or kind not in ("sqlite", "postgresql", "postgres"):
        scheme = given.split("://")[0]
        raise OptionError(f"expected a folder, sqlite:///FILE or postgresql://USER@HOST/NAME, got {scheme}://...")
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise OptionError(f"{given}: expected sqlite:///FILE, got no file: several processes share the store")
        path = Path(url.database).absolute()
        return sa.URL.create("sqlite", database=str(path)), path.parent
    return url.set(drivername="postgresql+psycopg"), None


def _make_engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": BUSY})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return sa.create_engine(
            url, pool_pre_ping=True,
            connect_args={"connect_timeout": 10, "application_name": "skysift"},
        )  # fmt: skip
    except ModuleNotFoundError:
        raise OptionError(
            "postgresql://...: expected the driver psycopg, it is not installed; pip install 'skysift[postgres]'"
        ) from None


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    # Transactions begin where we say so (_begin_sqlite), not where the driver thinks that one is needed.
    connection.isolation_level = None
    run = connection.execute
    if run("PRAGMA journal_mode").fetchone()[0] != "wal":
        # Takes effect in a new file only: lets `forget` give pages back to the disk.
        run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
    # FULL: a run that was said to be recorded is there after a power cut too.
    run("PRAGMA synchronous = FULL")
    run("PRAGMA foreign_keys = ON")
    # A large catalogue's transaction leaves a journal of its size otherwise.
    run("PRAGMA journal_size_limit = 67108864")
    run("PRAGMA cache_size = -65536")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("skysift_write")
    connection.exec_driver_sql(f"PRAGMA query_only = {0 if writes else 1}")
    # A transaction that begins by reading and then writes can be refused in the middle; one that says so cannot.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
