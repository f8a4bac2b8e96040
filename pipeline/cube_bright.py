"""What a network for cubes was never shown: bright galaxies wider than those of its training.

Networks learn galaxies as a distant survey holds them, and doubt a nearby disc that fills their field or a line wider
than most. Noise never looks like one, for it is faint, nor does badly subtracted continuum, which is no wider than a
beam and far below ten sigma in a voxel. Two wide filters find what the network does not see at all, and what it sees
but doubts is trusted where a voxel is too bright to be noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter

from models.detections import Detections

# Voxels are binned by this much before filtering, (channel, y, x): tiles begin at multiples of it.
BLOCK = (4, 2, 2)
# FWHM of the filters in beams, and their boxcar along the channels in blocks.
NARROW, WIDE, BOXCAR = 1.0, 3.0, 5
# S/N of the wide filter that makes a detection, and by how much it has to exceed that of the narrow one.
BRIGHT, EXTENDED = 14.0, 1.25
# A detection with a voxel of this S/N, and at least this share of the highest within so many voxels more, gets at least
# these log odds.
BRIGHT_VOXEL, BRIGHT_SHARE, BRIGHT_AROUND, BRIGHT_LOGIT = 10.0, 0.8, (16, 6, 6), 4.0
SAMPLE_SIDES = (256, 160, 160)
FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
TRUNCATE = 3.0
# Rows and columns that one matrix smooths: as products of matrices the filters take half the time of sums over taps.
MATRIX = 256


def measure_bright_rms(pixels: Any, noise: Any, beam_px: float, reach: int) -> tuple[float, float]:
    """Noise of both filtered cubes, from the negative voxels of a block in the cube's middle."""
    window = tuple(
        slice((n - min(n, side)) // 2, (n - min(n, side)) // 2 + min(n, side))
        for n, side in zip(pixels.shape, SAMPLE_SIDES, strict=True)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = (pixels.read(window) - noise.level(window)) / noise.rms(window)
    rms = []
    blocks = _boxcar(_block_means(np.nan_to_num(snr, nan=0.0, posinf=0.0, neginf=0.0)))
    for sigma in filter_sigmas(beam_px, reach):
        filtered = _smooth(blocks, sigma)
        below = filtered[filtered < 0]
        rms.append(float(np.median(-below)) / 0.6744898 if below.size > 50 else float("nan"))
    return rms[0], rms[1]


def find_bright(snr: np.ndarray, beam_px: float, rms: tuple[float, ...], reach: int, known: Detections) -> Detections:
    """Bright extended detections of a window that no known one explains.

    Parameters
    ----------
    snr : ndarray of float32, shape (C, H, W)
        S/N, blanks 0; its first voxel lies at a multiple of `BLOCK` in the cube.
    beam_px : float
        FWHM, px.
    rms : (narrow, wide)
        By `measure_bright_rms`.
    reach : int
        Pixels to which the filters are cut: no more than the halo of a tile.
    known : Detections
        Of the window; those at even odds or better explain what lies within their extent.

    Returns
    -------
    Detections
        With the parameters of ``known``, all NaN.
    """
    if not (rms[0] > 0 and rms[1] > 0):
        return Detections.empty(3, list(known.params))
    blocks, (narrow, wide) = _boxcar(_block_means(snr)), filter_sigmas(beam_px, reach)
    broad = _smooth(blocks, wide)
    if not broad.size or broad.max() < BRIGHT * rms[1]:
        return Detections.empty(3, list(known.params))
    return bright_of(_smooth(blocks, narrow), broad, beam_px, rms, known)


def bright_of(
    narrow: np.ndarray, wide: np.ndarray, beam_px: float, rms: tuple[float, ...], known: Detections
) -> Detections:
    """As `find_bright`, of a window that both filters have gone over."""
    names = list(known.params)
    wide = wide / np.float32(rms[1])
    if not wide.size or wide.max() < BRIGHT:
        return Detections.empty(3, names)
    narrow = maximum_filter(narrow / np.float32(rms[0]), 3)
    peak = (wide > BRIGHT) & (wide > EXTENDED * narrow) & (wide == maximum_filter(wide, (9, 7, 7)))
    at = np.argwhere(peak)
    centre = (at + 0.5) * np.array(BLOCK) - 0.5
    size = np.array([BOXCAR * BLOCK[0], WIDE * beam_px, WIDE * beam_px])
    sure = known[known.logit > 0]
    extent = np.maximum(sure.size, size)
    explained = [bool(((((sure.centre - one) / extent) ** 2).sum(axis=1) < 0.5).any()) for one in centre]
    centre = centre[~np.array(explained, bool)] if len(centre) else centre
    count = len(centre)
    return Detections(
        centre, np.tile(size, (count, 1)).astype(np.float32), np.full(count, BRIGHT_LOGIT, np.float32),
        np.floor(centre + 0.5).astype(np.int64), {name: np.full(count, np.nan, np.float32) for name in names},
    )  # fmt: skip


def trust_bright_lines(found: Detections, snr: np.ndarray, halo: tuple[int, int, int]) -> np.ndarray:
    """Log odds of detections, raised for those that hold voxels far too bright to be noise.

    Galaxies wider or brighter than those of training are rare there, and a network doubts them. The brightest voxel
    within a detection's extent has to be among the brightest around it, so that pieces of a galaxy are not raised with
    it; their order stays.

    Parameters
    ----------
    found : Detections
        In window voxels.
    snr : ndarray of float32, shape (C, H, W)
        S/N, blanks 0.
    halo : (channels, y, x)
        No voxel farther from a detection is looked at: what is raised does not depend on the tiling.
    """
    boxes = bright_boxes(found, halo)
    return raise_bright(found.logit, [float(snr[box].max(initial=0.0)) for box in boxes])


def bright_boxes(found: Detections, halo: tuple[int, int, int]) -> list[tuple[slice, ...]]:
    """For each detection the voxels within its extent, and those around it too."""
    return [
        _box(centre, [min(int(np.ceil(0.6 * s)) + a, h) for s, a, h in zip(size, around, halo, strict=True)])
        for centre, size in zip(found.centre.tolist(), found.size, strict=True)
        for around in ((0, 0, 0), BRIGHT_AROUND)
    ]


def _box(centre: Sequence[float], reach: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(max(round(c) - r, 0), max(round(c) + r + 1, 0)) for c, r in zip(centre, reach, strict=True))


def raise_bright(logit: np.ndarray, highest: Sequence[float]) -> np.ndarray:
    """Log odds of detections, by the highest S/N in each of their `bright_boxes`."""
    raised = logit.copy()
    for row, (within, around) in enumerate(zip(highest[::2], highest[1::2], strict=True)):
        if within >= max(BRIGHT_VOXEL, BRIGHT_SHARE * around):
            raised[row] = max(raised[row], BRIGHT_LOGIT + 0.01 * raised[row])
    return raised


def _boxcar(blocks: np.ndarray) -> np.ndarray:
    """Means over `BOXCAR` blocks along the channels, nothing beyond the window."""
    sums = blocks.copy()
    for shift in range(1, BOXCAR // 2 + 1):
        sums[shift:] += blocks[:-shift]
        sums[:-shift] += blocks[shift:]
    sums /= np.float32(BOXCAR)
    return sums


def _smooth(blocks: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian over rows and columns, cut at `TRUNCATE` sigma; 0 beyond the window."""
    radius = int(TRUNCATE * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-6)) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (1, 2):
        count = blocks.shape[axis]
        size = min(count, MATRIX)
        band = np.zeros((size, size + 2 * radius), np.float32)
        for row, line in enumerate(band):
            line[row : row + len(taps)] = taps
        smoothed = np.empty_like(blocks)
        for first in range(0, count, max(size, 1)):
            last = min(first + size, count)
            low, high = max(first - radius, 0), min(last + radius, count)
            matrix = band[: last - first, low - first + radius : high - first + radius]
            if axis == 1:
                np.matmul(matrix, blocks[:, low:high], out=smoothed[:, first:last])
            else:
                np.matmul(blocks[:, :, low:high], matrix.T, out=smoothed[:, :, first:last])
        blocks = smoothed
    return blocks


def _block_means(snr: np.ndarray) -> np.ndarray:
    """Means over whole blocks: a plane at a time, 15 times as fast as numpy's mean over three axes at once."""
    c, y, x = (n // b for n, b in zip(snr.shape, BLOCK, strict=True))
    means = np.empty((c, y, x), np.float32)
    rows, columns = slice(0, y * BLOCK[1]), slice(0, x * BLOCK[2])
    for i, mean in enumerate(means):
        first, *others = snr[i * BLOCK[0] : (i + 1) * BLOCK[0], rows, columns]
        plane = first.copy()
        for other in others:
            plane += other
        for axis, block in ((0, BLOCK[1]), (1, BLOCK[2])):
            parts = [plane[k::block] if axis == 0 else plane[:, k::block] for k in range(block)]
            plane = parts[0] + parts[1]
            for part in parts[2:]:
                plane += part
        mean[...] = plane
    means /= np.float32(np.prod(BLOCK))
    return means


def filter_sigmas(beam_px: float, reach: int) -> tuple[float, float]:
    """Widths of both filters, in blocks; a wide beam's is narrowed to what a halo holds."""
    limit = (reach // BLOCK[1] - 3) / TRUNCATE
    narrow, wide = (min(width * beam_px * FWHM_TO_SIGMA / BLOCK[1], limit) for width in (NARROW, WIDE))
    return narrow, wide
