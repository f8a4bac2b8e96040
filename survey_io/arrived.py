"""Is a file that somebody may still be writing all there, and what does it hold?"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

from astropy.io import fits

from .cube import is_cube, open_cube
from .errors import IncompleteError, InputError
from .image import open_image
from .quiet import quiet
from .scratch import decompressor, unpack_stream
from .spectra_files import holds_spectra

__all__ = ["check_arrived"]

_BLOCK = 2880
_FIRST, _EXTENSION = b"SIMPLE  =", b"XTENSION="


def check_arrived(path: str | os.PathLike[str], *, hdu: int | str | None = None) -> str:
    """Check that a file is as long as its headers say and can be opened.

    Of plain images and cubes only headers are read; packed ones are unpacked to a temporary folder, to their end.

    Parameters
    ----------
    path : path-like
        FITS, or spectra in any form.
    hdu : int or str, optional
        The unit that will be opened.

    Returns
    -------
    str
        "image", "cube" or "spectrum".

    Raises
    ------
    IncompleteError
        When the file ends too early: it may still grow.
    InputError
        When it is complete and cannot be used.
    OSError
        When it cannot be read, which its owner or the disk may mend.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix="skysift-arrived-") as folder:
        scratch = Path(folder)
        _check_units(path, _readable(path, scratch))
        if is_cube(path, hdu=hdu):
            open_cube(path, hdu=hdu, scratch=scratch)
            return "cube"
        if holds_spectra(path, hdu=hdu):
            from .spectra import open_spectra

            open_spectra(path, hdu=hdu)
            return "spectrum"
        open_image(path, hdu=hdu, scratch=scratch)
        return "image"


def _readable(path: Path, scratch: Path) -> Path:
    """The file itself, or what it unpacks to."""
    opener = decompressor(path)
    if opener is None:
        return path
    try:
        return unpack_stream(path, opener, scratch)
    except InputError as error:
        if isinstance(error.__cause__, EOFError):
            raise _incomplete(path, "its packed data end before their own end mark", path.stat().st_size) from None
        raise


def _check_units(path: Path, readable: Path) -> None:
    """Raise `IncompleteError` when a FITS file ends before its units do; other files tell nothing of their length."""
    length = readable.stat().st_size
    with open(readable, "rb") as file, quiet():
        start = file.read(len(_FIRST))
        if length < len(_FIRST) and _FIRST.startswith(start):
            raise _incomplete(path, "it has no header yet" if start else "it is empty", length)
        if start != _FIRST:
            return
        at, pixels = 0, 0
        while at < length:
            file.seek(at)
            start = file.read(len(_EXTENSION))
            if at and start != _EXTENSION[: len(start)]:
                # Special records, or rubbish, behind the last unit: astropy passes over it too.
                return
            file.seek(at)
            try:
                header = fits.Header.fromfile(file)
            except (OSError, EOFError, ValueError):
                raise _incomplete(path, f"the header at byte {at} has no end", length) from None
            size = _data_bytes(header)
            end = file.tell() + size
            if end > length:
                raise _incomplete(path, f"its headers promise {end} bytes", length, expected=end)
            pixels += size
            at = -(-end // _BLOCK) * _BLOCK
        if not pixels:
            raise _incomplete(path, "none of its units has data", length)


def _data_bytes(header: fits.Header) -> int:
    """Bytes of a unit's data, without the padding (FITS standard 4.0, equations 1, 2 and 4)."""
    try:
        sides = [int(header[f"NAXIS{axis + 1}"]) for axis in range(int(header["NAXIS"]))]
        if not sides:
            return 0
        groups = sides[0] == 0 and header.get("GROUPS", False)
        values = int(header.get("PCOUNT", 0)) + math.prod(sides[1:] if groups else sides)
        return abs(int(header["BITPIX"])) // 8 * int(header.get("GCOUNT", 1)) * values
    except (KeyError, ValueError, TypeError):
        # What is wrong with such a header is said by who opens the file.
        return 0


def _incomplete(path: Path, why: str, got: int, expected: int | None = None) -> IncompleteError:
    return IncompleteError(
        f"{path}: expected a whole file, {why} and it ends after {got}; it is cut short, fetch it again",
        path=str(path),
        got=got,
        expected=expected,
    )
