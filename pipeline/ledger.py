"""What is done of a run, piece by piece, in one file: a kill at any moment loses at most the pieces under way."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from survey_io.errors import OutputError

Arrays = dict[str, np.ndarray]

# What SQLite says, and what it means for a run.
_REASONS = {
    "full": "no space left on the device: make room",
    "readonly": "it can no longer be written: mend its permissions",
    "i/o": "the disk does not take what is written: see to the disk, or make room",
}


class Ledger:
    """Results of finished pieces in a SQLite file, by stage and index, and which pieces could not be done.

    Parameters
    ----------
    path : Path or None
        None keeps the ledger in memory: nothing to resume from.
    key : str
        Identity of the run (inputs, weights, options); a file with another key is emptied.

    Attributes
    ----------
    missing : list of dict
        What this run could not do: ``stage``, ``piece``, ``reason`` and where it lies.
    """

    def __init__(self, path: Path | None, key: str):
        self.path = path
        self.missing: list[dict[str, Any]] = []
        try:
            self._db = sqlite3.connect(":memory:" if path is None else path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._prepare(key)
        except sqlite3.DatabaseError as error:
            if (advice := _advice(error)) is not None:
                raise OutputError(f"{path}: {advice}, then run the same command again") from None
            raise OutputError(
                f"{path}: cannot use the ledger of an interrupted run ({error}); delete it or give --fresh"
            ) from None

    def _prepare(self, key: str) -> None:
        self._db.execute("CREATE TABLE IF NOT EXISTS run (key TEXT)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS piece (stage TEXT, number INTEGER, data BLOB, PRIMARY KEY (stage, number))"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS basis (stage TEXT PRIMARY KEY, digest TEXT)")
        row = self._db.execute("SELECT key FROM run").fetchone()
        if row is None or row[0] != key:
            self._db.execute("BEGIN IMMEDIATE")
            for table in ("piece", "basis", "run"):
                self._db.execute(f"DELETE FROM {table}")
            self._db.execute("INSERT INTO run VALUES (?)", (key,))
            self._db.execute("COMMIT")

    def rest_on(self, stage: str, arrays: Arrays) -> None:
        """Forget a stage's pieces that were made from anything but these arrays.

        A stage of measurements rests on the detections of all tiles: those of a run that lacked some are not those of
        the run that has them.
        """
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
        row = self._db.execute("SELECT digest FROM basis WHERE stage = ?", (stage,)).fetchone()
        if row is None or row[0] != digest.hexdigest():
            self._write("DELETE FROM piece WHERE stage = ?", (stage,))
            self._write("INSERT OR REPLACE INTO basis VALUES (?, ?)", (stage, digest.hexdigest()))

    def done(self, stage: str) -> set[int]:
        """Indices of the stage's finished pieces."""
        return {row[0] for row in self._db.execute("SELECT number FROM piece WHERE stage = ?", (stage,))}

    def put(self, stage: str, number: int, arrays: Arrays) -> None:
        """Store a finished piece.

        Raises
        ------
        OutputError
            When the disk is full or does not take it; what was stored before stays.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        self._write("INSERT OR REPLACE INTO piece VALUES (?, ?, ?)", (stage, number, buffer.getvalue()))

    def get(self, stage: str) -> Iterator[tuple[int, Arrays]]:
        """All finished pieces of a stage in the order of their index."""
        rows = self._db.execute("SELECT number, data FROM piece WHERE stage = ? ORDER BY number", (stage,))
        for number, data in rows:
            with np.load(io.BytesIO(data)) as arrays:
                yield number, {name: arrays[name] for name in arrays.files}

    def close(self, *, delete: bool = False) -> None:
        """Close the file; ``delete`` removes it with its side files, as at the end of a finished run."""
        self._db.close()
        if delete and self.path is not None:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            advice = _advice(error) or str(error)
            raise OutputError(
                f"{self.path}: {advice}, then run the same command again; what was done is kept"
            ) from None


def _advice(error: sqlite3.Error) -> str | None:
    text = str(error).lower()
    return next((reason for word, reason in _REASONS.items() if word in text), None)
