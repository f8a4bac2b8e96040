"""Places on the sky as people write them: degrees, sexagesimal, names by coordinates; cones and boxes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle

from survey_io.errors import OptionError

from .sky import separation

__all__ = ["Box", "Cone", "parse_box", "parse_cone"]

_NAME = re.compile(
    r"(?:[A-Za-z][\w-]*\s+)?J(\d{2})(\d{2})(\d{2}(?:\.\d*)?)?([+-])(\d{2})(\d{2})(\d{2}(?:\.\d*)?)?", re.ASCII
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_RADIUS = {
    "": 1.0, "d": 1.0, "deg": 1.0, "'": 1 / 60, "m": 1 / 60, "arcmin": 1 / 60, '"': 1 / 3600, "s": 1 / 3600,
    "''": 1 / 3600, "arcsec": 1 / 3600,
}  # fmt: skip


@dataclass(frozen=True)
class Cone:
    """Everything within a radius of a place; all in degrees, ICRS."""

    ra: float
    dec: float
    radius: float


@dataclass(frozen=True)
class Box:
    """Everything between two meridians, going east from the first, and two parallels; all in degrees, ICRS.

    Attributes
    ----------
    ra1, ra2 : float
        From 0 to 360; ``ra1`` above ``ra2`` goes across 0; both None for all the way round.
    dec1, dec2 : float
    """

    ra1: float | None
    ra2: float | None
    dec1: float
    dec2: float

    def around(self) -> Cone:
        """A cone that holds the box."""
        dec = np.linspace(self.dec1, self.dec2, 181)
        if self.ra1 is None or self.ra2 is None:
            pole = 90.0 if self.dec1 + self.dec2 >= 0 else -90.0
            return Cone(0.0, pole, float(max(abs(pole - self.dec1), abs(pole - self.dec2))))
        width = (self.ra2 - self.ra1) % 360.0
        if width > 180.0:
            return Box(None, None, self.dec1, self.dec2).around()
        ra, middle = (self.ra1 + width / 2) % 360.0, (self.dec1 + self.dec2) / 2
        # The farthest place of a box narrower than half the sky is on its sides; between the samples it is no farther
        # than half a step more.
        far = float(np.max(separation(ra, middle, np.full(181, self.ra1), dec)))
        return Cone(ra, middle, min(far + (self.dec2 - self.dec1) / 360.0 + 1e-9, 180.0))


def parse_cone(text: str) -> Cone:
    """Read ``RA,DEC,RADIUS`` or ``NAME,RADIUS``.

    Parameters
    ----------
    text : str
        Degrees (``53.1,-27.8,0.1``), sexagesimal (``03:32:28.0,-27:48:30,5'`` or ``3h32m28s,-27d48m30s,5arcmin``, right
        ascension in hours) or a name by coordinates (``J033228.0-274830,5'``). A radius is in degrees or has a unit:
        ``'``, ``"``, deg, arcmin, arcsec.

    Raises
    ------
    OptionError
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) == 2 and (name := _NAME.fullmatch(words[0])) is not None:
        ra, dec = _from_name(name)
    elif len(words) == 3:
        ra, dec = _right_ascension(words[0]), _declination(words[1])
    else:
        raise OptionError(f"--cone: expected RA,DEC,RADIUS or Jhhmmss.s+ddmmss,RADIUS, got {text!r}")
    return Cone(ra % 360.0, dec, _radius(words[-1]))


def parse_box(text: str) -> Box:
    """Read ``RA1,RA2,DEC1,DEC2``: from RA1 eastward to RA2, across 0h where RA1 is the larger.

    Raises
    ------
    OptionError
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) != 4:
        raise OptionError(f"--box: expected RA1,RA2,DEC1,DEC2, got {text!r}")
    ra1, ra2 = (_right_ascension(word) for word in words[:2])
    dec1, dec2 = (_declination(word) for word in words[2:])
    if dec1 > dec2:
        raise OptionError(f"--box: expected the lower declination first, got {dec1:g} and {dec2:g} degrees")
    if ra2 - ra1 >= 360.0:
        return Box(None, None, dec1, dec2)
    return Box(ra1 % 360.0, ra2 % 360.0 if ra2 != 360.0 else 360.0, dec1, dec2)


def _from_name(name: re.Match[str]) -> tuple[float, float]:
    hours, minutes, seconds, sign, degrees, arcmin, arcsec = name.groups()
    parts = [float(one or 0) for one in (minutes, seconds, arcmin, arcsec)]
    if int(hours) > 23 or max(parts) >= 60:
        raise OptionError(f"expected a name by coordinates as J033228.0-274830, got {name.string!r}")
    ra = 15.0 * (int(hours) + parts[0] / 60 + parts[1] / 3600)
    dec = int(degrees) + parts[2] / 60 + parts[3] / 3600
    return ra, _checked(-dec if sign == "-" else dec, name.string)


def _right_ascension(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else _sexagesimal(text, "right ascension", u.hourangle)
    if not -360.0 <= value <= 720.0:
        raise OptionError(f"expected a right ascension from 0 to 360 degrees, got {text!r}")
    return value


def _declination(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else _sexagesimal(text, "declination", u.deg)
    return _checked(value, text)


def _checked(dec: float, text: str) -> float:
    if not -90.0 <= dec <= 90.0:
        raise OptionError(f"expected a declination from -90 to 90 degrees, got {text!r}")
    return dec


def _sexagesimal(text: str, what: str, unit: u.UnitBase) -> float:
    try:
        # With letters the text says its own unit: 53d06m is in degrees.
        return float(Angle(text, unit=unit).deg)
    except (ValueError, TypeError, u.UnitsError):
        raise OptionError(f"expected a {what} in degrees or as hh:mm:ss or dd:mm:ss, got {text!r}") from None


def _radius(text: str) -> float:
    number = _NUMBER.match(text)
    factor = _RADIUS.get(text[number.end() :].strip().lower()) if number is not None else None
    if number is None or factor is None:
        raise OptionError(f"expected a radius in degrees, or with a unit as 5' or 30arcsec, got {text!r}")
    value = float(number.group()) * factor
    if not 0.0 <= value <= 180.0:
        raise OptionError(f"expected a radius from 0 to 180 degrees, got {text!r}")
    return value
