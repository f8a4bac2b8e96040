"""What is recommended of a line: the measurement and the network's estimate together, each by its error.

The two err apart: one from the voxels within a mask, the other from what galaxies are like. Their mean, weighted by
inverse variance, beats both; the measurement's stated errors are noise alone, so that they count with a factor, chosen
per column on held-out cubes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from survey_io.columns import Flag

# What a network estimates beside its measurement, and how the two are averaged: in logs, as they are, or on the circle.
ESTIMATED = {"line_flux": "log", "w20": "log", "hi_size": "log", "kin_pa": "circle", "inclination": "plain"}
# From this S/N on the measurement stands alone: noise is no matter, and the network was not shown every galaxy.
SURE_SNR = 25.0
# Factors of the measurement's error that calibration chooses from; the last leaves the network alone.
FACTORS = (0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 1e9)


def recommend(columns: Mapping[str, Any], factors: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The ``*_best`` columns.

    Parameters
    ----------
    columns : mapping of str to array (N,)
        ``NAME``, ``NAME_err``, ``NAME_net`` and ``NAME_net_err`` of each of `ESTIMATED`, as far as there are such;
        ``snr`` and ``flags``.
    factors : mapping of str to float
        Of the measurement's error; 1 where none is given.

    Returns
    -------
    dict of ndarray
        The measurement of joined rows, above `SURE_SNR` and where there is no estimate; the estimate where there is no
        measurement.
    """
    snr = np.asarray(columns["snr"], float)
    alone = (np.asarray(columns["flags"]) & int(Flag.MULTI_COMPONENT)) == 0
    found = {}
    for name in ESTIMATED:
        value = _column(columns, name, len(snr))
        estimate = _column(columns, f"{name}_net", len(snr))
        errors = (_column(columns, f"{name}_err", len(snr)), _column(columns, f"{name}_net_err", len(snr)))
        mean = combine(name, value, errors[0], estimate, errors[1], factor=float(factors.get(name, 1.0)))
        use = np.isfinite(mean) & alone & (snr < SURE_SNR)
        best = np.where(use, mean, value)
        found[f"{name}_best"] = np.where(np.isfinite(best), best, estimate)
    return found


def combine(
    name: str, value: np.ndarray, error: np.ndarray, estimate: np.ndarray, estimate_error: np.ndarray, *, factor: float
) -> np.ndarray:
    """Mean of measurement and estimate, NaN where the estimate is missing; the estimate where the measurement is.

    Parameters
    ----------
    name : str
        One of `ESTIMATED`.
    value, error, estimate, estimate_error : ndarray, shape (N,)
        In the column's unit.
    factor : float
        Of ``error``.
    """
    kind = ESTIMATED[name]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if kind == "log":
            error, estimate_error = error / value, estimate_error / estimate
            usable = np.isfinite(value) & (value > 0) & np.isfinite(error) & (error > 0)
        else:
            usable = np.isfinite(value) & np.isfinite(error)
            # Stated errors of angles of less than a degree are not to be believed.
            error, estimate_error = np.maximum(error, 1.0), np.maximum(estimate_error, 1.0)
        weight = np.where(usable, (estimate_error / (factor * error)) ** 2, 0.0)
        share = weight / (1 + weight)
        if kind == "log":
            return np.where(usable, np.exp(share * np.log(value) + (1 - share) * np.log(estimate)), estimate)
        if kind == "plain":
            return np.where(usable, share * value + (1 - share) * estimate, estimate)
        turns = [np.exp(1j * np.radians(np.nan_to_num(angle))) for angle in (value, estimate)]
        mean = np.degrees(np.angle(share * turns[0] + (1 - share) * turns[1])) % 360.0
        return np.where(np.isfinite(estimate), mean, np.nan)


def _column(columns: Mapping[str, Any], name: str, count: int) -> np.ndarray:
    """A column, NaN where there is none."""
    known = columns.colnames if hasattr(columns, "colnames") else columns
    return np.asarray(columns[name], float) if name in known else np.full(count, np.nan)
