"""Detectors of cubes on simulated HI cubes that neither training nor calibration saw: the score of SDC2 per galaxy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.calibrate_cube import SHAPE, calibrate_cube, held_out_model
from pipeline.detect_cube import analyse_cube
from pipeline.judges import register_calibrator, register_judge
from pipeline.judges.evaluation import Evaluation
from pipeline.options import DetectOptions
from pipeline.scorers.sdc2 import score_sdc2
from survey_io.cube import open_cube
from survey_io.sdc2 import sdc2_columns
from survey_io.simulate.hi import simulate_hi, truth_table, write_hi

if TYPE_CHECKING:
    from models.train_options import TrainOptions

# Calibration counts from 70,000.
SEED = 170_000
WANTED_SNR = 5.0


@register_judge("default:detector3d")
def judge_cubes(
    weights: str | os.PathLike[str], options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print,
    cubes: int = 6, channels: int = SHAPE[0], side: int = SHAPE[1],
) -> Evaluation:  # fmt: skip
    """Detect with the weights' own threshold; units are cubes, the metric is SDC2's score per galaxy above 5 sigma.

    Parameters
    ----------
    weights : str or path
    options : TrainOptions
        Not used: cubes do not depend on the recipe.
    folder : Path
        Not used: nothing is drawn.
    report : callable
        Receives a line per cube.
    cubes, channels, side : int
        Number of cubes, their channels, and their side in px.
    """
    rng = np.random.default_rng(SEED)
    detect = DetectOptions(model=os.fspath(weights), precision="f32")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(cubes):
            drawn = held_out_model(rng, (channels, side, side))
            cube, galaxies = simulate_hi(drawn, seed=SEED + number)
            truth = truth_table(drawn, galaxies)
            table = analyse_cube(open_cube(write_hi(drawn, cube, galaxies, Path(scratch))["cube"]), detect).table
            scored = score_sdc2(sdc2_columns(table), truth) if len(table) else None
            value, matched = (scored.score, scored.n_match) if scored else (0.0, 0)
            wanted = int((np.asarray(truth["snr"]) >= WANTED_SNR).sum())
            rows.append((value, wanted, scored.n_det if scored else 0, matched))
            report(f"cube {number + 1}/{cubes}: score {value:.1f} of {wanted} galaxies above 5 sigma")
    value, wanted, found, matched = np.array(rows, float).reshape(-1, 4).T

    def score(units: np.ndarray) -> float:
        return float(value[units].sum() / max(wanted[units].sum(), 1.0))

    numbers = {
        "cubes": cubes, "shape": [channels, side, side], "sdc2_score": value.sum(),
        "galaxies_above_5_sigma": wanted.sum(), "rows": found.sum(), "reliability": matched.sum() / max(found.sum(), 1),
    }  # fmt: skip
    names = tuple(f"cube {SEED + number} of {channels} x {side} x {side}" for number in range(cubes))
    return Evaluation("sdc2_score_per_galaxy", names, score, numbers=numbers)


@register_calibrator("default:detector3d")
def calibrate_cubes(
    weights: Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """See `pipeline.calibrate_cube.calibrate_cube`."""
    return calibrate_cube(str(weights), cubes=options.calibration_skies, report=report)
