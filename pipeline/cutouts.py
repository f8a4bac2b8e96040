"""Cut-outs around many sources, and which sources are near which.

Everything here depends on positions in the full image, never on the window that happens to hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.fitting import Grid, Pixels, gaussian_values
from pipeline.gaussians import FWHM_PER_SIGMA, Array, BeamFrame

Indices = NDArray[np.int64]

# Elements of one stack of cut-outs (float32): several such arrays stay in a core's cache.
STACK_ELEMENTS = 1 << 17
# Cut-out radii in FWHM of the beam for one FWHM of aperture: few sizes make large batches.
LADDER = np.array([1.0, 1.25, 1.6, 2.1, 2.8, 3.8, 5.0, 6.5])


@dataclass(frozen=True, slots=True)
class Sky:
    """Window of an image, with the part of the full image it shows.

    Attributes
    ----------
    image, rms : ndarray float32 (h, w)
        NaN = blank.
    origin : (y, x)
        Pixel of the full image that is the window's first.
    shape : (ny, nx) or None
        Size of the full image; None = what lies outside the window lies outside the image.
    """

    image: Pixels
    rms: Pixels
    origin: tuple[int, int]
    shape: tuple[int, int] | None

    def gather(self, grid: Grid, iy: Indices, ix: Indices) -> tuple[Pixels, Pixels, NDArray[np.bool_]]:
        """Data and rms (P, n) around full-image pixels, and which cut-outs (n,) reach over its edge."""
        height, width = self.image.shape
        row, column = iy - self.origin[0], ix - self.origin[1]
        reach = int(np.abs(grid.dy).max(initial=0)), int(np.abs(grid.dx).max(initial=0))
        index = (row * width + column)[None, :] + (grid.dy * width + grid.dx)[:, None]
        data = self.image.ravel().take(index, mode="clip")
        rms = self.rms.ravel().take(index, mode="clip")
        near = np.flatnonzero(
            (row < reach[0]) | (row >= height - reach[0]) | (column < reach[1]) | (column >= width - reach[1])
        )
        if near.size:
            y, x = row[near] + grid.dy[:, None], column[near] + grid.dx[:, None]
            outside = (y < 0) | (y >= height) | (x < 0) | (x >= width)
            data[:, near] = np.where(outside, np.nan, data[:, near])
        ny, nx = self.shape or (self.origin[0] + height, self.origin[1] + width)
        y0, x0 = (0, 0) if self.shape else self.origin
        edge = (iy - reach[0] < y0) | (iy + reach[0] >= ny) | (ix - reach[1] < x0) | (ix + reach[1] >= nx)
        return data, rms, edge


def bucket_radii(sizes: Array, aperture: float) -> Array:
    """Cut-out radius, in the beam frame, for sources of given major axes in beams (n,)."""
    steps = np.searchsorted(LADDER, np.asarray(sizes) * (1 - 1e-9))
    return LADDER[np.minimum(steps, len(LADDER) - 1)] * aperture * FWHM_PER_SIGMA


def batches(radii: Array, frame: BeamFrame, chosen: Indices) -> Iterator[tuple[Grid, Indices]]:
    """Grids and the sources of `chosen` measured on them, in stacks of bounded size."""
    for radius in np.unique(radii[chosen]):
        grid = Grid.within(frame, float(radius))
        same = chosen[radii[chosen] == radius]
        step = max(1, STACK_ELEMENTS // grid.dy.size)
        parts = -(-same.size // step)
        yield from ((grid, part) for part in np.array_split(same, parts))


def nearby_pairs(
    x: Array, y: Array, usable: NDArray[np.bool_], distance: float
) -> tuple[Indices, Indices, Array]:
    """All ordered pairs (i, j) of usable sources closer than `distance` pixels, by i, then by distance."""
    index = np.flatnonzero(usable)
    if index.size < 2:
        return np.empty(0, int), np.empty(0, int), np.empty(0)
    pairs = cKDTree(np.stack([x[index], y[index]], axis=1)).query_pairs(distance, output_type="ndarray")
    one, two = index[pairs[:, 0]], index[pairs[:, 1]]
    first, second = np.concatenate([one, two]), np.concatenate([two, one])
    separation = np.hypot(x[first] - x[second], y[first] - y[second])
    # Sums of floats depend on their order: the order must not depend on the numbering of the sources.
    order = np.lexsort((y[second], x[second], separation, first))
    return first[order], second[order], separation[order]


def subtract_models(
    grid: Grid, data: Pixels, target: Indices, log_peak: Array, u: Array, v: Array, shape: Array
) -> None:
    """Subtract Gaussians from stacked cut-outs, in place.

    Parameters
    ----------
    grid : Grid
    data : ndarray float32 (P, n)
    target : ndarray of int (m,), rising
        Cut-out of each Gaussian.
    log_peak, u, v : ndarray (m,)
        Peak (data's unit) and centre relative to the cut-out's central pixel, beam frame.
    shape : ndarray (3, m)
        (s, h1, h2).
    """
    if not target.size:
        return
    values = gaussian_values(grid, log_peak, u, v, shape)
    starts = np.flatnonzero(np.diff(target, prepend=-1))
    rank = np.arange(target.size) - np.repeat(starts, np.diff(starts, append=target.size))
    # One round takes the next neighbour of each cut-out: no cut-out occurs twice in a round.
    for turn in range(int(rank.max()) + 1):
        chosen = np.flatnonzero(rank == turn)
        data[:, target[chosen]] -= values[:, chosen]
