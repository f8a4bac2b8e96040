"""Block-averaged pixels: images whose beam is far wider than a detector was made for are read coarser."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .pixels import PixelSource, Window


@dataclass(frozen=True)
class BinnedPixels:
    """Means over blocks of ``factor`` x ``factor`` pixels, with the reading interface of `PixelSource`.

    Blocks are anchored at pixel (0, 0); blanks do not count, and a block of only blanks is NaN.
    """

    pixels: PixelSource
    factor: int

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) in blocks; the last ones may be partly outside of the image."""
        return tuple(-(-n // self.factor) for n in self.pixels.shape)

    def read(self, window: Window) -> np.ndarray:
        """Means of a window of blocks, float32; outside of the image NaN."""
        f = self.factor
        fine = self.pixels.read(tuple(slice(s.start * f, s.stop * f) for s in window))
        blocks = fine.reshape(fine.shape[0] // f, f, fine.shape[1] // f, f)
        good = np.isfinite(blocks)
        count = good.sum(axis=(1, 3))
        total = np.where(good, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)

    def to_fine(self, position: np.ndarray) -> np.ndarray:
        """Position in pixels of the full image of a position in blocks (both from 0 at the first centre)."""
        return (np.asarray(position) + 0.5) * self.factor - 0.5
