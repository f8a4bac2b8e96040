"""Several images, one after the other: a bad one is reported and the others still run."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from survey_io.errors import SkysiftError
from survey_io.names import file_stem

from .runners import cluster_resources, scheduler_address

if TYPE_CHECKING:
    from pipeline.detect import DetectResult
    from pipeline.options import DetectOptions

logger = logging.getLogger("skysift")


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes
    ----------
    path : Path
        The image.
    result : DetectResult or None
        Catalogue, files and manifest; None when it failed.
    error : str or None
        One line that says what was wrong.
    defect : bool
        True when the error is skysift's own, not the input's.
    seconds : float
        Wall time.
    run_id : int or None
        The run in the survey's store, when it was recorded.
    missing : str or None
        One line on what of the catalogue is missing; None when it is complete.
    """

    path: Path
    result: DetectResult | None
    error: str | None
    defect: bool
    seconds: float
    run_id: int | None = None

    @property
    def missing(self) -> str | None:
        from pipeline.runs import describe_missing

        lost = None if self.result is None else describe_missing(self.result.manifest)
        if lost is None:
            return None
        manifest = self.result.files["manifest"].name
        return f"{self.path}: {lost}; all are in {manifest}; the same command tries them again"


def detect_one(
    path: Path,
    options: DetectOptions,
    progress: Callable[..., None] | None = None,
    *,
    catalogue: str | None = None,
) -> Outcome:
    """Run `pipeline.detect.detect` on one image and catch what is wrong with it.

    Parameters
    ----------
    path : Path
    options : DetectOptions
    progress : callable, optional
    catalogue : str, optional
        The survey's store (see `pipeline.survey.open_store`) that the finished run is recorded in.
    """
    from pipeline.detect import detect

    start = time.perf_counter()
    try:
        result = detect(path, options, progress=progress)
    except (SkysiftError, OSError) as error:
        return _failed(path, _one_line(path, error), start)
    except Exception as error:
        # One image that trips a defect must not take the rest of the night's images with it.
        logger.debug("%s failed", path, exc_info=True)
        if os.environ.get("SKYSIFT_DEBUG"):
            raise
        kind = type(error).__name__
        text = f"{_one_line(path, error)} ({kind}; a defect of skysift: SKYSIFT_DEBUG=1 shows the trace)"
        return _failed(path, text, start, defect=True)
    outcome = Outcome(path, result, None, False, time.perf_counter() - start)
    return outcome if catalogue is None else record_outcome(outcome, catalogue)


@functools.lru_cache(maxsize=4)
def survey_store(catalogue: str) -> Any:
    """The survey's store at an address, opened once in this process."""
    from pipeline.survey import open_store

    return open_store(catalogue)


def record_outcome(outcome: Outcome, catalogue: str) -> Outcome:
    """Record a finished run in the survey's store; its files stay when that fails, and the error says what to do."""
    if outcome.result is None:
        return outcome
    try:
        return replace(outcome, run_id=survey_store(catalogue).record(outcome.result))
    except SkysiftError as error:
        again = f"its files are written but not recorded; later: skysift survey add {outcome.result.files['manifest']}"
        return replace(outcome, error=f"{outcome.path}: {error}; {again}")


def detect_each(
    paths: Iterable[Path],
    options: DetectOptions,
    *,
    run: Callable[[Path, DetectOptions], Outcome] = detect_one,
    done: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Detect in every image; one cluster serves them all.

    Parameters
    ----------
    paths : iterable of Path
        Images.
    options : DetectOptions
        Shared by all; a named cluster is started here and handed on as its address.
    run : callable
        What runs one image: `detect_one`, or the Prefect task around it.
    done : callable, optional
        Called with each outcome as it comes.

    Returns
    -------
    list of Outcome
        In the order of ``paths``.
    """
    outcomes: list[Outcome] = []
    written: dict[str, Path] = {}
    with scheduler_address(options.cluster) as address:
        resources = options.resources or cluster_resources(options.cluster)
        options = options.with_changes(cluster=address, resources=resources)
        for path in paths:
            first = written.setdefault(file_stem(path), path)
            if first.resolve() != path.resolve():
                message = (
                    f"{path}: would overwrite the results of {first}, which has the same name; "
                    "give it a call of its own with another -o"
                )
                outcome = _failed(path, message, time.perf_counter())
            else:
                outcome = run(path, options)
            outcomes.append(outcome)
            if done is not None:
                done(outcome)
    return outcomes


def _one_line(path: Path, error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or path}: {error.strerror}"
    else:
        text = " ".join(str(error).split()) or type(error).__name__
    return text if str(path) in text or path.name in text else f"{path}: {text}"


def _failed(path: Path, message: str, start: float, *, defect: bool = False) -> Outcome:
    return Outcome(path, None, message, defect, time.perf_counter() - start)
