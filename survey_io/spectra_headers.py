"""The axis of a spectrum as FITS headers write it: WCS, IRAF's words, surveys' own keywords, radio dialects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS

from .spectral import read_spectral_axis
from .spectral_units import AXIS_KINDS, axis_kind, axis_unit
from .spectrum_build import PLAUSIBLE_ANGSTROM, Given, NotASpectrum, Place

__all__ = ["HeaderAxis", "header_air", "header_axis", "iraf_words", "named", "rest_frequency", "told_air"]

# Units that some write as the type of the axis.
_UNITS_AS_TYPE = ("ANGSTROM", "ANGSTROMS", "NM", "NANOMETER", "MICRON", "MICRONS", "UM", "HZ", "MHZ", "GHZ", "KM/S")


@dataclass(frozen=True)
class HeaderAxis:
    """Places along an axis and what the header says of them."""

    values: np.ndarray
    unit: u.UnitBase
    convention: str = "radio"
    rest_frequency: float | None = None
    air: bool | None = None
    notes: tuple[str, ...] = ()


def header_axis(
    header: fits.Header, n: int, size: int, meta: Mapping[str, Any], place: Place, given: Given
) -> HeaderAxis:
    """Places along an axis of a header.

    Parameters
    ----------
    header : Header
    n, size : int
        FITS number of the axis, from 1, and its length.
    meta : mapping
        Keywords of the file.
    place : Place
    given : Given

    Raises
    ------
    NotASpectrum
        When the header says nothing of a wavelength, frequency, velocity or time.
    InputError
        When the unit is not one of these.
    """
    air = header_air(header, n, meta, given)
    if "COEFF0" in header and "COEFF1" in header:
        # SDSS' and LAMOST's own: log10 of Angstrom.
        values = 10.0 ** (float(header["COEFF0"]) + float(header["COEFF1"]) * np.arange(size))
        return HeaderAxis(values, given.unit or u.Angstrom, air=bool(air))
    ctype = str(header.get(f"CTYPE{n}", "")).strip().upper()
    wat = iraf_words(header, n)
    text = header.get(f"CUNIT{n}") or wat.get("units") or (ctype if ctype in _UNITS_AS_TYPE else "")
    unit, log = axis_unit(text)
    kind = None if unit is None else axis_kind(unit)
    if ctype[:4] in ("FREQ", "VRAD", "VOPT", "VELO", "FELO", "ZOPT") and given.unit is None:
        return _radio_axis(header, n, size, ctype, place, given)
    step = header.get(f"CDELT{n}", header.get(f"CD{n}_{n}"))
    if f"CRVAL{n}" not in header or not step:
        raise NotASpectrum(f"has no wavelength axis (CTYPE{n} {ctype or 'none'}, no CRVAL{n} and CDELT{n})")
    if f"CDELT{n}" in header and f"CD{n}_{n}" in header:
        step = header[f"CD{n}_{n}"]
    elif f"CDELT{n}" in header:
        step = float(step) * float(header.get(f"PC{n}_{n}", 1.0))
    first, step = float(header[f"CRVAL{n}"]), float(step)
    offset = np.arange(size) + 1 - float(header.get(f"CRPIX{n}", 1.0))
    if re.match(r"(WAVE|AWAV|WAVN|ENER)-(?!LOG)[A-Z0-9]{3}$", ctype):
        return _curved_axis(header, n, size, ctype, place, air)
    if ctype.endswith("-LOG") and len(ctype) == 8:
        values = first * np.exp(step * offset / first)
    else:
        values = first + step * offset
        log = log or int(header.get("DC-FLAG", 0) or 0) == 1 or "LOG" in ctype or given.log
        if log:
            values = 10.0**values
    notes = []
    if given.unit is not None:
        unit = given.unit
    elif unit is not None and kind is None or unit is None and text:
        raise place.error(
            f"expected {AXIS_KINDS} along axis {n} ({ctype or 'no CTYPE'}), its unit is {str(text).strip()!r}; correct "
            f"CUNIT{n}, or give it with --unit"
        )
    elif unit is None:
        low, high = PLAUSIBLE_ANGSTROM
        if not (low <= values.min() and values.max() <= high):
            if not ctype.startswith(("WAVE", "AWAV", "LAMB")):
                raise NotASpectrum(
                    f"has no wavelength axis (axis {n} counts from {values[0]:g} to {values[-1]:g}, without a unit)"
                )
            raise place.error(
                f"expected CUNIT{n} beside wavelengths from {values[0]:g} to {values[-1]:g}, the header has none; give "
                "it with --unit"
            )
        unit = u.Angstrom
        notes.append(f"no CUNIT{n} in the header: wavelengths are taken as Angstrom")
    rest = given.rest_frequency or rest_frequency(header)
    return HeaderAxis(values, unit, rest_frequency=rest, air=air, notes=tuple(notes))


def _curved_axis(
    header: fits.Header, n: int, size: int, ctype: str, place: Place, air: bool | None
) -> HeaderAxis:
    """Axes of FITS paper III that are linear in something else (grisms, frequencies), through wcslib."""
    try:
        wcs = WCS(header).sub([n])
        values = wcs.all_pix2world(np.arange(size), 0)[0]
        unit = u.Unit(str(wcs.wcs.cunit[0]))
    except Exception as error:  # wcslib's errors share no base class
        words = " ".join(str(error).split())[:120]
        raise place.error(
            f"expected an axis that wcslib can follow, got {ctype} ({words}); give wavelengths as a table"
        ) from error
    return HeaderAxis(values, unit, air=air)


def _radio_axis(header: fits.Header, n: int, size: int, ctype: str, place: Place, given: Given) -> HeaderAxis:
    """Frequencies and velocities, in the dialects of radio astronomy; those that are linear stay what they are."""
    header = header.copy()
    rest = given.rest_frequency or rest_frequency(header)
    if ctype.startswith("FREQ"):
        unit = axis_unit(header.get(f"CUNIT{n}"))[0] or u.Hz
        reference = float(header.get(f"CRVAL{n}", 0.0) or 0.0)
        if rest and unit.is_equivalent(u.Hz) and abs(reference) < 0.01 * u.Hz.to(unit, rest):
            # GILDAS counts frequencies from the line's.
            header[f"CRVAL{n}"] = reference + u.Hz.to(unit, rest)
    simple = ctype[:4] in ("VRAD", "VOPT", "VELO") and not re.match(r".{4}-[A-Z]2", ctype)
    # A line at any frequency shows how a velocity axis that stands for itself is read.
    reading, notes = read_spectral_axis(
        header, n, rest_frequency=rest or (1e9 if simple else None), name=place.path
    )  # fmt: skip
    # Only frequencies that were taken for those of HI are worth a word.
    notes = tuple(note for note in notes if "rest frequency" not in note or "taken as HI" in note)
    if reading.kind not in ("VRAD", "VOPT", "VELO"):
        values = reading.frequency(np.arange(size))
        return HeaderAxis(values, u.Hz, rest_frequency=reading.rest_frequency, notes=notes)
    values = (reading.start + reading.step * np.arange(size)) / 1e3
    convention = {"VRAD": "radio", "VOPT": "optical", "VELO": "relativistic"}[reading.kind]
    return HeaderAxis(values, u.km / u.s, convention, rest, notes=notes)


def header_air(header: fits.Header, n: int, meta: Mapping[str, Any], given: Given) -> bool | None:
    """Whether an axis counts wavelengths of air; None where nothing tells it."""
    if given.air is not None:
        return given.air
    ctype = str(header.get(f"CTYPE{n}", "")).strip().upper()
    # FITS means vacuum by WAVE.
    return False if re.match(r"WAVE(-|$)", ctype) else told_air(ctype, meta)


def rest_frequency(meta: Mapping[str, Any]) -> float | None:
    """Rest frequency of a line in Hz, from the keywords of a file."""
    upper = {str(key).upper(): value for key, value in meta.items()}
    for key in ("RESTFRQ", "RESTFREQ", "REST_FREQUENCY", "FREQ0"):
        try:
            value = float(upper.get(key) or 0)
        except (TypeError, ValueError):
            continue
        if value > 0:
            return value
    return None


def told_air(words: str, meta: Mapping[str, Any]) -> bool | None:
    """Whether wavelengths are of air (True) or vacuum (False), by the axis's own words and the keywords of a file."""
    upper = {str(key).upper(): str(value).strip().upper() for key, value in meta.items()}
    words = f"{words} {upper.get('AIRORVAC', '')} {upper.get('MEDIUM', '')}".upper()
    if "AWAV" in words or "AIR" in words or "OBS.ATMOS" in words:
        return True
    # SDSS and LAMOST publish wavelengths of vacuum.
    if upper.get("TELESCOP", "").startswith(("SDSS", "LAMOST")) or upper.get("VACUUM") in ("1", "T", "TRUE"):
        return False
    return False if "VAC" in words else None


def iraf_words(header: fits.Header, n: int) -> dict[str, str]:
    """IRAF's words on an axis: WAT1_001 and on, 68 letters each."""
    parts: list[str] = []
    while (key := f"WAT{n}_{len(parts) + 1:03d}") in header:
        parts.append(str(header[key]).ljust(68))
    text = "".join(parts)
    return {key.lower(): value.strip('"') for key, value in re.findall(r'(\S+?)\s*=\s*("[^"]*"|\S+)', text)}


def named(place: Place, meta: Mapping[str, Any]) -> Place:
    """The place with the object's name, where the keywords of a file tell it."""
    upper = {str(key).upper(): value for key, value in meta.items()}
    for key in ("OBJNAME", "OBJECT", "TARGNAME", "TARGET", "DESIG"):
        text = str(upper.get(key, "")).strip().strip("'\"").strip()
        if text and isinstance(upper[key], (str, int)):
            return Place(place.path, text, place.row)
    return place


