"""Stored FITS values as physical ones, where the device has them as bytes from the disk."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_KINDS = {
    "u1": torch.uint8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64,
    "f4": torch.float32, "f8": torch.float64,
}  # fmt: skip
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# Pairs of a shift and the bits that stay in place after it: bytes within halves, halves within words, and so on.
_STEPS = {
    2: ((8, 0x00FF),),
    4: ((8, 0x00FF00FF), (16, 0x0000FFFF)),
    8: ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF)),
}


def swap_bytes(values: Tensor) -> Tensor:
    """Values in the other byte order; they are looked at as integers, whose bytes are shifted past each other."""
    size = values.element_size()
    if size == 1:
        return values
    numbers = values.view(_INTEGERS[size])
    for shift, low in _STEPS[size]:
        # The mask comes after the shift to the right, which copies the sign.
        numbers = ((numbers & low) << shift) | ((numbers >> shift) & low)
    return numbers.view(values.dtype)


def physical(
    stored: Tensor, dtype: str, *, scale: float = 1.0, zero: float = 0.0, blank: int | None = None
) -> Tensor:
    """What `survey_io.pixels.to_float32` gives: float32 with NaN for blank and for infinite values.

    Parameters
    ----------
    stored : Tensor of uint8, shape (..., bytes of a value)
        As on disk.
    dtype : str
        numpy's name of the stored type with its byte order (">f4", ">i2").
    scale, zero : float
        Physical value = stored value * scale + zero.
    blank : int, optional
        Stored integer that means "no value".

    Returns
    -------
    Tensor of float32, shape (...)
    """
    kind = np.dtype(dtype)
    values = stored.view(_KINDS[kind.str[1:]]).squeeze(-1)
    if kind.byteorder == ">" or (kind.byteorder == "=" and np.little_endian is False):
        values = swap_bytes(values)
    empty = values == blank if blank is not None else None
    if scale == 1.0 and zero == 0.0:
        numbers = values.to(torch.float32)
    else:
        # float64 in between: int32 counts and large offsets do not fit float32 before scaling.
        numbers = (values.to(torch.float64) * scale + zero).to(torch.float32)
    if empty is not None:
        numbers = numbers.masked_fill(empty, torch.nan)
    if kind.kind == "f":
        numbers = numbers.masked_fill(numbers.isinf(), torch.nan)
    return numbers
