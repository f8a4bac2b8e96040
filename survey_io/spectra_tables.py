"""Spectra and light curves in tables.

A table holds one spectrum, a bin a row; or many, a row each, with arrays in its cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from astropy import units as u

from .errors import InputError
from .spectra_columns import NAMES, Columns, Roles, is_own, plain, recognise, split_unit
from .spectra_headers import rest_frequency, told_air
from .spectral import LIGHT
from .spectral_units import AXIS_KINDS, axis_kind, axis_unit
from .spectrum import Spectrum
from .spectrum_build import PLAUSIBLE_ANGSTROM, Given, Opened, Place, build_spectrum, collect
from .spectrum_masks import bad_bins

__all__ = ["table_spectra"]


def table_spectra(columns: Columns, place: Place, given: Given) -> Opened:
    """All spectra of a table.

    Raises
    ------
    NotASpectrum
        When its columns are not those of spectra.
    InputError
        When they are, but an axis has the wrong unit, or its only spectrum cannot be used.
    """
    roles = recognise(columns, given.unit)
    if roles.flux not in columns.arrays:
        return collect([_attempt(columns, roles, place, given, None)])
    label = next((name for name in columns.names if plain(name) in NAMES and name not in columns.arrays), None)
    labels = None if label is None else columns.get(label)
    return collect(_rows(columns, roles, place, given, labels))


def _rows(
    columns: Columns, roles: Roles, place: Place, given: Given, labels: np.ndarray | None
) -> Iterator[Spectrum | InputError]:
    several = columns.rows > 1
    if columns.rows == 0:
        raise place.error("expected a spectrum in each row of the table, it has no rows; leave it out")
    for row in range(columns.rows):
        name = f"{place.name} {row}" if several else place.name
        if labels is not None:
            text = labels[row].decode(errors="replace") if isinstance(labels[row], bytes) else str(labels[row])
            name = text.strip() or name
        yield _attempt(columns, roles, Place(place.path, name, row if several else place.row), given, row)


def _attempt(columns: Columns, roles: Roles, place: Place, given: Given, row: int | None) -> Spectrum | InputError:
    def read(name: str | None) -> np.ndarray | None:
        if name is None:
            return None
        values = columns.get(name)
        values = values if row is None else values[row]
        return np.asarray(values, np.float64).ravel()

    try:
        return _one(columns, roles, place, given, read)
    except (ValueError, TypeError) as error:
        return place.error(f"expected numbers in {roles.axis!r} and {roles.flux!r} ({error}); correct the file")
    except InputError as error:
        return error


def _one(
    columns: Columns, roles: Roles, place: Place, given: Given, read: Callable[[str | None], np.ndarray | None]
) -> Spectrum:
    axis, flux, error = read(roles.axis), read(roles.flux), read(roles.error)
    unit, log, note = _unit_of_axis(columns, roles, axis, place, given)
    if log:
        axis = 10.0**axis
    bad = bad_bins(columns, axis, unit, read)
    rest = given.rest_frequency or rest_frequency(columns.meta)
    if is_own(columns):
        # Where no voxel of the source's outline is usable its error is 0; velocities are optical.
        bad |= ~(error > 0)
        ratio = axis * (1 + read("velocity") / LIGHT)
        rest = rest or (float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else None)
    air = given.air
    if air is None:
        words = f"{roles.axis} {columns.ucds.get(roles.axis, '')}"
        air = False if roles.kind == "log" else told_air(words, columns.meta)
    # SDSS tells the unit of the flux in the file's BUNIT.
    text = columns.units.get(roles.flux) or split_unit(roles.flux)[1] or columns.meta.get("BUNIT", "")
    return build_spectrum(
        place, axis, flux, unit=unit, flux_text=text, error=error, weight=read(roles.weight),
        variance=read(roles.variance), bad=bad, rest_frequency=rest,
        convention="optical" if "opt" in plain(roles.axis) else "radio", air=air, notes=[*columns.notes, note],
    )  # fmt: skip


def _unit_of_axis(
    columns: Columns, roles: Roles, axis: np.ndarray, place: Place, given: Given
) -> tuple[u.UnitBase, bool, str]:
    """The axis's unit, whether values are logarithms, and a note."""
    text = columns.units.get(roles.axis) or split_unit(roles.axis)[1]
    unit, log = axis_unit(text)
    log = log or roles.kind == "log" or given.log
    if given.unit is not None:
        return given.unit, log, ""
    if unit is not None and axis_kind(unit) is not None:
        return unit, log, ""
    if text and not (log and unit is None):
        raise place.error(
            f"expected {AXIS_KINDS} along the axis, the column {roles.axis!r} is in {text!r}; correct its unit, or "
            "give it with --unit"
        )
    if roles.kind == "log":
        return u.Angstrom, True, ""
    if roles.kind == "time":
        return u.d, log, f"no unit of {roles.axis!r}: taken as days"
    values = axis[np.isfinite(axis) & (axis > 0)]
    low, high = PLAUSIBLE_ANGSTROM
    if roles.kind == "wavelength" and len(values) and values.min() >= low and values.max() <= high:
        return u.Angstrom, log, f"no unit of {roles.axis!r}: taken as Angstrom"
    span = f"{np.nanmin(axis):g} to {np.nanmax(axis):g}" if np.isfinite(axis).any() else "no numbers"
    raise place.error(f"expected a unit of the axis {roles.axis!r} ({span}), the file tells none; give it with --unit")
