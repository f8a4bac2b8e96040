"""Calibrate a detector of lines on held-out simulated spectra: probabilities and threshold.

As `pipeline.calibrate` for images, but that emission and absorption are both lines: the negated spectrum is no witness
of false detections, so that probabilities are those of the calibration. Nothing here sees the spectra of training
(other seeds) or any real spectrum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from scipy.optimize import minimize

from models.line_loader import draw_line_model, hidden_lines, seen_lines
from pipeline.reliability import Calibration
from pipeline.scorers.lines import match_lines, score_lines
from pipeline.spectrum_finders import make_spectrum_finder
from pipeline.spectrum_lines import Prepared, prepare_spectrum, search_spectra
from survey_io.simulate.lines import SimulatedSpectrum, simulate_lines
from survey_io.spectrum import Spectrum

WANTED_RELIABILITY = 0.95
# S/N from which a line is wanted when the threshold is chosen.
WANTED_SNR = 5.0
THRESHOLDS = np.round(np.arange(0.1, 0.98, 0.02), 2)
# Calibration spectra for each of what the recipes count as skies; their lengths in channels.
SPECTRA_PER_SKY, LENGTHS = 16, (600, 6000)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Searched:
    """Candidates of one simulated spectrum and its truth.

    Attributes
    ----------
    found : dict of ndarray
        ``z``, ``width``, ``sign``, ``flux`` (signed sum of S/N), ``logit`` and ``score``.
    truth : dict of ndarray
        ``z``, ``width``, ``flux`` (in the same unit), ``snr``, ``ignore``.
    """

    found: Arrays
    truth: Arrays


def as_spectrum(simulated: SimulatedSpectrum, *, with_error: bool) -> Spectrum:
    """A simulated spectrum as a file would give it, on a wavelength axis of 1 Angstrom per channel."""
    axis = 4000.0 + np.arange(len(simulated.flux), dtype=float)
    error = simulated.rms if with_error else None
    return Spectrum("simulated", "", axis, u.Angstrom, simulated.flux, error=error)


def draw_spectra(count: int, seed: int) -> list[tuple[SimulatedSpectrum, Prepared]]:
    """Spectra of the training range, prepared as the pipeline does."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        length = int(np.exp(rng.uniform(*np.log(LENGTHS))))
        simulated = simulate_lines(draw_line_model(length, rng), rng)
        drawn.append((simulated, prepare_spectrum(as_spectrum(simulated, with_error=bool(rng.random() < 0.5)))))
    return drawn


def search_drawn(
    model: str, drawn: list[tuple[SimulatedSpectrum, Prepared]], *, threads: int = 1, engine: str = "auto",
    precision: str = "f32",
) -> list[Searched]:  # fmt: skip
    """Candidates of a detector in simulated spectra, with the truth."""
    finder, _ = make_spectrum_finder(model, engine=engine, precision=precision, threads=threads)
    searched = []
    results = search_spectra([prepared for _, prepared in drawn], finder, tile=1536)
    for (simulated, _), lines in zip(drawn, results, strict=True):
        table = simulated.lines
        truth = {name: np.asarray(table[name], float) for name in ("z", "width", "flux", "snr")}
        at = np.clip(np.rint(truth["z"]).astype(int), 0, len(simulated.flux) - 1)
        truth["ignore"] = hidden_lines(truth) | ~seen_lines(truth["z"], ~simulated.blank)
        truth["flux"] = truth["flux"] / simulated.rms[at]
        found = {
            "z": lines.centre[:, 0], "width": lines.size[:, 0].astype(float), "logit": lines.logit.astype(float),
            "sign": lines.params["sign"].astype(float), "flux": lines.params["flux_snr"].astype(float),
            "score": lines.score,
        }  # fmt: skip
        searched.append(Searched(found, truth))
    return searched


def fit_lines(searched: list[Searched]) -> Calibration:
    """Logistic map from the detector's log odds to being a line."""
    x = np.concatenate([one.found["logit"] for one in searched])
    real = np.concatenate([match_lines(one.found, one.truth) >= 0 for one in searched]).astype(float)

    def deviance(p: np.ndarray) -> float:
        odds = p[0] + p[1] * x
        return float(np.mean(np.logaddexp(0, odds) - real * odds))

    intercept, slope = minimize(deviance, np.array([0.0, 1.0]), method="Nelder-Mead").x
    return Calibration(slope=float(slope), intercept=float(intercept))


def probabilities(searched: list[Searched], calibration: Calibration) -> list[tuple[Arrays, Arrays]]:
    """Detections and truth of each spectrum for `score_lines`, the score being the calibrated probability."""
    return [({**one.found, "score": calibration.probability(one.found["logit"])}, one.truth) for one in searched]


def choose_line_threshold(searched: list[Searched], calibration: Calibration) -> float:
    """Threshold on p_real with the best F1 among those that keep the wanted reliability."""
    pairs = probabilities(searched, calibration)
    scores = [(score_lines(pairs, least=WANTED_SNR, threshold=limit), limit) for limit in THRESHOLDS]
    pure = [(score.f1, limit) for score, limit in scores if score.reliability >= WANTED_RELIABILITY]
    return float(max(pure)[1] if pure else THRESHOLDS[-1])


def probability_curve(searched: list[Searched], calibration: Calibration) -> dict[str, list[float]]:
    """Per bin of p_real: what is stated on average, the share that is real, and the number of rows."""
    stated = np.concatenate([calibration.probability(one.found["logit"]) for one in searched])
    real = np.concatenate([match_lines(one.found, one.truth) >= 0 for one in searched])
    bins = [(0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.85), (0.85, 0.95), (0.95, 1.0)]
    return {
        f"{low}-{high}": [round(float(stated[m].mean()), 4), round(float(real[m].mean()), 4), int(m.sum())]
        for low, high in bins
        if (m := (stated >= low) & (stated < high)).any()
    }


def calibrate_lines(
    model: str, *, spectra: int = 384, seed: int = 90_000, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure a detector of lines on held-out simulated spectra.

    Parameters
    ----------
    model : str
        Registered name or weights file.
    spectra, seed : int
        Number of spectra; half of them fit the probabilities and choose the threshold, the others are reported on.
    report : callable

    Returns
    -------
    dict
        ``threshold``, ``calibration`` (for the card) and ``score``, as `pipeline.calibrate.calibrate`.
    """
    parts = [search_drawn(model, draw_spectra(spectra // 2, seed + half)) for half in (0, 1)]
    calibration = fit_lines(parts[0])
    threshold = choose_line_threshold(parts[0], calibration)
    pairs = probabilities(parts[1], calibration)
    score = score_lines(pairs, least=WANTED_SNR, threshold=threshold)
    report(f"{spectra // 2} spectra that chose nothing: {score}")
    names = ("completeness", "reliability", "f1", "centre", "width", "flux")
    figures = {name: round(getattr(score, name), 4) for name in names}
    return {
        "threshold": threshold,
        "calibration": {"reliability": {k: calibration.for_card()[k] for k in ("slope", "intercept")}},
        "score": {
            "held_out_spectra_snr_above_5": {
                **figures, "lines": score.wanted, "rows": score.rows,
                "p_real_stated_measured_rows": probability_curve(parts[1], calibration),
            }
        },
    }  # fmt: skip
