"""Stages of a long run: each leaves its result in a file, and is not done again while what it rests on is the same."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from models.weights import file_sha256, write_whole
from pipeline.judges.evaluation import plain
from survey_io.errors import OutputError

FOLDER = "stages"


class Stages:
    """The stages of the run in one folder; one process at a time has them.

    Parameters
    ----------
    folder : Path
        Output folder of the run; made when missing. Results are in its folder ``stages``.
    resume : bool
        Whether results of an earlier run count.
    report : callable
        Receives a line of text.

    Raises
    ------
    OutputError
        When the folder cannot be written, or another process runs in it.
    """

    def __init__(self, folder: Path, *, resume: bool, report: Callable[[str], None]):
        self.folder, self.report = folder, report
        try:
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / FOLDER / ".lock", "a")  # noqa: SIM115 (held as long as the run)
        except OSError as error:
            raise OutputError(f"{folder}: cannot write results: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise OutputError(f"{folder}: another run is writing here: wait for it, or give another --output") from None
        if not resume:
            for left in (folder / FOLDER).glob("*.json"):
                left.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others into the folder."""
        self._lock.close()

    def run(
        self, name: str, key: dict[str, Any], work: Callable[[], dict[str, Any]], *, again: bool = False
    ) -> dict[str, Any]:
        """The result of a stage: an earlier one, or that of ``work``.

        Parameters
        ----------
        name : str
        key : dict
            All that the result depends on, as plain values.
        work : callable
            Gives the result as plain values. Its entry "files" may list files below the run's folder: a result whose
            files are gone or changed does not count.
        again : bool
            Do it whatever was done before, as for work that finds for itself that it is done.

        Returns
        -------
        dict
        """
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
        kept = self._read(name)
        if not again and kept is not None and kept["key"] == digest and self._whole(kept["files"]):
            self.report(f"{name}: done before")
            return kept["result"]
        began = time.monotonic()
        # What is kept and what is given now are the same, or a run that resumes would go on differently.
        result = plain(work())
        files = {file: file_sha256(self.folder / file) for file in result.get("files", ())}
        seconds = round(time.monotonic() - began, 3)
        values = {"stage": name, "key": digest, "seconds": seconds, "files": files, "result": result}
        # What was written on the way must be on the disk before the word that it is.
        for file in files:
            _sync(self.folder / file)
        path = self._path(name)
        write_whole(path, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())
        return result

    def result(self, name: str) -> dict[str, Any]:
        """The result of a stage of this run."""
        kept = self._read(name)
        if kept is None:
            raise OutputError(f"{self._path(name)}: expected the result of stage {name!r}, found none: run it first")
        return kept["result"]

    def seconds(self) -> dict[str, float]:
        """What each stage took, in seconds, the last time that it was done."""
        files = sorted((self.folder / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        found = [self._read(path.stem) for path in files]
        return {one["stage"]: one["seconds"] for one in found if one is not None}

    def _path(self, name: str) -> Path:
        return self.folder / FOLDER / f"{name}.json"

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            values = json.loads(self._path(name).read_text(encoding="utf-8"))
            return values if {"key", "files", "result", "seconds", "stage"} <= set(values) else None
        except (OSError, ValueError, TypeError):
            return None

    def _whole(self, files: dict[str, str]) -> bool:
        try:
            return all(file_sha256(self.folder / file) == digest for file, digest in files.items())
        except OSError:
            return False


def fingerprint(path: Path | None) -> str:
    """Short for what lies at a path: names, sizes and times of change of all files; empty for no path."""
    if path is None:
        return ""
    digest = hashlib.sha256()
    if path.is_file():
        status = path.stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    for folder, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(files):
            try:
                status = os.stat(os.path.join(folder, file))
            except OSError:
                continue
            name = os.path.relpath(os.path.join(folder, file), path)
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _sync(path: Path) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
