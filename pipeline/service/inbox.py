"""Watches a folder: which files have arrived, in which order, and which are not fit to be used."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.journal import printable
from pipeline.runs import file_hash
from survey_io.arrived import check_arrived
from survey_io.errors import IncompleteError, InputError, OptionError, OutputError, machine_trouble

# Names by which copying programs call what is not there yet; rsync and the like begin theirs with a dot.
PASSING = (".part", ".tmp", ".partial", ".filepart", ".crdownload", ".swp", "~")


@dataclass(frozen=True)
class Mark:
    """What tells one state of a file from another without reading it.

    Attributes
    ----------
    size : int
        Bytes.
    changed : int
        Time of the last change of content, name or permissions, in ns; unlike that of content alone, copying programs
        cannot set it.
    inode : int
    """

    size: int
    changed: int
    inode: int


@dataclass(frozen=True)
class Arrived:
    """A file that is all there.

    Attributes
    ----------
    path : Path
        Absolute.
    mark : Mark
    sha256 : str
        Of its content.
    kind : str
        "image", "cube" or "spectrum".
    """

    path: Path
    mark: Mark
    sha256: str
    kind: str


@dataclass(frozen=True)
class Refused:
    """A file that is not used.

    Attributes
    ----------
    path : Path
    mark : Mark
    reason : str
        One line.
    sha256 : str or None
        Of its content; None where that was not read.
    """

    path: Path
    mark: Mark
    reason: str
    sha256: str | None = None


@dataclass
class _Watched:
    mark: Mark
    looks: int
    since: float
    problem: str | None = None


def steady_clock() -> float:
    """Seconds since the machine started: nobody sets this clock, and all processes have the same."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Inbox:
    """A folder and its subfolders, looked at from time to time.

    Times are those of a clock that only goes forward; the files' own times are compared with each other and never with
    it, so that a machine's wall clock may jump.

    Parameters
    ----------
    folder : Path
    looks : int
        A file has arrived when it was the same at so many looks one after the other.
    patience : float
        Seconds that a file which is cut short may stay the same.
    skip : callable
        Asked with path and mark of a file that has been the same for long enough; true for one that was dealt with.
    waiting : callable
        Told path, mark and time of a file that is cut short; answers the time at which that was first seen, by an
        earlier service too.
    hdu : int or str, optional
        The unit that will be opened.
    clock : callable
        Seconds.
    inspect : callable
        As `survey_io.arrived.check_arrived`.

    Raises
    ------
    OptionError
        When the folder is none or cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        looks: int = 3,
        patience: float = 600.0,
        skip: Callable[[Path, Mark], bool] = lambda path, mark: False,
        waiting: Callable[[Path, Mark, float], float] = lambda path, mark, now: now,
        hdu: int | str | None = None,
        clock: Callable[[], float] = steady_clock,
        inspect: Callable[..., str] = check_arrived,
    ):
        if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
            raise OptionError(f"inbox {folder}: expected a folder that can be read; make it, or name another")
        self.folder = folder.resolve()
        self._looks, self._patience, self._hdu = looks, patience, hdu
        self._skip, self._waiting, self._clock, self._inspect = skip, waiting, clock, inspect
        self._watched: dict[Path, _Watched] = {}
        self._dealt: dict[Path, Mark] = {}

    @property
    def waiting(self) -> int:
        """Files that were seen and are not yet dealt with."""
        return len(self._watched)

    @property
    def unsettled(self) -> int:
        """Files that changed, or appeared, at one of the last looks; those cut short are not among them."""
        return sum(one.problem is None for one in self._watched.values())

    def look(self) -> Iterator[Arrived | Refused]:
        """Look once; gives what has arrived since, in the order in which the files came to their present names.

        A file is given once for each state that it settles in. What is given and not dealt with, as the catalogue
        could not be reached, is to be handed back with `forget`.
        """
        now, ready, there = self._clock(), [], set()
        for path, status in _files(self.folder):
            there.add(path)
            mark = Mark(status.st_size, status.st_ctime_ns, status.st_ino)
            if self._dealt.get(path) == mark:
                continue
            watched = self._watched.get(path)
            if watched is None or watched.mark != mark:
                self._watched[path] = _Watched(mark, 1, now)
                continue
            watched.looks += 1
            if watched.looks >= self._looks:
                # A rename sets this time where the time of change is carried along from another machine.
                ready.append((status.st_ctime_ns, path, status, watched))
        for path in [*(self._watched.keys() - there), *(self._dealt.keys() - there)]:
            self._watched.pop(path, None)
            self._dealt.pop(path, None)
        for _, path, status, watched in sorted(ready, key=lambda one: (one[0], os.fsencode(one[1]))):
            found = self._judge(path, status, watched)
            if found is not None:
                self._watched.pop(path, None)
                self._dealt[path] = watched.mark
                if not isinstance(found, Mark):
                    yield found

    def forget(self, path: Path) -> None:
        """Deal with a file again at one of the next looks."""
        self._dealt.pop(path, None)

    def _judge(self, path: Path, status: os.stat_result, watched: _Watched) -> Arrived | Refused | Mark | None:
        """What a settled file is; its mark when it was dealt with before, None to look at it again later."""
        mark = watched.mark
        reason = self._unsafe(path, status)
        if reason is not None:
            return Refused(path, mark, reason)
        if watched.problem is not None and not self._out_of_patience(watched):
            return None
        if self._skip(path, mark):
            return mark
        try:
            kind = self._inspect(path, hdu=self._hdu)
            digest = file_hash(path)
        except FileNotFoundError:
            return None
        except IncompleteError as error:
            watched.problem = f"truncated: {error.message}"
        except (InputError, OptionError) as error:
            if machine_trouble(error) is not None:
                watched.problem = error.message
                return None
            return Refused(path, mark, error.message, _hash(path)) if _same(path, mark) else None
        except OSError as error:
            watched.problem = f"{path.name}: cannot be read: {error.strerror or error}"
        else:
            # Somebody wrote on while it was read: what was seen may be half of each.
            return Arrived(path, mark, digest, kind) if _same(path, mark) else None
        watched.since = self._waiting(path, mark, watched.since)
        if self._out_of_patience(watched) and _same(path, mark):
            return Refused(path, mark, watched.problem, _hash(path))
        return None

    def _out_of_patience(self, watched: _Watched) -> bool:
        return self._clock() - watched.since >= self._patience

    def _unsafe(self, path: Path, status: os.stat_result) -> str | None:
        """Why a file is not even opened."""
        name = printable(path.name)
        if name != path.name:
            return f"{name}: its name has characters that do not print, or is not UTF-8; rename it"
        if stat.S_ISLNK(status.st_mode):
            try:
                target = path.resolve(strict=True)
            except (OSError, RuntimeError):
                return f"{name}: a link that leads nowhere"
            if not target.is_relative_to(self.folder):
                return f"{name}: a link out of the inbox; copy the file itself"
            if not target.is_file():
                return f"{name}: a link to what is no file"
        elif not stat.S_ISREG(status.st_mode):
            return f"{name}: no file but a pipe, socket or device"
        return None


def passing(name: str) -> bool:
    """Whether a name is that of a file that is still being written, or hidden."""
    return name.startswith(".") or name.lower().endswith(PASSING)


def check_apart(inbox: Path, *folders: Path) -> None:
    """Refuse folders of results within the inbox, or around it: the service would work on what it wrote itself.

    Raises
    ------
    OptionError
    """
    watched = inbox.resolve()
    for folder in folders:
        other = folder.resolve()
        if other.is_relative_to(watched):
            raise OptionError(
                f"inbox {inbox}: {folder} lies in it, so that results would be taken for new files; choose another"
            )


def _hash(path: Path) -> str | None:
    try:
        return file_hash(path)
    except OSError:
        return None


def _same(path: Path, mark: Mark) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return Mark(status.st_size, status.st_ctime_ns, status.st_ino) == mark


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything but folders and what has a passing name, in subfolders too; links are not followed."""
    waiting = [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(f"inbox {folder}: cannot be read ({error.strerror})") from None
        for entry in entries:
            if passing(entry.name):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    yield Path(entry.path), entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
