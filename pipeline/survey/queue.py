"""The queue of observations: who works on which, and what became of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from sqlalchemy import Connection

from survey_io.errors import InputError

from .database import Database
from .schema import STATES, observation

__all__ = ["LEASE", "Queue"]

LEASE = 60.0
"""Seconds without a sign of life after which an observation is another worker's."""


class Queue(Database):
    """Observations in order of arrival; each is one worker's at a time."""

    def enqueue(
        self,
        path: str | Path,
        *,
        sha256: str,
        kind: str | None = None,
        bytes: int | None = None,
        priority: int = 0,
    ) -> tuple[int, bool]:
        """Add an observation; the same content is the same observation, whatever its name.

        Parameters
        ----------
        path : str or Path
        sha256 : str
            Of the file's content.
        kind : str, optional
            ``image``, ``cube`` or ``spectrum``.
        bytes : int, optional
            Size of the file.
        priority : int
            Higher ones come first, the same ones by arrival.

        Returns
        -------
        (int, bool)
            The observation's id, and whether it is new.

        Raises
        ------
        StoreError
        """

        def work(connection: Connection) -> tuple[int, bool]:
            return self._observe(connection, path, sha256, kind=kind, size=bytes, priority=priority)

        return self.write(work)

    def claim(self, worker: str, *, lease: float = LEASE) -> dict[str, Any] | None:
        """Take the next observation: the oldest that has arrived, or one whose worker has given no sign of life.

        Parameters
        ----------
        worker : str
            Name of who takes it, unique among those alive.
        lease : float
            Seconds without a sign of life after which a running observation is free.

        Returns
        -------
        dict or None
            The observation as it is now (see `observation`); None when there is nothing to do.
        """

        def work(connection: Connection) -> dict[str, Any] | None:
            now, boot = self._steady(connection)
            o = observation.c
            # PostgreSQL's own clock may be set, too: a sign of life from its future is as good as none.
            stale = sa.or_(o.boot != boot, o.beat < now - lease, o.beat > now + lease)
            found = []
            for condition in (sa.and_(o.state == "running", stale), o.state == "arrived"):
                query = sa.select(o.id, o.priority).where(condition).order_by(o.priority.desc(), o.id).limit(1)
                found += connection.execute(query.with_for_update(skip_locked=True)).all()
            if not found:
                return None
            chosen = min(found, key=lambda row: (-row.priority, row.id)).id
            connection.execute(
                sa.update(observation).where(o.id == chosen).values(
                    state="running", worker=worker, attempts=o.attempts + 1, heartbeat=self.time(), beat=now, boot=boot,
                )
            )  # fmt: skip
            return dict(connection.execute(sa.select(observation).where(o.id == chosen)).mappings().one())

        return self.write(work)

    def renew(self, id: int, worker: str) -> bool:
        """Give a sign of life; False when the observation is no longer this worker's."""

        def work(connection: Connection) -> bool:
            now, boot = self._steady(connection)
            return self._change(connection, id, worker, heartbeat=self.time(), beat=now, boot=boot)

        return self.write(work)

    def finish(self, id: int, worker: str) -> bool:
        """Say that an observation is done; False when it was no longer this worker's, and not done by `record`."""

        def work(connection: Connection) -> bool:
            if self._change(connection, id, worker, state="done", error=None, worker=None):
                return True
            state = connection.execute(sa.select(observation.c.state).where(observation.c.id == id)).scalar()
            return state == "done"

        return self.write(work)

    def fail(self, id: int, worker: str, error: str, *, retry: bool) -> bool:
        """Give an observation back: to be tried again in its order of arrival, or as failed.

        Returns
        -------
        bool
            False when it was no longer this worker's: then nothing has changed.
        """
        state = "arrived" if retry else "failed"
        return self.write(
            lambda connection: self._change(connection, id, worker, state=state, error=error, worker=None)
        )

    def release(self, worker: str) -> int:
        """Give back all that a worker has taken, as when it stops; returns how many. They keep their place."""
        o = observation.c

        def work(connection: Connection) -> int:
            mine = sa.update(observation).where(o.state == "running", o.worker == worker)
            return connection.execute(mine.values(state="arrived", worker=None, attempts=o.attempts - 1)).rowcount

        return self.write(work)

    def quarantine(self, id: int, error: str) -> None:
        """Put an observation aside that cannot be read, with the reason.

        Raises
        ------
        InputError
            When there is no such observation.
        """
        self._set(id, state="quarantined", error=error, worker=None)

    def requeue(self, id: int, *, path: str | Path | None = None) -> None:
        """Let an observation be processed again: one that failed, was put aside, or is to have a new run.

        Parameters
        ----------
        id : int
        path : str or Path, optional
            Where its file is now.

        Raises
        ------
        InputError
            When there is no such observation.
        """
        moved = {} if path is None else {"path": path, "name": os.path.basename(path)}
        self._set(id, state="arrived", error=None, worker=None, attempts=0, **moved)

    def observation(self, id: int) -> dict[str, Any]:
        """One observation as a dict of the columns of its table, without the steady clock's.

        Raises
        ------
        InputError
            When there is no such observation.
        """
        query = sa.select(*_SHOWN).where(observation.c.id == id)
        found = self.read(lambda connection: connection.execute(query).mappings().first())
        if found is None:
            raise self._no_observation(id)
        return dict(found)

    def observations(
        self, state: str | None = None, *, limit: int | None = None, offset: int = 0, newest: bool = False
    ) -> list[dict[str, Any]]:
        """Observations in order of arrival.

        Parameters
        ----------
        state : str, optional
            Only those of this state.
        limit, offset : int
            How many, from which.
        newest : bool
            In the opposite order.
        """
        order = observation.c.id.desc() if newest else observation.c.id
        query = sa.select(*_SHOWN).order_by(order).limit(limit).offset(offset or None)
        if state is not None:
            query = query.where(observation.c.state == state)
        return self.read(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    def _queue_counts(self, connection: Connection) -> dict[str, int]:
        query = sa.select(observation.c.state, sa.func.count()).group_by(observation.c.state)
        return dict.fromkeys(STATES, 0) | {state: count for state, count in connection.execute(query)}

    def _observe(
        self, connection: Connection, path: str | Path, sha256: str, *, kind: str | None, size: int | None,
        priority: int = 0, state: str = "arrived",
    ) -> tuple[int, bool]:  # fmt: skip
        """Add an observation if its content is new; its row stays locked until the transaction ends."""
        known = sa.select(observation.c.id).where(observation.c.sha256 == sha256).with_for_update()
        found = connection.execute(known).scalar()
        if found is not None:
            return found, False
        dialect = sa.dialects.postgresql if self.is_postgres else sa.dialects.sqlite
        values = {
            "sha256": sha256, "name": os.path.basename(os.fspath(path)), "path": path, "bytes": size, "kind": kind,
            "arrived": self.time(), "state": state, "attempts": 0, "priority": priority,
        }  # fmt: skip
        added = dialect.insert(observation).values(values).on_conflict_do_nothing(index_elements=["sha256"])
        new = connection.execute(added.returning(observation.c.id)).scalar()
        # None when another process has added it since.
        return (new, True) if new is not None else (connection.execute(known).scalar_one(), False)

    def _set(self, id: int, **values: Any) -> None:
        query = sa.update(observation).where(observation.c.id == id).values(**values)
        if not self.write(lambda connection: connection.execute(query).rowcount):
            raise self._no_observation(id)

    def _no_observation(self, id: int) -> InputError:
        return InputError(f"{self.place}: expected the id of an observation, there is none with {id}")

    def _change(self, connection: Connection, id: int, owner: str, **values: Any) -> bool:
        mine = sa.update(observation).where(
            observation.c.id == id, observation.c.state == "running", observation.c.worker == owner
        )
        return bool(connection.execute(mine.values(**values)).rowcount)

    def _steady(self, connection: Connection) -> tuple[float, str]:
        """Seconds on the clock of the database's machine, and the start of that clock.

        SQLite's processes share a machine, whose clock since its start nobody sets; a server has its own.
        """
        if self.is_postgres:
            now = sa.select(sa.func.extract("epoch", sa.func.clock_timestamp()))
            return float(connection.execute(now).scalar_one()), ""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)), _boot()


_SHOWN = [column for column in observation.c if column.name not in ("beat", "boot")]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
