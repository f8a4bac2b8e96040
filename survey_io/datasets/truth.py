"""Truth and reference catalogues of any format as one kind of table: positions, fluxes, intrinsic sizes on the sky."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table

from survey_io.catalogue import SDC1_COLUMNS, read_catalogue
from survey_io.errors import InputError, OptionError

# FWHM of a Gaussian for a size of one unit, by size type of SDC1: 1 largest angular size, 2 Gaussian FWHM, 3
# exponential scale.
GAUSSIAN_PER_SIZE = np.array([np.nan, 2.355 / 5.0, 1.0, np.sqrt(2.0)])
# Names that columns go by in catalogues of our own, of PyBDSF, Aegean, SExtractor and of archives, in lower case; the
# first that a table has is taken.
NAMES: dict[str, tuple[str, ...]] = {
    "ra": ("ra", "ra_cent", "raj2000", "ra_icrs", "ra_deg", "_raj2000", "alpha_j2000"),
    "dec": ("dec", "dec_cent", "dej2000", "decj2000", "de_icrs", "dec_deg", "_dej2000", "delta_j2000"),
    "flux": ("flux_best", "flux", "total_flux", "int_flux", "flux_int", "flux_total", "s_total", "sint", "stot"),
    "major": ("maj_best", "maj_deconv", "dc_maj", "major_deconv", "major"),
    "minor": ("min_best", "min_deconv", "dc_min", "minor_deconv", "minor"),
    "pa": ("pa_best", "pa_deconv", "dc_pa", "pa", "position_angle"),
}
# Where no intrinsic size is given: sizes as seen through the beam.
APPARENT = {"major": ("maj", "a", "bmaj", "maj_fit"), "minor": ("min", "b", "bmin", "min_fit")}
UNITS = {"ra": "deg", "dec": "deg", "flux": "Jy", "major": "arcsec", "minor": "arcsec", "pa": "deg"}


@dataclass(frozen=True)
class Truth:
    """Sources on the sky, each array (n,).

    Attributes
    ----------
    ra, dec : ndarray
        ICRS degrees, of the centroid.
    flux : ndarray
        Integrated, Jy, before the primary beam.
    major, minor : ndarray
        FWHM in arcsec of the Gaussian of the same second moments: intrinsic, or as seen through the beam where
        ``apparent``.
    pa : ndarray
        Degrees east of north.
    apparent : bool
    table : Table
        The rows as they were read.
    """

    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray
    major: np.ndarray
    minor: np.ndarray
    pa: np.ndarray
    apparent: bool
    table: Table

    def __len__(self) -> int:
        return len(self.ra)

    def __getitem__(self, rows: np.ndarray) -> Truth:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return Truth(**{name: value if name == "apparent" else value[rows] for name, value in values.items()})


def read_truth(path: str | Path, *, columns: Mapping[str, str] | None = None) -> Truth:
    """Read a truth or reference catalogue.

    Parameters
    ----------
    path : path
        VOTable, FITS, ECSV, Parquet or CSV, or a text list of SDC1 (.txt, .dat, .cat).
    columns : mapping, optional
        Names of this table's columns for ``ra``, ``dec``, ``flux``, ``major``, ``minor`` and ``pa`` (intrinsic), where
        they are none of `NAMES`. Units are the table's own; without one deg, Jy and arcsec are meant.

    Raises
    ------
    InputError
        When the file is no table or lacks positions or fluxes.
    OptionError
        For a name in ``columns`` that is none of the six, or that the table does not have.
    """
    path = Path(path)
    table = read_catalogue(path, format="sdc1" if path.suffix.lower() in (".txt", ".dat", ".cat") else None)
    if set(SDC1_COLUMNS) <= set(table.colnames) and not columns:
        return _from_sdc1(table)
    return _from_names(path, table, dict(columns or {}))


def _from_sdc1(table: Table) -> Truth:
    if "selection" in table.colnames:
        # Sources that were too faint to be injected are in the training lists, not in the image.
        table = table[np.asarray(table["selection"]) == 1]
    value = {name: np.asarray(table[name], float) for name in SDC1_COLUMNS}
    factor = GAUSSIAN_PER_SIZE[np.clip(np.nan_to_num(value["size"]), 0, 3).astype(int)]
    sides = value["b_maj"] * factor, value["b_min"] * factor
    # The challenge counts angles clockwise from the direction of longitude.
    turned = np.where(sides[1] > sides[0], 90.0, 0.0)
    return Truth(
        value["ra_cent"] % 360.0, value["dec_cent"], value["flux"], np.maximum(*sides), np.minimum(*sides),
        (90.0 - value["pa"] + turned) % 180.0, False, table,
    )  # fmt: skip


def _from_names(path: Path, table: Table, columns: dict[str, str]) -> Truth:
    unknown = sorted(set(columns) - set(NAMES))
    if unknown:
        raise OptionError(f"columns: unknown entry {unknown[0]!r}; known: {', '.join(NAMES)}")
    known = {name.lower(): name for name in reversed(table.colnames)}
    for entry, name in columns.items():
        if name not in table.colnames:
            raise OptionError(f"{path}: no column {name!r} for {entry}; the table has {', '.join(table.colnames)}")

    def find(entry: str, names: tuple[str, ...]) -> str | None:
        return columns.get(entry) or next((known[name] for name in names if name in known), None)

    chosen = {entry: find(entry, names) for entry, names in NAMES.items()}
    apparent = chosen["major"] is None
    if apparent:
        chosen |= {entry: find(entry, names) for entry, names in APPARENT.items()}
    for entry in ("ra", "dec", "flux"):
        if chosen[entry] is None:
            raise InputError(
                f"{path}: expected a column for {entry} ({', '.join(NAMES[entry])}), got {', '.join(table.colnames)}; "
                "name it in the recipe's columns"
            )
    values = {entry: _numbers(path, table, name, UNITS[entry]) for entry, name in chosen.items() if name is not None}
    nothing = np.zeros(len(table))
    major = values.get("major", nothing)
    minor = values.get("minor", major)
    return Truth(
        values["ra"] % 360.0, values["dec"], values["flux"], np.maximum(major, minor), np.minimum(major, minor),
        values.get("pa", nothing) % 180.0, apparent and chosen["major"] is not None, table,
    )  # fmt: skip


def _numbers(path: Path, table: Table, name: str, unit: str) -> np.ndarray:
    """A column in a unit, masked values as NaN."""
    column = table[name]
    try:
        values = np.ma.filled(np.ma.asarray(getattr(column, "value", column)).astype(float), np.nan)
        own = column.unit
        # A peak's unit may be all that a catalogue gives: a flux per beam is a flux.
        factor = 1.0 if own is None else (own * u.beam).to(unit) if own.is_equivalent("Jy / beam") else own.to(unit)
    except (TypeError, ValueError, u.UnitConversionError) as error:
        raise InputError(f"{path}: column {name}: expected numbers in {unit} or a unit of its kind ({error})") from None
    return values * factor
