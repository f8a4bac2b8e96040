"""Where an image's pixels lie on disk, and how a window of them is read."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError

__all__ = ["PixelSource", "Window", "to_float32"]

Window = tuple[slice, slice]
# Bytes that are read and converted at a time: little beside the answer, and they stay in a core's cache.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class PixelSource:
    """The pixels of one image on disk: small, immutable and picklable, so that every worker can hold it.

    Attributes
    ----------
    path : Path
        The file that is read. It is a file in the scratch folder when the image came compressed.
    hdu : int
        Index of the header-data unit in the file that the user named.
    shape : tuple of int
        (ny, nx).
    dtype : str
        numpy type of the stored values, with their byte order (">f4", ">i2", ...).
    offset : int
        Byte at which the first pixel begins.
    scale, zero : float
        Physical value = stored value * scale + zero (FITS BSCALE, BZERO).
    blank : int or None
        Stored integer that means "no value" (FITS BLANK).
    scratch : bool
        True when ``path`` is a copy that was unpacked and may be deleted.
    """

    path: Path
    hdu: int
    shape: tuple[int, int]
    dtype: str
    offset: int
    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None
    scratch: bool = False

    def read(self, window: Window | None = None) -> np.ndarray:
        """Copy a window of the image into memory.

        Parameters
        ----------
        window : (slice, slice), optional
            Rows and columns, integers, step 1. It may reach outside the image. None reads everything.

        Returns
        -------
        ndarray, float32, C-contiguous, native byte order
            NaN where the image has no value (blank, infinite or outside the image).

        Raises
        ------
        InputError
            When the file has gone or has become shorter since it was opened.
        """
        ny, nx = self.shape
        rows, columns = window if window is not None else (slice(0, ny), slice(0, nx))
        y0, y1, x0, x1 = rows.start, rows.stop, columns.start, columns.stop
        inside_y0, inside_y1 = max(y0, 0), min(y1, ny)
        inside_x0, inside_x1 = max(x0, 0), min(x1, nx)
        if inside_y0 >= inside_y1 or inside_x0 >= inside_x1:
            return np.full((max(y1 - y0, 0), max(x1 - x0, 0)), np.nan, dtype=np.float32)
        values = self._read_inside(inside_y0, inside_y1, inside_x0, inside_x1)
        if values.shape == (y1 - y0, x1 - x0):
            return values
        padded = np.full((y1 - y0, x1 - x0), np.nan, dtype=np.float32)
        padded[inside_y0 - y0 : inside_y1 - y0, inside_x0 - x0 : inside_x1 - x0] = values
        return padded

    def read_every(self, window: Window, step: int) -> np.ndarray:
        """What ``read(window)[::step, ::step]`` gives, without converting the rest; the window begins in the image."""
        (ny, nx), (rows, columns) = self.shape, window
        inside = self._map(rows.start, min(rows.stop, ny))[::step, columns.start : min(columns.stop, nx) : step]
        values = to_float32(inside, scale=self.scale, zero=self.zero, blank=self.blank)
        shape = tuple(-(-(s.stop - s.start) // step) for s in window)
        if values.shape == shape:
            return values
        padded = np.full(shape, np.nan, np.float32)
        padded[: values.shape[0], : values.shape[1]] = values
        return padded

    def copy_stored(self, window: Window, out: np.ndarray) -> Window | None:
        """Copy the values of a window as they are on disk.

        Parameters
        ----------
        window : (slice, slice)
            May reach outside the image.
        out : ndarray of uint8
            Its beginning is filled, row by row, with what lies in the image.

        Returns
        -------
        (slice, slice) or None
            Where in the window the values lie; None where it lies outside of the image.

        Raises
        ------
        InputError
            As `read`.
        """
        inside = [slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(window, self.shape, strict=True)]
        if any(s.start >= s.stop for s in inside):
            return None
        values = self._map(inside[0].start, inside[0].stop)[:, inside[1]]
        np.copyto(out[: values.size * values.itemsize].view(values.dtype).reshape(values.shape), values)
        return tuple(slice(i.start - s.start, i.stop - s.start) for i, s in zip(inside, window, strict=True))

    def _read_inside(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        # Read and not mapped: the faults of a map's pages take three times as long as these copies.
        dtype = np.dtype(self.dtype)
        count = max(1, CHUNK_BYTES // ((x1 - x0) * dtype.itemsize))
        values = np.empty((y1 - y0, x1 - x0), np.float32)
        stored = np.empty((min(count, y1 - y0), x1 - x0), dtype)
        try:
            with open(self.path, "rb", buffering=0) as file:
                for first in range(y0, y1, count):
                    part = stored[: min(count, y1 - first)]
                    self._fill(file, part, first, x0)
                    values[first - y0 : first - y0 + len(part)] = to_float32(
                        part, scale=self.scale, zero=self.zero, blank=self.blank
                    )
        except OSError as error:
            raise self._gone(y0, y1, error) from error
        return values

    def _fill(self, file: io.RawIOBase, rows: np.ndarray, y0: int, x0: int) -> None:
        """Read some rows, from a column on, as they are stored."""
        size, nx = rows.itemsize, self.shape[1]
        # Whole rows follow each other on disk.
        parts = rows.reshape(1, -1) if rows.shape[1] == nx else rows
        for number, row in enumerate(parts):
            file.seek(self.offset + ((y0 + number) * nx + x0) * size)
            wanted, done = memoryview(row.view(np.uint8)), 0
            while done < len(wanted):
                came = file.readinto(wanted[done:])
                if not came:
                    raise self._gone(y0, y0 + len(rows), "the file has become shorter")
                done += came

    def _gone(self, y0: int, y1: int, why: object) -> InputError:
        return InputError(
            f"{self.path}: rows {y0} to {y1} can no longer be read ({why}); expected the file to stay "
            f"as it was when it was opened, open it again",
            path=str(self.path),
        )

    def _map(self, y0: int, y1: int) -> np.ndarray:
        dtype = np.dtype(self.dtype)
        # Only these rows are mapped, and the map lives as long as this call: a map of the whole file
        # that stays open grows the resident set to the size of the image.
        start = self.offset + y0 * self.shape[1] * dtype.itemsize
        try:
            return np.memmap(self.path, dtype=dtype, mode="r", offset=start, shape=(y1 - y0, self.shape[1]))
        except (OSError, ValueError) as error:
            raise self._gone(y0, y1, error) from error


def to_float32(
    stored: np.ndarray, *, scale: float = 1.0, zero: float = 0.0, blank: int | None = None
) -> np.ndarray:
    """Physical values of stored FITS values: float32, C-contiguous, NaN for blank and for infinite values."""
    with np.errstate(over="ignore", invalid="ignore"):
        if scale == 1.0 and zero == 0.0:
            values = np.array(stored, dtype=np.float32, order="C", subok=False)
        else:
            # float64 in between: int32 counts and large offsets do not fit float32 before scaling.
            scaled = np.array(stored, dtype=np.float64, order="C", subok=False)
            scaled *= scale
            scaled += zero
            values = scaled.astype(np.float32)
    if blank is not None:
        values[np.asarray(stored) == blank] = np.nan
    # Two reductions that also tell NaN apart cost a third of one pass that looks for infinities.
    if stored.dtype.kind == "f" and values.size and not np.isfinite(values.max() + values.min()):
        values[np.isinf(values)] = np.nan
    return values
