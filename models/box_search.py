"""Search for periodic dips by box least squares (Kovacs, Zucker & Mazeh 2002), for many light curves at once.

Trial periods of similar length share a sparse matrix, which folds all curves on them in one product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

# Trial periods, days: as many as keep events of every duration together over a window of 28.4 days.
PERIODS = (0.45, 14.3)
TRIALS = 2048
# Bins of 10 minutes, the time resolutions in bins (short periods have short transits), and where the first ends.
STEP_DAYS, STEPS, SPLIT = 1 / 144, (2, 4), 3.0
# Duration of a central transit of the Sun at a period of one day, in days; it grows with the cube root of the period.
SOLAR_DURATION = 0.0757
# Boxes, over that: small stars and grazing passages, large stars.
BOXES = (0.45, 0.8, 1.4)
# Boxes of which less than this share was observed tell little.
_LEAST = 0.4
# Trial periods that differ by less than this share a number of phase bins.
_GROUP = 0.06


@dataclass(frozen=True)
class _Fold:
    """Trial periods with one number of phase bins: a matrix that folds curves of one time resolution on all of them.

    Small enough for what it makes of a batch to stay in a processor's cache.
    """

    step: int
    matrix: sparse.csr_array
    periods: slice
    bins: int
    boxes: tuple[int, ...]


def trial_periods() -> np.ndarray:
    """The trial periods, descending, days, shape (TRIALS,).

    Evenly spaced in the cube root of frequency, as transits around stars of one density need it (Ofir 2014).
    """
    low, high = (period ** (-1 / 3) for period in PERIODS[::-1])
    return np.linspace(low, high, TRIALS) ** -3.0


def usual_duration(period: np.ndarray | float) -> np.ndarray | float:
    """Duration of a central transit of a star of the Sun's density, days."""
    return SOLAR_DURATION * np.asarray(period) ** (1 / 3)


@lru_cache(maxsize=2)
def _folds(length: int) -> tuple[_Fold, ...]:
    periods = trial_periods()
    made = []
    for step, use in zip(STEPS, (periods < SPLIT, periods >= SPLIT), strict=True):
        chosen = np.flatnonzero(use)
        day = step * STEP_DAYS
        time = (np.arange(-(-length // step)) + 0.5) * day
        first = chosen[0]
        while first <= chosen[-1]:
            inside = chosen[(chosen >= first) & (periods[chosen] > periods[first] * (1 - _GROUP))]
            middle = float(np.sqrt(periods[inside[0]] * periods[inside[-1]]))
            bins = round(middle / day)
            boxes = tuple(sorted({max(1, round(usual_duration(middle) * one / day)) for one in BOXES}))
            phase = (time[None] / periods[inside][:, None]) % 1.0
            place = np.minimum((phase * bins).astype(int), bins - 1) + np.arange(len(inside))[:, None] * bins
            column = np.broadcast_to(np.arange(len(time)), place.shape)
            matrix = sparse.csr_array(
                (np.ones(place.size, np.float32), (place.ravel(), column.ravel())), (bins * len(inside), len(time))
            )
            made.append(_Fold(step, matrix, slice(inside[0], inside[-1] + 1), bins, boxes))
            first = inside[-1] + 1
    return tuple(made)


def box_periodogram(flat: np.ndarray, weight: np.ndarray, *, penalty: np.ndarray | None = None) -> np.ndarray:
    """S/N of the best box at each trial period.

    Parameters
    ----------
    flat : ndarray, shape (N, L)
        Flux in units of its noise, around 0, in bins of 10 minutes.
    weight : ndarray, shape (N, L)
        1 where there is flux, 0 where not.
    penalty : ndarray, shape (N, boxes), optional
        What S/N is divided by for each of `BOXES`: how much more means of so many bins scatter than white noise lets
        them (see `red_noise`).

    Returns
    -------
    ndarray of float32, shape (N, TRIALS)
        S/N of the depth, as of `trial_periods`; 0 or more.
    """
    curves, length = flat.shape
    used = np.maximum(weight.sum(axis=1, keepdims=True), 1.0).astype(np.float32)
    centred = weight * (flat - (weight * flat).sum(axis=1, keepdims=True) / used)
    found = np.zeros((TRIALS, curves), np.float32)
    both = np.concatenate([centred, weight], axis=0).astype(np.float32)
    grouped = {}
    for step in STEPS:
        padded = np.pad(both, ((0, 0), (0, -length % step)))
        grouped[step] = np.ascontiguousarray(padded.reshape(2 * curves, -1, step).sum(axis=2).T)
    for fold in _folds(length):
        rows = (fold.matrix @ grouped[fold.step]).reshape(-1, fold.bins, 2 * curves)
        total = np.empty((len(rows), fold.bins + fold.boxes[-1] + 1, 2 * curves), np.float32)
        total[:, 0] = 0.0
        np.cumsum(rows, axis=1, out=total[:, 1 : fold.bins + 1])
        # Boxes over the end of the phases go on at their beginning.
        np.add(total[:, 1 : fold.boxes[-1] + 1], total[:, fold.bins, None], out=total[:, fold.bins + 1 :])
        for order, box in enumerate(fold.boxes):
            inside = total[:, box : box + fold.bins] - total[:, : fold.bins]
            lost, count = inside[..., :curves], inside[..., curves:]
            # Little of a box was observed: its S/N is held down by what should have been.
            np.maximum(count, _LEAST * box / fold.bins * used[:, 0], out=count)
            # S/N with its sign, squared: roots are for the winners.
            power = np.abs(lost)
            power *= lost
            power /= count
            best = np.sqrt(np.maximum(-power.min(axis=1), 0.0))
            if penalty is not None:
                best /= penalty[:, min(order, penalty.shape[1] - 1)]
            np.maximum(found[fold.periods], best, out=found[fold.periods])
    return found.T


def box_sums(flat: np.ndarray, weight: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of flux and weight over ``bins`` bins from each bin on, shape (N, L - bins + 1) each."""
    sums = []
    for one in (weight * flat, weight):
        total = np.zeros((len(one), one.shape[1] + 1))
        np.cumsum(one, axis=1, out=total[:, 1:])
        sums.append(total[:, bins:] - total[:, :-bins])
    return sums[0], sums[1]


def red_noise(flat: np.ndarray, weight: np.ndarray, bins: int) -> np.ndarray:
    """Scatter of means over ``bins`` bins over that of white noise, shape (N,), 1 or more (Pont et al. 2006)."""
    total, count = box_sums(flat, weight, bins)
    ratio = np.ones(len(flat))
    for row, (sums, number) in enumerate(zip(total, count, strict=True)):
        full = number >= 0.7 * bins
        if full.sum() >= 50:
            scaled = sums[full] / np.sqrt(number[full])
            ratio[row] = 1.4826 * np.median(np.abs(scaled - np.median(scaled)))
    return np.maximum(ratio, 1.0)


@dataclass(frozen=True)
class Ephemeris:
    """A periodic box: days, and S/N of its depth; ``depth`` is in units of the noise of a bin."""

    period: float
    epoch: float
    duration: float
    depth: float
    snr: float


def best_box(flat: np.ndarray, weight: np.ndarray, periods: np.ndarray) -> Ephemeris:
    """The best box among a few periods, of one curve, on a fine raster of epochs and durations.

    Parameters
    ----------
    flat, weight : ndarray, shape (L,)
        As for `box_periodogram`.
    periods : ndarray
        Days, close to each other.
    """
    time = np.flatnonzero(weight > 0) * STEP_DAYS
    values = flat[weight > 0]
    used = len(values)
    middle = float(np.median(periods))
    if not used:
        return Ephemeris(middle, 0.0, float(usual_duration(middle)), 0.0, 0.0)
    bins = int(np.clip(round(middle / STEP_DAYS), 24, 1024))
    width = middle / bins
    usual = float(usual_duration(middle))
    boxes = sorted({max(1, round(usual * share / width)) for share in (0.3, 0.45, 0.65, 0.9, 1.2, 1.6)})
    boxes = [box for box in boxes if box <= bins // 3] or [1]
    phase = ((time[None] / periods[:, None]) % 1.0 * bins).astype(int)
    place = (np.minimum(phase, bins - 1) + bins * np.arange(len(periods))[:, None]).ravel()
    sums = np.bincount(place, np.tile(values - values.mean(), len(periods)), bins * len(periods))
    count = np.bincount(place, minlength=bins * len(periods))
    total = []
    for one in (sums, count):
        rows = one.reshape(len(periods), bins)
        rows = np.concatenate([np.zeros((len(rows), 1)), rows, rows[:, : boxes[-1]]], axis=1)
        total.append(np.cumsum(rows, axis=1))
    best = Ephemeris(middle, 0.0, usual, 0.0, 0.0)
    for box in boxes:
        lost, number = (one[:, box : box + bins] - one[:, :bins] for one in total)
        power = -lost / np.sqrt(np.maximum(number * (1 - number / used), 1e-3))
        power[number < _LEAST * box / bins * used] = 0.0
        row, start = np.unravel_index(power.argmax(), power.shape)
        if power[row, start] > best.snr:
            depth = -lost[row, start] / number[row, start] * used / max(used - number[row, start], 1)
            period = float(periods[row])
            epoch = (start + 0.5 * box) / bins * period % period
            best = Ephemeris(period, float(epoch), box / bins * period, float(depth), float(power[row, start]))
    return best
