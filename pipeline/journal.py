"""What the service writes down: JSON lines in a file for machines, readable lines on standard error for people.

Every line that is logged within ``with observation_context(...)`` carries the ids of that run and observation, also
from the threads of `pipeline.local_workers`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from survey_io.errors import OptionError, OutputError, SkysiftError
from survey_io.names import printable as printable

LOGGERS = ("skysift", "survey_io", "models", "pipeline", "flows")
FILE = "skysift.jsonl"
LEVELS = ("debug", "info", "warning", "error")
# Fields of every line, and what a caller may bind to a context.
FIELDS = ("time", "level", "logger", "message")
CONTEXT = ("run", "observation", "stage", "worker")

_context: ContextVar[Mapping[str, Any]] = ContextVar("skysift_journal", default=MappingProxyType({}))
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_ROTATED = re.compile(r"skysift-\d{8}T\d{9}Z(-\d+)?\.jsonl")


@contextmanager
def observation_context(
    *,
    run: str | int | None = None,
    observation: int | str | None = None,
    stage: str | None = None,
    worker: str | None = None,
) -> Iterator[None]:
    """Log lines within carry these ids; what is left out stays what it is outside.

    Parameters
    ----------
    run : str or int, optional
        Id of the run.
    observation : int or str, optional
        Id of the observation.
    stage : str, optional
        Such as "detect".
    worker : str, optional
        Name of the process or machine that does the work.
    """
    before = _context.get()
    given = {"run": run, "observation": observation, "stage": stage, "worker": worker}
    _context.set(MappingProxyType({**before, **{name: value for name, value in given.items() if value is not None}}))
    try:
        yield
    finally:
        # Set, not reset by a token: a generator may be closed in another thread than the one that began it.
        _context.set(before)


def current_context() -> dict[str, Any]:
    """The ids that a line would carry now."""
    return dict(_context.get())


class JsonLines(logging.Formatter):
    """A record as one line of JSON, in ASCII, so that no name can break the line or the file's encoding."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time (UTC, ms), level, logger and message, the context's ids, and the fields of ``extra``."""
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context.get(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD and key not in FIELDS}
        if record.exc_info and record.exc_info[0] is not None:
            error = record.exc_info[1]
            line["exception"] = record.exc_info[0].__name__
            if isinstance(error, SkysiftError) and error.fields:
                line["fields"] = error.fields
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ReadableLines(logging.Formatter):
    """A record as a line for people: time, level, ids, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return such as ``07:31:29Z warning [observation 12 detect] message``."""
        bound = _context.get()
        ids = [f"{name} {bound[name]}" for name in ("observation", "run") if name in bound]
        ids += [str(bound[name]) for name in ("stage",) if name in bound]
        where = f" [{printable(' '.join(ids))}]" if ids else ""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        text = f"{moment} {record.levelname.lower()}{where} {printable(' '.join(record.getMessage().split()))}"
        if record.exc_info and record.exc_info[0] is not None and os.environ.get("SKYSIFT_DEBUG"):
            text += "\n" + self.formatException(record.exc_info)
        return text


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class SharedFile(logging.Handler):
    """Lines at the end of one file that several processes write, which is set aside when it is full.

    Each line is one write in append mode, which the system keeps whole, under a lock; who finds the file full renames
    it, and the others see that its name leads elsewhere. A full disk costs lines, not the work they are about.

    Parameters
    ----------
    folder : Path
    megabytes : float
        Size at which the file is set aside as ``skysift-TIME.jsonl``.
    keep : int
        Files set aside that are kept.
    days : float
        Age at which they are removed.
    """

    def __init__(self, folder: Path, *, megabytes: float = 20.0, keep: int = 20, days: float = 90.0):
        super().__init__()
        self.folder, self.path = folder, folder / FILE
        self._limit, self._keep, self._days = int(megabytes * 1e6), keep, days
        self._file = self._open()
        self.lost = 0
        self.setFormatter(JsonLines())

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            line = self.format(record).encode("ascii") + b"\n"
        except Exception:
            self.handleError(record)
            return
        try:
            self._write(line)
        except OSError as error:
            if not self.lost:
                print(f"skysift: warning: {self.path}: {error.strerror}; log lines are lost", file=sys.stderr)
            self.lost += 1

    def _follow(self) -> None:
        """Open the file anew when its name leads to another one by now."""
        if not self._is_current():
            os.close(self._file)
            self._file = self._open()

    def _is_current(self) -> bool:
        """Whether the open file is the one of that name; between two files there is none."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._file)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def _write(self, line: bytes) -> None:
        """Write a line to the present file while nobody else does; a full one is set aside first."""
        while True:
            self._follow()
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                if not self._is_current():
                    # Another process has set it aside while this one waited for the lock.
                    continue
                size = os.fstat(self._file).st_size
                if not size or size + len(line) <= self._limit:
                    os.write(self._file, line)
                    return
                stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]
                self.path.rename(self.folder / f"skysift-{stamp}Z-{os.getpid()}.jsonl")
                prune_journal(self.folder, keep=self._keep, days=self._days)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        super().close()


def start_journal(
    folder: str | Path | None,
    *,
    level: str = "info",
    megabytes: float = 20.0,
    keep: int = 20,
    days: float = 90.0,
    readable: bool = True,
) -> Path | None:
    """Send what skysift's loggers say to ``FOLDER/skysift.jsonl`` and to standard error.

    Called again, it replaces what it had set up.

    Parameters
    ----------
    folder : path or None
        Made when missing; None writes no file.
    level : str
        Lowest level written: debug, info, warning or error.
    megabytes, keep, days
        See `SharedFile`: at most ``megabytes * (keep + 1)`` are used on the disk.
    readable : bool
        Whether lines go to standard error too.

    Returns
    -------
    Path or None
        The file.

    Raises
    ------
    OptionError, OutputError
        For an unknown level, or a folder that cannot be written.
    """
    if level not in LEVELS:
        raise OptionError(f"log level: expected one of {', '.join(LEVELS)}, got {level!r}")
    handlers: list[logging.Handler] = []
    path = None
    if folder is not None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            handlers.append(SharedFile(Path(folder), megabytes=megabytes, keep=keep, days=days))
        except OSError as error:
            raise OutputError(
                f"{folder}: expected a folder for logs that can be written, got: {error.strerror}; give another"
            ) from None
        prune_journal(Path(folder), keep=keep, days=days)
        path = Path(folder) / FILE
    if readable:
        handlers.append(logging.StreamHandler())
        handlers[-1].setFormatter(ReadableLines())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for old in logger.handlers:
            if isinstance(old, SharedFile):
                old.close()
        logger.handlers[:] = handlers
        logger.setLevel(level.upper())
        logger.propagate = False
    return path


def prune_journal(folder: Path, *, keep: int, days: float, now: float | None = None) -> list[Path]:
    """Remove files that were set aside, all but the newest ``keep``, and those older than ``days``.

    Returns
    -------
    list of Path
        What was removed; the file that is written is never among it.
    """
    oldest = (time.time() if now is None else now) - days * 86400
    aside = sorted((one for one in folder.glob("skysift-*.jsonl") if _ROTATED.fullmatch(one.name)), reverse=True)
    removed = []
    for number, path in enumerate(aside):
        with suppress(FileNotFoundError):
            if number >= keep or path.stat().st_mtime < oldest:
                path.unlink()
                removed.append(path)
    return removed


def read_journal(folder: str | Path, **wanted: Any) -> Iterator[dict[str, Any]]:
    """Lines of the journal, oldest first, of which every field of ``wanted`` is as given.

    Parameters
    ----------
    folder : path
    **wanted
        Such as ``observation=12`` or ``level="error"``.

    Yields
    ------
    dict
        Lines that are no JSON (torn by a power cut) are passed over.
    """
    folder = Path(folder)
    aside = sorted(one for one in folder.glob("skysift-*.jsonl") if _ROTATED.fullmatch(one.name))
    for path in [*aside, folder / FILE]:
        with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as lines:
            for text in lines:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and all(line.get(name) == value for name, value in wanted.items()):
                    yield line
