"""Spectra and light curves on the grid of a model: spectra where they are, light curves from their first bin on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy import units as u

from models.answers import AnswerCalibration, Answers
from survey_io.errors import InputError
from survey_io.spectral_grid import SpectralGrid, bin_edges, resample
from survey_io.spectrum import Spectrum

__all__ = ["LEAST_COVERAGE", "Placed", "place", "told_windows"]

# What covers less of the grid than this is refused.
LEAST_COVERAGE = 0.03
# What a light curve is longer than its last window by, as a share of a window, is left out.
_OVERHANG = 0.05
# Windows that follow each other within so many days belong to one stretch: the last reaches back for a whole window.
_STRETCH = 2.0


@dataclass(frozen=True)
class Placed:
    """A spectrum, or one window of a light curve, on a grid.

    Attributes
    ----------
    spectrum : Spectrum
        What was put there; of a light curve the bins within the window, whose axis runs as the grid's.
    flux, seen : ndarray, shape (count,)
        As `survey_io.spectral_grid.resample`.
    start : float
        What leads from the grid's places to those of the file, in the grid's unit: 0 for spectra, of a light curve the
        time at the grid's 0.
    """

    spectrum: Spectrum
    flux: np.ndarray
    seen: np.ndarray
    start: float = 0.0


def place(spectrum: Spectrum, grid: SpectralGrid) -> tuple[Placed, ...]:
    """A spectrum, or the windows of a light curve, on a model's grid.

    Times begin anywhere, so that the grid counts from a light curve's first bin. One that is longer than the grid gives
    several windows: each begins with the first bin after the one before, and the last reaches back over it to be whole.
    It is not binned down: transits of an hour would vanish. Magnitudes become fluxes.

    Returns
    -------
    tuple of Placed
        One, but for long light curves.

    Raises
    ------
    InputError
        When hardly anything of the grid was observed, or the axis is of another kind.
    """
    if spectrum.is_series and grid.axis_unit.physical_type == "time":
        pieces = _windows(_as_flux(spectrum), grid)
    else:
        pieces = [(spectrum, 0.0)]
    placed = [Placed(piece, *resample(piece, grid), start) for piece, start in pieces]
    good = tuple(one for one in placed if (one.seen >= 0.5).mean() >= LEAST_COVERAGE)
    if good:
        return good
    covered = max((float((one.seen >= 0.5).mean()) for one in placed), default=0.0)
    ends, unit = grid.centres()[[0, -1]], grid.unit
    if spectrum.is_series:
        length = grid.count * grid.step
        raise InputError(
            f"{spectrum.path}: expected a light curve with {LEAST_COVERAGE * length:.2g} {unit} of data or more, "
            f"{spectrum.name!r} fills {covered:.1%} of the {length:.3g} {unit} that the model reads; check the unit of "
            "its axis, or use another model"
        )
    raise InputError(
        f"{spectrum.path}: expected a spectrum that covers part of {ends[0]:.6g} to {ends[1]:.6g} {unit}, "
        f"{spectrum.name!r} runs from {spectrum.axis[0]:.6g} to {spectrum.axis[-1]:.6g} {spectrum.unit} and covers "
        f"{covered:.1%} of it; check the unit of its axis, or use another model"
    )


def _windows(spectrum: Spectrum, grid: SpectralGrid) -> list[tuple[Spectrum, float]]:
    """Pieces of a light curve as long as the grid, their axes counted from the grid's 0, which lies at ``start``."""
    scale = spectrum.unit.to(grid.axis_unit)
    low, high = (side * scale for side in bin_edges(spectrum.axis))
    there = np.flatnonzero(np.isfinite(spectrum.flux))
    edges = grid.edges()
    length = edges[-1] - edges[0]
    found, begin = [], float(low[there[0]])
    while True:
        inside = there[(low[there] >= begin - 1e-9) & (low[there] < begin + length)]
        start = begin - edges[0]
        keep = slice(inside[0], inside[-1] + 1)
        error = None if spectrum.error is None else spectrum.error[keep]
        axis = (spectrum.axis[keep] * scale - start) / scale
        # A window with less than two bins has no bin width; it is as good as empty.
        if len(axis) >= 2:
            found.append((replace(spectrum, axis=axis, flux=spectrum.flux[keep], error=error), start))
        after = there[there > inside[-1]]
        if not len(after) or (high[there[-1]] - high[inside[-1]] < _OVERHANG * length):
            return found
        nearest, last = float(low[after[0]]), float(high[after[-1]])
        begin = nearest
        if last - nearest < length and nearest - high[inside[-1]] < _STRETCH:
            begin = float(low[there[low[there] >= last - length - 1e-9][0]])


def _as_flux(spectrum: Spectrum) -> Spectrum:
    """Dips of a light curve in magnitudes go up; as a flux they go down."""
    if not (spectrum.flux_unit == u.mag or isinstance(spectrum.flux_unit, u.MagUnit)):
        return spectrum
    relative = 10 ** (-0.4 * (spectrum.flux - np.nanmedian(spectrum.flux)))
    return replace(spectrum, flux=relative, flux_unit=u.dimensionless_unscaled, error=None)


def told_windows(
    raw: np.ndarray, owner: Sequence[int], answers: Answers, calibration: AnswerCalibration, background: str | None
) -> np.ndarray:
    """Which window of each light curve the table tells of: the one least likely to be of the background's class.

    Parameters
    ----------
    raw : ndarray, shape (N, outputs)
        A network's answers to all windows.
    owner : sequence of int, length N
        Numbers of the spectra that they belong to, ascending.
    answers : Answers
    calibration : AnswerCalibration
    background : str, optional
        The class that says that nothing was found; without one the first window is told of.

    Returns
    -------
    ndarray of int
        One row of ``raw`` for each spectrum.
    """
    owner = np.asarray(owner, int)
    if not len(owner):
        return np.empty(0, int)
    if background is None:
        return np.unique(owner, return_index=True)[1]
    chance = calibration.probability(raw, answers)[:, answers.classes.index(background)]
    order = np.lexsort((chance, owner))
    return order[np.unique(owner[order], return_index=True)[1]]
