"""Rows of a table of classified spectra: what is told of each spectrum, and what its answers mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.table import Table

from models.answers import AnswerCalibration, Answers
from survey_io.class_columns import SpectrumFlag, make_class_table
from survey_io.spectral_grid import SpectralGrid
from survey_io.spectrum import Spectrum

# Shares of the grid below which coverage is flagged; bins of the grid per bin of a coarse spectrum; lowest S/N.
PARTIAL, LITTLE, COARSE, LOW_SNR = 0.9, 1 / 3, 2.0, 5.0


def describe(
    spectrum: Spectrum, flux: np.ndarray, seen: np.ndarray, grid: SpectralGrid, *, start: float = 0.0, windows: int = 1
) -> dict[str, Any]:
    """What the table tells of a spectrum beside its class.

    Parameters
    ----------
    spectrum : Spectrum
    flux, seen : ndarray, shape (grid.count,)
        As `survey_io.spectral_grid.resample`.
    grid : SpectralGrid
    start : float
        Of a light curve, the time at the grid's 0, see `pipeline.place.Placed`.
    windows : int
        How many windows the light curve has.
    """
    good = np.flatnonzero(np.isfinite(flux))
    centres = grid.centres()
    covered = len(good) / grid.count
    noise = _noise(flux[good])
    middle = float(np.median(flux[good]))
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = abs(middle) / noise if noise > 0 else np.inf
        peak = float(np.abs(flux[good] - middle).max()) / noise if noise > 0 else np.inf
    flags = SpectrumFlag(0)
    if covered < PARTIAL:
        flags |= SpectrumFlag.PARTIAL_COVERAGE
    if covered < LITTLE:
        flags |= SpectrumFlag.LITTLE_COVERAGE
    if len(good) < good[-1] - good[0] + 1:
        flags |= SpectrumFlag.GAPS
    if len(spectrum.axis) * COARSE < len(good):
        flags |= SpectrumFlag.COARSE
    if max(snr, peak) < LOW_SNR:
        flags |= SpectrumFlag.LOW_SNR
    if spectrum.notes:
        flags |= SpectrumFlag.ASSUMED
    if windows > 1:
        flags |= SpectrumFlag.LONGER
    return {
        "name": spectrum.name, "path": spectrum.path, "row": -1 if spectrum.row is None else spectrum.row,
        "seen": covered, "low": start + centres[good[0]], "high": start + centres[good[-1]],
        "snr": snr, "peak_snr": peak, "flags": int(flags), "notes": " ".join(spectrum.notes),
    }  # fmt: skip


def _noise(flux: np.ndarray) -> float:
    """Standard deviation of a bin by third-order differences, which lines and slopes hardly touch (DER_SNR, Stoehr
    et al. 2008)."""
    if len(flux) < 5:
        return float("nan")
    return float(1.482602 / np.sqrt(6) * np.median(np.abs(2 * flux[2:-2] - flux[:-4] - flux[4:])))


def build_class_table(
    columns: dict[str, np.ndarray], answers: Answers, grid: SpectralGrid, calibration: dict[str, Any], threshold: float
) -> Table:
    """The table of `pipeline.classify.classify_files`' rows.

    Parameters
    ----------
    columns : dict of ndarray
    answers : Answers
    grid : SpectralGrid
    calibration : dict
        Of the weights' card.
    threshold : float
        Of classes that may hold together, those of at least this probability are named.
    """
    fitted = AnswerCalibration.from_card(calibration)
    probability = fitted.probability(columns["raw"], answers)
    best = probability.argmax(axis=1)
    p = np.clip(probability, 1e-12, 1)
    if answers.exclusive:
        named = [answers.classes[k] for k in best]
        entropy = -(p * np.log2(p)).sum(axis=1)
    else:
        order = np.argsort(-probability, axis=1, kind="stable")
        named = [
            ",".join(answers.classes[k] for k in row if chance[k] >= threshold)
            for row, chance in zip(order, probability, strict=True)
        ]
        q = np.clip(1 - probability, 1e-12, 1)
        entropy = -(p * np.log2(p) + q * np.log2(q)).sum(axis=1)
    top = probability.max(axis=1)
    flags = columns["flags"].astype(int)
    if answers.exclusive:
        flags = flags | np.where(top < 0.5, int(SpectrumFlag.AMBIGUOUS), 0)
    values = {
        "spectrum_id": np.arange(1, len(top) + 1), "name": columns["name"], "file": columns["path"],
        "row": columns["row"], "class": np.array(named, dtype=np.str_), "p_class": top, "entropy": np.abs(entropy),
        "snr": columns["snr"], "peak_snr": columns["peak_snr"], "coverage": columns["seen"],
        "coverage_low": columns["low"], "coverage_high": columns["high"], "flags": flags,
    }  # fmt: skip
    regressed = {
        value.name: (value.unit, *pair)
        for value, pair in zip(answers.values, fitted.values(columns["raw"], answers).values(), strict=True)
    }
    return make_class_table(
        values, classes=answers.classes, probability=probability, unit=grid.axis_unit, regressed=regressed
    )
