"""Tiles of an image's pyramid: cut from the file by window, as numbers that the page stretches itself.

Level k has blocks of 2^k pixels. The levels below `FINE` are binned from the file when they are asked for (a tile of
level 3 reads 2048 x 2048 pixels), the others from the overview. A tile holds a signal-to-noise in steps that keep both
ends: q = 128 asinh(s / 4), so a step is 1/32 of the noise near the background and 0.8% far above it.
"""

from __future__ import annotations

import gzip
import threading
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.binning import KEEP_SIGMA, SAMPLE_SIDE
from pipeline.preview.overview import (
    FACTOR,
    Overview,
    build_overview,
    load_overview,
    reduce_blocks,
    save_overview,
)
from survey_io.background import PixelReader

__all__ = ["BLANK", "SCALE", "TILE", "Pyramid"]

TILE = 256
"""Side of a tile, in pixels of its level."""
SCALE, SOFTENING, BLANK = 128.0, 4.0, -32768
FINE = FACTOR.bit_length() - 1


class Pyramid:
    """Tiles of one image in every scale, with bounded memory.

    Parameters
    ----------
    pixels : PixelReader
        ``shape`` and ``read(window)``.
    cache : Path or None
        File that keeps the overview; None builds it anew in each process.
    """

    def __init__(self, pixels: PixelReader, cache: Path | None = None) -> None:
        self.pixels, self.cache = pixels, cache
        self._lock = threading.Lock()
        longest = max(pixels.shape)
        self.levels = max(1, int(np.ceil(np.log2(max(longest, 1) / TILE))) + 1)

    @cached_property
    def _overview(self) -> Overview:
        found = load_overview(self.cache) if self.cache is not None else None
        if found is None:
            found = build_overview(self.pixels)
            if self.cache is not None:
                # A full or read-only disk costs the next look its speed, not this one.
                with suppress(OSError):
                    save_overview(found, self.cache)
        return found

    @property
    def overview(self) -> Overview:
        """Built by the first that asks; the others wait for it."""
        with self._lock:
            return self._overview

    @cached_property
    def noise(self) -> list[float]:
        """Rms of each level, image unit: how far averaging brings it down depends on the beam."""
        overview = self.overview
        windows = [self.pixels.read(window) for window in self._sample_windows()]
        result = []
        for level in range(self.levels):
            if level < FINE:
                maps = [reduce_blocks(values, values, 2**level)[0] for values in windows]
            else:
                maps = [reduce_blocks(overview.mean, overview.mean, 2 ** (level - FINE))[0]]
            spreads = [_spread(values) for values in maps]
            known = [spread for spread in spreads if spread > 0]
            estimate = float(np.median(known)) if known else 0.0
            former = result[-1] if result else overview.noise
            # Structure that fills a coarse level is no noise: averaging never adds to it.
            result.append(min(estimate, former) if estimate > 0 else former)
        return [value if value > 0 else 1.0 for value in result]

    def _sample_windows(self) -> list[tuple[slice, slice]]:
        ny, nx = self.pixels.shape
        high, wide = min(SAMPLE_SIDE, ny), min(SAMPLE_SIDE, nx)
        corners = [(int(fy * (ny - high)), int(fx * (nx - wide))) for fy in (0.1, 0.5, 0.9) for fx in (0.1, 0.5, 0.9)]
        return [(slice(y, y + high), slice(x, x + wide)) for y, x in corners]

    @cached_property
    def top(self) -> float:
        """S/N that a first look should show as white: the brightest 0.05% of the coarsest level that has structure."""
        overview = self.overview
        noise = overview.noise or 1.0
        values = (overview.peak[np.isfinite(overview.peak)] - overview.level) / noise
        return float(np.clip(np.percentile(values, 99.5), 25.0, 4000.0)) if values.size else 25.0

    def grid(self, level: int) -> tuple[int, int]:
        """Rows and columns of tiles of a level."""
        rows, columns = (-(-n // (TILE * 2**level)) for n in self.pixels.shape)
        return rows, columns

    def tile(self, level: int, row: int, column: int) -> NDArray[np.int16]:
        """One tile, (TILE, TILE) int16: 128 asinh(S/N / 4), `BLANK` without value; row 0 is the image's first.

        Raises
        ------
        IndexError
            When the pyramid has no such tile.
        """
        if not (0 <= level < self.levels) or not all(
            0 <= index < count for index, count in zip((row, column), self.grid(level), strict=True)
        ):
            raise IndexError(f"no tile {level}/{row}/{column}: {self.levels} levels")
        overview, noise = self.overview, self.noise[level]
        if level < FINE:
            side = TILE * 2**level
            values = self.pixels.read(
                (slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
            )
            mean, peak = reduce_blocks(values, values, 2**level)
        else:
            factor = 2 ** (level - FINE)
            window = tuple(slice(index * TILE * factor, (index + 1) * TILE * factor) for index in (row, column))
            mean, peak = reduce_blocks(overview.mean[window], overview.peak[window], factor)
        ratio = (mean - np.float32(overview.level)) / np.float32(noise)
        if level > 0 and overview.noise > 0:
            # The mean of a block of many beams drowns a point source; its peak shows it.
            highest = (peak - np.float32(overview.level)) / np.float32(overview.noise)
            ratio = np.where(highest > KEEP_SIGMA, np.fmax(ratio, highest), ratio)
        coded = np.full((TILE, TILE), BLANK, dtype=np.int16)
        valid = np.isfinite(ratio)
        steps = np.rint(SCALE * np.arcsinh(np.where(valid, ratio, 0) / SOFTENING))
        coded[: ratio.shape[0], : ratio.shape[1]] = np.where(valid, steps, BLANK)
        return coded

    def tile_bytes(self, level: int, row: int, column: int) -> bytes:
        """A tile as gzip: the high bytes of all numbers, then the low ones, which packs a third better."""
        coded = self.tile(level, row, column)
        planes = np.stack([(coded >> 8).astype(np.int8).view(np.uint8), (coded & 255).astype(np.uint8)])
        return gzip.compress(planes.tobytes(), compresslevel=1, mtime=0)


def _spread(values: NDArray[np.float32]) -> float:
    finite = values[np.isfinite(values)]
    if finite.size < 50:
        return 0.0
    low, middle = np.percentile(finite, [15.87, 50])
    return float(middle - low)
