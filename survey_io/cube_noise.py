"""Noise of a spectral-line cube: per channel and position, with residual continuum and flagged channels.

The rms of a voxel is that of its channel times a smooth map over the sky. Both come from medians of the values
below the level, which neither galaxies nor a few bad voxels move. What is left of the continuum is the median along a
line of sight, taken off only where it is significant: elsewhere it would only add noise that all channels share.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import median_filter, zoom

__all__ = ["ArrayCube", "CubeNoise", "estimate_cube_noise"]

Window3 = tuple[slice, slice, slice]
Arrays = dict[str, np.ndarray]
# Stage, function, what all its calls share, and each call's own arguments; results in their order.
Run = Callable[[str, Callable[..., Arrays], tuple, list[tuple]], list[Arrays]]

HALF_NORMAL = 0.6744898
# Voxels read at a time by each thread, and looked at per channel and per line of sight.
SLAB_VOXELS = 4_000_000
SAMPLES, SIGHT_SAMPLES = 12_000, 512
# A channel this much noisier than its surroundings is interference.
RFI_RATIO, RFI_SPAN = 2.0, 31
# Fewer channels than this cannot tell continuum from a line.
CONTINUUM_CHANNELS = 200
CONTINUUM_SIGMA = 4.0
# A line of sight this much noisier than its surroundings holds a badly subtracted source.
SIGHT_RATIO = 1.6
# Lines of sight with a median beyond so many standard errors may hold a wide line; values farther above the level
# than so many sigma are left out of it, in so many rounds.
SUSPECT_SIGMA, LINE_CLIP, LINE_ROUNDS = 2.0, 2.5, 8
MESH = 16


@dataclass(frozen=True)
class ArrayCube:
    """An array that is read like the voxels of a file."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.array.shape

    def read(self, window: Window3 | None = None, *, every: int = 1) -> np.ndarray:
        """A float32 copy of a window, NaN outside the array; of each ``every``-th channel."""
        if window is None:
            return np.array(self.array[::every], np.float32)
        if every > 1:
            return np.array(self.array[window][::every], np.float32)
        out = np.full([s.stop - s.start for s in window], np.nan, np.float32)
        inside = [slice(max(s.start, 0), max(min(s.stop, n), 0)) for s, n in zip(window, self.array.shape, strict=True)]
        if all(s.start < s.stop for s in inside):
            target = tuple(slice(i.start - s.start, i.stop - s.start) for i, s in zip(inside, window, strict=True))
            out[target] = self.array[tuple(inside)]
        return out


@dataclass(frozen=True, eq=False)
class CubeNoise:
    """Noise of one cube. Windows may reach outside it; there the values of its border hold.

    Attributes
    ----------
    channel_rms : ndarray of float32, shape (nchan,)
        NaN for flagged channels.
    relative : ndarray of float32, shape (ny, nx)
        rms over that of the channel; NaN on lines of sight that are flagged or blank.
    continuum : ndarray of float32, shape (ny, nx)
        What is taken off every channel; 0 where the residual is not significant.
    rfi_channels, continuum_sights : int
        Numbers of flagged channels (those that hold values) and lines of sight.
    """

    channel_rms: np.ndarray
    relative: np.ndarray
    continuum: np.ndarray
    rfi_channels: int
    continuum_sights: int

    @property
    def flagged(self) -> np.ndarray:
        """Channels without usable noise, bool (nchan,)."""
        return ~np.isfinite(self.channel_rms)

    def rms(self, window: Window3) -> np.ndarray:
        """rms of a window's voxels, float32, in the unit of the cube; NaN where flagged."""
        return _part(self.channel_rms, window[:1])[:, None, None] * _part(self.relative, window[1:])[None]

    def level(self, window: Window3) -> np.ndarray:
        """Residual continuum of a window's lines of sight, float32 (1, ny, nx)."""
        return _part(self.continuum, window[1:])[None]

    def good(self, window: Window3) -> np.ndarray:
        """Where voxels of a window may be used, bool, broadcasts to its shape."""
        rms, relative = _part(self.channel_rms, window[:1]), _part(self.relative, window[1:])
        return np.isfinite(rms)[:, None, None] & np.isfinite(relative)[None]

    def summary(self) -> dict[str, Any]:
        """For the manifest."""
        usable = self.channel_rms[np.isfinite(self.channel_rms)]
        return {
            "median_rms": float(np.median(usable)) if usable.size else None,
            "lowest_rms": float(usable.min()) if usable.size else None,
            "highest_rms": float(usable.max()) if usable.size else None,
            "flagged_channels": int(self.flagged.sum()),
            "rfi_channels": self.rfi_channels,
            "continuum_sights": self.continuum_sights,
            "continuum_subtracted": int(np.count_nonzero(self.continuum)),
        }


def _part(values: np.ndarray, window: tuple[slice, ...]) -> np.ndarray:
    """A window of an array; outside of it the values of its border hold."""
    if all(s.start >= 0 and s.stop <= n for s, n in zip(window, values.shape, strict=True)):
        return values[window]
    inside = (np.clip(np.arange(s.start, s.stop), 0, n - 1) for s, n in zip(window, values.shape, strict=True))
    return values[np.ix_(*inside)]


def estimate_cube_noise(pixels: Any, *, workers: int = 1, run: Run | None = None) -> CubeNoise:
    """Estimate the noise of a cube from samples of it, read in slabs of bounded size.

    Parameters
    ----------
    pixels : CubeSource or ArrayCube
    workers : int
        Threads, each with a slab of its own.
    run : callable, optional
        Has the slabs done elsewhere: ``run(stage, function, shared, arguments)`` gives the results of
        ``function(*shared, *arguments[i])`` in their order.

    Returns
    -------
    CubeNoise
        Its numbers depend on the cube only, not on how it is tiled later.
    """
    nchan, ny, nx = pixels.shape
    run = run or _in_threads(workers)
    continuum, spread = _sights(pixels, run)
    rms = _channels(pixels, continuum, run)
    rms[~(rms > 0)] = np.nan
    rfi = _noisy_channels(rms)
    rms[rfi] = np.nan
    relative, bad = _relative_map(spread, flag=np.isfinite(rms).sum() >= CONTINUUM_CHANNELS)
    return CubeNoise(rms, relative, continuum, int(rfi.sum()), bad)


def _in_threads(workers: int) -> Run:
    def run(stage: str, function: Callable[..., Arrays], shared: tuple, arguments: list[tuple]) -> list[Arrays]:
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            return list(pool.map(lambda own: function(*shared, *own), arguments))

    return run


def _channels(pixels: Any, continuum: np.ndarray, run: Run) -> np.ndarray:
    """rms of each channel, float32 (nchan,)."""
    nchan, ny, nx = pixels.shape
    # Bands of rows, evenly spread, hold enough voxels of each channel.
    rows = max(1, min(ny, -(-SAMPLES // nx)))
    bands = np.unique(np.linspace(0, ny - rows, min(8, ny // rows)).astype(int))
    rows = max(1, -(-rows // len(bands)))
    step = max(1, SLAB_VOXELS // (rows * len(bands) * nx))
    slabs = [(first, min(first + step, nchan), bands, rows) for first in range(0, nchan, step)]
    return np.concatenate([part["rms"] for part in run("channels", channels_piece, (pixels, continuum), slabs)])


def channels_piece(pixels: Any, continuum: np.ndarray, first: int, last: int, bands: np.ndarray, rows: int) -> Arrays:
    """rms of the channels from ``first`` to ``last`` (excluded), from bands of so many rows."""
    _, ny, nx = pixels.shape
    parts = [pixels.read((slice(first, last), slice(b, min(b + rows, ny)), slice(0, nx))) for b in bands]
    parts = [p - continuum[b : b + p.shape[1]][None] for p, b in zip(parts, bands, strict=True)]
    sample = np.concatenate([p.reshape(last - first, -1) for p in parts], axis=1)
    return {"rms": np.array([_negative_rms(channel) for channel in sample], np.float32)}


def _negative_rms(values: np.ndarray) -> float:
    """rms of zero-mean noise from its negative half; NaN for fewer than 30 values or a constant."""
    values = values[np.isfinite(values)]
    below = values[values < 0]
    if len(values) < 30 or len(below) < 10:
        return np.nan
    one_sided = np.median(-below) / HALF_NORMAL
    # A channel whose values are not centred on 0: the scatter around its own median, if that is less.
    centre = np.median(values)
    return float(min(one_sided, np.median(np.abs(values - centre)) / HALF_NORMAL))


def _noisy_channels(rms: np.ndarray) -> np.ndarray:
    finite = np.isfinite(rms)
    if finite.sum() < 5:
        return np.zeros(len(rms), bool)
    filled = np.interp(np.arange(len(rms)), np.flatnonzero(finite), rms[finite])
    typical = median_filter(filled, size=min(RFI_SPAN, len(rms)), mode="nearest")
    return finite & (rms > RFI_RATIO * typical)


def _sights(pixels: Any, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Significant continuum and spread (MAD) along each line of sight, (ny, nx) both; spread NaN where blank."""
    nchan, ny, nx = pixels.shape
    # Medians of that many channels are enough for a map that is smoothed anyway.
    every = max(1, nchan // SIGHT_SAMPLES)
    step = max(1, SLAB_VOXELS // (-(-nchan // every) * nx))
    slabs = [(first, min(first + step, ny), every) for first in range(0, ny, step)]
    parts = run("sights", sights_piece, (pixels,), slabs)
    return np.concatenate([part["continuum"] for part in parts]), np.concatenate([part["spread"] for part in parts])


def sights_piece(pixels: Any, first: int, last: int, every: int) -> Arrays:
    """Continuum and spread of the lines of sight of rows ``first`` to ``last`` (excluded)."""
    nchan, _, nx = pixels.shape
    slab = pixels.read((slice(0, nchan), slice(first, last), slice(0, nx)), every=every)
    # Flagged channels are also written as zeros: they are blank, and not quiet.
    slab[(slab == 0).all(axis=(1, 2))] = np.nan
    filled = np.isfinite(slab).any(axis=(1, 2)).sum()
    centre, scatter = _median_and_scatter(slab)
    _without_lines(slab, centre, scatter)
    continuum = np.zeros(scatter.shape, np.float32)
    if filled * every >= CONTINUUM_CHANNELS:
        error = 1.2533 * scatter / np.sqrt(filled)
        with np.errstate(invalid="ignore"):
            continuum = np.where(np.abs(centre) > CONTINUUM_SIGMA * error, centre, 0).astype(np.float32)
    return {"continuum": continuum, "spread": scatter.astype(np.float32)}


def _median_and_scatter(slab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper median along the channels and 1.48 times the median distance from it; NaN where nearly all are blank."""
    shape = slab.shape[1:]
    columns = np.ascontiguousarray(slab.reshape(len(slab), -1).T)
    blank = np.isnan(columns)
    if blank.any():
        # Channels that are blank throughout would send every line of sight the long way.
        kept = ~blank.all(axis=0)
        columns, blank = np.ascontiguousarray(columns[:, kept]), blank[:, kept]
    count = columns.shape[1] - np.count_nonzero(blank, axis=1)
    least = max(5, columns.shape[1] // 10)
    centre = np.full(len(columns), np.nan, np.float32)
    scatter = centre.copy()
    enough = count >= least
    whole = enough & (count == columns.shape[1])
    if whole.all():
        centre, scatter = _whole_medians(columns)
    elif whole.any():
        centre[whole], scatter[whole] = _whole_medians(columns[whole])
    some = enough & ~whole
    if some.any():
        part, rows, middle = np.sort(columns[some], axis=1), np.arange(some.sum()), count[some] // 2
        centre[some] = part[rows, middle]
        part = np.sort(np.abs(part - centre[some][:, None]), axis=1)
        scatter[some] = part[rows, middle] / HALF_NORMAL
    return centre.reshape(shape), scatter.reshape(shape)


def _without_lines(slab: np.ndarray, centre: np.ndarray, scatter: np.ndarray) -> None:
    """Correct, in place, lines of sight whose median is not that of noise: a galaxy may fill two fifths of them.

    Such a line of sight looks like badly subtracted continuum. Its lower quartile is still noise: from there on values
    are taken in as long as they lie within `LINE_CLIP` of what was taken in before, and a galaxy's voxels stay out.
    Continuum, which all channels share, is taken in whole.
    """
    error = 1.2533 * scatter / np.sqrt(len(slab))
    with np.errstate(invalid="ignore"):
        rows, columns = np.nonzero(np.abs(centre) > SUSPECT_SIGMA * error)
    if not len(rows):
        return
    values = np.sort(slab[:, rows, columns].T, axis=1)
    index = np.arange(len(values))
    count = np.isfinite(values).sum(axis=1)

    def quantile(share: float, kept: np.ndarray) -> np.ndarray:
        return values[index, np.minimum((share * kept).astype(int), kept - 1)]

    level = quantile(0.25, count)
    # Between the quantiles 25% and 5% of noise lie 0.97 sigma.
    spread = first = (level - quantile(0.05, count)) / 0.97
    for _ in range(LINE_ROUNDS):
        kept = np.maximum((values <= (level + LINE_CLIP * spread)[:, None]).sum(axis=1), 5)
        level = quantile(0.5, kept)
        spread = np.maximum(level - quantile(0.1587, kept), 0.5 * spread)
    # A line only ever adds: what it did not move keeps the better statistics of all channels.
    old, wide = centre[rows, columns], scatter[rows, columns]
    nearer = np.abs(level) < np.abs(old)
    centre[rows, columns] = np.where(nearer, level, old)
    scatter[rows, columns] = np.where(nearer, np.minimum(np.minimum(spread, first), wide), wide)


def _whole_medians(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows without blanks; the rows are overwritten."""
    middle = columns.shape[1] // 2
    columns.partition(middle, axis=1)
    centre = columns[:, middle].copy()
    columns -= centre[:, None]
    np.abs(columns, out=columns)
    columns.partition(middle, axis=1)
    return centre, columns[:, middle] / np.float32(HALF_NORMAL)


def _relative_map(spread: np.ndarray, *, flag: bool) -> tuple[np.ndarray, int]:
    """Spread on a smooth mesh over its median, NaN where blank or flagged; and the number of flagged sights."""
    finite = np.isfinite(spread) & (spread > 0)
    if not finite.any():
        return np.full(spread.shape, np.nan, np.float32), 0
    typical = float(np.median(spread[finite]))
    cells = [max(1, round(n / MESH)) for n in spread.shape]
    mesh = np.full(cells, np.nan)
    edges = [np.linspace(0, n, c + 1).astype(int) for n, c in zip(spread.shape, cells, strict=True)]
    for i in range(cells[0]):
        for j in range(cells[1]):
            block = spread[edges[0][i] : edges[0][i + 1], edges[1][j] : edges[1][j + 1]]
            block = block[np.isfinite(block) & (block > 0)]
            if block.size > 20:
                # The lower third: galaxies only ever add to the scatter along a line of sight.
                mesh[i, j] = np.quantile(block, 0.35)
    known = np.isfinite(mesh)
    if not known.any():
        mesh[:] = typical
        known[:] = True
    base = np.median(mesh[known])
    mesh[~known] = base
    factors = [n / c for n, c in zip(spread.shape, cells, strict=True)]
    smooth = zoom(mesh, factors, order=1, grid_mode=True, mode="nearest")
    with np.errstate(invalid="ignore"):
        bad = finite & (spread > SIGHT_RATIO * smooth)
    relative = (smooth / np.median(mesh)).astype(np.float32)
    # In a short cube a galaxy fills so many channels that it would be taken for a bad line of sight.
    bad = bad if flag else np.zeros_like(bad)
    relative[~finite | bad] = np.nan
    return relative, int(bad.sum())

