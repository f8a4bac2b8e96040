"""What the service has written and nobody needs any more: found by age, kept where a current run refers to it."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from survey_io.errors import OptionError, OutputError

# Folders of a service below its home, as `pipeline.service` and `pipeline.journal` name them.
RESULTS, QUARANTINE, LOGS, PREVIEWS = "results", "quarantine", "logs", "previews"
_SECONDS = {"h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
# An observation's folder is its file's name with the start of its content's hash; a run that is under way has a dot.
_RESULT = re.compile(r".+-[0-9a-f]{12}(-run\d+)?")
_WORK = re.compile(r"\..+-([0-9a-f]{12})\.work")
_REASON = ".reason.txt"
_PAGE = 1000


@dataclass(frozen=True)
class Stale:
    """Something that may go.

    Attributes
    ----------
    path : Path
    kind : str
        "results", "unfinished", "quarantine", "preview" or "log".
    bytes : int
    changed : float
        Time of its last change, seconds since 1970.
    """

    path: Path
    kind: str
    bytes: int
    changed: float


def parse_age(text: str, *, now: float | None = None) -> float:
    """The time, in seconds since 1970, before which things are old.

    Parameters
    ----------
    text : str
        Such as 90d, 12w or 36h, or a date as 2026-01-31 (UTC).
    now : float, optional

    Raises
    ------
    OptionError
    """
    now = time.time() if now is None else now
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip().lower()):
        age = float(match[1]) * _SECONDS[match[2]]
        if age > 0:
            return now - age
    with suppress(ValueError):
        moment = datetime.fromisoformat(text.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if moment.timestamp() < now:
            return moment.timestamp()
    raise OptionError(f"older than {text!r}: expected an age such as 90d, 12w or 36h, or a day in the past: 2026-01-31")


def find_stale(home: Path, before: float, *, store: Any = None, quarantine: Path | None = None) -> Iterator[Stale]:
    """What is older than a time and no current run's.

    Results go only where the catalogue tells which runs are current: without one none are given.

    Parameters
    ----------
    home : Path
        The service's folder; of links in it nothing is followed.
    before : float
        Seconds since 1970.
    store : pipeline.survey store, optional
    quarantine : Path, optional
        Where it is not in ``home``.
    """
    if store is not None:
        yield from _results(home / RESULTS, before, store)
    yield from _set_aside(home / QUARANTINE if quarantine is None else quarantine, before)
    for folder in _entries(home / PREVIEWS):
        size, changed = _measure(folder)
        if changed < before:
            yield Stale(folder, "preview", size, changed)
    for path in _entries(home / LOGS):
        # The file that is written bears another name.
        size, changed = _measure(path)
        if re.fullmatch(r"skysift-\d.*\.jsonl", path.name) and changed < before:
            yield Stale(path, "log", size, changed)


def remove(stale: Iterable[Stale], before: float) -> tuple[list[Stale], list[str]]:
    """Remove things, each in one step for whoever reads beside; what has changed meanwhile stays.

    Returns
    -------
    (list of Stale, list of str)
        What was removed, and a line for each that could not be.
    """
    gone, errors = [], []
    for one in stale:
        try:
            # What was put aside keeps the time that it came with; the note beside it tells its age.
            if one.kind != "quarantine" and _measure(one.path)[1] >= before:
                continue
            passing = one.path.with_name(f".{one.path.name.lstrip('.')}.{os.getpid()}.gone")
            one.path.rename(passing)
            if passing.is_dir() and not passing.is_symlink():
                shutil.rmtree(passing)
            else:
                passing.unlink()
            gone.append(one)
        except FileNotFoundError:
            continue
        except OSError as error:
            errors.append(f"{one.path}: cannot be removed: {error.strerror or error}")
    return gone, errors


def _results(folder: Path, before: float, store: Any) -> Iterator[Stale]:
    current = {Path(os.path.realpath(run["output"])) for run in _pages(store.runs, current=True) if run["output"]}
    under_way = {
        one["sha256"][:12] for state in ("arrived", "running") for one in _pages(store.observations, state=state)
    }
    for path in _entries(folder):
        work = _WORK.fullmatch(path.name)
        if work is not None and work[1] not in under_way:
            kind = "unfinished"
        elif work is None and _RESULT.fullmatch(path.name) and any(path.glob("*_run.json")):
            if Path(os.path.realpath(path)) in current:
                continue
            kind = "results"
        else:
            # Nothing of the service's: somebody else keeps it here.
            continue
        size, changed = _measure(path)
        if changed < before:
            yield Stale(path, kind, size, changed)


def _pages(ask: Any, **what: Any) -> Iterator[dict[str, Any]]:
    offset = 0
    while page := ask(**what, limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)


def _set_aside(folder: Path, before: float) -> Iterator[Stale]:
    """Files with the reason beside them; the reason's age counts, as a file that was moved keeps its own."""
    for note in _entries(folder):
        if not note.name.endswith(_REASON):
            continue
        size, changed = _measure(note)
        if changed >= before:
            continue
        path = note.with_name(note.name.removesuffix(_REASON))
        if os.path.lexists(path):
            yield Stale(path, "quarantine", path.lstat().st_size, changed)
        yield Stale(note, "quarantine", size, changed)


def _entries(folder: Path) -> list[Path]:
    try:
        # A link may lead anywhere: what is behind it is not the service's to remove.
        return sorted(path for path in folder.iterdir() if not path.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise OutputError(f"{folder}: expected a folder that can be read, got: {error.strerror}") from None


def _measure(path: Path) -> tuple[int, float]:
    """Bytes and time of the last change of a file or of all in a folder."""
    status = path.lstat()
    size, changed = status.st_size, status.st_mtime
    if path.is_dir() and not path.is_symlink():
        for where, _, names in os.walk(path):
            for name in names:
                with suppress(FileNotFoundError):
                    status = Path(where, name).lstat()
                    size, changed = size + status.st_size, max(changed, status.st_mtime)
    return size, changed
