"""Calibrate a detector of lines on held-out simulated cubes: probabilities, threshold, recommended estimates.

As `pipeline.calibrate` for images. Nothing here sees the cubes of training (other seeds) or any real cube.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from models.cube_loader import draw_model
from pipeline.best_estimates import ESTIMATED, FACTORS, recommend
from pipeline.calibrate import LOWEST_SCORE, Sample, fit_reliability, logit_of, reliability_curve, sky_shifts
from pipeline.detect_cube import analyse_cube
from pipeline.gaussians import beam_area
from pipeline.options import DetectOptions
from pipeline.reliability import Calibration
from pipeline.scorers.sdc2 import score_sdc2
from survey_io.cube import open_cube
from survey_io.sdc2 import sdc2_columns
from survey_io.simulate.hi import HiModel, simulate_hi, truth_table, write_hi

SHAPE = (384, 144, 144)
# The challenge's beam, arcsec, for which its scorer's tolerances are made.
BEAM = 7.0
WANTED_RELIABILITY = 0.9
# Looks at the data: a second doubles the network's time, and with today's weights its score is no better.
PASSES = 1
THRESHOLDS = np.round(np.arange(0.2, 0.96, 0.03), 2)
_PARTS = {"line_flux": "line_flux_integral", "w20": "w20", "hi_size": "hi_size", "kin_pa": "pa", "inclination": "i"}


def held_out_model(rng: np.random.Generator, shape: tuple[int, int, int] = SHAPE) -> HiModel:
    """What a cube of the training range is simulated from, with the challenge's beam and in its band."""
    drawn = draw_model(shape, rng)
    return replace(
        drawn, beam=BEAM, pixel_scale=BEAM / drawn.beam_px, noise_fall=0.1,
        density=float(np.exp(rng.uniform(np.log(6), np.log(40)))),
        first_frequency=min(drawn.first_frequency, 1.15e9 - shape[0] * drawn.channel_width),
    )  # fmt: skip


def draw_cubes(
    model: str, *, cubes: int, seed: int, threshold: float, report: Callable[[str], None], passes: int | None = None
) -> Sample:
    """Detect in simulated cubes of the training range and match with their truth, as the challenge's scorer does."""
    rng = np.random.default_rng(seed)
    found = []
    options = DetectOptions(model=model, precision="f32", threshold=threshold, passes=passes)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(cubes):
            drawn = held_out_model(rng)
            cube, galaxies = simulate_hi(drawn, seed=seed + number)
            truth = truth_table(drawn, galaxies)
            result = analyse_cube(open_cube(write_hi(drawn, cube, galaxies, Path(folder))["cube"]), options)
            table = result.table[np.asarray(result.table["score"]) > LOWEST_SCORE]
            match = _match(table, truth)
            table["real"] = match >= 0
            table["truth"] = match
            area = float(beam_area(drawn.beam_px, drawn.beam_px))
            searched = result.manifest["reliability"]["searched"]
            found.append((table, truth, result.negative_logit, searched, float(np.prod(SHAPE)) / area))
            report(
                f"cube {number + 1}/{cubes}: beam {drawn.beam_px:.1f} px, {drawn.channel_width / 1e3:.0f} kHz, "
                f"{len(table)} found, {int((match >= 0).sum())} real, {int((truth['snr'] > 5).sum())} above 5 sigma"
            )
    return Sample(found)


def _match(table: Table, truth: Table) -> np.ndarray:
    """Row of the truth of each detection, one each, -1 for none."""
    match = np.full(len(table), -1)
    if len(table):
        columns = sdc2_columns(table)
        result = score_sdc2(columns, truth, sane=True)
        rows = np.searchsorted(np.asarray(table["source_id"]), columns["id"])
        match[rows[result.index]] = result.truth
    return match


def choose_cube_threshold(sample: Sample, calibration: Calibration) -> tuple[float, dict[str, float]]:
    """Threshold on p_real with the best total SDC2 score at the wanted reliability, and what it reaches."""
    best, figures = 0.9, {}
    shifts = sky_shifts(sample, calibration)
    for threshold in THRESHOLDS:
        value = matched = rows = 0
        for (table, truth, *_), shift in zip(sample.skies, shifts, strict=True):
            keep = calibration.probability(logit_of(table["score"]), shift) >= threshold
            if not keep.any():
                continue
            result = score_sdc2(sdc2_columns(table[keep]), truth)
            value, matched, rows = value + result.score, matched + result.n_match, rows + result.n_det
        if rows and matched / rows >= WANTED_RELIABILITY and value > figures.get("sdc2_score", -np.inf):
            best = float(threshold)
            figures = {"sdc2_score": round(value, 2), "reliability": round(matched / rows, 4), "rows": int(rows)}
    return round(best, 2), figures


def choose_factors(sample: Sample) -> dict[str, float]:
    """For each estimated column the factor of the measurement's error with the best part of the challenge's score."""
    worth = {name: np.zeros(len(FACTORS)) for name in ESTIMATED}
    for table, truth, *_ in sample.skies:
        rows = table[np.asarray(table["truth"]) >= 0]
        if not len(rows):
            continue
        true = truth[np.asarray(rows["truth"])]
        for name, total in worth.items():
            for k, factor in enumerate(FACTORS):
                best = recommend(rows, {name: factor})[f"{name}_best"]
                total[k] += _part(best, true, name).sum()
    return {name: FACTORS[int(total.argmax())] for name, total in worth.items()}


def _part(value: np.ndarray, true: Table, name: str) -> np.ndarray:
    """A column's part of the challenge's score, 0..1 per row."""
    want = np.asarray(true[_PARTS[name]], float)
    if name == "kin_pa":
        error, limit = np.abs((value - want + 180) % 360 - 180), 10.0
    elif name == "inclination":
        error, limit = np.abs(value - want), 10.0
    elif name == "hi_size":
        error, limit = np.abs(value - want) / np.hypot(want, BEAM), 0.3
    else:
        error, limit = np.abs(value - want) / want, 0.1 if name == "line_flux" else 0.3
    return np.where(np.isfinite(error), np.minimum(1, limit / np.maximum(error, 1e-9)), 0.0)


def calibrate_cube(
    model: str, *, cubes: int = 24, seed: int = 70_000, passes: int = PASSES, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure a detector of lines on held-out simulated cubes.

    Parameters
    ----------
    model : str
        Registered name or weights file.
    cubes, seed : int
        Number of cubes, first seed.
    passes : {1, 2}
        Looks at the data, here and by those who name none.
    report : callable
        Receives a line per cube.

    Returns
    -------
    dict
        ``threshold``, ``calibration`` (for the card) and ``score``, as `pipeline.calibrate.calibrate`.
    """
    sample = draw_cubes(model, cubes=cubes, seed=seed, threshold=0.0, report=report, passes=passes)
    calibration = fit_reliability(sample)
    factors = choose_factors(sample)
    for table, *_ in sample.skies:
        for name, values in recommend(table, factors).items():
            table[name] = values
    threshold, figures = choose_cube_threshold(sample, calibration)
    return {
        "threshold": threshold,
        "calibration": {
            "reliability": calibration.for_card(),
            "error_factors": factors,
            "passes": passes,
        },
        "score": {
            "held_out_cubes": {**figures, "p_real_stated_measured_rows": reliability_curve(sample, calibration)}
        },
    }  # fmt: skip
