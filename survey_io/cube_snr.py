"""What detectors of cubes are shown: voxels over their noise."""

from __future__ import annotations

from typing import Any

import numpy as np

Window3 = tuple[slice, slice, slice]


def read_cube_snr(pixels: Any, noise: Any, window: Window3) -> np.ndarray:
    """S/N of a window, float32; NaN where blank, flagged, outside the cube, or without a noise estimate."""
    good = noise.good(window)
    if not good.any():
        # Nothing to read: of a cube with many flagged channels that saves most of the time.
        return np.full(tuple(side.stop - side.start for side in window), np.nan, np.float32)
    voxels = pixels.read(window)
    voxels -= noise.level(window)
    with np.errstate(divide="ignore", invalid="ignore"):
        voxels /= noise.rms(window)
    voxels[~np.broadcast_to(good, voxels.shape)] = np.nan
    voxels[~np.isfinite(voxels)] = np.nan
    return voxels
