"""What the inbox has dealt with, kept over a restart: no file is read again to find that it is known."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from survey_io.errors import OutputError

from .inbox import Mark


@dataclass(frozen=True)
class Entry:
    """One state of one file.

    Attributes
    ----------
    path : Path
    sha256 : str or None
        Of its content; None where that was not read.
    observation : int or None
        Id in the survey's catalogue; None for what was refused without being read.
    outcome : str
        "new", "duplicate" or "refused".
    note : str
        The first path of a duplicate, or the reason of a refusal.
    at : str
        ISO 8601, UTC.
    """

    path: Path
    sha256: str | None
    observation: int | None
    outcome: str
    note: str
    at: str


class Seen:
    """The record of an inbox, an SQLite file that several services may share.

    It is an account and a shortcut, not the queue: when it is lost, files are read once more, and the catalogue knows
    them by their content.

    Raises
    ------
    OutputError
        When the file cannot be used.
    """

    def __init__(self, file: Path):
        self.file, self._lock = file, threading.Lock()
        with self._explained():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS file (path TEXT, size INTEGER, changed INTEGER, inode INTEGER, "
                "sha256 TEXT, observation INTEGER, outcome TEXT, note TEXT, at TEXT, "
                "PRIMARY KEY (path, size, changed, inode))"
            )
            self._database.execute("CREATE INDEX IF NOT EXISTS file_sha256 ON file (sha256)")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS waiting (path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, "
                "inode INTEGER, boot TEXT, since REAL)"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            raise OutputError(f"{self.file}: the record of the inbox cannot be used ({error})") from None

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def find(self, path: Path, mark: Mark) -> Entry | None:
        """What was noted of a file in this state."""
        with self._explained():
            row = self._database.execute(
                "SELECT path, sha256, observation, outcome, note, at FROM file "
                "WHERE path = ? AND size = ? AND changed = ? AND inode = ?",
                (str(path), mark.size, mark.changed, mark.inode),
            ).fetchone()
        return None if row is None else Entry(Path(row[0]), *row[1:])

    def note(
        self, path: Path, mark: Mark, outcome: str, *, sha256: str | None, observation: int | None, note: str = ""
    ) -> None:
        """Keep what became of a file in this state."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row = (str(path), mark.size, mark.changed, mark.inode, sha256, observation, outcome, note, at)
        with self._explained():
            self._database.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def waiting(self, path: Path, mark: Mark, now: float) -> float:
        """When a file was first seen to be cut short, in this state; now, if it was not.

        Parameters
        ----------
        path : Path
        mark : Mark
        now : float
            On the machine's steady clock.
        """
        key = (str(path), mark.size, mark.changed, mark.inode, boot_id())
        with self._explained():
            row = self._database.execute(
                "SELECT since FROM waiting WHERE path = ? AND size = ? AND changed = ? AND inode = ? AND boot = ?", key
            ).fetchone()
            if row is None:
                self._database.execute("DELETE FROM waiting WHERE path = ?", key[:1])
                self._database.execute("INSERT INTO waiting VALUES (?, ?, ?, ?, ?, ?)", (*key, now))
        return now if row is None else min(row[0], now)

    def places(self, sha256: str) -> list[Path]:
        """Where files of this content were seen, oldest first."""
        with self._explained():
            rows = self._database.execute(
                "SELECT path FROM file WHERE sha256 = ? AND outcome != 'refused' ORDER BY at", (sha256,)
            ).fetchall()
        return [Path(row[0]) for row in rows]

    def entries(self, outcome: str | None = None) -> list[Entry]:
        """All that was noted, oldest first, or all with one outcome."""
        with self._explained():
            rows = self._database.execute(
                "SELECT path, sha256, observation, outcome, note, at FROM file "
                "WHERE ?1 IS NULL OR outcome = ?1 ORDER BY at, path",
                (outcome,),
            ).fetchall()
        return [Entry(Path(row[0]), *row[1:]) for row in rows]


def boot_id() -> str:
    """Tells one start of the machine from another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
