"""What a network sees of a light curve's likeliest periods: folded curves, each event, and numbers; per candidate.

A candidate's curve is flattened again without its own events, so that the trend does not take their depth away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.box_search import (
    BOXES,
    STEP_DAYS,
    Ephemeris,
    best_box,
    box_periodogram,
    box_sums,
    red_noise,
    trial_periods,
    usual_duration,
)
from models.light_curves import SHORT, Flattened, slow_trend

# Candidates a light curve, and the layout of what is told of each.
CANDIDATES = 2
WHOLE, LOCAL, LOCALS, EVENTS, EVENT = 256, 64, 4, 16, 48
SCALARS = (
    "snr", "period", "relative duration", "depth", "duration", "noise", "events", "covered", "odd-even sigma",
    "odd-even share", "second snr", "second share", "second phase", "largest event", "scatter of events", "edge share",
    "peak", "detection efficiency", "red short", "red middle", "red long", "short window", "seen", "folded scatter",
    "once a period", "twice a period",
)  # fmt: skip
PACK = 2048
# A local view reaches so many durations to either side, an event's so many.
_REACH, _EVENT_REACH = 2.5, 2.0
# A single event counts as no more than so many sigma in the search: one deep artefact must not outshine many transits.
# Of transits of S/N 8 to 12 the best period is right for 62% with this limit, 55% with 6, 38% with 10.
_LIMIT, _LIMIT_BINS, _BRIGHTEST = 4.5, (9, 24), 3.0
# Periods in these ratios to a candidate's are that candidate again.
_RATIOS, _SAME = (1 / 3, 0.5, 2 / 3, 1.0, 1.5, 2.0, 3.0), 0.02
_FINE = 13
# Bins of a running median of the periodogram, as of its trend with period.
_BLOCK = 64


@dataclass(frozen=True)
class Search:
    """Periodograms and candidates of light curves.

    Attributes
    ----------
    power : ndarray, shape (N, TRIALS)
        S/N of the best box at each trial period, single events limited, over the excess of red noise.
    efficiency : ndarray, shape (N, TRIALS)
        The same over its trend and scatter: signal detection efficiency.
    red : ndarray, shape (N, boxes)
    found : tuple of tuple of (int, Ephemeris)
        For each curve its candidates: trial and refined box, the best first.
    """

    power: np.ndarray
    efficiency: np.ndarray
    red: np.ndarray
    found: tuple[tuple[tuple[int, Ephemeris], ...], ...]


def search(curves: Flattened) -> Search:
    """Find each curve's likeliest periods."""
    calm = limit_events(curves.flat, curves.weight)
    spans = [max(1, round(usual_duration(3.0) * one / STEP_DAYS)) for one in BOXES]
    red = np.stack([red_noise(curves.flat, curves.weight, bins) for bins in spans], axis=1)
    power = box_periodogram(calm, curves.weight, penalty=red)
    found = []
    periods = trial_periods()
    for row, whole in enumerate(power):
        rest, chosen = whole.copy(), []
        for _ in range(CANDIDATES):
            trial = int(rest.argmax())
            near = np.linspace(periods[max(trial - 1, 0)], periods[min(trial + 1, len(periods) - 1)], _FINE)
            chosen.append((trial, best_box(calm[row], curves.weight[row], near)))
            for ratio in _RATIOS:
                rest[np.abs(periods / (periods[trial] * ratio) - 1) < _SAME] = 0.0
        found.append(tuple(chosen))
    return Search(power, detection_efficiency(power), red, tuple(found))


def limit_events(flat: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Flux in which no single dip has more than `_LIMIT` sigma in boxes of 1.5 and 4 hours, and no bin rises far."""
    calm = flat
    for bins in _LIMIT_BINS:
        total, count = box_sums(calm, weight, bins)
        sigma = np.where(count >= 0.3 * bins, -total / np.sqrt(np.maximum(count, 1)), 0.0)
        excess = np.maximum(sigma / _LIMIT, 1.0)
        if (excess > 1).any():
            factor = np.ones(calm.shape)
            for shift in range(bins):
                part = factor[:, shift : shift + excess.shape[1]]
                np.maximum(part, excess, out=part)
            calm = np.where(calm < 0, calm / factor, calm)
    return np.minimum(calm, _BRIGHTEST)


def detection_efficiency(power: np.ndarray) -> np.ndarray:
    """Periodograms (N, TRIALS) less their trend, over their scatter (Kovacs et al. 2002)."""
    blocks = np.median(power.reshape(len(power), -1, _BLOCK), axis=2)
    centres = _BLOCK * (np.arange(blocks.shape[1]) + 0.5)
    trend = np.stack([np.interp(np.arange(power.shape[1]), centres, row) for row in blocks])
    rest = power - trend
    return rest / np.maximum(rest.std(axis=1, keepdims=True), 1e-6)


def mirror(given: np.ndarray, *, backwards: bool, swapped: bool) -> np.ndarray:
    """A network's inputs (N, channels, L) with time running backwards, or odd events taken for even ones.

    Neither makes another star of it, so that training may see each of them.
    """
    packs = given[:, 3].reshape(len(given), CANDIDATES, PACK).copy()
    ends = np.cumsum([2 * WHOLE, 2 * LOCALS * LOCAL, EVENTS * EVENT])
    views = (packs[:, :, first:last] for first, last in zip((0, *ends[:-1]), ends, strict=True))
    shapes = ((2, WHOLE), (LOCALS, 2, LOCAL), (EVENTS, EVENT))
    whole, local, events = (
        view.reshape(len(given), CANDIDATES, *shape) for view, shape in zip(views, shapes, strict=True)
    )
    if swapped:
        local = local[:, :, [0, 2, 1, 3]]
    changed = given.copy()
    if backwards:
        changed[:, :2] = given[:, :2, ::-1]
        whole, local, events = whole[..., ::-1], local[..., ::-1], events[..., ::-1]
    parts = [part.reshape(len(given), CANDIDATES, -1) for part in (whole, local, events)]
    packs[:, :, : ends[-1]] = np.concatenate(parts, axis=2)
    changed[:, 3] = packs.reshape(len(given), -1)
    return changed


def candidate_packs(curves: Flattened, found: Search) -> np.ndarray:
    """What is told of each candidate.

    Returns
    -------
    ndarray of float32, shape (N, CANDIDATES, PACK)
        In this order: the curve over a whole period (`WHOLE` bins) in units of the depth, and in sigma; `LOCALS`
        curves around all events, the odd, the even and the second deepest dip, each in both; `EVENTS` rows of `EVENT`
        bins, one for each event or a few of them, in sigma; `SCALARS`; zeros.
    """
    count, length = curves.flat.shape
    packs = np.zeros((count, CANDIDATES, PACK), np.float32)
    time = np.arange(length) * STEP_DAYS
    for half in np.unique(curves.half):
        rows = np.flatnonzero(curves.half == half)
        for order in range(CANDIDATES):
            boxes = [found.found[row][order][1] for row in rows]
            offset = np.stack([_offset(time, box) for box in boxes])
            reach = np.array([0.7 * box.duration + STEP_DAYS for box in boxes])
            masked = np.abs(offset) < reach[:, None]
            trend = slow_trend(curves.relative[rows], curves.weight[rows], int(half), masked=masked)
            flat = curves.weight[rows] * (curves.relative[rows] - trend) / curves.noise[rows, None]
            for place, row in enumerate(rows):
                use = curves.weight[row] > 0
                if use.sum() < 10:
                    continue
                views, scalars = _views(time[use], flat[place, use], offset[place, use], boxes[place], found, row)
                trial = found.found[row][order][0]
                scalars |= {
                    "depth": _encode(max(scalars["depth"], 1e-3) * curves.noise[row], -2.7, 0.7),
                    "noise": _encode(curves.noise[row], -3.3, 0.7),
                    "peak": float(np.arcsinh(found.power[row, trial] / 5)),
                    "detection efficiency": float(found.efficiency[row, trial]) / 5,
                    "short window": float(half == SHORT),
                    "seen": float(use.mean()),
                }
                values = [scalars[name] for name in SCALARS]
                packs[row, order, : len(views)] = views
                packs[row, order, len(views) : len(views) + len(values)] = np.nan_to_num(np.clip(values, -6, 6))
    return packs


def _offset(time: np.ndarray, box: Ephemeris) -> np.ndarray:
    return (time - box.epoch + 0.5 * box.period) % box.period - 0.5 * box.period


def _encode(quantity: float, offset: float, scale: float) -> float:
    return float((np.log10(max(quantity, 1e-12)) - offset) / scale)


def _views(
    time: np.ndarray, flat: np.ndarray, offset: np.ndarray, box: Ephemeris, found: Search, row: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Views and numbers of one candidate; its depth still in units of the noise."""
    period, duration = box.period, box.duration
    inside = np.abs(offset) < 0.5 * duration
    number = np.rint((time - box.epoch) / period).astype(int)
    number -= number.min()
    odd = number % 2 == 1
    rest = np.abs(offset) > 0.75 * duration
    level = flat[rest].mean() if rest.any() else 0.0
    flat = flat - level
    depth, sigma = _depth(flat, inside)
    unit = max(depth, 0.02)
    # The second deepest dip at this period.
    bins = int(np.clip(round(2 * period / duration), 8, 400))
    place = np.minimum(((offset / period + 0.5) * bins).astype(int), bins - 1)
    total, count = np.bincount(place, flat, bins), np.bincount(place, minlength=bins)
    pair, pairs = total + np.roll(total, -1), count + np.roll(count, -1)
    centre = ((np.arange(bins) + 1.0) / bins - 0.5) * period
    power = np.where((np.abs(centre) > 1.25 * duration) & (pairs > 0), -pair / np.sqrt(np.maximum(pairs, 1)), -np.inf)
    away = int(power.argmax())
    second_snr = float(power[away]) if np.isfinite(power[away]) else 0.0
    second_at = centre[away]
    second = (offset - second_at + 0.5 * period) % period - 0.5 * period
    second_depth, _ = _depth(flat, np.abs(second) < 0.5 * duration)
    outside = count * (np.abs((np.arange(bins) + 0.5) / bins - 0.5) * period > 0.75 * duration)
    calm = total[outside > 0] / np.sqrt(outside[outside > 0])
    views = [_binned((offset / period + 0.5) * WHOLE, flat, WHOLE, unit)]
    span = 2 * _REACH * duration
    everywhere = np.ones(len(flat), bool)
    for from_middle, use in ((offset, everywhere), (offset, odd), (offset, ~odd), (second, everywhere)):
        views.append(_binned((from_middle[use] / span + 0.5) * LOCAL, flat[use], LOCAL, unit))
    # Events one by one; of many, neighbours share a row.
    events = int(number.max()) + 1
    line = number if events <= EVENTS else number * EVENTS // events
    at = (offset / (2 * _EVENT_REACH * duration) + 0.5) * EVENT
    use = (at >= 0) & (at < EVENT)
    cells = line[use] * EVENT + at[use].astype(int)
    stack = np.bincount(cells, flat[use], EVENTS * EVENT)
    stack /= np.sqrt(np.maximum(np.bincount(cells, minlength=EVENTS * EVENT), 1))
    views.append(np.arcsinh(stack / 3))
    lost = np.bincount(number[inside], -flat[inside], events)
    bins_inside = np.bincount(number[inside], minlength=events)
    watched = bins_inside > 0
    each = lost[watched] / np.sqrt(bins_inside[watched])
    expected = max(duration / STEP_DAYS, 1.0) * max((time[-1] - time[0]) / period, 1.0)
    odd_depth, odd_error = _depth(flat, inside & odd)
    even_depth, even_error = _depth(flat, inside & ~odd)
    both = np.isfinite(odd_error) and np.isfinite(even_error)
    difference = abs(odd_depth - even_depth) if both else 0.0
    inner = np.abs(offset) < 0.2 * duration
    inner_depth, edge_depth = _depth(flat, inner)[0], _depth(flat, inside & ~inner)[0]
    angle = 2 * np.pi * offset / period
    waves = [
        float(np.arcsinh((flat[rest] * np.cos(k * angle[rest])).sum() / np.sqrt(max(0.5 * rest.sum(), 1)) / 5))
        for k in (1, 2)
    ]
    excess = each - depth * np.sqrt(bins_inside[watched])
    scalars = {
        "snr": float(np.arcsinh(depth / sigma / 5)) if np.isfinite(sigma) else 0.0,
        "period": _encode(period, 0.5, 0.4),
        "relative duration": 3 * float(np.log10(duration / usual_duration(period))),
        "depth": depth,
        "duration": _encode(24 * duration, 0.45, 0.25),
        "events": float(np.log10(max(watched.sum(), 1))),
        "covered": float(inside.sum() / expected),
        "odd-even sigma": float(np.arcsinh(difference / np.hypot(odd_error, even_error) / 2)) if both else 0.0,
        "odd-even share": min(difference / unit, 2.0),
        "second snr": float(np.arcsinh(second_snr / 5)),
        "second share": float(np.clip(second_depth / unit, -2, 2)),
        "second phase": float(2 * np.abs(second_at) / period),
        "largest event": float((each**2).max() / max((each**2).sum(), 1e-6)) if len(each) else 1.0,
        "scatter of events": float(np.log10(max((excess**2).mean(), 1e-2))) if len(each) else 0.0,
        "edge share": float(np.clip(edge_depth / max(inner_depth, 0.02), -2, 2)),
        "red short": float(np.log(found.red[row, 0])),
        "red middle": float(np.log(found.red[row, 1])),
        "red long": float(np.log(found.red[row, 2])),
        "folded scatter": float(np.log(max(calm.std(), 0.1))) if len(calm) > 2 else 0.0,
        "once a period": waves[0],
        "twice a period": waves[1],
    }
    return np.concatenate(views), scalars


def _depth(flat: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Mean depth and its standard error in units of the noise; 0 and infinity where there is nothing."""
    count = int(inside.sum())
    return (-float(flat[inside].mean()), count**-0.5) if count else (0.0, np.inf)


def _binned(place: np.ndarray, flat: np.ndarray, bins: int, unit: float) -> np.ndarray:
    """Means in bins over a unit, and in sigma (compressed), one after the other; 0 where there is nothing."""
    use = (place >= 0) & (place < bins)
    cells = place[use].astype(int)
    total, count = np.bincount(cells, flat[use], bins), np.maximum(np.bincount(cells, minlength=bins), 1)
    return np.concatenate([np.clip(total / count / unit, -2, 2), np.arcsinh(total / np.sqrt(count) / 3)])
