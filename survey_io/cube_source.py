"""The voxels of a cube on disk, read by window: what every worker holds instead of the cube."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError
from .pixels import PixelSource, to_float32

__all__ = ["CubeSource"]

Window3 = tuple[slice, slice, slice]
# Bytes of a file that are mapped at the same time.
MAPPED_BYTES = 128 * 2**20


@dataclass(frozen=True)
class CubeSource:
    """The voxels of one cube on disk: small, immutable and picklable, so that every worker can hold it.

    Attributes
    ----------
    path : Path
        The file that is read, a file in the scratch folder when the cube came compressed.
    hdu : int
    shape : (nchan, ny, nx)
    dtype : str
        numpy type of the stored values, with their byte order.
    offset : int
        Byte at which the first voxel begins.
    channel_step : int
        Stored values from one channel to the next; more than ny * nx where polarisations lie between.
    scale, zero, blank
        As `survey_io.pixels.PixelSource`.
    scratch : bool
        True when ``path`` is a copy that was unpacked and may be deleted.
    """

    path: Path
    hdu: int
    shape: tuple[int, int, int]
    dtype: str
    offset: int
    channel_step: int
    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None
    scratch: bool = False

    def read(self, window: Window3 | None = None, *, every: int = 1) -> np.ndarray:
        """Copy a window of the cube into memory.

        Parameters
        ----------
        window : (slice, slice, slice), optional
            Channels, rows and columns, step 1. It may reach outside the cube. None reads everything.
        every : int
            Read only every ``every``-th channel of the window, which must then lie within the cube.

        Returns
        -------
        ndarray, float32, C-contiguous, native byte order
            NaN where the cube has no value (blank, infinite or outside the cube).

        Raises
        ------
        InputError
            When the file has gone or has become shorter since it was opened.
        """
        spans = [slice(0, n) for n in self.shape] if window is None else window
        sides = tuple(max(s.stop - s.start, 0) for s in spans)
        if every > 1:
            return self._read_inside(*spans, every)
        inside = [slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(spans, self.shape, strict=True)]
        if min(sides) == 0 or any(s.start >= s.stop for s in inside):
            return np.full(sides, np.nan, np.float32)
        values = self._read_inside(*inside)
        if values.shape == sides:
            return values
        padded = np.full(sides, np.nan, np.float32)
        padded[tuple(slice(i.start - s.start, i.stop - s.start) for i, s in zip(inside, spans, strict=True))] = values
        return padded

    def _read_inside(self, channels: slice, rows: slice, columns: slice, every: int = 1) -> np.ndarray:
        sides = (-(-(channels.stop - channels.start) // every), rows.stop - rows.start, columns.stop - columns.start)
        group = self._group(sides)
        if group >= sides[0]:
            return self._read_mapped(channels, rows, columns, every)
        values = np.empty(sides, np.float32)
        for done in range(0, sides[0], group):
            first = channels.start + done * every
            part = slice(first, min(first + group * every, channels.stop))
            values[done : done + group] = self._read_mapped(part, rows, columns, every)
        return values

    def copy_stored(self, window: Window3, out: np.ndarray) -> Window3 | None:
        """Copy the values of a window as they are on disk; as `survey_io.pixels.PixelSource.copy_stored`."""
        inside = [slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(window, self.shape, strict=True)]
        if any(s.start >= s.stop for s in inside):
            return None
        channels, rows, columns = inside
        sides = tuple(s.stop - s.start for s in inside)
        dtype = np.dtype(self.dtype)
        target = out[: int(np.prod(sides)) * dtype.itemsize].view(dtype).reshape(sides)
        group = self._group(sides)
        for done in range(0, sides[0], group):
            part = slice(channels.start + done, min(channels.start + done + group, channels.stop))
            target[done : done + group] = self._mapped(part, rows, columns, 1)
        return tuple(slice(i.start - s.start, i.stop - s.start) for i, s in zip(inside, window, strict=True))

    def _group(self, sides: tuple[int, ...]) -> int:
        """Channels that are mapped at once: every row touches whole pages of the map, which count as ours."""
        touched = sides[1] * (sides[2] * np.dtype(self.dtype).itemsize + 2 * mmap.PAGESIZE)
        return max(1, MAPPED_BYTES // touched)

    def _read_mapped(self, channels: slice, rows: slice, columns: slice, every: int) -> np.ndarray:
        stored = self._mapped(channels, rows, columns, every)
        return to_float32(stored, scale=self.scale, zero=self.zero, blank=self.blank)

    def _mapped(self, channels: slice, rows: slice, columns: slice, every: int) -> np.ndarray:
        dtype = np.dtype(self.dtype)
        nx, count, step = self.shape[2], -(-(channels.stop - channels.start) // every), every * self.channel_step
        first = channels.start * self.channel_step + rows.start * nx
        needed = (count - 1) * step + (rows.stop - rows.start) * nx
        try:
            # The map lives as long as this call: one that stays open grows the resident set to the file's size.
            flat = np.memmap(
                self.path, dtype=dtype, mode="r", offset=self.offset + first * dtype.itemsize, shape=(needed,)
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path}: channels {channels.start} to {channels.stop} can no longer be read ({error}); expected "
                "the file to stay as it was when it was opened, open it again",
                path=str(self.path),
            ) from error
        size = dtype.itemsize
        stored = np.lib.stride_tricks.as_strided(
            flat[columns.start :],
            shape=(count, rows.stop - rows.start, columns.stop - columns.start),
            strides=(step * size, nx * size, size),
            writeable=False,
        )
        return stored

    def plane(self, channel: int) -> PixelSource:
        """One channel as the pixels of an image."""
        return PixelSource(
            self.path, self.hdu, self.shape[1:], self.dtype,
            self.offset + channel * self.channel_step * np.dtype(self.dtype).itemsize,
            self.scale, self.zero, self.blank, self.scratch,
        )  # fmt: skip
