"""Looks at the headers of a FITS file before a library does, which some numbers cost hours or all memory."""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from typing import IO

from .errors import InputError

__all__ = ["check_headers"]

_BLOCK = 2880
_CARD = 80
# FITS standard 4.0, 4.4.1: NAXIS and TFIELDS are at most 999.
_MOST = 999
# A header without an end would be read to the end of the file, and kept.
_LONGEST_HEADER = 64 * 2**20
_LARGEST = 2**60
_WANTED = re.compile(rb"(BITPIX  |NAXIS   |NAXIS\d{1,3} *|PCOUNT  |GCOUNT  |TFIELDS |ZNAXIS  )= *([+-]?\d+)")
_END = re.compile(rb"END {77}")
_COUNTS = ("NAXIS", "TFIELDS", "ZNAXIS")


def check_headers(file: str | os.PathLike[str] | IO[bytes], *, name: str | os.PathLike[str] | None = None) -> None:
    """Refuse a FITS file whose headers promise what cannot be; other files pass, and so do headers that are only wrong.

    Parameters
    ----------
    file : path or binary file
        A file is left where it was.
    name : path, optional
        What messages call it.

    Raises
    ------
    InputError
    """
    shown = name if name is not None else file
    if isinstance(file, (str, os.PathLike)):
        with suppress(OSError), open(file, "rb") as opened:
            _walk(opened, shown)
        return
    place = file.tell()
    try:
        _walk(file, shown)
    finally:
        file.seek(place)


def _walk(file: IO[bytes], name: object) -> None:
    at, first = file.tell(), True
    while True:
        file.seek(at)
        cards = _header(file, name, first)
        if cards is None:
            return
        for key in _COUNTS:
            if cards.get(key, 0) > _MOST:
                raise InputError(
                    f"{name}: expected a FITS file, its {key} is {cards[key]} where the standard allows "
                    f"{_MOST}; it is damaged, or made to do harm: fetch it again"
                )
        sides = [cards.get(f"NAXIS{axis + 1}", -1) for axis in range(cards.get("NAXIS", 0))]
        if any(side < 0 for side in sides) or not {"BITPIX", "NAXIS"} <= cards.keys():
            return
        groups = len(sides) > 1 and sides[0] == 0
        values = math.prod(sides[1:] if groups else sides) if sides else 0
        values = (values + cards.get("PCOUNT", 0)) * cards.get("GCOUNT", 1) if sides else 0
        at, first = file.tell() + -(-abs(cards["BITPIX"]) // 8 * values // _BLOCK) * _BLOCK, False
        if at >= _LARGEST:
            raise InputError(
                f"{name}: expected a FITS file, its headers promise {at:.2g} bytes, which no disk holds; it is "
                "damaged, or made to do harm: fetch it again"
            )


def _header(file: IO[bytes], name: object, first: bool) -> dict[str, int] | None:
    """The numbers of a header that matter, the file behind it; None at the end of the units."""
    found: dict[str, int] = {}
    read = 0
    while block := file.read(_BLOCK):
        if not read and not block.startswith(b"SIMPLE  =" if first else b"XTENSION"):
            return None
        read += len(block)
        end = next((one.start() for one in _END.finditer(block) if one.start() % _CARD == 0), None)
        for one in _WANTED.finditer(block, 0, len(block) if end is None else end):
            if one.start() % _CARD == 0:
                found.setdefault(one[1].decode().strip(), int(one[2][:30]))
        if end is not None:
            return found
        if read > _LONGEST_HEADER:
            break
    if read > _BLOCK * 100:
        raise InputError(
            f"{name}: expected a FITS file, its header has no end within {read / 2**20:.1f} MiB; it is damaged: fetch "
            "it again"
        )
    # A short one is for who opens the file to explain.
    return None
