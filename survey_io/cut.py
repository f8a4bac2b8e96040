"""A window of an image as an image of its own: nothing else of it is read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .observation import Observation
from .pixels import PixelSource, Window


@dataclass(frozen=True)
class CutPixels:
    """A window of pixels with the reading interface of `PixelSource`; what lies outside of it is NaN."""

    pixels: PixelSource
    window: Window

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the window."""
        return tuple(span.stop - span.start for span in self.window)

    @property
    def scratch(self) -> bool:
        """Whether the file behind is an unpacked copy."""
        return self.pixels.scratch

    @property
    def path(self):
        """The file that is read."""
        return self.pixels.path

    def read(self, window: Window | None = None) -> np.ndarray:
        """A copy of a part of the window, float32; see `PixelSource.read`."""
        window = window or tuple(slice(0, side) for side in self.shape)
        out = np.full(tuple(span.stop - span.start for span in window), np.nan, np.float32)
        low = [max(span.start, 0) for span in window]
        high = [min(span.stop, side) for span, side in zip(window, self.shape, strict=True)]
        if low[0] < high[0] and low[1] < high[1]:
            own = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            target = tuple(slice(a.start - w.start, a.stop - w.start) for a, w in zip(own, window, strict=True))
            first = [span.start for span in self.window]
            moved = tuple(slice(a.start + f, a.stop + f) for a, f in zip(own, first, strict=True))
            out[target] = self.pixels.read(moved)
        return out


def cut_observation(observation: Observation, window: Window) -> Observation:
    """An observation of a window (rows, columns) of another; pixels are counted from the window's first."""
    if window == tuple(slice(0, side) for side in observation.shape):
        return observation
    wcs = observation.wcs.slice(window)
    return replace(observation, pixels=CutPixels(observation.pixels, window), wcs=wcs)
