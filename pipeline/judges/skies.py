"""Detectors of images on simulated skies that neither training nor calibration saw: the score of SDC1 per source."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.calibrate import SDC1_FREQUENCY, calibrate, held_out_sky
from pipeline.detect import analyse
from pipeline.judges import register_calibrator, register_judge
from pipeline.judges.evaluation import Evaluation
from pipeline.options import DetectOptions
from pipeline.scorers.sdc1 import score_sdc1
from pipeline.scorers.sdc1_table import as_sdc1
from survey_io import open_image
from survey_io.simulate.continuum import detectability
from survey_io.simulate.tables import write_simulation

if TYPE_CHECKING:
    from models.train_options import TrainOptions

# Training counts from the recipe's seed, validation is 987,654, calibration counts from 50,000.
SEED = 150_000
# A source of this apparent S/N counts as one that can be found.
WANTED_SNR = 5.0


@register_judge("default:detector2d")
def judge_skies(
    weights: str | os.PathLike[str], options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print,
    skies: int = 8, size: int = 768,
) -> Evaluation:  # fmt: skip
    """Detect with the weights' own threshold; units are skies, the metric is SDC1's score per source above 5 sigma.

    Parameters
    ----------
    weights : str or path
    options : TrainOptions
        Not used: skies do not depend on the recipe.
    folder : Path
        Not used: nothing is drawn.
    report : callable
        Receives a line per sky.
    skies, size : int
        Number of skies, one beam after the other, and their side in px.
    """
    rng = np.random.default_rng(SEED)
    detect = DetectOptions(model=os.fspath(weights), precision="f32")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(skies):
            sim, model, beam = held_out_sky(number, rng, size=size, seed=SEED)
            image = write_simulation(sim, Path(scratch))["image"]
            table = analyse(open_image(image), detect).table
            wanted = int((np.asarray(sim.truth["peak_snr"]) * detectability(model) >= WANTED_SNR).sum())
            value, matched = 0.0, 0
            if len(table):
                scored = score_sdc1(as_sdc1(table), as_sdc1(sim.truth), frequency=SDC1_FREQUENCY)
                value, matched = scored.value, scored.n_match
            rows.append((value, wanted, len(table), matched))
            report(f"sky {number + 1}/{skies}: beam {beam} px, score {value:.1f} of {wanted} sources above 5 sigma")
    columns = np.array(rows, float).reshape(-1, 4)
    value, wanted, found, matched = columns.T

    def score(units: np.ndarray) -> float:
        return float(value[units].sum() / max(wanted[units].sum(), 1.0))

    numbers = {
        "skies": skies, "size": size, "sdc1_score": value.sum(), "sources_above_5_sigma": wanted.sum(),
        "rows": found.sum(), "reliability": matched.sum() / max(found.sum(), 1.0),
    }  # fmt: skip
    names = tuple(f"sky {SEED + number} of {size} px" for number in range(skies))
    return Evaluation("sdc1_score_per_source", names, score, numbers=numbers)


@register_calibrator("default:detector2d")
def calibrate_skies(
    weights: Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """See `pipeline.calibrate.calibrate`."""
    return calibrate(str(weights), skies=options.calibration_skies, report=report)
