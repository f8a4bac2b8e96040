"""Catalogues of others: any table that astropy reads, with its positions found by UCD or by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle, SkyCoord
from astropy.table import Table

from .catalogue import read_catalogue
from .errors import InputError
from .quiet import quiet
from .table_formats import SUFFIXES

__all__ = ["Positions", "find_positions", "read_outside"]

# Pairs of names without case, blanks and signs, the likelier first.
_PAIRS = (
    ("ra", "dec"), ("ra", "de"), ("raj2000", "dej2000"), ("raj2000", "decj2000"), ("raicrs", "deicrs"),
    ("raicrs", "decicrs"), ("ra2000", "dec2000"), ("ra2000", "de2000"), ("radeg", "decdeg"), ("radeg", "dedeg"),
    ("racore", "deccore"), ("rightascension", "declination"), ("alphaj2000", "deltaj2000"),
    ("alphawinj2000", "deltawinj2000"), ("alpha", "delta"), ("raj", "decj"), ("raj", "dej"), ("ramean", "decmean"),
    ("rastack", "decstack"), ("sra", "sdec"),
)  # fmt: skip
_GALACTIC = (("glon", "glat"), ("gall", "galb"), ("l", "b"))
_SPLIT = ("rah", "ram", "ras", "ded", "dem", "des")
_ERROR_NAMES = ("{}err", "e{}", "{}error", "err{}", "sigma{}", "{}sigma", "sig{}", "unc{}", "{}unc", "std{}", "{}std")
_SEXAGESIMAL = re.compile(r"[:hdms°'\"\s]")


@dataclass(frozen=True)
class Positions:
    """Where the rows of a table lie, each array (n,).

    Attributes
    ----------
    ra, dec : ndarray
        ICRS degrees, NaN where a row has none.
    ra_err, dec_err : ndarray
        arcsec on the sky, NaN where not known.
    columns : tuple of str
        Where the positions were found.
    notes : tuple of str
        What was assumed.
    """

    ra: np.ndarray
    dec: np.ndarray
    ra_err: np.ndarray
    dec_err: np.ndarray
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ra)


def read_outside(path: str | os.PathLike[str]) -> Table:
    """Read a table of any format that skysift or astropy knows.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Table
        With units and UCDs (``column.meta["ucd"]``) where the format has them.

    Raises
    ------
    InputError
        When there is no such file, or nobody can read it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a catalogue, there is no such file; check the path", path=str(path))
    if path.suffix.lower() in SUFFIXES and path.suffix.lower() != ".csv":
        return read_catalogue(path)
    reasons = []
    with quiet(Warning):
        for options in ({"format": "ascii.csv"},) if path.suffix.lower() == ".csv" else ({}, {"format": "ascii"}):
            try:
                return Table.read(path, **options)
            except Exception as error:  # every reader has its own errors
                reasons.append(" ".join(str(error).split())[:120])
    raise InputError(
        f"{path}: expected a table that astropy reads (FITS, VOTable, ECSV, CSV, Parquet, HDF5, CDS, ...), got another "
        f"file ({reasons[-1]}); convert it to one of these",
        path=str(path),
    )


def find_positions(table: Table, *, ra: str | None = None, dec: str | None = None, path: str = "table") -> Positions:
    """Find the positions of a table's rows.

    Looked for are, in this order: the columns named, a column of sky coordinates, UCDs (``pos.eq.ra;meta.main``, ...),
    names (``ra``, ``RAJ2000``, ``ALPHA_J2000``, ...), the split columns of CDS (``RAh``, ...), galactic coordinates.
    Numbers are in the unit of their column, degrees without one; texts are sexagesimal, right ascension in hours.

    Parameters
    ----------
    table : Table
    ra, dec : str, optional
        Columns to use.
    path : str
        For messages.

    Raises
    ------
    InputError
        When there are none, or their values are no positions.
    """
    found = _named(table, ra, dec, path) or _by_ucd(table) or _by_name(table)
    notes: list[str] = []
    if found is not None:
        first, second = found
        lon = _degrees(table[first], "right ascension", u.hourangle, path, notes)
        lat = _degrees(table[second], "declination", u.deg, path, notes)
    elif (coordinate := _coordinate(table)) is not None:
        found = (coordinate, coordinate)
        sky = table[coordinate].icrs
        lon, lat = np.asarray(sky.ra.deg, float), np.asarray(sky.dec.deg, float)
    elif (split := _split(table)) is not None:
        found, lon, lat = split
    elif (pair := _pair(table, _GALACTIC)) is not None:
        found = pair
        along, above = (_degrees(table[name], "longitude", u.deg, path, notes) for name in pair)
        _check(along, above, found, path)
        good = np.isfinite(along) & np.isfinite(above)
        lon, lat = np.full((2, len(good)), np.nan)
        sky = SkyCoord(along[good], above[good], unit="deg", frame="galactic").icrs
        lon[good], lat[good] = sky.ra.deg, sky.dec.deg
    else:
        raise InputError(
            f"{path}: expected columns with positions (UCD pos.eq.ra, or names as ra and dec, RAJ2000 and DEJ2000), "
            f"got {', '.join(table.colnames)[:200]}; name them with --ra and --dec",
            path=path,
        )
    _check(lon, lat, found, path)
    errors = [_errors(table, name, main, lat, notes) for name, main in zip(found, ("ra", "dec"), strict=False)]
    return Positions(lon % 360.0, lat, *errors, tuple(dict.fromkeys(found)), tuple(notes))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _ucd(column: Any) -> str:
    return str((getattr(column, "meta", None) or {}).get("ucd", "")).lower()


def _named(table: Table, ra: str | None, dec: str | None, path: str) -> tuple[str, str] | None:
    if ra is None and dec is None:
        return None
    for name in (ra, dec):
        if name is None or name not in table.colnames:
            raise InputError(
                f"{path}: expected the names of two columns for --ra and --dec, got {ra!r} and {dec!r}; there are "
                f"{', '.join(table.colnames)[:200]}",
                path=path,
            )
    return (ra, dec)  # type: ignore[return-value]


def _first(table: Table, good: Callable[[str], bool]) -> str | None:
    return next((name for name in table.colnames if good(_ucd(table[name]))), None)


def _by_ucd(table: Table) -> tuple[str, str] | None:
    for ending in (";meta.main", ""):
        wanted = [f"pos.eq.{axis}{ending}" for axis in ("ra", "dec")]
        pair = tuple(_first(table, lambda ucd, word=word: ucd == word) for word in wanted)
        if None not in pair:
            return pair  # type: ignore[return-value]
    old = tuple(_first(table, lambda ucd, axis=axis: ucd == f"pos_eq_{axis}_main") for axis in ("ra", "dec"))
    return old if None not in old else None  # type: ignore[return-value]


def _pair(table: Table, pairs: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    names = {_plain(name): name for name in reversed(table.colnames)}
    return next(((names[a], names[b]) for a, b in pairs if a in names and b in names), None)


def _by_name(table: Table) -> tuple[str, str] | None:
    return _pair(table, _PAIRS)


def _coordinate(table: Table) -> str | None:
    return next((name for name in table.colnames if isinstance(table[name], SkyCoord)), None)


def _split(table: Table) -> tuple[tuple[str, ...], np.ndarray, np.ndarray] | None:
    names = {_plain(name): name for name in table.colnames}
    sign = next((name for name in table.colnames if name in ("DE-", "DE_", "DEsign")), None)
    if not {"rah", "ded"} <= set(names):
        return None
    h, m, s, d, am, asec = (
        _numbers(table[names[one]]) if one in names else np.zeros(len(table)) for one in _SPLIT
    )
    minus = np.signbit(d)
    if sign is not None:
        minus = np.array([str(one).strip() == "-" for one in table[sign]])
    lat = (np.abs(d) + am / 60 + asec / 3600) * np.where(minus, -1, 1)
    return (names["rah"], names["ded"]), 15 * (h + m / 60 + s / 3600), lat


def _numbers(column: Any) -> np.ndarray:
    values = np.ma.asarray(getattr(column, "value", column))
    return np.ma.filled(values.astype(float), np.nan)


def _degrees(column: Any, what: str, unit: u.UnitBase, path: str, notes: list[str]) -> np.ndarray:
    name = column.info.name
    if column.dtype.kind in "OSU":
        return _from_text(column, what, unit, path)
    values = _numbers(column)
    given = getattr(column, "unit", None)
    if given is None or given == u.dimensionless_unscaled:
        notes.append(f"{name} has no unit: taken as degrees")
        return values
    if given.is_equivalent(u.deg):
        return values * given.to(u.deg)
    if unit == u.hourangle and given.is_equivalent(u.hour):
        return values * given.to(u.hour) * 15.0
    raise InputError(f"{path}: expected {name} in degrees, hours or radians, got {given}; correct its unit", path=path)


def _from_text(column: Any, what: str, unit: u.UnitBase, path: str) -> np.ndarray:
    mask = np.ma.getmaskarray(np.ma.asarray(column))
    texts = [
        "" if gone else (one.decode("ascii", "replace") if isinstance(one, bytes) else str(one)).strip()
        for one, gone in zip(column.tolist(), mask.tolist(), strict=True)
    ]
    values = np.full(len(texts), np.nan)
    there = [row for row, text in enumerate(texts) if text and text.lower() not in ("nan", "none", "--")]
    sexagesimal = any(_SEXAGESIMAL.search(texts[row]) for row in there)
    given = getattr(column, "unit", None)
    if sexagesimal and given is not None and given == u.deg and all(":" in texts[row] for row in there):
        unit = u.deg
    try:
        if sexagesimal:
            values[there] = Angle([texts[row] for row in there], unit=unit).deg if there else ()
        else:
            values[there] = [float(texts[row]) for row in there]
    except (ValueError, TypeError, u.UnitsError) as error:
        raise InputError(
            f"{path}: expected a {what} in column {column.info.name}, as 12:34:56.7 or in degrees, got "
            f"{' '.join(str(error).split())[:80]}; correct the row",
            path=path,
        ) from None
    return values


def _check(lon: np.ndarray, lat: np.ndarray, found: tuple[str, ...], path: str) -> None:
    wrong = np.flatnonzero((np.abs(lat) > 90.0) | (lon < -360.0) | (lon > 720.0))
    if len(wrong):
        raise InputError(
            f"{path}: expected positions in {' and '.join(found[:2])}, got {lon[wrong[0]]:g} and {lat[wrong[0]]:g} deg "
            f"in row {wrong[0] + 1} (counted from 1); name the right columns with --ra and --dec",
            path=path,
        )


def _errors(table: Table, name: str, axis: str, dec: np.ndarray, notes: list[str]) -> np.ndarray:
    """Errors of one axis in arcsec, NaN where the table has none."""
    nothing = np.full(len(table), np.nan)
    chosen = _first(table, lambda ucd: ucd.startswith(f"stat.error;pos.eq.{axis}"))
    if chosen is None:
        names = {_plain(one): one for one in table.colnames}
        words = [_ERROR_NAMES[k].format(word) for word in (_plain(name), axis) for k in range(len(_ERROR_NAMES))]
        chosen = next((names[word] for word in words if word in names), None)
    if chosen is None or table[chosen].dtype.kind not in "fiu":
        return nothing
    values, given = _numbers(table[chosen]), getattr(table[chosen], "unit", None)
    if given is None:
        notes.append(f"{chosen} has no unit: taken as arcsec")
        return values
    if given.is_equivalent(u.arcsec):
        return values * given.to(u.arcsec)
    if axis == "ra" and given.is_equivalent(u.s):
        return values * given.to(u.s) * 15.0 * np.cos(np.radians(dec))
    notes.append(f"{chosen} is in {given}: not used as an error")
    return nothing
