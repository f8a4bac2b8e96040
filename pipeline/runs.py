"""What every run of a file has, image or cube: its clock, its ledger, its workers and what comes of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.table import Table

from pipeline import metrics
from pipeline.journal import observation_context
from pipeline.ledger import Ledger
from pipeline.local_workers import Threads, local_workers
from pipeline.options import DetectOptions
from survey_io import InputError, Observation, OptionError

if TYPE_CHECKING:
    from survey_io.cube import Cube

Progress = Callable[[str, int, int], None]

DEFAULT_THRESHOLD = 0.5
# Missing pieces that a message names; the manifest has all of them.
SHOWN = 3


@dataclass(frozen=True)
class DetectResult:
    """What came of one image.

    Attributes
    ----------
    table : Table
        The catalogue.
    files : dict of Path
        Written files by kind: the formats, "regions", "quicklook", "manifest".
    manifest : dict
        Inputs, options, versions, timings (s per stage), counts.
    """

    table: Table
    files: dict[str, Path]
    manifest: dict[str, Any]


class Clock:
    """Wall seconds by stage, and the stage's progress."""

    def __init__(self, progress: Progress | None):
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextlib.contextmanager
    def stage(self, name: str, total: int = 1) -> Iterator[Callable[[int], None]]:
        began, done = time.perf_counter(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if self._progress:
                self._progress(name, done, total)

        advance(0)
        with observation_context(stage=name):
            yield advance
        seconds = time.perf_counter() - began
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        metrics.stage_done(name, seconds)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def forget_scratch(observation: Observation | Cube) -> None:
    """Delete the unpacked copy of a compressed file."""
    if observation.pixels.scratch:
        observation.pixels.path.unlink(missing_ok=True)


def open_ledger(output: Path, file: Path, stem: str, options: DetectOptions) -> Ledger:
    """The ledger of this file in the output folder, keyed by all that decides what a piece holds."""
    from models.weights import find_weights, needs_weights

    weights = file_hash(find_weights(options.model)) if needs_weights(options.model) else ""
    status = file.stat()
    key = {
        "options": options.identity(),
        "input": [str(file.resolve()), status.st_size, status.st_mtime_ns],
        "weights": weights,
        "version": version("skysift"),
    }
    path = output / f".{stem}_skysift.ledger"
    # SQLite adds four characters; a file's name has at most 255 bytes on the file systems that there are.
    if len(os.fsencode(path.name)) > 251:
        raise InputError(
            f"{file}: expected a file name of at most {251 - len('._skysift.ledger')} bytes before its ending, since "
            "the results get longer ones; rename it"
        )
    if options.fresh:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    return Ledger(path, hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest())


def version(package: str) -> str:
    """Installed version of a package; "source" for a checkout that was not installed."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "source"


@contextlib.contextmanager
def open_client(options: DetectOptions, pieces: int) -> Iterator[tuple[Any, int]]:
    """Threads, Dask's workers, or None where the work is too small for them; and the cores that a network may use."""
    if options.cluster is not None:
        if "://" not in options.cluster:
            raise OptionError(
                f"cluster: expected the address of a Dask scheduler (tcp://host:port), got {options.cluster!r}; "
                "the skysift command starts clusters by name"
            )
        from pipeline.dask_workers import remote_workers

        with remote_workers(options.cluster, options.resources) as client:
            yield client, client.threads_per_worker
        return
    workers = options.workers or os.cpu_count() or 1
    with local_workers(Threads, min(workers, pieces)) as client:
        yield client, workers


def missing_of(ledger: Ledger) -> dict[str, Any]:
    """For the manifest: whether all was done, and what was not."""
    return {"complete": not ledger.missing, "missing": list(ledger.missing)}


def describe_missing(manifest: dict[str, Any]) -> str | None:
    """One line on what a run could not do, from its manifest; None when its catalogue is complete."""
    lost = manifest.get("missing") or []
    if not lost:
        return None
    return (
        f"incomplete, {len(lost)} piece{'' if len(lost) == 1 else 's'} could not be done: "
        f"{'; '.join(_place(one) for one in lost[:SHOWN])}{'; ...' if len(lost) > SHOWN else ''}"
    )


def _place(lost: dict[str, Any]) -> str:
    where = ", ".join(f"{axis} {low}:{high}" for one in lost.get("pixels", ())[:1] for axis, (low, high) in one.items())
    return f"{lost['stage']} {where or lost['piece']} ({lost['reason']})"


def pixel_ranges(window: tuple[slice, ...], axes: str, factor: int = 1) -> dict[str, list[int]]:
    """First pixel and the one after the last of each axis of a window, in pixels of the file, counted from 0."""
    return {
        axis: [max(0, int(part.start) * factor), int(part.stop) * factor]
        for axis, part in zip(axes, window, strict=True)
    }


def threshold_of(card: dict, options: DetectOptions) -> float:
    """Lowest p_real of a row: the option, else the weights' own, else one half."""
    if options.threshold is not None:
        return options.threshold
    return card.get("threshold") or DEFAULT_THRESHOLD
