"""IRAF's multispec images: a wavelength axis of its own for each row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.polynomial import chebyshev, legendre

from .spectrum_build import NotASpectrum

__all__ = ["multispec_axis"]

_LINEAR, _LOG, _CURVED = 0, 1, 2


def multispec_axis(words: Mapping[str, str], row: int) -> np.ndarray:
    """Wavelengths of a row.

    Parameters
    ----------
    words : mapping
        Of WAT2: ``specN`` holds aperture, beam, type, first wavelength, step, length, redshift, limits and functions.
    row : int
        From 0.

    Raises
    ------
    NotASpectrum
        Without a dispersion, or for splines.
    """
    numbers = [float(word) for word in words.get(f"spec{row + 1}", "").split()]
    if len(numbers) < 6 or numbers[2] not in (_LINEAR, _LOG, _CURVED):
        raise NotASpectrum(f"is a multispec image without wavelengths of row {row}")
    kind, first, step, used = numbers[2], numbers[3], numbers[4], int(numbers[5])
    shift = numbers[6] if len(numbers) > 6 else 0.0
    values = first + step * np.arange(used) if kind != _CURVED else _curve(numbers[9:], used)
    return (10.0**values if kind == _LOG else values) / (1 + shift)


def _curve(numbers: list[float], used: int) -> np.ndarray:
    """Weighted sum of functions of the pixel (counted from 1)."""
    total, pixels = np.zeros(used), np.arange(1.0, used + 1)
    while numbers:
        weight, offset, function, order, low, high = (*numbers[:3], int(numbers[3]), *numbers[4:6])
        if function not in (1, 2):
            raise NotASpectrum("is a multispec image with wavelengths along splines")
        terms, numbers = numbers[6 : 6 + order], numbers[6 + order :]
        place = (2 * pixels - (high + low)) / (high - low)
        total += weight * (offset + (chebyshev.chebval if function == 1 else legendre.legval)(place, terms))
    return total
