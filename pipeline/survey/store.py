"""The survey's store: runs are recorded whole or not at all, superseded, never silently lost."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
from calendar import timegm
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa
from astropy.table import Table
from sqlalchemy import Connection

from pipeline.runs import describe_missing, file_hash
from survey_io.errors import InputError, OptionError

from .associate import associate
from .bulk import insert
from .retention import Retention
from .rows import catalogue_kind, table_to_rows
from .schema import observation, plain, run, source

if TYPE_CHECKING:
    from pipeline.runs import DetectResult

__all__ = ["SurveyStore", "open_store", "run_key"]

logger = logging.getLogger("skysift")

# Seconds to wait at the opening for a database that is away: a wrong address is said soon.
_OPENING = 8.0
# Options that say where and how a run works, not what comes of it.
_NOT_IN_KEY = {"output", "workers", "cluster", "resources", "max_missing", "formats", "fresh", "products", "pictures"}


def open_store(url: str | Path | None = None, *, create: bool = True, patience: float = 30.0) -> SurveyStore:
    """Open the survey's store; a new one is made, an older one brought to this version's tables.

    Parameters
    ----------
    url : str or Path, optional
        A folder (SQLite and whatever lies beside it), ``sqlite:///FILE``, or ``postgresql://USER@HOST/NAME``; default:
        the environment variable SKYSIFT_CATALOGUE, or the folder skysift_survey.
    create : bool
        Whether a store that does not exist is made; else it is refused.
    patience : float
        Seconds for which a transaction is tried again while the database is away.

    Returns
    -------
    SurveyStore
        May be used from several threads, pickled, and used after a fork.

    Raises
    ------
    OptionError
        When the address is none.
    StoreError
        When there is none, it cannot be used, or a newer skysift made it.
    """
    store = SurveyStore(url, patience=patience)
    store.prepare(patience=_OPENING, create=create)
    return store


def run_key(sha256: str, weights_sha256: str | None, options: dict[str, Any], version: str) -> str:
    """What a run's catalogue depends on, as one hash: input, weights, options and version of skysift.

    Parameters
    ----------
    sha256 : str
        Of the input.
    weights_sha256 : str or None
        Empty or None for a model without weights.
    options : dict
        As in a manifest. Those that change nothing of the catalogue (output, workers, ...) are left out.
    version : str
        Of skysift.
    """
    decisive = {name: value for name, value in options.items() if name not in _NOT_IN_KEY}
    parts = [sha256, weights_sha256 or "", plain(decisive), version]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class SurveyStore(Retention):
    """The survey's store; see `open_store`."""

    def record(
        self,
        result: DetectResult | dict[str, Any],
        table: Table | None = None,
        *,
        output: str | Path | None = None,
        path: str | Path | None = None,
        uid: str | None = None,
    ) -> int:
        """Record a finished run and its catalogue in one transaction; it supersedes the observation's former run.

        Its observation is added when it is new, and is done. A run that is there already (the same input, weights,
        options and version) is left as it is, current or not. A run that lacks pieces is recorded as incomplete unless
        the complete one is there, which supersedes it when it comes; its observation is failed, with what is missing.

        Parameters
        ----------
        result : DetectResult or dict
            Whatever has ``table`` and ``manifest``; or the manifest, with the catalogue as ``table``.
        table : Table, optional
        output : str or Path, optional
            Folder of the run's files; default: the folder of its manifest, else the options'.
        path : str or Path, optional
            Where the observation's file is; default: as the manifest says.
        uid : str, optional
            Name of the run in logs, if it has one already; default: a new UUID.

        Returns
        -------
        int
            Id of the run: of the one that is there, if it is.

        Raises
        ------
        InputError
            When the manifest lacks what cannot be found elsewhere.
        StoreError
            When the database is away for too long, full or refuses: then nothing was recorded.
        """
        manifest, table, output = _parts(result, table, output)
        file = path if path is not None else manifest["input"].get("path")
        digest = manifest["input"].get("sha256") or _hash_of(file)
        if file is None:
            file = digest
        elif os.path.exists(file):
            # A manifest has the path as it was given, which holds for one working folder only.
            file = os.path.abspath(file)
        model, options = manifest.get("model") or {}, manifest.get("options") or {}
        version = str((manifest.get("versions") or {}).get("skysift", ""))
        kind = catalogue_kind(table, manifest)
        rows = table_to_rows(table, kind)
        whole = key = run_key(digest, model.get("sha256"), options, version)
        lacking = describe_missing(manifest)
        if lacking is not None:
            key = run_key(digest, model.get("sha256"), options | {"missing": manifest["missing"]}, version)
        values = {
            "uid": uid or str(uuid.uuid4()), "key": key,
            "model": model.get("name"), "weights_sha256": model.get("sha256") or "", "options": options,
            "skysift_version": version, "engine": model.get("engine"), "state": "incomplete" if lacking else "done",
            "rows": len(table),
            "output": output, "flux_unit": rows.flux_unit, "catalogue": rows.catalogue, "manifest": manifest,
            "current": True,
        }  # fmt: skip
        values["started"], values["finished"] = _times(manifest)
        size = _size_of(file)

        def work(connection: Connection) -> int:
            seen, _ = self._observe(connection, file, digest, kind=kind, size=size, state="done")
            there = dict(connection.execute(sa.select(run.c.key, run.c.id).where(run.c.key.in_({whole, key}))).all())
            known = there.get(whole, there.get(key))
            short = lacking is not None and whole not in there
            if known is None:
                self._set_current(connection, seen, None)
                added = sa.insert(run).values(observation_id=seen, recorded=self.time(), **values)
                known = connection.execute(added.returning(run.c.id)).scalar_one()
                insert(connection, "source", _complete(rows.data, known, seen))
                self._join(connection, seen)
            ending = {"state": "failed", "error": lacking} if short else {"state": "done", "error": None}
            ending |= {"worker": None, "kind": kind, "bytes": size or observation.c.bytes}
            connection.execute(sa.update(observation).where(observation.c.id == seen).values(**ending))
            return known

        return self.write(work)

    def make_current(self, run_id: int) -> int:
        """Let a superseded run count again instead of the one that does now, in one transaction.

        Returns
        -------
        int
            How many sources count now.

        Raises
        ------
        InputError
            When there is no such run.
        """

        def work(connection: Connection) -> int:
            found = self._run(connection, run_id)
            locked = sa.select(observation.c.id).where(observation.c.id == found["observation_id"]).with_for_update()
            connection.execute(locked)
            self._set_current(connection, found["observation_id"], run_id)
            self._join(connection, found["observation_id"])
            return found["rows"]

        return self.write(work)

    def _join(self, connection: Connection, observation_id: int) -> None:
        """Join an observation's sources with those of others, as far as that can be done now."""
        try:
            with connection.begin_nested():
                associate(connection, observation_id)
        except Exception as error:
            # What the database says of itself (away, full, locked) concerns the run as a whole.
            if isinstance(error, sa.exc.DBAPIError) and not isinstance(error, sa.exc.DataError):
                raise
            # A run is not lost because its sources cannot be joined: `check` says so, `migrate` tries again.
            said = " ".join(str(error).split())[:200]
            logger.warning(
                "%s: the sources of observation %d are not joined with others yet (%s: %s)",
                self.place, observation_id, type(error).__name__, said,
            )  # fmt: skip
            if os.environ.get("SKYSIFT_DEBUG"):
                raise

    def _set_current(self, connection: Connection, observation_id: int, run_id: int | None) -> None:
        """Supersede an observation's current run by another one that is there, or by none."""
        now = sa.select(run.c.id).where(run.c.observation_id == observation_id, run.c.current)
        for former in connection.execute(now).scalars().all():
            if former != run_id:
                connection.execute(sa.update(run).where(run.c.id == former).values(current=False))
                connection.execute(sa.update(source).where(source.c.run_id == former).values(current=False))
        if run_id is not None:
            connection.execute(sa.update(run).where(run.c.id == run_id).values(current=True))
            hidden = sa.and_(source.c.run_id == run_id, sa.not_(source.c.current))
            connection.execute(sa.update(source).where(hidden).values(current=True))


def _parts(result: Any, table: Table | None, output: Any) -> tuple[dict[str, Any], Table, Any]:
    """Manifest, catalogue and output folder of what `record` was given."""
    if isinstance(result, dict):
        manifest = result
        if table is None:
            raise OptionError("record: expected a manifest and its catalogue as table, got the manifest alone")
    else:
        manifest, table = result.manifest, result.table
        written = result.files.get("manifest") if output is None else None
        output = output if written is None else Path(written).parent
    if not isinstance(manifest.get("input"), dict):
        raise InputError("record: expected a manifest with the entry 'input', got none; give that of a skysift run")
    if output is None:
        output = (manifest.get("options") or {}).get("output")
    return manifest, table, None if output is None else os.path.abspath(output)


def _hash_of(file: Any) -> str:
    if file is None:
        raise InputError("record: expected the sha256 or the path of the input in the manifest, got neither")
    try:
        return file_hash(Path(file))
    except OSError as error:
        raise InputError(
            f"{file}: the manifest has no sha256, and the file cannot be read: {error.strerror}; give its path"
        ) from None


def _size_of(file: Any) -> int | None:
    try:
        return os.stat(file).st_size
    except (OSError, ValueError):
        return None


def _times(manifest: dict[str, Any]) -> tuple[str | None, str | None]:
    """Start and end of a run; a manifest has the end, and how long the run took."""
    finished = manifest.get("finished")
    try:
        end = timegm(time.strptime(finished, "%Y-%m-%dT%H:%M:%SZ"))
        begin = end - float(manifest.get("total_seconds") or 0.0)
    except (TypeError, ValueError):
        return None, None
    return _stamp(begin), _stamp(end)


def _stamp(seconds: float) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{thousandths:03d}Z"


def _complete(data: pa.Table, run_id: int, observation_id: int) -> pa.Table:
    """Rows of a catalogue with what the database has given their run."""
    count = data.num_rows
    data = data.append_column("run_id", pa.array([run_id] * count, pa.int64()))
    data = data.append_column("observation_id", pa.array([observation_id] * count, pa.int64()))
    return data.append_column("current", pa.array([True] * count, pa.bool_()))
