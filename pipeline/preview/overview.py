"""One pass over an image in strips: what its coarse levels are cut from, and its noise over the area."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from survey_io.background import PixelReader

__all__ = ["FACTOR", "Overview", "build_overview", "load_overview", "reduce_blocks"]

FACTOR = 16
"""Side of the blocks of an overview, pixels: 8 MB and twice that for 32768 x 32768 pixels."""
# Rows in memory at once, a multiple of every cell's side: 32 MB at 32768 columns.
STRIP_ROWS = 256
# Values that a cell's noise is estimated from: its error is 4%, and all cells of 4 GiB take a second.
SAMPLES = 32


@dataclass(frozen=True)
class Overview:
    """An image in blocks of `FACTOR` pixels a side, and its noise in cells.

    Attributes
    ----------
    mean, peak : ndarray float32 (ceil(ny / FACTOR), ceil(nx / FACTOR))
        Mean and highest value of a block, image unit; NaN without a valid pixel.
    rms : ndarray float32 (cells_y, cells_x)
        Robust noise of a cell, image unit; NaN where less than a tenth of it is valid.
    area : ndarray float32 (cells_y, cells_x)
        Valid pixels of a cell.
    cell : int
        Side of a cell, pixels.
    level, noise : float
        Background and noise of the whole image: medians over the cells; 0 without valid pixels.
    """

    mean: NDArray[np.float32]
    peak: NDArray[np.float32]
    rms: NDArray[np.float32]
    area: NDArray[np.float32]
    cell: int
    level: float
    noise: float


def reduce_blocks(
    mean: NDArray[np.float32], peak: NDArray[np.float32], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean of means and highest of peaks in blocks of `factor`; NaN only where a block has nothing else.

    Sides that are no multiple of `factor` are filled up with NaN.
    """
    if factor == 1:
        return mean, peak
    sides = tuple(-(-n // factor) * factor for n in mean.shape)
    if sides != mean.shape:
        fill = [(0, side - n) for side, n in zip(sides, mean.shape, strict=True)]
        same = mean is peak
        mean = np.pad(mean, fill, constant_values=np.nan)
        peak = mean if same else np.pad(peak, fill, constant_values=np.nan)
    highest = _blocks(np.maximum, peak, factor)
    average = _blocks(np.add, mean, factor) / np.float32(factor**2)
    if np.isnan(highest).any():
        # NaN runs through sum and maximum: a window without blanks is done by now.
        valid = np.isfinite(mean)
        count = _blocks(np.add, valid.astype(np.float32), factor)
        total = _blocks(np.add, np.where(valid, mean, np.float32(0)), factor)
        average = np.where(count > 0, total / np.maximum(count, 1), np.float32(np.nan)).astype(np.float32)
        highest = _blocks(np.fmax, peak, factor)
    return average, highest


def _blocks(function: np.ufunc, values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    # Whole rows first, at the speed of the memory.
    rows = function.reduce(values.reshape(-1, factor, values.shape[1]), axis=1)
    return function.reduce(rows.reshape(rows.shape[0], -1, factor), axis=2)


def _cell_side(shape: tuple[int, int]) -> int:
    side = min(shape) // 12
    return next(size for size in (256, 128, 64, 32, 16) if size <= max(side, 16))


def _cell_noise(strip: NDArray[np.float32], cell: int) -> tuple[NDArray[np.float32], ...]:
    """Rms, background and valid pixels of a strip's cells, each of shape (rows, columns)."""
    fill = [(0, -n % cell) for n in strip.shape]
    if any(after for _, after in fill):
        strip = np.pad(strip, fill, constant_values=np.nan)
    rows, columns = (n // cell for n in strip.shape)
    step = max(1, cell // SAMPLES)
    sample = strip.reshape(rows, cell, columns, cell)[:, step // 2 :: step, :, step // 2 :: step]
    values = np.sort(sample.transpose(0, 2, 1, 3).reshape(rows, columns, -1), axis=-1)  # NaN go last
    count = np.isfinite(values).sum(-1)
    middle, low = (
        np.take_along_axis(values, np.maximum((count * share).astype(int), 0)[..., None], -1)[..., 0]
        for share in (0.5, 0.1587)
    )
    enough = count * 10 >= values.shape[-1]
    nothing = np.float32(np.nan)
    area = count * np.float32(cell**2 / values.shape[-1])
    return np.where(enough, middle - low, nothing), np.where(enough, middle, nothing), area


def build_overview(pixels: PixelReader) -> Overview:
    """Read an image once, in strips of `STRIP_ROWS` rows.

    Parameters
    ----------
    pixels : PixelReader
        ``shape`` and ``read(window)``.
    """
    ny, nx = pixels.shape
    cell = _cell_side((ny, nx))
    means, peaks, noises = [], [], []
    for first in range(0, ny, STRIP_ROWS):
        strip = pixels.read((slice(first, min(first + STRIP_ROWS, ny)), slice(0, nx)))
        mean, peak = reduce_blocks(strip, strip, FACTOR)
        means.append(mean)
        peaks.append(peak)
        noises.append(_cell_noise(strip, cell))
    rms, level, area = (np.concatenate(parts).astype(np.float32) for parts in zip(*noises, strict=True))
    known = np.isfinite(rms) & (rms > 0)
    return Overview(
        np.concatenate(means), np.concatenate(peaks), np.where(known, rms, np.float32(np.nan)), area, cell,
        float(np.median(level[np.isfinite(level)])) if np.isfinite(level).any() else 0.0,
        float(np.median(rms[known])) if known.any() else 0.0,
    )  # fmt: skip


def save_overview(overview: Overview, path: Path) -> None:
    """Write an overview; whoever reads `path` finds all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            np.savez(
                file, mean=overview.mean, peak=overview.peak, rms=overview.rms, area=overview.area,
                scalars=np.array([overview.cell, overview.level, overview.noise]),
            )  # fmt: skip
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def load_overview(path: Path) -> Overview | None:
    """Read an overview; None when there is none, or a damaged one."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            cell, level, noise = file["scalars"].tolist()
            return Overview(file["mean"], file["peak"], file["rms"], file["area"], int(cell), level, noise)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
