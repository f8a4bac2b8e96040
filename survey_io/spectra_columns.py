"""Columns of tables from any kind of file, and what their names, units and UCDs tell: axis, flux, error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Table

from .spectral_units import AXIS_KINDS, axis_kind, axis_unit
from .spectrum_build import NotASpectrum

__all__ = ["NAMES", "Columns", "Roles", "from_hdu", "from_table", "is_axis_name", "is_own", "plain", "recognise",
           "split_unit"]  # fmt: skip

# Names, without case and signs, to what they are; the unit that they have where none is told.
_AXES = {
    "wavelength": ("wavelength", "wave", "lambda", "lam", "wl", "wavelengths", "wavelen", "wlen", "waveobs", "obswave",
                   "airwave", "airwavelength", "wavelengthair", "waveair", "lambdaair", "vacwave", "wavelengthvac",
                   "wavevac", "vacuumwavelength", "airwavelengths", "spectralaxis"),
    "log": ("loglam", "loglambda", "logwave", "logwavelength", "log10wave", "log10lambda", "log10wavelength", "logwl"),
    "frequency": ("frequency", "freq", "nu", "frequencies"),
    "velocity": ("velocity", "vel", "vrad", "vopt", "vlsr", "vhelio", "v"),
    "energy": ("energy",),
    "wavenumber": ("wavenumber", "wavenum"),
    "time": ("time", "bjd", "btjd", "bkjd", "hjd", "mjd", "jd", "t", "times", "bjdtdb", "timebjd"),
}  # fmt: skip
_KIND_OF = {name: kind for kind, names in _AXES.items() for name in names}
_RANK = {name: rank for rank, name in enumerate(_KIND_OF)}
_FLUXES = (
    "pdcsapflux", "kspsapflux", "flux", "fluxdensity", "fluxoutline", "flam", "fnu", "flambda", "fluxlambda", "fluxnu",
    "spectrum", "intensity", "relativeflux", "normflux", "normalizedflux", "normalisedflux", "relflux", "tmb", "tastar",
    "ta", "tb", "temperature", "brightness", "brightnesstemperature", "signal", "amplitude", "sapflux", "detflux",
    "fluxreduced", "counts", "mag", "magnitude", "fluxes", "f", "s", "i", "value", "data", "y",
)  # fmt: skip
_ERRORS = ("error", "err", "errs", "sigma", "uncertainty", "unc", "stddev", "std", "stdev", "noise", "rms", "eflux",
           "fluxerr", "fluxerror", "errflux", "errorflux", "sigmaflux", "fluxsigma", "fluxunc", "dflux")  # fmt: skip
_IVARS = ("ivar", "invvar", "inversevariance", "fluxivar", "inverse")
_VARIANCES = ("var", "variance", "fluxvar", "fluxvariance")
_OTHERS = ("channel", "index", "npixels", "dq", "mask", "andmask", "ormask", "quality", "sky", "continuum", "model")
NAMES = ("object", "objname", "target", "name", "designation", "star", "desig", "sourceid", "objid", "targetid",
          "specobjid", "obsid", "specid", "id", "segment", "sporder")  # fmt: skip
_UCDS = {"em.wl": "wavelength", "em.freq": "frequency", "em.wavenumber": "wavenumber", "em.energy": "energy",
         "spect.dopplerveloc": "velocity", "time.epoch": "time"}  # fmt: skip
_SUFFIX = re.compile(
    r"(.+?)[_ .](ghz|mhz|khz|hz|nm|um|microns?|aa|a|ang|angstroms?|kms|km_s|km/s|ms|d|days?|hours|sec)$",
    re.IGNORECASE,
)
# Degrees.
ONE_PLACE = 0.05
# The columns that the cube job writes for each source.
_OWN = {"channel", "frequency", "velocity", "flux_density", "flux_outline", "flux_outline_err", "n_pixels"}


@dataclass
class Columns:
    """The columns of a table from any kind of file, read one by one.

    Attributes
    ----------
    names : list of str
    units, ucds : dict
        Of columns, as text; "" where none.
    arrays : set of str
        Columns whose cells are arrays.
    get : callable
        Values of a column, masked ones as NaN.
    rows : int
    meta : mapping
        Keywords of the file.
    notes : list of str
    """

    names: list[str]
    units: Mapping[str, str]
    ucds: Mapping[str, str]
    arrays: set[str]
    get: Callable[[str], np.ndarray]
    rows: int
    meta: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Roles:
    """Which column is what."""

    axis: str
    kind: str
    flux: str
    error: str | None = None
    weight: str | None = None
    variance: str | None = None


def from_table(table: Table, meta: Mapping[str, Any], notes: list[str] | None = None) -> Columns:
    """Columns of an astropy table; those without numbers are left out, but for names."""
    names = [name for name in table.colnames if _numeric(table[name]) or plain(name) in NAMES]

    @cache
    def get(name: str) -> np.ndarray:
        column = table[name]
        if hasattr(column, "jd"):
            return np.asarray(column.jd, float)
        values = getattr(column, "value", column)
        if np.ma.isMaskedArray(values):
            if values.dtype.kind in "iufb":
                return np.asarray(values.astype(float).filled(np.nan))
            values = values.filled()
        return np.asarray(values)

    units = {name: "d" if hasattr(table[name], "jd") else str(table[name].unit or "") for name in names}
    ucds = {name: str(getattr(table[name], "info", table[name]).meta.get("ucd", "") if _has_meta(table[name]) else "")
            for name in names}  # fmt: skip
    arrays = {name for name in names if getattr(table[name], "ndim", 1) > 1 or _is_ragged(table[name])}
    return Columns(names, units, ucds, arrays, get, len(table), meta, list(notes or ()))


def from_hdu(hdu: Any, meta: Mapping[str, Any]) -> Columns:
    """Columns of a FITS table; none is read before it is asked for."""
    names, units, arrays = [], {}, set()
    for column in hdu.columns:
        shape, kind = _fits_shape(column)
        if kind in "CM" or sum(length > 1 for length in shape) > 1 or (kind == "A" and plain(column.name) not in NAMES):
            # Complex numbers, images in cells, text.
            continue
        names.append(column.name)
        units[column.name] = column.unit or ""
        if kind in "PQ" or (kind != "A" and shape not in ((), (1,))):
            arrays.add(column.name)

    @cache
    def get(name: str) -> np.ndarray:
        values = hdu.data[name]
        return values[:, 0] if values.ndim == 2 and name not in arrays else values

    ucds = {n: str(hdu.header.get(f"TUCD{1 + hdu.columns.names.index(n)}", "")) for n in names}
    return Columns(names, units, ucds, arrays, get, int(hdu.header["NAXIS2"]), meta)


def _fits_shape(column: Any) -> tuple[tuple[int, ...], str]:
    """Shape of a column's cells and the letter of what they hold; "P" and "Q" are arrays of any length."""
    match = re.match(r"(\d*)([LXBIJKAEDCMPQ])", str(column.format))
    if column.ascii or match is None:
        return (), "A" if str(column.format).startswith("A") else "D"
    if match[2] in "PQ" and re.search(r"[PQ][ACM]", str(column.format)):
        return (), "C"
    if column.dim and match[2] != "A":
        return tuple(int(length) for length in re.findall(r"\d+", str(column.dim)))[::-1], match[2]
    return (int(match[1] or 1),), match[2]


def plain(name: str) -> str:
    """A column's name without case, signs and unit: what names are compared by."""
    base = split_unit(name)[0]
    return re.sub(r"[^a-z0-9]", "", base.lower().rsplit(":", 1)[-1].rsplit(".", 1)[-1])


def is_axis_name(name: str) -> bool:
    """Whether a column of this name is an axis."""
    return plain(name) in _KIND_OF


def is_own(columns: Columns) -> bool:
    """Whether it is a spectrum that the cube job wrote."""
    return set(columns.names) >= _OWN


def recognise(columns: Columns, unit: u.UnitBase | None = None) -> Roles:
    """Which columns are the axis, the flux and its error.

    Parameters
    ----------
    columns : Columns
    unit : astropy Unit, optional
        Of the axis, where the caller tells it.

    Raises
    ------
    NotASpectrum
        When there is none, or the table is a catalogue.
    """
    names = {}
    for name in columns.names:
        names.setdefault(plain(name), name)
    if is_own(columns):
        return Roles("frequency", "frequency", "flux_outline", "flux_outline_err")
    if _is_catalogue(columns, names):
        raise NotASpectrum("is a catalogue (each row has its own ra and dec)", certain=True)
    axes = _axes(columns, names)
    if not axes and unit is not None:
        # Whoever tells the unit of the axis means the first column.
        axes = {name: axis_kind(unit) or "wavelength" for name in columns.names[:1]}
    fluxes = [names[one] for one in _FLUXES if one in names and names[one] not in axes]
    fluxes += [name for name in columns.names if columns.ucds.get(name, "").lower().startswith("phot.")]
    taken = {*_ERRORS, *_IVARS, *_VARIANCES, *_OTHERS, *NAMES}
    rest = [name for name in columns.names if name not in axes and plain(name) not in taken
            and not re.search(r"err|unc|sigma|ivar|flag", plain(name))]  # fmt: skip
    for flux in [*fluxes, *(rest if len(rest) == 1 else ())]:
        for axis, kind in axes.items():
            if (axis in columns.arrays) == (flux in columns.arrays):
                return _with_errors(names, columns, Roles(axis, kind, flux))
    listed = ", ".join(columns.names[:8]) + (" ..." if len(columns.names) > 8 else "")
    if not axes:
        raise NotASpectrum(f"has no column of {AXIS_KINDS} (its columns: {listed})")
    raise NotASpectrum(f"has the axis {next(iter(axes))!r} but no single column of flux (its columns: {listed})")


def _is_catalogue(columns: Columns, names: dict[str, str]) -> bool:
    """Whether rows lie at different places of the sky; those of a light curve repeat one place."""
    if columns.arrays or not {"ra", "dec"} <= names.keys():
        return False
    dec = np.asarray(columns.get(names["dec"]), float)
    return bool(np.isfinite(dec).any()) and float(np.nanmax(dec) - np.nanmin(dec)) > ONE_PLACE


def _axes(columns: Columns, names: dict[str, str]) -> dict[str, str]:
    """Columns that can be the axis, the best first, with the kind that their name or unit tells."""
    found = {names[one]: _KIND_OF[one] for one in sorted(names.keys() & _KIND_OF.keys(), key=_RANK.__getitem__)}
    for name in columns.names:
        ucd = columns.ucds.get(name, "").lower().split(";")[0]
        if ucd in _UCDS:
            found.setdefault(name, _UCDS[ucd])
    for name in columns.names:
        unit, _ = axis_unit(columns.units.get(name) or split_unit(name)[1])
        kind = None if unit is None else axis_kind(unit)
        if kind in ("wavelength", "frequency") and plain(name) not in (*_FLUXES, *_ERRORS):
            found.setdefault(name, kind)
    return found


def _with_errors(names: dict[str, str], columns: Columns, roles: Roles) -> Roles:
    def first(candidates: tuple[str, ...]) -> str | None:
        return next(
            (names[one] for one in candidates
             if one in names and (names[one] in columns.arrays) == (roles.flux in columns.arrays)), None
        )  # fmt: skip

    own = plain(roles.flux)
    return Roles(
        roles.axis, roles.kind, roles.flux,
        first((f"{own}err", f"{own}error", f"e{own}", f"err{own}", f"{own}unc", f"{own}sigma", *_ERRORS)),
        first((f"{own}ivar", *_IVARS)), first((f"{own}var", *_VARIANCES)),
    )  # fmt: skip


def split_unit(name: str) -> tuple[str, str]:
    """A column's name and the unit within it: "wavelength (nm)", "Flux[Jy]", "freq_GHz"."""
    match = re.match(r"(.*?)[\s_]*[\[(]([^\])]*)[\])]\s*$", name)
    if match and match[1]:
        return match[1], match[2]
    match = _SUFFIX.match(name)
    if match and re.sub(r"[^a-z0-9]", "", match[1].lower()) in _KIND_OF:
        return match[1], match[2].replace("_", "/")
    return name, ""


def _is_ragged(column: Any) -> bool:
    return getattr(getattr(column, "dtype", None), "kind", "") == "O"


def _numeric(column: Any) -> bool:
    if hasattr(column, "jd"):
        return True
    dtype = getattr(column, "dtype", None)
    if dtype is None:
        return False
    if _is_ragged(column):
        return len(column) > 0 and all(np.ndim(value) == 1 for value in column[:3])
    return dtype.kind in "iufb"


def _has_meta(column: Any) -> bool:
    return getattr(getattr(column, "info", None), "meta", None) is not None
