"""Units of spectra as people write them: of the axis, and of the flux."""

from __future__ import annotations

import re

from astropy import units as u

from .quiet import quiet

__all__ = ["AXIS_KINDS", "axis_kind", "axis_unit", "flux_unit"]

AXIS_KINDS = "a wavelength, a frequency, a velocity or a time"
_AXIS_WORDS = {
    "a": "Angstrom", "aa": "Angstrom", "ang": "Angstrom", "angs": "Angstrom", "angstrom": "Angstrom", "å": "Angstrom",
    "angstroms": "Angstrom", "angstroem": "Angstrom", "ångström": "Angstrom", "nm": "nm", "nanometer": "nm",
    "nanometers": "nm", "um": "um", "µm": "um", "μm": "um", "micron": "um", "microns": "um", "micrometer": "um",
    "mm": "mm", "cm": "cm", "m": "m", "hz": "Hz", "khz": "kHz", "mhz": "MHz", "ghz": "GHz", "thz": "THz",
    "m/s": "m/s", "m s-1": "m/s", "m.s-1": "m/s", "m s**-1": "m/s", "m.s**-1": "m/s", "m s^-1": "m/s", "ms": "m/s",
    "km/s": "km/s", "km s-1": "km/s", "km.s-1": "km/s", "km s**-1": "km/s", "km.s**-1": "km/s", "km s^-1": "km/s",
    "kms": "km/s", "km/sec": "km/s", "cm-1": "1/cm", "1/cm": "1/cm", "cm^-1": "1/cm", "ev": "eV", "kev": "keV",
    "d": "d", "day": "d", "days": "d", "bjd": "d", "hjd": "d", "jd": "d", "mjd": "d", "btjd": "d", "bkjd": "d",
    "tjd": "d", "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "min", "minute": "min",
    "minutes": "min", "h": "h", "hr": "h", "hour": "h", "hours": "h", "yr": "yr", "year": "yr", "years": "yr",
}  # fmt: skip
_KINDS = {
    "length": "wavelength", "frequency": "frequency", "speed": "velocity", "time": "time", "energy": "energy",
    "wavenumber": "wavenumber",
}  # fmt: skip
_FLUX_WORDS = {
    "a": "Angstrom", "aa": "Angstrom", "ang": "Angstrom", "angstroms": "Angstrom", "angstrom": "Angstrom",
    "å": "Angstrom", "ergs": "erg", "erg": "erg", "sec": "s", "s": "s", "cm": "cm", "hz": "Hz", "jy": "Jy",
    "mjy": "mJy", "ujy": "uJy", "counts": "ct", "count": "ct", "cts": "ct", "adu": "adu", "electrons": "electron",
    "e": "electron", "k": "K", "mk": "mK", "beam": "beam", "w": "W", "photons": "ph", "photon": "ph", "ph": "ph",
    "mag": "mag", "micron": "um", "microns": "um", "um": "um", "nm": "nm", "m": "m", "sr": "sr", "arcsec": "arcsec",
    "ppm": "1e-6",
}  # fmt: skip


def axis_kind(unit: u.UnitBase) -> str | None:
    """"wavelength", "frequency", "velocity", "time", "energy" or "wavenumber"; None for any other unit."""
    return next((_KINDS[kind] for kind in unit.physical_type if kind in _KINDS), None)


def axis_unit(text: object) -> tuple[u.UnitBase | None, bool]:
    """The unit that a text means, and whether values are its logarithms (to base 10).

    "BJD - 2457000, days" is a day, "log10(Angstrom)" an Angstrom and its logarithm. None for no text and for one that
    no spelling explains; a unit that does not fit an axis is returned: the caller says what it is of.
    """
    words = str(text or "").strip().strip("[]()").strip().strip("'\"").strip()
    if not words or words.lower() in ("none", "null", "-", "unknown"):
        return None, False
    match = re.match(r"(?:log10|log|dex)[\s(\[_]+(.+?)[)\]]*$", words, re.IGNORECASE)
    if match:
        return axis_unit(match[1])[0], True
    # Kepler's and TESS' times since an epoch: "BJD - 2454833", "BJD - 2457000, days".
    match = re.match(r"[BHM]?JD\s*-\s*[\d.]+(?:,\s*(\w+))?$", words, re.IGNORECASE)
    if match:
        return axis_unit(match[1] or "d")
    spelled = _AXIS_WORDS.get(words.lower(), words)
    return _parse(spelled), False


def flux_unit(text: object) -> u.UnitBase | None:
    """The unit of a flux as a text means it; None for no text, or one that no spelling explains."""
    words = str(text or "").strip().strip("[]").strip()
    if not words or words.lower() in ("none", "null", "-", "unknown"):
        return None
    exact = _parse(words)
    if exact is not None and not re.search(r"(?<![a-z])A(?![a-z])", words, re.IGNORECASE):
        return exact
    words = re.sub(r"10\s*(?:\*\*|\^)?\s*\(?\s*(-\d+)\s*\)?", r"1e\1 ", words)
    words = re.sub(r"\be-(?=\s*[/ ]|$)", "electron", words)
    # Exponents in brackets, "erg/s/cm^2" and "ergs/s/cm**2/A" beside "erg cm^(-2)".
    words = re.sub(r"(?:\*\*|\^)\s*\(?\s*([+-]?\d+)\s*\)?", r"\1", words)
    parts = re.split(r"(\d+(?:\.\d*)?[eE][+-]?\d+)", words, maxsplit=1)
    parts[-1] = re.sub(r"[^\W\d_]+", lambda word: _FLUX_WORDS.get(word[0].lower(), word[0]), parts[-1])
    # Milli and mega are told by case alone.
    found = "".join(parts).strip()
    if re.search(r"MJy", words):
        found = found.replace("mJy", "MJy")
    return _parse(found)


def _parse(text: str) -> u.UnitBase | None:
    with quiet():
        for form in ("generic", "fits", "ogip"):
            try:
                return u.Unit(text, format=form)
            except (ValueError, TypeError):
                continue
    return None
