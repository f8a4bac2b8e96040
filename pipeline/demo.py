"""A demonstration: a small simulated sky from image to scored catalogue."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.detect import DetectResult, detect
from pipeline.evaluate import evaluate
from pipeline.options import DetectOptions
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation

if TYPE_CHECKING:
    from pipeline.evaluate_cube import CubeReport
    from pipeline.evaluation_report import Report

# A sky between the emptiest and the most crowded that the networks are made for.
DENSITY = 0.01
# The demonstration's cube, and the sources of it that are shown one by one.
CUBE_SHAPE, CUBE_PRODUCTS = (256, 160, 160), 3


@dataclass(frozen=True)
class Demonstration:
    """What the demonstration made.

    Attributes
    ----------
    sky : dict of Path
        Files of the simulated sky: "image", "truth" and more.
    result : DetectResult
        Catalogue and its files.
    report : Report
        Its comparison with the truth.
    seconds : dict of float
        Wall time of "simulate", "detect" and "evaluate".
    """

    sky: dict[str, Path]
    result: DetectResult
    report: Report | CubeReport
    seconds: dict[str, float]


def run_demo(
    folder: Path,
    *,
    model: str = "auto",
    size: int = 1024,
    seed: int = 11,
    progress: Callable[[str, int, int], None] | None = None,
) -> Demonstration:
    """Simulate a sky, find its sources and compare them with the truth.

    Parameters
    ----------
    folder : Path
        For everything that is written; made when missing.
    model : str
        Name of a model or a weights file; "auto" for the default.
    size : int
        Side of the sky in pixels.
    seed : int
        Seed of the sky.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    """
    marks = [time.perf_counter()]
    if progress:
        progress("simulate", 0, 1)
    sky = write_simulation(
        simulate_continuum((size, size), seed=seed, model=SkyModel(density=DENSITY)), folder
    )
    marks.append(time.perf_counter())
    options = DetectOptions(output=folder, model=model, fresh=True)
    result = detect(sky["image"], options, progress=progress)
    marks.append(time.perf_counter())
    picture = folder / f"{sky['image'].stem}_evaluation.png"
    report = evaluate(result.files["fits"], sky["truth"], picture=picture)
    result.files["evaluation"] = picture
    marks.append(time.perf_counter())
    return Demonstration(sky, result, report, _seconds(marks))


def run_cube_demo(
    folder: Path,
    *,
    model: str = "auto",
    seed: int = 11,
    shape: tuple[int, int, int] = CUBE_SHAPE,
    progress: Callable[[str, int, int], None] | None = None,
) -> Demonstration:
    """Simulate a cube of HI galaxies, find them and compare them with the truth; as `run_demo`.

    Parameters
    ----------
    folder : Path
        For everything that is written; made when missing.
    model : str
        Name of a model for cubes, or a weights file; "auto" for the default.
    seed : int
    shape : (nchan, ny, nx)
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    """
    from pipeline.evaluate_cube import evaluate_lines
    from survey_io.simulate.hi import HiModel, simulate_hi, write_hi

    marks = [time.perf_counter()]
    if progress:
        progress("simulate", 0, 1)
    # Six times as many galaxies as the challenge has and a quarter of its noise, so that a small cube shows something.
    cube = HiModel(shape=shape, density=6.0, rms=6e-6)
    sky = write_hi(cube, *simulate_hi(cube, seed=seed), folder)
    marks.append(time.perf_counter())
    options = DetectOptions(output=folder, model=model, fresh=True, products=CUBE_PRODUCTS)
    result = detect(sky["cube"], options, progress=progress)
    marks.append(time.perf_counter())
    report = evaluate_lines(result.files["fits"], sky["truth"])
    marks.append(time.perf_counter())
    return Demonstration(sky, result, report, _seconds(marks))


def _seconds(marks: list[float]) -> dict[str, float]:
    """Wall time of each step between the marks."""
    names = ("simulate", "detect", "evaluate")
    return {name: end - begin for name, begin, end in zip(names, marks[:-1], marks[1:], strict=True)}
