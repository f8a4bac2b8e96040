"""Pieces of one galaxy become one detection: joined where no valley of S/N lies between them.

A filter bank sees the horns of a wide profile and the arms of a large disc as detections of their own. Two detections
are one source when a path between them stays above a share of the fainter one's S/N, as it does along a rotating disc
and not between two galaxies that only touch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from models.detections import Detections
from pipeline.measure_cube import smooth_snr

# The path's lowest point, over the peak of the fainter detection, and in sigma of the smoothed cube.
VALLEY_SHARE, VALLEY_SIGMA = 0.3, 3.5
# Detections farther apart than this many of their summed extents are not looked at as neighbours.
NEIGHBOUR_EXTENTS = 2.0
WINDOW_EXTENTS, GROWTHS, MOST_VOXELS = 1.5, 8, 60_000_000
# A detection of which this share of the signal belongs to a brighter source is that source seen by a wide filter.
EXPLAINED = 0.5
# A detection this near on the sky whose channels touch another's, but for a gap, is the same galaxy's other horn.
PROXIMITY_BEAMS, PROXIMITY_CHANNELS = 1.3, 5.0
# Extent (FWHM) of a joined source over the box that holds its voxels.
EXTENT_OF_BOX = 0.6


def link_lines(pixels: Any, noise: Any, found: Detections, beam_px: float) -> Detections:
    """Join detections of one cube, the most certain first.

    Parameters
    ----------
    pixels : CubeSource or ArrayCube
    noise : CubeNoise
    found : Detections
        In voxels of the whole cube, after suppression.
    beam_px : float
        FWHM, px.

    Returns
    -------
    Detections
        Sorted by position, with the parameter ``n_linked``, the detections that each row stands for. Sizes of joined
        rows are those of the joined source.
    """
    count = np.ones(len(found), np.float32)
    alive = np.ones(len(found), bool)
    size, centre = found.size.astype(float).copy(), found.centre.copy()
    order = np.lexsort((*found.centre.T, -np.round(found.logit.astype(float), 4), -_strength(found)))
    for row in order:
        if not alive[row]:
            continue
        # The larger a source has grown, the more may turn out to be part of it.
        while True:
            others = np.flatnonzero(alive)
            others = others[others != row]
            beside = others[_beside(centre, size, row, others, beam_px)]
            if len(beside):
                low = np.minimum(centre[row] - size[row] / 2, (centre[beside] - size[beside] / 2).min(axis=0))
                high = np.maximum(centre[row] + size[row] / 2, (centre[beside] + size[beside] / 2).max(axis=0))
                # Channels add up; on the sky the pieces lie within a beam.
                centre[row, 0], size[row, 0] = (low[0] + high[0]) / 2, high[0] - low[0]
                linked = beside
            elif len(others) and _close(centre, size, row, others).any():
                linked, extent = _linked(pixels, noise, found.centre, size, row, others, beam_px)
                if len(linked):
                    size[row] = np.maximum(size[row], extent)
            else:
                break
            if not len(linked):
                break
            alive[linked] = False
            count[row] += count[linked].sum()
    joined = Detections(
        centre, size.astype(np.float32), found.logit, found.anchor, {**found.params, "n_linked": count}
    )
    return joined[alive].sorted()


def _strength(found: Detections) -> np.ndarray:
    peak = found.params.get("peak_snr")
    return np.round(found.logit if peak is None else peak, 3).astype(float)


def _beside(centre: np.ndarray, size: np.ndarray, row: int, others: np.ndarray, beam_px: float) -> np.ndarray:
    apart = np.abs(centre[others] - centre[row])
    touch = apart[:, 0] < 0.5 * (size[others, 0] + size[row, 0]) + PROXIMITY_CHANNELS
    return touch & (np.hypot(apart[:, 1], apart[:, 2]) < PROXIMITY_BEAMS * beam_px)


def _close(centre: np.ndarray, size: np.ndarray, row: int, others: np.ndarray) -> np.ndarray:
    apart = np.abs(centre[others] - centre[row])
    return (apart < NEIGHBOUR_EXTENTS * (size[others] + size[row])).all(axis=1)


def _linked(
    pixels: Any, noise: Any, places: np.ndarray, size: np.ndarray, row: int, others: np.ndarray, beam_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are part of ``row``'s source, and the extent of all together."""
    shape, centre = np.array(pixels.shape), places[row]
    half = np.maximum(WINDOW_EXTENTS * size[row], [12, 4 * beam_px, 4 * beam_px])
    nothing = np.empty(0, int), size[row]
    for _ in range(GROWTHS):
        low = np.maximum(np.floor(centre - half).astype(int), 0)
        high = np.minimum(np.ceil(centre + half).astype(int) + 1, shape)
        window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        smooth, sigma = smooth_snr(pixels, noise, window, 3, beam_px)
        labels, _ = ndimage.label(smooth > VALLEY_SIGMA * sigma)
        own = labels[tuple(np.clip(np.rint(centre).astype(int) - low, 0, np.array(smooth.shape) - 1))]
        if own == 0:
            return nothing
        mask = labels == own
        reach = [mask.any(axis=tuple(j for j in range(3) if j != i)) for i in range(3)]
        touching = [(r[0] and a > 0) or (r[-1] and b < n) for r, a, b, n in zip(reach, low, high, shape, strict=True)]
        if not any(touching) or smooth.size > MOST_VOXELS:
            break
        half = np.where(touching, 1.6 * half, half)
    at = np.rint(places[others]).astype(int) - low
    inside = ((at >= 0) & (at < smooth.shape)).all(axis=1)
    linked = [
        int(other)
        for other, place in zip(others[inside], at[inside], strict=True)
        if _explained(smooth, mask, place, size[other], 2 * sigma) > EXPLAINED
    ]
    inside &= ~np.isin(others, linked)
    inside[inside] = mask[tuple(at[inside].T)]
    tops = {int(other): _top(smooth, place) for other, place in zip(others[inside], at[inside], strict=True)}
    start = _highest(smooth, np.rint(centre).astype(int) - low)
    # One labelling serves all whose valleys lie within a tenth of each other.
    levels: dict[int, np.ndarray] = {}
    for other, place in zip(others[inside], at[inside], strict=True):
        level = max(VALLEY_SHARE * min(tops[int(other)], smooth[start]), VALLEY_SIGMA * sigma)
        step = int(np.floor(np.log(level) / 0.1))
        if step not in levels:
            levels[step] = ndimage.label(smooth > np.exp(0.1 * step))[0]
        here = levels[step][start]
        if here and levels[step][_highest(smooth, place)] == here:
            linked.append(int(other))
    if not linked:
        return nothing
    extent = np.array([EXTENT_OF_BOX * r.sum() for r in reach])
    return np.array(linked), extent


def _explained(
    smooth: np.ndarray, mask: np.ndarray, place: np.ndarray, size: np.ndarray, least: float
) -> float:
    """Share of the signal above ``least`` within a detection's extent that lies in another's mask."""
    half = np.maximum(np.rint(0.5 * size).astype(int), 1)
    box = tuple(slice(max(c - h, 0), c + h + 1) for c, h in zip(place, half, strict=True))
    signal = np.where(smooth[box] > least, smooth[box], 0)
    total = float(signal.sum())
    return float(signal[mask[box]].sum()) / total if total > 0 else 1.0


def _highest(smooth: np.ndarray, place: np.ndarray) -> tuple[int, ...]:
    """The highest voxel within one of a place."""
    place = np.clip(place, 0, np.array(smooth.shape) - 1)
    low = np.maximum(place - 1, 0)
    part = smooth[tuple(slice(a, b + 2) for a, b in zip(low, place, strict=True))]
    return tuple(int(v) for v in low + np.unravel_index(int(part.argmax()), part.shape))


def _top(smooth: np.ndarray, place: np.ndarray) -> float:
    return float(smooth[_highest(smooth, place)])
