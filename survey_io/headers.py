"""What a FITS header says in its many dialects: unit, beam, frequency."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits

from .errors import InputError
from .observation import Beam
from .quiet import quiet

__all__ = ["header_beam", "header_frequency", "header_unit"]

_WORDS = {
    "jy": "Jy",
    "mjy": "mJy",
    "ujy": "uJy",
    "njy": "nJy",
    "kjy": "kJy",
    "beam": "beam",
    "bm": "beam",
    "beams": "beam",
    "sr": "sr",
    "pixel": "pix",
    "pixels": "pix",
    "pix": "pix",
    "k": "K",
    "mk": "mK",
    "kelvin": "K",
    "count": "ct",
    "counts": "ct",
    "cts": "ct",
    "ct": "ct",
    "adu": "adu",
    "dn": "DN",
    "electron": "electron",
    "electrons": "electron",
    "e-": "electron",
    "s": "s",
    "sec": "s",
    "second": "s",
    "arcsec": "arcsec",
    "nanomaggy": "nmgy",
    "nanomaggies": "nmgy",
    "nmgy": "nmgy",
}
_AIPS_BEAM = re.compile(r"BMAJ\s*=\s*(\S+)\s+BMIN\s*=\s*(\S+)\s+BPA\s*=\s*(\S+)")


def header_unit(header: fits.Header) -> tuple[u.UnitBase | None, str | None]:
    """The unit named by BUNIT and, when there is something to say about it, a note.

    Spellings in any case are read (``JY/BEAM``, ``Jy beam-1``, ``mJy/bm``). ``MJY`` is mega with ``/SR`` and
    milli with ``/BEAM``, which are the only combinations seen in surveys; the latter is noted.

    Returns
    -------
    unit : astropy unit or None
        None when BUNIT is absent, empty or not understood.
    note : str or None
    """
    text = str(header.get("BUNIT", "")).strip()
    if not text:
        return None, "no BUNIT in the header: fluxes are in image units"
    # Nearly every survey spells its unit as FITS does, except for the case of its letters.
    exact = _parse(text)
    if exact is not None:
        return exact, None
    words = re.sub(r"[A-Za-z]+-?(?!\d)", lambda word: _WORDS.get(word[0].lower(), word[0]), text)
    note = None
    if re.match(r"MJY\b", text):
        if re.search(r"SR", text, re.IGNORECASE):
            words = words.replace("mJy", "MJy", 1)
        else:
            note = f"BUNIT {text!r} is read as {words!r}"
    unit = _parse(words)
    if unit is None:
        return None, f"BUNIT {text!r} is not a unit that is known: fluxes are in image units"
    return unit, note


def _parse(text: str) -> u.UnitBase | None:
    with quiet():
        for form in ("fits", "generic", "ogip"):
            try:
                return u.Unit(text, format=form)
            except (ValueError, TypeError):
                continue
    return None


def header_frequency(header: fits.Header) -> float | None:
    """Observing frequency in Hz: the spectral axis of a plane image, else the usual keywords, else None."""
    for axis in range(1, int(header.get("WCSAXES", header.get("NAXIS", 0))) + 1):
        if str(header.get(f"CTYPE{axis}", "")).strip().upper().startswith("FREQ"):
            value, reference = _number(header.get(f"CRVAL{axis}")), _number(header.get(f"CRPIX{axis}", 1.0))
            step = _number(header.get(f"CDELT{axis}", 0.0))
            if value is not None:
                shift = (1.0 - reference) * step if reference is not None and step is not None else 0.0
                return _hertz(value + shift, header.get(f"CUNIT{axis}", "Hz"))
    for key in ("FREQ", "OBSFREQ", "CRFREQ", "RESTFRQ", "RESTFREQ", "FREQUENC"):
        value = _number(header.get(key))
        if value is not None and value > 0:
            return value
    return None


def _hertz(value: float, unit: Any) -> float | None:
    try:
        hertz = float(u.Quantity(value, _spelled(str(unit).strip() or "Hz")).to_value(u.Hz))
    except (ValueError, TypeError):
        return None
    return hertz if hertz > 0 else None


def _spelled(unit: str) -> str:
    return {"hz": "Hz", "khz": "kHz", "mhz": "MHz", "ghz": "GHz"}.get(unit.lower(), unit)


def header_beam(header: fits.Header, hdus: fits.HDUList, *, largest: float) -> tuple[Beam | None, str | None]:
    """The beam of an image: BMAJ/BMIN/BPA, else a CASA BEAMS table, else AIPS' HISTORY.

    The position angle is as written, relative to the north of the image's own frame.

    Parameters
    ----------
    header : Header
    hdus : HDUList
        The open file, for a BEAMS table.
    largest : float
        Beams above this many arcsec are taken for a mistake in the header (arcsec written as degrees).

    Returns
    -------
    beam : Beam or None
    note : str or None
        Why there is none, or which of several was taken.
    """
    reasons = []
    for origin, look in (("header", _keyword_beam), ("table", _table_beam), ("history", _history_beam)):
        found = look(header, hdus)
        if found is None:
            continue
        (major, minor, pa), note = found
        if not (major > 0 and minor > 0):
            reasons.append(f"the beam in the {origin} is {major:.6g} x {minor:.6g} arcsec")
        elif major > largest:
            reasons.append(f"the beam in the {origin} ({major:.6g} arcsec) is larger than the image")
        else:
            return Beam(major, minor, pa, origin), note
    return None, "; ".join(reasons or ["no beam in the header"]) + ": the beam is missing"


_Found = tuple[tuple[float, float, float], str | None]


def _keyword_beam(header: fits.Header, hdus: fits.HDUList) -> _Found | None:
    if "BMAJ" not in header:
        if "BMMAJ" in header:
            # GIPSY's, in arcsec.
            major, minor = (_number(header.get(key, header["BMMAJ"])) or 0.0 for key in ("BMMAJ", "BMMIN"))
            return (max(major, minor), min(major, minor), _number(header.get("BMPA")) or 0.0), None
        return None
    return _degrees(header["BMAJ"], header.get("BMIN", header["BMAJ"]), header.get("BPA", 0.0)), None


def _table_beam(header: fits.Header, hdus: fits.HDUList) -> _Found | None:
    try:
        table = next((hdu for hdu in hdus if hdu.name == "BEAMS" and isinstance(hdu, fits.BinTableHDU)), None)
    except (OSError, ValueError, fits.VerifyError):
        return None  # a unit behind the image is damaged: the image itself is not
    if table is None or not {"BMAJ", "BMIN", "BPA"} <= {name.upper() for name in table.columns.names}:
        return None
    units = {column.name.upper(): column.unit for column in table.columns}
    values = []
    for name, default, target in (
        ("BMAJ", "arcsec", u.arcsec),
        ("BMIN", "arcsec", u.arcsec),
        ("BPA", "deg", u.deg),
    ):
        try:
            factor = u.Unit(units[name] or default).to(target)
        except (ValueError, TypeError):
            factor = 1.0
        values.append(np.atleast_1d(np.asarray(table.data[name], dtype=float)) * factor)
    rows = np.column_stack(values)
    rows = rows[np.isfinite(rows).all(axis=1) & (rows[:, 0] > 0)]
    if len(rows) == 0:
        return (0.0, 0.0, 0.0), None
    note = None
    if not np.allclose(rows, rows[0]):
        note = f"the BEAMS table holds {len(rows)} different beams, the first was taken"
    return (float(rows[0, 0]), float(rows[0, 1]), float(rows[0, 2])), note


def _history_beam(header: fits.Header, hdus: fits.HDUList) -> _Found | None:
    lines = [match for match in map(_AIPS_BEAM.search, map(str, header.get("HISTORY", []))) if match]
    # The last line is that of the last deconvolution.
    return (_degrees(*lines[-1].groups()), None) if lines else None


def _degrees(major: Any, minor: Any, pa: Any) -> tuple[float, float, float]:
    """Header values in degrees as (arcsec, arcsec, deg); 0 for an axis that is no number."""
    return (_number(major) or 0.0) * 3600, (_number(minor) or 0.0) * 3600, _number(pa) or 0.0


def option_beam(beam: Beam | tuple[float, float, float] | None) -> Beam | None:
    """A beam given by the caller: (major arcsec, minor arcsec, pa deg) or a Beam.

    Raises
    ------
    InputError
        When it is not three numbers.
    """
    if beam is None or isinstance(beam, Beam):
        return beam
    try:
        major, minor, pa = (float(value) for value in beam)
    except (TypeError, ValueError) as error:
        raise InputError(f"a beam is MAJOR,MINOR,PA in arcsec and degrees, got {beam!r}") from error
    return Beam(major, minor, pa, "option")


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
