"""Grids that networks read spectra on, and the way onto them: flux is conserved, what is missing stays missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from scipy.ndimage import median_filter

from .errors import InputError

if TYPE_CHECKING:
    from .spectrum import Spectrum

__all__ = ["MIN_SEEN", "SpectralGrid", "bin_edges", "resample"]

# A bin of which less was observed has no flux: its mean would be that of another place, which moves lines.
MIN_SEEN = 0.5
# Neighbours farther apart than so many usual distances have nothing measured between them: rows that somebody dropped
# (one is bridged), the gap between two arms of a spectrograph, a night.
GAP = 2.5
_USUAL = 11
# Pieces below this share of a bin come from the rounding of edges.
_SLIVER = 1e-9
_PER_FREQUENCY = {"spectral flux density", "photon flux density", "surface brightness", "photon surface brightness"}
_DOPPLER = {"radio": u.doppler_radio, "optical": u.doppler_optical, "relativistic": u.doppler_relativistic}


@dataclass(frozen=True)
class SpectralGrid:
    """Bins in ascending order.

    Attributes
    ----------
    start, step : float
        Centre of the first bin, and the distance of two, in ``unit``; of a logarithmic grid the first centre, and the
        distance in natural logs.
    count : int
        Number of bins.
    unit : str
        As astropy spells it: "Angstrom", "GHz", "km/s", "d".
    spacing : str
        "linear" or "log".
    """

    start: float
    step: float
    count: int
    unit: str
    spacing: str = "linear"

    def centres(self) -> np.ndarray:
        """Centres of the bins, shape (count,), float64."""
        return self._at(np.arange(self.count))

    def edges(self) -> np.ndarray:
        """Edges of the bins, shape (count + 1,), float64."""
        return self._at(np.arange(self.count + 1) - 0.5)

    def _at(self, place: np.ndarray) -> np.ndarray:
        if self.spacing == "log":
            return self.start * np.exp(self.step * place)
        return self.start + self.step * place

    @property
    def axis_unit(self) -> u.UnitBase:
        """The unit as astropy's object."""
        return u.Unit(self.unit)


def resample(spectrum: Spectrum, grid: SpectralGrid) -> tuple[np.ndarray, np.ndarray]:
    """Mean flux of a spectrum in each bin of a grid, by the overlap of the bins' edges.

    The integral over any stretch that both cover is that of the spectrum. Bins of the spectrum wider than those of the
    grid are read as parabolas that meet halfway between neighbours at the common edge and keep each bin's integral (as
    in the piecewise parabolic method of Colella & Woodward 1984, without limiters), so that a coarse spectrum becomes
    a smooth one; a lone spike overshoots by a quarter. Whatever the axis becomes, a flux density stays what the file
    has: per wavelength or per frequency; the mean is over that quantity where the flux's unit tells it, else over the
    spectrum's own axis. Velocity frames and redshifts are left alone.

    Parameters
    ----------
    spectrum : Spectrum
        At least two bins, ascending. NaN fluxes do not contribute.
    grid : SpectralGrid
        In velocity it counts in the convention of the spectrum.

    Returns
    -------
    flux : ndarray of float64, shape (grid.count,)
        In the spectrum's unit, NaN where less than `MIN_SEEN` of a bin was observed.
    seen : ndarray of float64, shape (grid.count,)
        Fraction of each bin that was observed, 0 to 1; all 0 where the two do not overlap.

    Raises
    ------
    InputError
        When the axis cannot become the grid's: time and wavelength, or a velocity without rest frequency.
    """
    measure = _measure(spectrum)
    edges = _convert(grid.edges(), grid.axis_unit, measure, spectrum)
    low, high = (_convert(side, spectrum.unit, measure, spectrum) for side in bin_edges(spectrum.axis))
    flux = np.asarray(spectrum.flux, np.float64)
    backwards = edges[0] > edges[-1]
    if backwards:
        edges = edges[::-1]
    if low[0] > low[-1]:
        low, high, flux = high[::-1], low[::-1], flux[::-1]
    mean, seen = _overlap(low, high, flux, edges)
    if backwards:
        mean, seen = mean[::-1], seen[::-1]
    return np.where(seen < MIN_SEEN, np.nan, mean), seen


def bin_edges(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edges of the bins around ascending centres, each of shape (N,).

    They lie halfway between neighbours, halfway in logs where the logs of the centres are spaced more evenly. Beside
    a gap a bin is as wide as is usual around it.
    """
    axis = np.asarray(axis, np.float64)
    step = np.diff(axis)
    if _uneven(step) > _SLIVER and axis[0] > 0:
        logs = np.log(axis)
        log_step = np.diff(logs)
        if _uneven(log_step) < _uneven(step):
            low, high = _halfway(logs, log_step)
            return np.exp(low), np.exp(high)
    return _halfway(axis, step)


def _uneven(step: np.ndarray) -> float:
    """Spread of the middle half of the steps, relative to a step: gaps do not matter."""
    n = len(step)
    ordered = np.partition(step, (n // 4, n // 2, n - 1 - n // 4))
    return float((ordered[n - 1 - n // 4] - ordered[n // 4]) / ordered[n // 2])


def _halfway(axis: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reach = 0.5 * step
    if step.max() > GAP * step.min():
        usual = median_filter(step, _USUAL, mode="nearest")
        reach = np.where(step > GAP * usual, 0.5 * usual, reach)
    above, below = np.append(reach, reach[-1]), np.insert(reach, 0, reach[0])
    low, high = axis - below, axis + above
    # Neighbours that touch share one number, so that rounding opens no slit.
    touching = reach == 0.5 * step
    low[1:][touching] = high[:-1][touching]
    return low, high


def _overlap(
    low: np.ndarray, high: np.ndarray, flux: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of what was observed in each bin, and how much of it was; every array ascends.

    A bin of the grid takes the rest of the bin in which it begins, whole bins, and the head of the one in which it
    ends. These sums stay local: differences of a running integral would carry the rounding of one huge outlier to all
    that follows it.
    """
    width, count = np.diff(edges), len(edges) - 1
    first, last = np.searchsorted(high, edges[0], "right"), np.searchsorted(low, edges[-1], "left")
    if last <= first:
        return np.full(count, np.nan), np.zeros(count)
    # One bin more on each side, as neighbours of parabolas.
    near = slice(max(first - 1, 0), last + 1)
    low, high, flux = low[near], high[near], flux[near]
    own, good = high - low, np.isfinite(flux)
    value = np.where(good, flux, 0.0)
    place = np.searchsorted(low, edges, "right") - 1
    start, stop = place[:-1], place[1:]
    spans = np.empty(2 * count, np.intp)
    spans[::2], spans[1::2] = start + 1, np.maximum(stop, 0)
    length = np.append(np.where(good, own, 0.0), 0.0)
    between = stop > start + 1
    seen = np.where(between, np.add.reduceat(length, spans)[::2], 0.0)
    total = np.where(between, np.add.reduceat(length * np.append(value, 0.0), spans)[::2], 0.0)
    coarse = own.max() > width.min()
    if coarse:
        left, right = _edge_values(low, high, flux)
        # Told for a whole bin of the spectrum at a time: only whole parabolas keep its integral.
        at = np.clip(np.searchsorted(edges, 0.5 * (low + high), "right") - 1, 0, count - 1)
        narrow = own <= width[at] * (1 + 1e-6)
        left[narrow], right[narrow] = flux[narrow], flux[narrow]
    for source, begin, live in ((start, edges[:-1], start >= 0), (stop, low[stop], stop > start)):
        end = np.minimum(edges[1:], high[source])
        part = np.where(live & good[source], end - begin, 0.0)
        part[part < _SLIVER * width] = 0.0
        mean = value[source]
        if coarse:
            some = np.flatnonzero(part)
            at = source[some]
            a, b = ((side[some] - low[at]) / own[at] for side in (begin, end))
            mean[some] = _parabola_mean(a, b, value[at], left[at], right[at])
        seen += part
        total += part * mean
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / seen, np.minimum(seen / width, 1.0)


def _edge_values(low: np.ndarray, high: np.ndarray, flux: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flux at the lower and upper edge of each bin: between it and its neighbour, its own beside a gap or NaN."""
    own = high - low
    between = (flux[:-1] * own[1:] + flux[1:] * own[:-1]) / (own[1:] + own[:-1])
    between[~((low[1:] == high[:-1]) & np.isfinite(between))] = np.nan
    left, right = np.insert(between, 0, np.nan), np.append(between, np.nan)
    return np.where(np.isnan(left), flux, left), np.where(np.isnan(right), flux, right)


def _parabola_mean(
    a: np.ndarray, b: np.ndarray, mean: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Mean from ``a`` to ``b`` (0 to 1 within the bin) of the parabola with these edge values and this mean."""
    bend = 6 * (mean - 0.5 * (left + right))
    # The integral is left t + (right - left + bend) t^2 / 2 - bend t^3 / 3; divided by b - a it needs no differences.
    return left + 0.5 * (right - left + bend) * (a + b) - bend / 3 * (a * a + a * b + b * b)


def _measure(spectrum: Spectrum) -> u.UnitBase:
    """The quantity over which the flux is a density."""
    kinds = set(spectrum.flux_unit.physical_type)
    if spectrum.unit.is_equivalent(u.Hz, u.spectral()):
        if kinds & _PER_FREQUENCY:
            return u.Hz
        if kinds & {f"{kind} wav" for kind in _PER_FREQUENCY}:
            return u.Angstrom
    return spectrum.unit


def _convert(values: np.ndarray, unit: u.UnitBase, into: u.UnitBase, spectrum: Spectrum) -> np.ndarray:
    if unit == into:
        return values
    velocity = [one.is_equivalent(u.km / u.s) for one in (unit, into)]
    if any(velocity) and not all(velocity):
        if spectrum.rest_frequency is None:
            raise InputError(
                f"{spectrum.path}: expected a rest frequency to turn velocities into {_other(unit, into)}, "
                f"{spectrum.name} has none; give it, in Hz (HI: 1420405751.768)",
                path=spectrum.path,
            )
        shift = _DOPPLER[spectrum.convention](spectrum.rest_frequency * u.Hz)
    else:
        shift = u.spectral()
    try:
        with np.errstate(divide="ignore"):
            return unit.to(into, values, equivalencies=shift)
    except u.UnitConversionError:
        raise InputError(
            f"{spectrum.path}: expected an axis of the kind of {unit}, {spectrum.name} has one in {spectrum.unit}; "
            "choose a model for this kind of data",
            path=spectrum.path,
        ) from None


def _other(unit: u.UnitBase, into: u.UnitBase) -> str:
    return str(into if unit.is_equivalent(u.km / u.s) else unit)
