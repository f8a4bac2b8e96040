"""Detectors of lines on simulated spectra that neither training nor calibration saw: F1 of lines above 5 sigma."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.weights import read_card
from pipeline.calibrate_lines import (
    SPECTRA_PER_SKY,
    WANTED_SNR,
    calibrate_lines,
    draw_spectra,
    probabilities,
    search_drawn,
)
from pipeline.judges import register_calibrator, register_judge
from pipeline.judges.evaluation import Evaluation
from pipeline.reliability import Calibration
from pipeline.runs import DEFAULT_THRESHOLD
from pipeline.scorers.lines import match_lines

if TYPE_CHECKING:
    from models.train_options import TrainOptions

# Calibration counts from 90,000.
SEED = 190_000


@register_judge("default:detector1d")
def judge_lines(
    weights: str | os.PathLike[str], options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print,
    spectra: int = 256,
) -> Evaluation:  # fmt: skip
    """Search with the weights' own threshold; units are spectra, the metric is F1 of lines above 5 sigma.

    Parameters
    ----------
    weights : str or path
    options : TrainOptions
        Not used: spectra do not depend on the recipe.
    folder : Path
        Not used: nothing is drawn.
    report : callable
    spectra : int
        Number of spectra.
    """
    card = read_card(weights)
    searched = search_drawn(os.fspath(weights), draw_spectra(spectra, SEED))
    calibration = Calibration(**card.calibration.get("reliability", {}))
    limit = DEFAULT_THRESHOLD if card.threshold is None else card.threshold
    rows = [_counts(found, truth, limit) for found, truth in probabilities(searched, calibration)]
    wanted, hits, found, real = np.array(rows, float).reshape(-1, 4).T

    def rates(units: np.ndarray) -> tuple[float, float]:
        return (
            float(hits[units].sum() / max(wanted[units].sum(), 1.0)),
            float(real[units].sum() / max(found[units].sum(), 1.0)),
        )

    def score(units: np.ndarray) -> float:
        completeness, reliability = rates(units)
        return 2 * completeness * reliability / max(completeness + reliability, 1e-9)

    completeness, reliability = rates(np.arange(spectra))
    report(f"{spectra} spectra: completeness {completeness:.3f}, reliability {reliability:.3f}")
    numbers = {
        "spectra": spectra, "lines_above_5_sigma": wanted.sum(), "rows": found.sum(), "completeness": completeness,
        "reliability": reliability,
    }  # fmt: skip
    return Evaluation("f1", tuple(f"spectrum {SEED}.{i} of {spectra}" for i in range(spectra)), score, numbers=numbers)


def _counts(found: dict[str, np.ndarray], truth: dict[str, np.ndarray], limit: float) -> tuple[int, int, int, int]:
    """Wanted lines of one spectrum, those found, detections, and those that are lines; as `score_lines` counts."""
    kept = np.asarray(found["score"]) >= limit
    match = match_lines({name: np.asarray(value)[kept] for name, value in found.items()}, truth)
    demanded = (np.asarray(truth["snr"]) >= WANTED_SNR) & ~np.asarray(truth["ignore"], bool)
    of = match[match >= 0]
    return int(demanded.sum()), int(demanded[of].sum()), len(match), len(of)


@register_calibrator("default:detector1d")
def calibrate_spectra(
    weights: Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """See `pipeline.calibrate_lines.calibrate_lines`."""
    return calibrate_lines(str(weights), spectra=SPECTRA_PER_SKY * options.calibration_skies, report=report)
