"""The spectral axis of a cube or a spectrum: channels to frequencies, velocities and redshifts, and back.

A header's axis is linear in frequency, in radio, optical or relativistic velocity or in wavelength; everything
here is derived from that one linear law, so that an axis in velocity loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import constants
from astropy import units as u
from astropy.io.fits import Header
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

__all__ = ["HI_REST_FREQUENCY", "SpectralAxis", "read_spectral_axis", "spectral_axis_number", "with_spelled_units"]

HI_REST_FREQUENCY = 1420405751.768
LIGHT = constants.c.to_value(u.km / u.s)
_C = constants.c.value

# CTYPE's first four letters (AIPS, MIRIAD and GIPSY spellings among them) to the quantity that is linear.
_KINDS = {
    "FREQ": "FREQ", "VRAD": "VRAD", "VOPT": "VOPT", "FELO": "FELO", "VELO": "VELO", "WAVE": "WAVE", "LAMB": "WAVE",
    "AWAV": "AWAV", "ZOPT": "ZOPT",
}  # fmt: skip
_SPELLED = {
    "hz": "Hz", "khz": "kHz", "mhz": "MHz", "ghz": "GHz", "m/s": "m/s", "km/s": "km/s", "m s-1": "m/s",
    "km s-1": "km/s", "m.s-1": "m/s", "km.s-1": "km/s", "m.s**-1": "m/s", "km.s**-1": "km/s", "m": "m", "mm": "mm",
    "um": "um", "micron": "um", "nm": "nm", "angstrom": "Angstrom", "angstroms": "Angstrom", "a": "Angstrom",
    "aa": "Angstrom",
}  # fmt: skip
# Relative change of a frequency by the observer's motion and by the convention of a velocity up to 5000 km/s.
MOTION = 6e-4
_BASE = {"FREQ": u.Hz, "WAVE": u.m, "AWAV": u.m, "ZOPT": u.dimensionless_unscaled}


@dataclass(frozen=True)
class SpectralAxis:
    """A spectral axis; small and picklable.

    Attributes
    ----------
    kind : str
        What is linear: "FREQ" (Hz), "VRAD", "VOPT", "VELO" (relativistic; m/s), "WAVE", "AWAV" (vacuum, air; m).
    start, step : float
        Its value at channel 0 and from channel to channel, SI.
    size : int
        Channels.
    rest_frequency : float or None
        Hz.
    ctype : str
        The axis as the header names it.
    """

    kind: str
    start: float
    step: float
    size: int
    rest_frequency: float | None = None
    ctype: str = ""

    def frequency(self, z: ArrayLike) -> NDArray[np.float64]:
        """Frequency in Hz at channels (counted from 0, fractions allowed)."""
        value = self.start + self.step * np.asarray(z, np.float64)
        if self.kind == "FREQ":
            return value
        if self.kind in ("WAVE", "AWAV"):
            return _C / (value if self.kind == "WAVE" else value * air_index(value))
        rest = self._rest("a velocity axis")
        beta = value / _C
        if self.kind == "VRAD":
            return rest * (1 - beta)
        if self.kind == "VOPT":
            return rest / (1 + beta)
        return rest * np.sqrt((1 - beta) / (1 + beta))

    def channel(self, frequency: ArrayLike) -> NDArray[np.float64]:
        """Channel (counted from 0, with its fraction) of frequencies in Hz."""
        frequency = np.asarray(frequency, np.float64)
        if self.kind == "FREQ":
            value = frequency
        elif self.kind == "WAVE":
            value = _C / frequency
        elif self.kind == "AWAV":
            vacuum = _C / frequency
            value = vacuum
            for _ in range(4):
                value = vacuum / air_index(value)
        else:
            ratio = frequency / self._rest("a velocity axis")
            if self.kind == "VRAD":
                value = _C * (1 - ratio)
            elif self.kind == "VOPT":
                value = _C * (1 / ratio - 1)
            else:
                value = _C * (1 - ratio**2) / (1 + ratio**2)
        return (value - self.start) / self.step

    def width(self, z: ArrayLike) -> NDArray[np.float64]:
        """Width in Hz, positive, of the channels at ``z``."""
        z = np.asarray(z, np.float64)
        return np.abs(self.frequency(z + 0.5) - self.frequency(z - 0.5))

    @property
    def increasing(self) -> bool:
        """Whether frequency grows with channel."""
        return bool(self.frequency(self.size - 1) > self.frequency(0))

    def redshift(self, z: ArrayLike) -> NDArray[np.float64]:
        """nu0 / nu - 1."""
        return self._rest("a redshift") / self.frequency(z) - 1

    def velocity_optical(self, z: ArrayLike) -> NDArray[np.float64]:
        """c (nu0 / nu - 1), km/s."""
        return LIGHT * self.redshift(z)

    def velocity_radio(self, z: ArrayLike) -> NDArray[np.float64]:
        """c (1 - nu / nu0), km/s."""
        return LIGHT * (1 - self.frequency(z) / self._rest("a velocity"))

    def velocity_width(self, z: ArrayLike, width: ArrayLike) -> NDArray[np.float64]:
        """Velocity width in km/s of ``width`` Hz at channel ``z``: c width nu0 / nu^2 (optical convention)."""
        return LIGHT * np.asarray(width, np.float64) * self._rest("a velocity") / self.frequency(z) ** 2

    def _rest(self, what: str) -> float:
        if self.rest_frequency is None:
            raise InputError(
                f"expected the line's rest frequency (RESTFRQ) for {what}, the header has none; "
                "give it with --rest-frequency, in Hz (HI: 1420405751.768)"
            )
        return self.rest_frequency


def air_index(wavelength: ArrayLike) -> NDArray[np.float64]:
    """Refractive index of dry air at 15 degrees Celsius for wavelengths in m of such air (Morton 2000, eq. 8).

    It is the air of line lists. FITS paper III (eq. 65) has air of 0 degrees, which shifts lines by 4.6 km/s.
    """
    air = np.asarray(wavelength, np.float64)
    index = np.ones_like(air)
    for _ in range(3):
        # The formula counts wavelengths of vacuum.
        square = (1e-6 / (air * index)) ** 2
        index = 1 + 8.34254e-5 + 2.406147e-2 / (130 - square) + 1.5998e-4 / (38.9 - square)
    return index


def spectral_axis_number(header: Header) -> int | None:
    """FITS number of the spectral axis of a header (from 1), or None."""
    for axis in range(1, int(header.get("NAXIS", 0)) + 1):
        if str(header.get(f"CTYPE{axis}", "")).strip().upper()[:4] in _KINDS:
            return axis
    return None


def with_spelled_units(header: Header) -> Header:
    """The header with the spectral axis's unit spelled as FITS has it.

    The coordinate library takes GIPSY's and AIPS's "M/S" for mega-something per siemens and refuses the whole header.
    """
    axis = spectral_axis_number(header)
    unit = str(header.get(f"CUNIT{axis}", "")).strip()
    spelled = _SPELLED.get(unit.lower(), unit)
    if axis is None or spelled == unit:
        return header
    header = header.copy()
    header[f"CUNIT{axis}"] = spelled
    return header


def read_spectral_axis(
    header: Header, axis: int, *, rest_frequency: float | None = None, name: str = ""
) -> tuple[SpectralAxis, list[str]]:
    """Spectral axis of a header.

    Parameters
    ----------
    header : Header
    axis : int
        FITS number of the axis, from 1.
    rest_frequency : float, optional
        Hz; replaces the header's.
    name : str
        Of the file, for messages.

    Returns
    -------
    axis : SpectralAxis
    notes : list of str
        Which convention was taken where the header leaves a choice.

    Raises
    ------
    InputError
        For an axis that is not linear, has no step or a unit that is not its own, or is in velocity without a rest
        frequency.
    """
    prefix = f"{name}: " if name else ""
    ctype = str(header.get(f"CTYPE{axis}", "")).strip().upper()
    kind, notes = _KINDS[ctype[:4]], []
    algorithm = ctype[5:8] if len(ctype) >= 8 and ctype[4] == "-" else ""
    if algorithm in ("LOG", "TAB", "GRI", "GRA"):
        raise InputError(f"{prefix}expected a linear spectral axis, got {ctype}; resample the cube to equal channels")
    step = _number(header.get(f"CDELT{axis}", header.get(f"CD{axis}_{axis}")))
    if f"CDELT{axis}" in header and f"PC{axis}_{axis}" in header:
        step = (step or 0.0) * (_number(header[f"PC{axis}_{axis}"]) or 0.0)
    value, reference = _number(header.get(f"CRVAL{axis}", 0.0)), _number(header.get(f"CRPIX{axis}", 0.0))
    if not step or value is None or reference is None:
        raise InputError(
            f"{prefix}expected CRVAL{axis}, CRPIX{axis} and a step (CDELT{axis}) of the spectral axis {ctype}, "
            f"got {value}, {reference} and {step}; correct the header"
        )
    unit = _unit(header.get(f"CUNIT{axis}"), kind, ctype, prefix)
    base = _BASE.get(kind, u.m / u.s)
    value, step = float((value * unit).to_value(base)), float((step * unit).to_value(base))
    rest, note = _rest_frequency(header, kind, value, rest_frequency)
    if note:
        notes.append(note)
    if rest is None and kind not in ("FREQ", "WAVE", "AWAV"):
        raise InputError(
            f"{prefix}expected the line's rest frequency (RESTFRQ) beside the velocity axis {ctype}, the header has "
            "none; give it with --rest-frequency, in Hz (HI: 1420405751.768)"
        )
    reference -= 1.0
    if kind == "ZOPT":
        kind, value, step = "VOPT", value * _C, step * _C
    elif kind == "VELO" and (algorithm or ctype.startswith("VELOC") or "VELREF" in header):
        # AIPS numbers the convention in VELREF (above 256: radio); MIRIAD means radio by VELO, optical by FELO.
        code = _number(header.get("VELREF"))
        kind = "VOPT" if code is not None and 0 < code <= 256 else "VRAD"
        origin = "VELREF" if code else "the usage of MIRIAD, as VELREF is missing"
        notes.append(f"{ctype} is read as {'optical' if kind == 'VOPT' else 'radio'} velocity, by {origin}")
    elif kind == "FELO" or (kind == "VOPT" and algorithm in ("F2W", "F2V")):
        # Regular in frequency: value and step are those of the optical velocity at the reference channel.
        frequency = rest / (1 + value / _C)
        kind, value, step = "FREQ", frequency, -step * frequency**2 / (_C * rest)
        notes.append(f"{ctype} is read as channels of equal frequency, labelled in optical velocity")
    elif algorithm and algorithm[1:2] == "2" and kind != "FREQ" and algorithm not in ("F2W", "F2V"):
        raise InputError(f"{prefix}expected a linear spectral axis, got {ctype}; resample the cube to equal channels")
    size = int(header[f"NAXIS{axis}"])
    result = SpectralAxis(kind, value - reference * step, step, size, rest, ctype)
    ends = result.frequency([0, size - 1])
    if not (np.isfinite(ends).all() and (ends > 0).all()):
        raise InputError(f"{prefix}expected positive frequencies along {ctype}, got {ends[0]:g} to {ends[1]:g} Hz")
    return result, notes


def _unit(text: Any, kind: str, ctype: str, prefix: str) -> u.UnitBase:
    base = _BASE.get(kind, u.m / u.s)
    spelled = str(text or "").strip()
    if not spelled:
        return base
    try:
        unit = u.Unit(_SPELLED.get(spelled.lower(), spelled))
        (1 * unit).to(base)
    except (ValueError, TypeError, u.UnitConversionError):
        raise InputError(
            f"{prefix}expected a unit of the spectral axis {ctype} such as {base.to_string() or '1'}, got {spelled!r}; "
            "correct CUNIT"
        ) from None
    return unit


def _rest_frequency(
    header: Header, kind: str, value: float, given: float | None
) -> tuple[float | None, str | None]:
    if given is not None:
        return float(given), None
    for key in ("RESTFRQ", "RESTFREQ", "FREQ0"):
        rest = _number(header.get(key))
        if rest and rest > 0:
            return rest, None
    if kind == "FREQ" and 2e8 < value < 1.43e9:
        return HI_REST_FREQUENCY, "no rest frequency in the header: taken as HI, 1420.405751768 MHz"
    # GIPSY keeps the frequency at the reference velocity; what it is at rest follows, but for the observer's motion.
    reference, velocity = _number(header.get("FREQR")), _number(header.get("VELR"))
    if reference and velocity is not None:
        inferred = reference * (1 + velocity / _C)
        if abs(inferred / HI_REST_FREQUENCY - 1) < MOTION:
            return HI_REST_FREQUENCY, "no rest frequency in the header: taken as HI, as FREQR and VELR say"
    return None, "no rest frequency in the header: no velocities and redshifts without --rest-frequency"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
