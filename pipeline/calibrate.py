"""Calibrate a detector on held-out simulated skies: probabilities, threshold, recommended estimates.

Nothing here sees the skies of training (other seeds) or any real image. The result goes into the weights'
card.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from pipeline.detect import analyse
from pipeline.gaussians import beam_area
from pipeline.options import DetectOptions
from pipeline.reliability import COUNTED, LIKELY, Calibration, count_above, fit_shift
from survey_io import open_image
from survey_io.simulate.continuum import Simulation, SkyModel, detectability, simulate_continuum
from survey_io.simulate.tables import write_simulation

BEAMS = (2.3, 2.5, 3.0, 3.6, 4.3, 5.2, 6.2, 7.4)
# What counts as real: a true source of at least this apparent S/N within this many beams.
REAL_SNR, REAL_BEAMS = 1.5, 0.5
# The default threshold gives the best SDC1 score among those that keep this reliability on the calibration's
# skies.
WANTED_RELIABILITY = 0.95
WEIGHT_EDGES = (3.0, 4.0, 5.0, 6.5, 8.5, 11.0, 15.0, 22.0, 40.0, 100.0, 1000.0)
# Where both score alike the fit is preferred: it does not rest on the population that the network was trained on.
ALIKE = 0.99
FIT_GRID = (5.0, 7.0, 9.0, 12.0, 16.0, 22.0, 30.0, 45.0, 70.0, 120.0, 1e9)
LOWEST_SCORE = 0.05
# Grid of the correction by the negated image. Real skies differ from simulated ones more than
# these do from each other: the shift is never held narrower than the first width.
SHIFT_WIDTHS = (0.3, 0.6, 1.2)
# Skies are scaled to the beam of SDC1 at 560 MHz (arcsec), for which the scorer's tolerances are made.
SDC1_BEAM, SDC1_FREQUENCY = 1.5, 560


@dataclass
class Sample:
    """Per sky: catalogue with matched truth, truth, log odds in the negated image, share of it searched."""

    skies: list[tuple[Table, Table, np.ndarray, float]]

    @property
    def table(self) -> Table:
        """Rows of all skies."""
        return vstack([sky[0] for sky in self.skies], metadata_conflicts="silent")


def sky_shifts(sample: Sample, calibration: Calibration) -> list[float]:
    """The correction that each sky's own negative asks for."""
    return [
        fit_shift(logit_of(table["score"]), negative, searched, beams, calibration).shift
        for table, _, negative, searched, beams in sample.skies
    ]


def match_truth(table: Table, truth: Table, beam_px: float, gain: float) -> np.ndarray:
    """Row of the brightest true source within reach of each detection, one detection per source; -1 for none.

    Of several detections of one source the one with the highest score is real.
    """
    tree = cKDTree(np.c_[truth["x"], truth["y"]])
    bright = np.asarray(truth["peak_snr"]) * gain
    near = tree.query_ball_point(np.c_[table["x"], table["y"]], REAL_BEAMS * beam_px)
    match = np.full(len(table), -1)
    taken: set[int] = set()
    for row in np.argsort(-np.asarray(table["score"]), kind="stable"):
        free = [i for i in near[row] if i not in taken and bright[i] >= REAL_SNR]
        if free:
            match[row] = max(free, key=lambda i: bright[i])
            taken.add(int(match[row]))
    return match


def held_out_sky(
    number: int, rng: np.random.Generator, *, size: int, seed: int
) -> tuple[Simulation, SkyModel, float]:
    """One of a row of skies of the training range: the sky, what it was drawn from, and its beam in px."""
    beam = BEAMS[number % len(BEAMS)]
    model = SkyModel.random(rng)
    density = float(np.exp(rng.uniform(np.log(0.002), np.log(0.035))))
    model = replace(model, density=density)
    sim = simulate_continuum(
        (size, size), beam_pixels=beam, seed=seed + number, model=model, pixel_scale=SDC1_BEAM / beam
    )
    return sim, model, beam


def draw_sample(model: str, *, skies: int, size: int, seed: int, report: Callable[[str], None]) -> Sample:
    """Detect in simulated skies of the training range and match with their truth."""
    rng = np.random.default_rng(seed)
    found = []
    # Scores and calibrations are of f32, whatever lower precision this machine gains by.
    options = DetectOptions(model=model, precision="f32", threshold=0.0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(skies):
            sim, sky, beam = held_out_sky(number, rng, size=size, seed=seed)
            image = write_simulation(sim, Path(folder))["image"]
            result = analyse(open_image(image), options)
            table = result.table[np.asarray(result.table["score"]) > LOWEST_SCORE]
            match = match_truth(table, sim.truth, beam, detectability(sky))
            table["real"] = match >= 0
            for name in ("snr", "maj", "min", "pa_sky", "flux", "size"):
                table[f"true_{name}"] = np.where(match >= 0, np.asarray(sim.truth[name])[match], np.nan)
            searched = result.manifest["reliability"]["searched"]
            beams = size**2 / float(beam_area(beam, beam))
            found.append((table, sim.truth, result.negative_logit, searched, beams))
            real = int((match >= 0).sum())
            report(f"sky {number + 1}/{skies}: beam {beam} px, {len(table)} candidates, {real} real")
    return Sample(found)


def logit_of(score: np.ndarray) -> np.ndarray:
    """Log odds of a catalogue's ``score``, which is a probability."""
    score = np.clip(np.asarray(score, float), 1e-7, 1 - 1e-7)
    return np.log(score / (1 - score))


def fit_reliability(sample: Sample) -> Calibration:
    """Logistic map from the detector's log odds to being real, and what the negated images have to do with it."""
    table = sample.table
    x, real = logit_of(table["score"]), np.asarray(table["real"], float)
    # Every sky counts alike, or the crowded ones would decide.
    weight = np.concatenate([np.full(len(sky[0]), 1.0 / max(len(sky[0]), 50)) for sky in sample.skies])

    def deviance(odds: np.ndarray) -> float:
        return float(np.average(np.logaddexp(0, odds) - real * odds, weights=weight))

    intercept, slope = minimize(lambda p: deviance(p[0] + p[1] * x), np.array([0.0, 1.0]), method="Nelder-Mead").x
    plain = fit_noise_share(sample, Calibration(float(slope), float(intercept)))
    best, lowest = plain, np.inf
    for width in SHIFT_WIDTHS:
        trial = replace(plain, shift_width=width)
        p = np.clip(corrected_probability(sample, trial), 1e-6, 1 - 1e-6)
        found = deviance(np.log(p / (1 - p)))
        if found < lowest:
            best, lowest = trial, found
    return best


def fit_noise_share(sample: Sample, calibration: Calibration) -> Calibration:
    """How many of a sky's false detections its negative shows, by density: measured on skies with known truth."""
    ratios, densities, weights = [], [], []
    for table, _, negative, searched, beams in sample.skies:
        odds = calibration.odds(logit_of(table["score"]))
        false = count_above(odds, COUNTED)[~np.asarray(table["real"])].sum() * searched
        count = count_above(calibration.odds(negative), COUNTED).sum()
        ratios.append(np.log((count + 0.5) / (false + 0.5)))
        densities.append(count_above(odds, LIKELY).sum() / beams)
        weights.append(1 / (0.1 + 1 / (count + 0.5) + 1 / (false + 0.5)))
    ratios, densities, weights = (np.array(values) for values in (ratios, densities, weights))

    def misfit(p: np.ndarray) -> float:
        return float(np.sum(weights * (ratios - p[0] + np.log1p(np.exp(p[1]) * densities)) ** 2))

    share, confusion = np.exp(minimize(misfit, np.array([0.0, np.log(100.0)]), method="Nelder-Mead").x)
    return replace(calibration, noise_share=float(share), confusion=float(confusion))


def corrected_probability(sample: Sample, calibration: Calibration) -> np.ndarray:
    """p_real of all rows, each sky corrected by its own negative."""
    shifts = sky_shifts(sample, calibration)
    return np.concatenate(
        [
            calibration.probability(logit_of(sky[0]["score"]), shift)
            for sky, shift in zip(sample.skies, shifts, strict=True)
        ]
    )


def recommend_fits(table: Table) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What to recommend by the SDC1 sub-scores: fit or network for shapes, a mean of both for fluxes.

    Returns
    -------
    fit_from : dict of float
        S/N from which the fit scores better than the network, for "major", "minor" and "angle".
    flux_weight : dict of list
        ``snr`` and ``weight`` of the fit in the weighted geometric mean of both fluxes.
    """
    good = np.asarray(table["real"]) & np.isfinite(table["true_flux"])
    t = table[good]
    snr = np.asarray(t["snr"], float)
    resolved = np.asarray(t["maj_deconv"]) > 0

    def ratio(value: Any, truth: Any, limit: float) -> np.ndarray:
        value, truth = np.asarray(value, float), np.asarray(truth, float)
        error = np.abs(value - truth) / np.maximum(truth, 1e-9)
        return np.minimum(1, limit / np.maximum(error, 1e-9))

    def angle(value: Any) -> np.ndarray:
        turn = np.nan_to_num(np.asarray(value, float)) - np.asarray(t["true_pa_sky"])
        error = np.abs((turn + 90) % 180 - 90)
        return np.minimum(1, 10 / np.maximum(error, 1e-9))

    minor_too = resolved & (np.asarray(t["min_deconv"]) > 0)
    scores = {
        "major": (resolved, ratio(t["maj_deconv"], t["true_maj"], 0.3), ratio(t["maj_net"], t["true_maj"], 0.3)),
        "minor": (minor_too, ratio(t["min_deconv"], t["true_min"], 0.3), ratio(t["min_net"], t["true_min"], 0.3)),
        "angle": (resolved, angle(t["pa_deconv"]), angle(t["pa_net"])),
    }
    best = {}
    for kind, (usable, fit, network) in scores.items():
        totals = [np.where(usable & (snr >= start), fit, network).sum() for start in FIT_GRID]
        best[kind] = FIT_GRID[int(np.argmax(totals))]
    log_fit, log_net, log_true = (
        np.log(np.maximum(np.asarray(t[name], float), 1e-30)) for name in ("flux", "flux_net", "true_flux")
    )
    centres, weights = [], []
    for low, high in zip(WEIGHT_EDGES[:-1], WEIGHT_EDGES[1:], strict=True):
        rows = (snr >= low) & (snr < high)
        trials = np.linspace(0, 1, 11)
        error = [np.abs(np.expm1(w * log_fit[rows] + (1 - w) * log_net[rows] - log_true[rows])) for w in trials]
        totals = [np.minimum(1, 0.1 / np.maximum(e, 1e-9)).sum() for e in error]
        centres.append(round(float(np.sqrt(low * high)), 2))
        weights.append(round(float(trials[np.flatnonzero(np.array(totals) >= ALIKE * max(totals))[-1]]), 2))
    # The fit gains on the network with S/N; a bin that says otherwise holds few rows.
    for i in reversed(range(len(weights) - 1)):
        weights[i] = min(weights[i], weights[i + 1])
    return best, {"snr": centres, "weight": weights}


def choose_threshold(sample: Sample, calibration: Calibration) -> tuple[float, dict[str, float]]:
    """Threshold on p_real with the best total SDC1 score at the wanted reliability, and what it reaches."""
    from pipeline.scorers.sdc1 import score_sdc1
    from pipeline.scorers.sdc1_table import as_sdc1

    best, figures = 0.95, {}
    shifts = sky_shifts(sample, calibration)
    for threshold in np.arange(0.3, 0.96, 0.02):
        value = matched = rows = 0
        for (table, truth, *_), shift in zip(sample.skies, shifts, strict=True):
            keep = calibration.probability(logit_of(table["score"]), shift) >= threshold
            if not keep.any():
                continue
            result = score_sdc1(as_sdc1(table[keep]), as_sdc1(truth), frequency=SDC1_FREQUENCY)
            value, matched, rows = value + result.value, matched + result.n_match, rows + result.n_det
        if rows and matched / rows >= WANTED_RELIABILITY and value > figures.get("sdc1_score", -np.inf):
            best = float(threshold)
            figures = {"sdc1_score": value, "reliability": matched / rows, "rows": rows}
    return round(best, 2), figures


def reliability_curve(sample: Sample, calibration: Calibration) -> dict[str, list[float]]:
    """Per bin of p_real: what is stated on average, the share that is real, and the number of rows."""
    probability, real = corrected_probability(sample, calibration), np.asarray(sample.table["real"])
    bins = [(0.3, 0.5), (0.5, 0.7), (0.7, 0.85), (0.85, 0.95), (0.95, 1.0)]
    return {
        f"{low}-{high}": [float(probability[m].mean()), float(real[m].mean()), int(m.sum())]
        for low, high in bins
        if (m := (probability >= low) & (probability < high)).any()
    }


def calibrate(
    model: str, *, skies: int = 24, size: int = 1024, seed: int = 50_000,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:  # fmt: skip
    """Measure a detector on held-out simulated skies.

    Parameters
    ----------
    model : str
        Registered name or weights file.
    skies, size, seed : int
        Number of skies, their side in px, first seed.
    report : callable
        Receives a line per sky.

    Returns
    -------
    dict
        ``threshold``, ``calibration`` (for the card) and ``score``.
    """
    sample = draw_sample(model, skies=skies, size=size, seed=seed, report=report)
    calibration = fit_reliability(sample)
    fit_from, flux_weight = recommend_fits(sample.table)
    threshold, figures = choose_threshold(sample, calibration)
    return {
        "threshold": threshold,
        "calibration": {
            "reliability": calibration.for_card(),
            "fit_from": fit_from,
            "flux_weight": flux_weight,
        },
        "score": {"held_out_skies": {**figures, "p_real_stated_measured_rows": reliability_curve(sample, calibration)}},
    }  # fmt: skip
