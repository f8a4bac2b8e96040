"""Several images, one after the other: a bad one is reported and the others still run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from survey_io.errors import SkysiftError
from survey_io.names import file_stem

from .runners import scheduler_address

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
    """

    path: Path
    result: DetectResult | None
    error: str | None
    defect: bool
    seconds: float


def detect_one(path: Path, options: DetectOptions, progress: Callable[..., None] | None = None) -> Outcome:
    """Run `pipeline.detect.detect` on one image and catch what is wrong with it."""
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
    return Outcome(path, result, None, False, time.perf_counter() - start)


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
        options = options.with_changes(cluster=address)
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
