"""Continuum and noise of a spectrum: running medians that neither lines nor gaps move.

The median is that of a window wide against lines, taken at nodes an eighth of it apart and joined by straight lines.
Lines that stand out are masked and the medians taken again. At the ends the spectrum is continued by point reflection,
so that a slope stays a slope.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

__all__ = ["WINDOW", "estimate_continuum", "running_median"]

Array = NDArray[np.float64]

# Channels of the window: three times the widest line that the detectors of lines know.
WINDOW = 501
NODES_PER_WINDOW = 8
# A median absolute deviation times this is the rms of Gaussian noise.
MAD_TO_RMS = 1.4826
# Lines are masked where the mean of so many channels departs by this many sigma; so often.
LINE_WIDTHS, LINE_SIGMA, ROUNDS = (1, 4, 12, 36, 90), 4.0, 3
# A masked run longer than this share of the window is a bend of the continuum, not a line.
LONGEST_LINE = 1.2
# What lies in the window of something of the other sign is masked from this share of its S/N.
TROUGH = 0.5
# Gaps and masked lines longer than this share of the window are bridged by a straight line between the medians of so
# many channels on either side: a window that reaches over a gap sees one side of a slope.
BRIDGED, PIER = 0.06, 0.12
# Where more of the channels than this share would be masked, none are.
MOST_LINES = 0.85
# A node needs this share of its window's channels to have a median of its own.
LEAST_SHARE = 0.15
# Medians of absolute values of exactly constant channels are rounding, not noise: below this part of the values.
ROUNDING = 1e-13


def running_median(values: Array, window: int, *, reflect: bool = True) -> Array:
    """Median of the finite values around each channel.

    Parameters
    ----------
    values : ndarray, shape (n,)
        NaN where blank.
    window : int
        Channels, at least 3; no more than the spectrum has are used.
    reflect : bool
        Continue the spectrum at its ends by point reflection; otherwise windows end there, as is right for what has no
        slope (absolute deviations).

    Returns
    -------
    ndarray, shape (n,)
        Without gaps; NaN throughout where no window holds enough channels.
    """
    values = np.asarray(values, np.float64)
    count = len(values)
    half = max(1, min(window, count) // 2)
    step = max(1, 2 * half // NODES_PER_WINDOW)
    nodes = np.unique(np.append(np.arange(0, count, step), count - 1))
    padded = np.full(count + 2 * half, np.nan)
    padded[half : half + count] = values
    if reflect:
        _continue_ends(padded, half, count)
    windows = np.sort(sliding_window_view(padded, 2 * half + 1)[nodes], axis=1)
    usable = np.isfinite(windows).sum(axis=1)
    rows = np.arange(len(nodes))
    lower, upper = np.maximum(usable - 1, 0) // 2, usable // 2
    median = 0.5 * (windows[rows, lower] + windows[rows, np.minimum(upper, 2 * half)])
    good = usable >= max(3, LEAST_SHARE * (2 * half + 1))
    if not good.any():
        return np.full(count, np.nan)
    return np.interp(np.arange(count), nodes[good], median[good])


def _continue_ends(padded: Array, half: int, count: int) -> None:
    """Point reflection about a robust value of each end, in place."""
    near, inner = max(1, half // 2), padded[half : half + count]
    if not (np.isfinite(inner[:near]).any() and np.isfinite(inner[-near:]).any()):
        return
    reach = min(half, count)
    first, last = _resistant_line(inner[:near])[0], _resistant_line(inner[::-1][:near])[0]
    padded[half - reach : half] = 2 * first - inner[:reach][::-1]
    padded[half + count : half + count + reach] = 2 * last - inner[count - reach :][::-1]


def _resistant_line(values: Array) -> tuple[float, float]:
    """Value at the first of some channels, and slope, of Tukey's resistant line, by the medians of the outer thirds."""
    third = len(values) // 3
    parts = (values[:third], values[len(values) - third :])
    if third < 4 or not all(np.isfinite(part).sum() > 2 for part in parts):
        return float(np.nanmedian(values)), 0.0
    near, far = (float(np.nanmedian(part)) for part in parts)
    slope = (far - near) / (len(values) - third)
    return float(np.nanmedian(values - slope * np.arange(len(values)))), slope


def estimate_continuum(flux: Array, *, error: Array | None = None, window: int = WINDOW) -> tuple[Array, Array]:
    """Continuum and rms of the noise of a spectrum.

    Parameters
    ----------
    flux : ndarray, shape (n,)
        NaN where blank.
    error : ndarray, shape (n,), optional
        Standard deviations that the file gives: the noise follows their course, scaled to the scatter that is seen.
    window : int
        Channels.

    Returns
    -------
    level : ndarray, shape (n,)
        In the unit of the flux, without gaps.
    rms : ndarray, shape (n,)
        NaN where there is no noise to be seen: fewer than 10 channels, or all alike.
    """
    flux = np.asarray(flux, np.float64)
    level, rms = np.full(len(flux), np.nan), np.full(len(flux), np.nan)
    for part in _pieces(np.isfinite(flux), window // 2):
        own = None if error is None else error[part]
        level[part], rms[part] = _estimate(flux[part], own, window)
    return level, rms


def _pieces(finite: NDArray[np.bool_], longest: int) -> list[slice]:
    """Stretches of a spectrum between gaps longer than that, each from its first to its last finite channel."""
    index = np.flatnonzero(finite)
    if len(index) == 0:
        return []
    breaks = np.flatnonzero(np.diff(index) > longest)
    starts = np.r_[index[0], index[breaks + 1]]
    ends = np.r_[index[breaks], index[-1]] + 1
    return [slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def _estimate(flux: Array, error: Array | None, window: int) -> tuple[Array, Array]:
    scale = np.ones(len(flux)) if error is None else np.where(error > 0, error, np.nan)
    if np.isfinite(flux).sum() < 10 or not np.isfinite(scale * flux).any():
        level = np.full(len(flux), np.nanmedian(flux))
        return level, np.full(len(flux), np.nan)
    level = running_median(_bridged(flux, window), window)
    lines = np.zeros(len(flux), bool)
    for turn in range(ROUNDS):
        deviation = (flux - level) / scale
        off = np.where(lines, np.nan, deviation)
        rms = MAD_TO_RMS * running_median(np.abs(off), window, reflect=False)
        if turn == ROUNDS - 1:
            break
        # A line that fills half of a window passes for noise there, but not to the left and the right of it.
        quiet = minimum_filter1d(rms, min(window, len(flux)), mode="nearest")
        with np.errstate(divide="ignore", invalid="ignore"):
            lines = _line_channels(deviation / quiet, min(window, len(flux)))
        if lines[np.isfinite(flux)].mean() > MOST_LINES:
            # A continuum that bends all along, or noise of its own kind: nothing is left to tell lines from.
            lines[:] = False
        again = running_median(_bridged(np.where(lines, np.nan, flux), window), window)
        level = again if np.isfinite(again).all() else level
    smallest = ROUNDING * np.nanmax(np.abs(flux))
    noise = rms * scale
    return level, np.where(noise > smallest, noise, np.nan)


def _bridged(values: Array, window: int) -> Array:
    """The values with long gaps filled by straight lines between, or at an end from, what lies beside them."""
    window = min(window, len(values))
    least, pier, beside = max(8, round(BRIDGED * window)), max(8, round(PIER * window)), max(8, window // 2)
    filled = values.copy()
    edges = np.flatnonzero(np.diff(np.r_[False, np.isnan(values), False])).reshape(-1, 2)
    for first, last in edges:
        if first == 0 and last == len(values):
            break
        if first == 0:
            filled[:last] = _extended(values[last : last + beside], last)[::-1]
        elif last == len(values):
            filled[first:] = _extended(values[max(first - beside, 0) : first][::-1], last - first)
        elif last - first >= least:
            left, right = values[max(first - pier, 0) : first], values[last : last + pier]
            ends = (first - 0.5 * len(left), last + 0.5 * len(right))
            heights = (float(np.nanmedian(left)), float(np.nanmedian(right)))
            filled[first:last] = np.interp(np.arange(first, last), ends, heights)
    return filled


def _extended(beside: Array, count: int) -> Array:
    """Straight continuation before some channels (the nearest first), the nearest of which comes first."""
    if not np.isfinite(beside).any():
        return np.full(count, np.nan)
    first, slope = _resistant_line(beside)
    return first - slope * (1 + np.arange(count))


def _line_channels(snr: Array, window: int) -> NDArray[np.bool_]:
    """Channels of what stands out of the noise at any width, in runs not much longer than the window."""
    finite = np.isfinite(snr)
    # One wild channel must not mask its surroundings.
    clean = np.clip(np.where(finite, snr, 0.0), -12, 12)
    total, seen = np.r_[0.0, np.cumsum(clean)], np.r_[0, np.cumsum(finite)]
    lines = np.zeros(len(snr), bool)
    count = len(snr)
    for width in LINE_WIDTHS:
        if 3 * width > count:
            break
        first = np.clip(np.arange(count) - width // 2, 0, count)
        last = np.clip(first + width, 0, count)
        mean = (total[last] - total[first]) / np.sqrt(np.maximum(seen[last] - seen[first], 1))
        # A bright line drags the level along and leaves troughs beside it: those are no lines.
        against = [maximum_filter1d(sign * mean, window, mode="nearest") for sign in (-1, 1)]
        out = np.abs(mean) > np.maximum(LINE_SIGMA, TROUGH * np.where(mean > 0, *against))
        lines |= _grown(out, width // 4 + 1) if width > 1 else out
    edges = np.flatnonzero(np.diff(np.r_[False, lines, False]))
    for first, last in edges.reshape(-1, 2):
        if last - first > LONGEST_LINE * window:
            lines[first:last] = False
    return lines


def _grown(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    total = np.r_[0, np.cumsum(mask)]
    index = np.arange(len(mask))
    return total[np.minimum(index + reach + 1, len(mask))] > total[np.maximum(index - reach, 0)]
