"""Which files hold spectra and not images or cubes, told by their headers."""

from __future__ import annotations

import os
from pathlib import Path

from astropy.io import fits

from .errors import InputError
from .header_check import check_headers
from .quiet import quiet
from .spectral import spectral_axis_number

__all__ = ["holds_spectra"]

_FITS_SUFFIXES = (".fits", ".fit", ".fts")
_PACKED = (".gz", ".bz2", ".xz", ".fz")
_SKY = ("RA", "DEC", "GLON", "GLAT", "ELON", "ELAT")


def holds_spectra(path: str | os.PathLike[str], hdu: int | str | None = None) -> bool:
    """Whether `survey_io.spectra.open_spectra` and not `open_image` is to read a file.

    A FITS file does when no unit (or not the one asked for) holds an image, and one holds a line of pixels, rows along
    a spectral axis, or a table; another file by its suffix. Only headers are read; a file that cannot be read holds
    none, and `open_image` says what is wrong with it.
    """
    name = Path(path).name.lower()
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    if not name.endswith(_FITS_SUFFIXES):
        # Not at the top: images should not wait for what reads tables.
        from .spectra import SUFFIXES

        if name.endswith(SUFFIXES):
            return True
    try:
        check_headers(path)
        with quiet(), fits.open(path, mode="readonly", memmap=True, do_not_scale_image_data=True) as hdus:
            units = hdus if hdu is None else [hdus[hdu]]
            kinds = [_kind(unit) for unit in units]
    except (OSError, ValueError, TypeError, KeyError, IndexError, InputError, fits.VerifyError):
        return False
    return "image" not in kinds and "spectrum" in kinds


def _kind(unit: fits.hdu.base.ExtensionHDU) -> str:
    """ "image", "spectrum" or "" for a unit with neither."""
    if isinstance(unit, (fits.BinTableHDU, fits.TableHDU)) and not unit.is_image:
        return "spectrum"
    header = unit.header
    if not unit.is_image:
        return ""
    lengths = [int(header[f"NAXIS{axis + 1}"]) for axis in range(int(header.get("NAXIS", 0)))]
    long = [axis + 1 for axis, length in enumerate(lengths) if length > 1]
    if not long or 0 in lengths:
        return ""
    if len(long) == 1:
        return "spectrum"
    sky = any(str(header.get(f"CTYPE{axis}", "")).strip().upper().split("-")[0] in _SKY for axis in long)
    return "spectrum" if not sky and spectral_axis_number(header) in long else "image"
