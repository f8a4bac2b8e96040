"""Robust background and noise maps on a mesh, the same for training and for detection.

The statistics are taken once over a global mesh anchored at pixel (0, 0), so that they do not depend on how
the image is tiled afterwards; a tile then only interpolates the small mesh arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Window = tuple[slice, slice]

# A mesh cell with fewer valid samples than this fraction takes its value from its neighbours.
MIN_VALID_FRACTION = 0.1
# p50 - p16 of a Gaussian that was clipped at +-3 sigma is 0.9905 sigma of the unclipped one.
CLIPPED_SIGMA = 0.9905


class PixelReader(Protocol):
    """Anything with a shape (ny, nx) and a ``read(window)`` that gives float32 with NaN blanks."""

    shape: tuple[int, int]

    def read(self, window: Window) -> np.ndarray: ...


@dataclass(frozen=True)
class ArrayPixels:
    """A 2D array with the reading interface of a file: outside of the array is NaN."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape

    def read(self, window: Window) -> np.ndarray:
        rows, columns = window
        ny, nx = self.array.shape
        out = np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        y0, y1 = max(rows.start, 0), min(rows.stop, ny)
        x0, x1 = max(columns.start, 0), min(columns.stop, nx)
        if y0 < y1 and x0 < x1:
            inside = (slice(y0 - rows.start, y1 - rows.start), slice(x0 - columns.start, x1 - columns.start))
            out[inside] = self.array[y0:y1, x0:x1]
        return out


@dataclass(frozen=True)
class BackgroundMap:
    """Background and rms on a mesh.

    Attributes
    ----------
    background, rms : ndarray of float32, shape (my, mx)
        Values at the mesh cells' centres, image unit; rms is NaN only where no cell of the image was usable.
    mesh : int
        Side of a mesh cell in pixels.
    """

    background: np.ndarray
    rms: np.ndarray
    mesh: int

    def sample(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Interpolate both maps bilinearly at the pixels of a window.

        Parameters
        ----------
        window : tuple of slice
            (rows, columns); may reach outside the image, where the nearest mesh value holds.

        Returns
        -------
        background, rms : ndarray of float32, shape (h, w)
        """
        _, background, rms = next(self.strips(window, window[0].stop - window[0].start))
        return background, rms

    def strips(self, window: Window, height: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Interpolate as `sample`, some rows at a time.

        Parameters
        ----------
        window : tuple of slice
        height : int
            Rows at a time.

        Yields
        ------
        rows : slice
            Of the window, from 0.
        background, rms : ndarray of float32, shape (rows, w)
        """
        rows, columns = window
        y0, wy = _weights(rows, self.background.shape[0], self.mesh)
        x0, wx = _weights(columns, self.background.shape[1], self.mesh)
        touched = (slice(y0, y0 + wy.shape[1]), slice(x0, x0 + wx.shape[1]))
        # Along the rows of the mesh once; what is left for each pixel is the mean of two of them.
        maps = [values[touched] @ wx.T for values in (self.background, self.rms)]
        for first in range(0, len(wy), height):
            part = wy[first : first + height]
            used = np.flatnonzero(part.any(axis=0))
            near = slice(used[0], used[-1] + 1)
            background, rms = (part[:, near] @ values[near] for values in maps)
            yield slice(first, first + len(part)), background, rms

    def at(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Background and rms at positions in pixels (nearest mesh cells, bilinear)."""
        from scipy.ndimage import map_coordinates

        where = [(np.asarray(position, float) + 0.5) / self.mesh - 0.5 for position in (y, x)]
        maps = (self.background.astype(float), self.rms.astype(float))
        return tuple(map_coordinates(values, where, order=1, mode="nearest") for values in maps)

    @property
    def typical_rms(self) -> float:
        """Median rms over the image, image unit."""
        return float(np.nanmedian(self.rms))


def _weights(span: slice, count: int, mesh: int) -> tuple[int, np.ndarray]:
    """First mesh index that a span touches, and the (pixels, touched cells) matrix of bilinear weights."""
    position = np.clip((np.arange(span.start, span.stop) + 0.5) / mesh - 0.5, 0, count - 1)
    low = np.minimum(position.astype(int), max(count - 2, 0))
    part = (position - low).astype(np.float32)
    first, last = int(low.min()), min(int(low.max()) + 1, count - 1)
    weights = np.zeros((len(position), last - first + 1), np.float32)
    index = np.arange(len(position))
    weights[index, low - first] = 1 - part
    weights[index, np.minimum(low + 1, count - 1) - first] += part
    return first, weights


def mesh_statistics(samples: np.ndarray, *, iterations: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Robust background and rms of many sets of samples at once.

    Sources make the upper side of the distribution heavy, so sigma comes from the lower side (median minus
    the 16th percentile) of the values that survive clipping at 3 sigma, and the background from the mode
    estimate 2.5 median - 1.5 mean (Bertin & Arnouts 1996), which falls back to the median where the two
    differ too much.

    Parameters
    ----------
    samples : ndarray of float32, shape (cells, n)
        NaN marks what does not count.
    iterations : int
        Number of clipping rounds.

    Returns
    -------
    background, rms : ndarray of float32, shape (cells,)
        NaN for a cell with less than a tenth of valid samples or without any spread.
    """
    cells, count = samples.shape
    ordered = np.sort(samples, axis=1)
    valid = count - np.isnan(ordered).sum(axis=1)
    usable = valid >= max(MIN_VALID_FRACTION * count, 8)
    sums = np.zeros((cells, count + 1))
    np.cumsum(np.nan_to_num(ordered, nan=0.0), axis=1, dtype=np.float64, out=sums[:, 1:])
    row = np.arange(cells)
    low, high = np.zeros(cells, int), np.maximum(valid, 1)

    def quantile(fraction: float) -> np.ndarray:
        where = low + fraction * np.maximum(high - low - 1, 0)
        left = where.astype(int)
        right = np.minimum(left + 1, np.maximum(high - 1, 0))
        return ordered[row, left] + (where - left) * (ordered[row, right] - ordered[row, left])

    for _ in range(iterations):
        median, sigma = quantile(0.5), quantile(0.5) - quantile(0.1587)
        with np.errstate(invalid="ignore"):
            low = (ordered < (median - 3 * sigma)[:, None]).sum(axis=1)
            high = np.maximum((ordered <= (median + 3 * sigma)[:, None]).sum(axis=1), low + 1)
        high, low = np.minimum(high, np.maximum(valid, 1)), np.minimum(low, np.maximum(valid - 1, 0))
    median = quantile(0.5)
    sigma = (median - quantile(0.1587)) / CLIPPED_SIGMA
    mean = (sums[row, high] - sums[row, low]) / np.maximum(high - low, 1)
    mode = np.where(np.abs(mean - median) < 0.3 * sigma, 2.5 * median - 1.5 * mean, median)
    usable &= sigma > 0
    return (
        np.where(usable, mode, np.nan).astype(np.float32),
        np.where(usable, sigma, np.nan).astype(np.float32),
    )


def choose_mesh(shape: tuple[int, int], beam_fwhm: float) -> int:
    """Mesh side in pixels: 24 beams or more, 64 to 512 px, and two or more cells an axis if possible."""
    mesh = int(np.clip(16 * np.ceil(24 * beam_fwhm / 16), 64, 512))
    return int(min(mesh, max(32, 2 * (min(shape) // 4))))


def estimate_background(
    pixels: PixelReader, *, mesh: int, step: int = 2, smooth: bool = True
) -> BackgroundMap:
    """Background and rms of an image on a mesh, read strip by strip.

    Parameters
    ----------
    pixels : PixelReader
        Source of pixels; wrap an array in `ArrayPixels`.
    mesh : int
        Side of a mesh cell in pixels; even, so that subsampling meets every cell alike.
    step : int
        Every ``step``-th pixel of each axis enters the statistics: neighbours in a beam tell the same.
    smooth : bool
        Median-filter the mesh over 3 x 3 cells, so that one bright source does not leave a dent.

    Returns
    -------
    BackgroundMap
    """
    if mesh < 2 * step:
        raise ValueError(f"mesh must be at least {2 * step} pixels with step={step}, got {mesh}")
    rows = [background_row(pixels, row, mesh=mesh, step=step) for row in range(-(-pixels.shape[0] // mesh))]
    return finish_background([b for b, _ in rows], [r for _, r in rows], mesh=mesh, smooth=smooth)


def background_row(
    pixels: PixelReader, row: int, *, mesh: int, step: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of one row of mesh cells: the unit of work when a cluster shares the estimate."""
    columns = -(-pixels.shape[1] // mesh)
    window = (slice(row * mesh, (row + 1) * mesh), slice(0, columns * mesh))
    # A file converts only what is used.
    read_every = getattr(pixels, "read_every", None)
    strip = pixels.read(window)[::step, ::step] if read_every is None else read_every(window, step)
    cells = strip.reshape(strip.shape[0], columns, -1).swapaxes(0, 1)
    return mesh_statistics(np.ascontiguousarray(cells).reshape(columns, -1))


def finish_background(
    background: list[np.ndarray], rms: list[np.ndarray], *, mesh: int, smooth: bool = True
) -> BackgroundMap:
    """Assemble rows of mesh statistics: fill empty cells from the nearest usable one and smooth."""
    from scipy.ndimage import distance_transform_edt, median_filter

    level, noise = np.stack(background), np.stack(rms)
    empty = ~np.isfinite(noise)
    if empty.any() and not empty.all():
        nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
        level, noise = level[tuple(nearest)], noise[tuple(nearest)]
    if smooth and min(level.shape) >= 3:
        level, noise = median_filter(level, 3, mode="nearest"), median_filter(noise, 3, mode="nearest")
    return BackgroundMap(level.astype(np.float32), noise.astype(np.float32), mesh)
