"""Truth lists and submissions of SKA Science Data Challenge 2: nine columns in the challenge's units."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from astropy.table import Table

from .catalogue import _is_number, _replacing
from .errors import InputError, OutputError

__all__ = ["SDC2_COLUMNS", "read_sdc2", "sdc2_columns", "write_sdc2"]

PathLike = str | os.PathLike[str]

SDC2_COLUMNS = ("id", "ra", "dec", "hi_size", "line_flux_integral", "central_freq", "pa", "i", "w20")
_UNITS = {
    "ra": "deg", "dec": "deg", "hi_size": "arcsec", "line_flux_integral": "Jy Hz", "central_freq": "Hz", "pa": "deg",
    "i": "deg", "w20": "km/s",
}  # fmt: skip
# Where a measurement gave nothing: the median inclination of discs turned at random, no size, the narrowest line.
_INCLINATION, _SIZE, _W20 = 60.0, 0.1, 10.0


def sdc2_columns(table: Table) -> dict[str, np.ndarray]:
    """The challenge's columns of a cube's catalogue (recommended values), or of a table that has them already.

    Rows without a position, frequency or flux above 0 are left out: the scorer would drop or misread them. A missing
    angle is 0, a missing inclination 60 degrees, a missing size or width the smallest that is meant.

    Raises
    ------
    OutputError
        When the fluxes are not in Jy Hz or the table has no such columns.
    """
    if set(SDC2_COLUMNS) <= set(table.colnames):
        return {name: np.asarray(table[name]) for name in SDC2_COLUMNS}
    if "line_flux" not in table.colnames:
        raise OutputError("a SDC2 list needs the columns of a cube's catalogue (line_flux, kin_pa, w20, ...)")
    unit = table["line_flux"].unit
    try:
        factor = 1.0 if unit is None else unit.to("Jy Hz")
    except ValueError as error:
        raise OutputError(
            f"a SDC2 list holds line fluxes in Jy Hz, got {unit}; leave out this format or open a cube in Jy/beam"
        ) from error

    def best(name: str) -> np.ndarray:
        values = np.asarray(table[name], float)
        if f"{name}_best" not in table.colnames:
            return values
        recommended = np.asarray(table[f"{name}_best"], float)
        return np.where(np.isfinite(recommended), recommended, values)

    given = {name: np.asarray(table[name], float) for name in ("ra", "dec", "frequency")}
    given["line_flux"] = best("line_flux")
    kept = np.isfinite(np.stack(list(given.values()))).all(axis=0) & (given["line_flux"] > 0)

    def column(name: str, missing: float, least: float = -np.inf) -> np.ndarray:
        values = best(name)[kept]
        return np.maximum(np.where(np.isfinite(values), values, missing), least)

    return {
        "id": np.asarray(table["source_id"], np.int64)[kept],
        "ra": given["ra"][kept], "dec": given["dec"][kept],
        "hi_size": column("hi_size", _SIZE, _SIZE),
        "line_flux_integral": given["line_flux"][kept] * factor,
        "central_freq": given["frequency"][kept],
        "pa": column("kin_pa", 0.0) % 360.0,
        "i": column("inclination", _INCLINATION),
        "w20": column("w20", _W20, _W20),
    }  # fmt: skip


def write_sdc2(table: Table, path: PathLike, *, inputs: Iterable[PathLike] = ()) -> Path:
    """Write a submission to SKA Science Data Challenge 2, by `sdc2_columns`, under one line of names."""
    path = Path(path)
    try:
        columns = sdc2_columns(table)
    except OutputError as error:
        raise OutputError(f"{path}: {error.message}", path=str(path)) from error
    form = "{:d} {:.8f} {:.8f} {:.4f} {:.6g} {:.3f} {:.3f} {:.3f} {:.3f}"
    lines = [" ".join(SDC2_COLUMNS)]
    lines += [form.format(*row) for row in zip(*(columns[name].tolist() for name in SDC2_COLUMNS), strict=True)]
    with _replacing(path, inputs) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return path


def read_sdc2(path: PathLike) -> Table:
    """Read a truth list or submission of SDC2 (nine columns, with a line of names in any order or without)."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a SDC2 list, there is no such file; check the path", path=str(path))
    with open(path) as file:
        lines = [line.replace(",", " ") for line in file if line.strip() and not line.startswith("#")]
    names = list(SDC2_COLUMNS)
    if lines and not _is_number(lines[0].split()[0]):
        names = lines.pop(0).split()
    try:
        rows = np.loadtxt(lines, ndmin=2) if lines else np.empty((0, len(names)))
    except ValueError as error:
        raise InputError(f"{path}: expected a table of numbers, got {error}", path=str(path)) from error
    missing = [name for name in SDC2_COLUMNS if name not in names]
    if missing or rows.shape[1] < len(names):
        raise InputError(
            f"{path}: expected the columns of SDC2 ({' '.join(SDC2_COLUMNS)}), got {' '.join(names)} and "
            f"{rows.shape[1]} numbers a row; check that this is a SDC2 list",
            path=str(path),
        )
    table = Table({name: rows[:, names.index(name)] for name in SDC2_COLUMNS})
    table["id"] = table["id"].astype(np.int64)
    for name, unit in _UNITS.items():
        table[name].unit = unit
    return table
