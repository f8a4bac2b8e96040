"""Positions as people write them."""

from __future__ import annotations

import re

__all__ = ["parse_position"]

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
_UNITS = {"'": 1 / 60, "′": 1 / 60, "m": 1 / 60, '"': 1 / 3600, "″": 1 / 3600, "s": 1 / 3600, "d": 1.0, "°": 1.0}
_RADIUS = re.compile(rf"\s+({_NUMBER.removeprefix('[-+]?')})\s*(['′m\"″sd°])\s*$")
_DECIMAL = re.compile(rf"^({_NUMBER})[\s,]+({_NUMBER})$")
_SEXAGESIMAL = re.compile(
    r"^(?:[A-Za-z]*\s*J)?\s*(\d{1,2})[\s:h]+(\d{1,2})[\s:m]+(\d{1,2}(?:\.\d*)?)s?[\s,]*"
    r"([-+−])\s*(\d{1,2})[\s:d°]+(\d{1,2})[\s:m'′]+(\d{1,2}(?:\.\d*)?)[s\"″]?$"
)
_NAME = re.compile(r"^[A-Za-z]*\s*J(\d{2})(\d{2})(\d{2}(?:\.\d*)?)([-+−])(\d{2})(\d{2})(\d{2}(?:\.\d*)?)$")


def parse_position(text: str) -> tuple[float, float, float | None] | None:
    """A position and a radius from one line; None when it is no position.

    ``187.7 12.39``, ``12:30:49.4 +12:23:28``, ``12h30m49.4s +12d23m28s`` and names like ``SKS J123049.42+122328.0``,
    each with a radius behind it when wanted: ``5'``, ``30"``, ``0.1d``.

    Returns
    -------
    (float, float, float or None) or None
        ra, dec and radius, ICRS degrees.
    """
    text, radius = text.strip()[:100], None
    match = _RADIUS.search(text)
    if match is not None and parse_position(text[: match.start()]) is not None:
        text, radius = text[: match.start()], float(match[1]) * _UNITS[match[2]]
    match = _DECIMAL.match(text)
    if match is not None:
        ra, dec = float(match[1]), float(match[2])
    else:
        match = _SEXAGESIMAL.match(text) or _NAME.match(text)
        if match is None:
            return None
        hours, minutes, seconds, degrees, arcmin, arcsec = (float(match[i]) for i in (1, 2, 3, 5, 6, 7))
        if hours >= 24 or max(minutes, seconds, arcmin, arcsec) >= 60:
            return None
        ra = 15 * (hours + minutes / 60 + seconds / 3600)
        dec = (degrees + arcmin / 60 + arcsec / 3600) * (1 if match[4] == "+" else -1)
    if not (-360 <= ra <= 360 and -90 <= dec <= 90):
        return None
    return ra % 360, dec, radius
