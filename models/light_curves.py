"""Light curves without the slow changes of star and telescope, in units of their noise; all arrays are (N, L)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

# Slow is what a parabola over 1.25 days follows, longer than three times the longest transits; of stars that turn or
# pulse too fast for that, what it follows over half a day. Half windows in bins of 10 minutes. With 1.5 days less of
# the faint transits are found, a third in place of two fifths of those of S/N 6 to 8.
LONG, SHORT = 90, 36
# The shorter window is for curves whose means of two hours then scatter so much less.
_CALMER, _TWO_HOURS = 1.4, 12
# Bins farther than so many sigma from the trend do not shape it: dips sooner than rises, since dips are what is sought.
_DIP, _RISE, _ROUNDS = 2.5, 3.0, 3
# Parabolas are fitted to sums of so many bins and held straight where few bins lie under them.
_COARSE, _STIFF = 4, 0.01
# Noise is told from means of so many bins, half an hour: data of that cadence are smooth on the scale of bins.
_GROUP = 3


@dataclass(frozen=True)
class Flattened:
    """Light curves on a grid, flattened.

    Attributes
    ----------
    relative : ndarray of float64, shape (N, L)
        Flux over its median, less 1; 0 where missing. Of a curve that is centred on 0, the flux less its median.
    weight : ndarray of float64, shape (N, L)
        1 where there is flux, else 0.
    flat : ndarray of float64, shape (N, L)
        What is left of ``relative`` when the trend is taken off, over the noise.
    noise : ndarray of float64, shape (N,)
        Standard deviation of a bin, in relative flux, as means of half an hour have it.
    half : ndarray of int, shape (N,)
        Half of the window, in bins, over which the trend follows each curve.
    """

    relative: np.ndarray
    weight: np.ndarray
    flat: np.ndarray
    noise: np.ndarray
    half: np.ndarray


def flatten(flux: np.ndarray) -> Flattened:
    """Flatten light curves.

    Parameters
    ----------
    flux : ndarray, shape (N, L)
        Any unit, NaN where missing.
    """
    flux = np.asarray(flux, np.float64)
    weight = np.isfinite(flux).astype(np.float64)
    level, spread = np.ones(len(flux)), np.zeros(len(flux))
    for row, values in enumerate(flux):
        there = values[np.isfinite(values)]
        if there.size:
            level[row], spread[row] = np.median(there), _mad(there)
    # Somebody else's flattening may have left curves around 0, where a median says nothing.
    scale = np.where(np.abs(level) > spread, np.abs(level), 1.0)
    relative = np.where(weight > 0, (np.nan_to_num(flux) - level[:, None]) / scale[:, None], 0.0)
    rest = relative - slow_trend(relative, weight, LONG)
    half = np.full(len(flux), LONG)
    brisk = relative - slow_trend(relative, weight, SHORT)
    calmer = _scatter(rest, weight, _TWO_HOURS) > _CALMER * _scatter(brisk, weight, _TWO_HOURS)
    rest[calmer], half[calmer] = brisk[calmer], SHORT
    noise = bin_noise(rest, weight)
    return Flattened(relative, weight, np.where(weight > 0, rest / noise[:, None], 0.0), noise, half)


def slow_trend(
    relative: np.ndarray, weight: np.ndarray, half: int, *, masked: np.ndarray | None = None
) -> np.ndarray:
    """Local parabolas through light curves, shape (N, L), which heed neither dips nor flares.

    Parameters
    ----------
    relative, weight : ndarray, shape (N, L)
        As in `Flattened`.
    half : int
        Half of the window that a parabola fits, in bins.
    masked : ndarray of bool, shape (N, L), optional
        Bins that must not shape the trend: the events of a candidate.
    """
    good = weight if masked is None else weight * ~masked
    # Medians first: a flare bends a parabola so far that what lies beside it looks like a dip.
    trend = _medians(relative, good, half)
    for _ in range(_ROUNDS):
        rest = relative - trend
        sigma = np.array([_mad(row[use]) for row, use in zip(rest, good > 0, strict=True)])[:, None]
        trend = _parabolas(relative, good * ((rest > -_DIP * sigma) & (rest < _RISE * sigma)), half)
    return trend


def bin_noise(rest: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Standard deviation of a bin, shape (N,), from the scatter of means over half an hour; never 0."""
    return np.maximum(_scatter(rest, weight, _GROUP) * np.sqrt(_GROUP), 1e-9)


def _scatter(rest: np.ndarray, weight: np.ndarray, bins: int) -> np.ndarray:
    """Robust standard deviation of means over so many bins that are all there, shape (N,)."""
    count = rest.shape[1] // bins
    shape = (len(rest), count, bins)
    whole = weight[:, : count * bins].reshape(shape).min(axis=2) > 0
    mean = rest[:, : count * bins].reshape(shape).mean(axis=2)
    return np.array([_mad(row[use]) for row, use in zip(mean, whole, strict=True)])


def _mad(values: np.ndarray) -> float:
    """Standard deviation by the median absolute deviation; 0 of nothing."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else 0.0


def _medians(values: np.ndarray, weight: np.ndarray, half: int) -> np.ndarray:
    """Running medians of means over `_COARSE` bins."""
    count, total = _coarse_sums(weight, weight * values)
    at, centres = _places(values.shape[1], count.shape[1])
    found = np.zeros(values.shape)
    for row, (number, sums) in enumerate(zip(count, total, strict=True)):
        known = number > 0
        if known.any():
            filled = np.interp(centres, centres[known], sums[known] / number[known])
            found[row] = np.interp(at, centres, median_filter(filled, 2 * (half // _COARSE) + 1, mode="nearest"))
    return found


def _coarse_sums(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    pad = ((0, 0), (0, -arrays[0].shape[1] % _COARSE))
    return tuple(np.pad(one, pad).reshape(len(one), -1, _COARSE).sum(axis=2) for one in arrays)


def _places(length: int, coarse: int) -> tuple[np.ndarray, np.ndarray]:
    """Bins, and middles of the coarse bins."""
    return np.arange(length), _COARSE * np.arange(coarse) + (_COARSE - 1) / 2


def _parabolas(values: np.ndarray, weight: np.ndarray, half: int) -> np.ndarray:
    """Middles of the parabolas that fit best in windows around every bin."""
    count, total = _coarse_sums(weight, weight * values)
    coarse = count.shape[1]
    reach = half // _COARSE
    x = np.arange(coarse) / reach
    low = np.maximum(np.arange(coarse) - reach, 0)
    high = np.minimum(np.arange(coarse) + reach + 1, coarse)

    def window(summand: np.ndarray) -> np.ndarray:
        running = np.zeros((len(summand), coarse + 1))
        np.cumsum(summand, axis=1, out=running[:, 1:])
        return running[:, high] - running[:, low]

    # Moments around the middle of each window, from those around the first bin.
    raw = [window(count * x**power) for power in range(5)]
    own = [window(total * x**power) for power in range(3)]
    m0, m1 = raw[0], raw[1] - x * raw[0]
    m2 = raw[2] - 2 * x * raw[1] + x**2 * raw[0]
    m3 = raw[3] - 3 * x * raw[2] + 3 * x**2 * raw[1] - x**3 * raw[0]
    m4 = raw[4] - 4 * x * raw[3] + 6 * x**2 * raw[2] - 4 * x**3 * raw[1] + x**4 * raw[0]
    y0, y1 = own[0], own[1] - x * own[0]
    y2 = own[2] - 2 * x * own[1] + x**2 * own[0]
    stiff = _STIFF * m0 + 1e-9
    m0, slope, m4 = m0 + 1e-9, m2 + stiff, m4 + stiff
    # Cramer's rule for the constant term of [m0 m1 m2; m1 m2 m3; m2 m3 m4].
    top = y0 * (slope * m4 - m3 * m3) - m1 * (y1 * m4 - m3 * y2) + m2 * (y1 * m3 - slope * y2)
    below = m0 * (slope * m4 - m3 * m3) - m1 * (m1 * m4 - m3 * m2) + m2 * (m1 * m3 - slope * m2)
    middle = top / below
    at, centres = _places(values.shape[1], coarse)
    return np.stack([np.interp(at, centres, row) for row in middle])
