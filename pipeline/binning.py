"""Images made small for a picture: binned in strips, with a robust stretch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from survey_io.background import PixelReader

# Pixels in memory at once while an image is binned.
STRIP_PIXELS = 8_000_000
# A block whose highest pixel is this many rms above the level shows that pixel instead of its mean, which
# would drown a point source in a block of many beams.
KEEP_SIGMA = 7.0
SAMPLE_SIDE = 192


def estimate_noise(pixels: PixelReader) -> float:
    """Robust rms of an image from nine windows spread over it; 0 when all of them are blank.

    From the 16th and 50th percentiles: sources only raise the upper half of the distribution.
    """
    ny, nx = pixels.shape
    levels = []
    for fy in (0.2, 0.5, 0.8):
        for fx in (0.2, 0.5, 0.8):
            y, x = int(fy * ny) - SAMPLE_SIDE // 2, int(fx * nx) - SAMPLE_SIDE // 2
            values = pixels.read((slice(y, y + SAMPLE_SIDE), slice(x, x + SAMPLE_SIDE)))
            values = values[np.isfinite(values)]
            if values.size > 50:
                low, middle = np.percentile(values, [15.87, 50])
                levels.append(middle - low)
    return float(np.median(levels)) if levels else 0.0


def bin_image(pixels: PixelReader, factor: int, noise: float) -> tuple[NDArray[np.float32], int]:
    """Average blocks of `factor` x `factor` pixels and stretch the result for display.

    Parameters
    ----------
    pixels : PixelReader
        ``shape`` and ``read(window)``; read in strips of at most `STRIP_PIXELS` pixels, but of one row of
        blocks at least.
    factor : int
        Block side, 1 or more.
    noise : float
        Rms of the image, image unit.

    Returns
    -------
    image : array (ceil(ny / factor), ceil(nx / factor)), float32
        In [0, 1]; NaN where a block has no valid pixel.
    factor : int
        As given.
    """
    ny, nx = pixels.shape
    rows, columns = -(-ny // factor), -(-nx // factor)
    mean = np.empty((rows, columns), dtype=np.float32)
    peak = np.empty_like(mean) if factor > 1 else mean
    step = max(1, STRIP_PIXELS // (columns * factor * factor))
    for first in range(0, rows, step):
        last = min(first + step, rows)
        strip = pixels.read((slice(first * factor, last * factor), slice(0, columns * factor)))
        if factor == 1:
            mean[first:last] = strip
            continue
        # NaN runs through sum and max, so that strips without blanks need no mask.
        mean[first:last] = _reduce(np.add, strip, factor) / factor**2
        peak[first:last] = _reduce(np.maximum, strip, factor)
        if np.isnan(peak[first:last]).any():
            valid = np.isfinite(strip)
            count = _reduce(np.add, valid.astype(np.float32), factor)
            total = _reduce(np.add, np.where(valid, strip, np.float32(0)), factor)
            mean[first:last] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
            peak[first:last] = _reduce(np.fmax, strip, factor)
    shown = stretch(mean, floor=noise / factor)
    if factor > 1:
        level = _level(mean)[0]
        bright = peak - level > KEEP_SIGMA * noise
        if noise > 0 and bright.any():
            shown[bright] = np.maximum(
                shown[bright], stretch(peak, floor=noise, level=(level, noise))[bright]
            )
    return shown, factor


def _reduce(function: np.ufunc, strip: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Reduce blocks of a strip, rows first: whole rows at a time run at the speed of the memory."""
    rows = function.reduce(strip.reshape(-1, factor, strip.shape[1]), axis=1)
    return function.reduce(rows.reshape(rows.shape[0], -1, factor), axis=2)


def stretch(
    image: NDArray[np.float32], *, floor: float, level: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    """Map an image to [0, 1] so that noise is dark grey, faint sources show and bright ones keep their shape.

    Parameters
    ----------
    image : array
        Image unit; NaN stays NaN.
    floor : float
        Smallest rms to assume; keeps a window that is mostly constant from being stretched to nonsense.
    level : (float, float), optional
        Background and rms to use; measured on the image by default.
    """
    middle, rms = level or _level(image)
    rms = max(rms, 1e-3 * floor)
    if not rms > 0:
        return np.where(np.isfinite(image), np.float32(0.12), np.float32(np.nan))
    finite = image[np.isfinite(image)]
    top = max(25.0, float((np.percentile(finite, 99.95) - middle) / rms)) if finite.size else 25.0
    # Linear over the noise, logarithmic above 4 rms; 1.5 rms below the background is black.
    scaled = np.arcsinh((image - middle) / (4 * rms))
    low, high = np.arcsinh(-1.5 / 4), np.arcsinh(min(top, 4000.0) / 4)
    return np.clip((scaled - low) / (high - low), 0, 1).astype(np.float32)


def _level(image: NDArray[np.float32]) -> tuple[float, float]:
    """Background and rms from percentiles of a subsample; (0, 0) for an empty image."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 0.0
    low, middle = np.percentile(finite[:: max(1, finite.size // 200_000)], [15.87, 50])
    return float(middle), float(middle - low)
