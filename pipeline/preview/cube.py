"""What of a cube is looked at: maps over its channels, single channels, and the spectrum at a position."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_io.cube import Cube

__all__ = ["MAPS", "CubeMaps", "channel_labels", "cube_maps", "read_spectrum"]

MAPS = {"peak": "highest S/N over the channels", "sum": "integrated over the channels"}
CubeMaps = dict[str, NDArray[np.float32]]
# Voxels in memory at once, and voxels that are read for the maps: of larger cubes every n-th channel.
GROUP_VOXELS, MOST_VOXELS = 8_000_000, 2_000_000_000
# Values of a channel that its noise is estimated from.
NOISE_SAMPLES = 20_000
# A spectrum sums over at most this many pixels a side.
WIDEST = 64


def cube_maps(cube: Cube, path: Path | None, *, most_voxels: int = MOST_VOXELS) -> CubeMaps:
    """Maps over all channels of a cube, read in groups of channels; kept in `path` when one is given.

    Returns
    -------
    dict of str to ndarray float32 (ny, nx)
        ``peak``: highest value over the channel's noise; ``sum``: sum over the channels times their width, image unit
        times Hz (times 1 where the axis has no frequency). NaN without a valid voxel.
    """
    if path is not None:
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in MAPS}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass
    nchan, ny, nx = cube.shape
    every = max(1, -(-nchan * ny * nx // most_voxels))
    group = max(1, GROUP_VOXELS // (ny * nx)) * every
    peak = np.full((ny, nx), -np.inf, np.float32)
    total, count = np.zeros((ny, nx), np.float32), np.zeros((ny, nx), np.int32)
    for first in range(0, nchan, group):
        window = (slice(first, min(first + group, nchan)), slice(0, ny), slice(0, nx))
        for plane in cube.pixels.read(window, every=every):
            valid = np.isfinite(plane)
            if not valid.any():
                continue
            sample = plane[valid]
            low, middle = np.percentile(sample[:: max(1, sample.size // NOISE_SAMPLES)], [15.87, 50])
            if middle > low:
                np.fmax(peak, (plane - middle) / np.float32(middle - low), out=peak)
            total += np.where(valid, plane, 0)
            count += valid
    width = _channel_width(cube)
    nothing = np.float32(np.nan)
    maps = {
        "peak": np.where(np.isfinite(peak), peak, nothing),
        "sum": np.where(count > 0, total * np.float32(width * every), nothing),
    }
    if path is not None:
        # A full or read-only disk costs the next look its speed, not this one.
        with suppress(OSError):
            _save(maps, path)
    return maps


def _save(maps: CubeMaps, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **maps)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _channel_width(cube: Cube) -> float:
    nchan = cube.shape[0]
    try:
        frequency = np.asarray(cube.spectral.frequency(np.arange(nchan)), float)
    except Exception:  # a velocity axis without a rest frequency has none
        return 1.0
    return float(np.median(np.abs(np.diff(frequency)))) if nchan > 1 else 1.0


def channel_labels(cube: Cube) -> list[float]:
    """Frequency of each channel in MHz."""
    return np.round(np.asarray(cube.spectral.frequency(np.arange(cube.shape[0])), float) / 1e6, 5).tolist()


def read_spectrum(cube: Cube, x: float, y: float, radius: float) -> dict[str, Any]:
    """The spectrum of a square around a position.

    Parameters
    ----------
    cube : Cube
    x, y : float
        Pixels from 0.
    radius : float
        Half of the square's side, pixels; at most `WIDEST` / 2.

    Returns
    -------
    dict
        ``frequency`` (MHz), ``value`` (mean over the square, image unit; None without value), ``pixels``.
    """
    nchan, ny, nx = cube.shape
    half = float(np.clip(radius, 0, WIDEST / 2))
    rows, columns = (
        slice(max(0, int(np.ceil(at - half - 0.5))), min(n, int(np.floor(at + half + 0.5)) + 1))
        for at, n in ((y, ny), (x, nx))
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return {"frequency": [], "value": [], "pixels": 0}
    values = cube.pixels.read((slice(0, nchan), rows, columns)).reshape(nchan, -1)
    valid = np.isfinite(values)
    count = valid.sum(1)
    mean = np.where(valid, values, 0).sum(1, dtype=np.float64) / np.maximum(count, 1)
    return {
        "frequency": channel_labels(cube),
        "value": [float(f"{value:.6g}") if known else None for value, known in zip(mean, count > 0, strict=True)],
        "pixels": int(values.shape[1]),
    }
