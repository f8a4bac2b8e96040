"""What detectors of cubes are shown: voxels over their noise."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Window3 = tuple[slice, slice, slice]
# Voxels that go from the file to S/N at a time: they stay in a core's cache meanwhile.
SLAB_VOXELS = 1_000_000


def read_cube_snr(pixels: Any, noise: Any, window: Window3, *, threads: int = 1) -> np.ndarray:
    """S/N of a window, float32; NaN where blank, flagged, outside the cube, or without a noise estimate.

    Parameters
    ----------
    pixels : CubeSource or ArrayCube
    noise : CubeNoise
    window : (slice, slice, slice)
        Channels, rows and columns; may reach outside of the cube.
    threads : int
        That read at the same time.
    """
    channels, *sky = window
    snr = np.empty([side.stop - side.start for side in window], np.float32)
    level = noise.level(window)
    step = max(1, SLAB_VOXELS // max(level.size, 1))

    def fill(first: int) -> None:
        out = snr[first : first + step]
        slab = (slice(channels.start + first, channels.start + first + len(out)), *sky)
        if not noise.good(slab).any():
            # Nothing to read: of a cube with many flagged channels that saves most of the time.
            out[:] = np.nan
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            np.subtract(pixels.read(slab), level, out=out)
            # The noise of what is flagged is NaN, and so is what is divided by it.
            out /= noise.rms(slab)
            # One sum tells whether anything is to be looked for: most slabs hold numbers only.
            if not np.isfinite(out.sum()):
                out[~np.isfinite(out)] = np.nan

    slabs = range(0, len(snr), step)
    if threads == 1 or len(slabs) == 1:
        for first in slabs:
            fill(first)
        return snr
    with ThreadPoolExecutor(min(threads, len(slabs))) as pool:
        for done in [pool.submit(fill, first) for first in slabs]:
            done.result()
    return snr
