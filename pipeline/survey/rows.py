"""A catalogue as rows of the table ``source``, and back, with nothing lost on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table

from survey_io.errors import OptionError

from .schema import COMMON, clean_text, mark_text, plain, unmark_text
from .sky import healpix_number

__all__ = ["SOURCE_COLUMNS", "Rows", "catalogue_kind", "rows_to_table", "table_to_rows"]

SOURCE_COLUMNS = ("row", "name", "ra", "dec", "hpx29", "kind", *COMMON[3:], "details")
"""Columns of ``source`` that come from a catalogue, in the order of `Rows.data`."""

# Where a common column's values come from in a catalogue that has none of its name.
_OTHER_NAMES = {
    "name": "spectrum", "flux": "line_flux", "flux_err": "line_flux_err", "freq": "frequency",
}  # fmt: skip
# Units that common columns have whatever the catalogue says; a catalogue in others keeps its own values in details.
_UNITS = {"ra": "deg", "dec": "deg", "maj": "arcsec", "min": "arcsec", "pa": "deg", "freq": "Hz", "w20": "km/s"}
_MASKED = "--"


@dataclass(frozen=True)
class Rows:
    """A catalogue's rows for the database.

    Attributes
    ----------
    data : pyarrow.Table
        Columns `SOURCE_COLUMNS`; null stands for NaN and for masked.
    catalogue : dict
        Columns in their order, where each lies, what is masked, and the table's own meta: what `rows_to_table` needs.
    flux_unit : str or None
        Unit of the column flux.
    """

    data: pa.Table
    catalogue: dict[str, Any]
    flux_unit: str | None


def catalogue_kind(table: Table, manifest: dict[str, Any]) -> str:
    """``image``, ``cube``, ``spectrum`` or ``classes``, by the columns and, without telling ones, the manifest."""
    names = set(table.colnames)
    if {"line_id", "spectrum"} <= names:
        return "spectrum"
    if {"line_flux", "z"} <= names:
        return "cube"
    shape = (manifest.get("input") or {}).get("shape") or ()
    return {1: "spectrum", 2: "image", 3: "cube"}.get(len(shape), "image" if "peak_flux" in names else "classes")


def table_to_rows(table: Table, kind: str) -> Rows:
    """The rows of a catalogue: common columns as numbers, all other values as one JSON object per row.

    Numbers in the JSON are the shortest that give the same binary value again. NaN is null there, infinity the text
    "inf" or "-inf", a masked value is left out. Databases can read all of it: text that they would not take is marked.

    Parameters
    ----------
    table : Table
    kind : str
        See `catalogue_kind`.

    Raises
    ------
    OptionError
        When a column cannot be stored.
    """
    count = len(table)
    arrays: dict[str, pa.Array] = {"row": pa.array(np.arange(count)), "kind": pa.array([kind] * count, pa.string())}
    columns, fragments = [], []
    homes = {home: _find_column(table, home) for home in COMMON}
    whole = {}
    for home, name in homes.items():
        values = None if name is None else _common(table[name], home)
        # A value that a common column cannot hold exactly lies in details too, and is read from there.
        if name is not None and values is not None and values[1]:
            whole[name] = home
        kind_of = pa.string() if home == "name" else pa.int64() if home == "flags" else pa.float64()
        arrays[home] = pa.nulls(count, kind_of) if values is None else values[0]
    for name in table.colnames:
        column = table[name]
        entry = _describe(column)
        if name in whole:
            entry["in"] = whole[name]
            mask = np.asarray(getattr(column, "mask", False))
            if mask.any():
                entry["mask"] = np.flatnonzero(np.broadcast_to(mask, count)).tolist()
        else:
            fragments.append(_fragment(column))
        columns.append(entry)
    ra, dec = (arrays[axis].to_numpy(zero_copy_only=False) for axis in ("ra", "dec"))
    number = healpix_number(ra, dec)
    arrays["hpx29"] = pa.array(number, mask=number < 0)
    arrays["details"] = _objects(fragments, count)
    flux = homes["flux"]
    unit = None if flux is None or table[flux].unit is None else table[flux].unit.to_string()
    catalogue = {"columns": columns, "meta": _plain_meta(table.meta)}
    return Rows(pa.table({name: arrays[name] for name in SOURCE_COLUMNS}), catalogue, unit)


def rows_to_table(common: dict[str, list[Any]], details: list[str], catalogue: dict[str, Any]) -> Table:
    """The catalogue that `table_to_rows` took, from its rows in their order.

    Parameters
    ----------
    common : dict of list
        Values of the common columns.
    details : list of str
        One JSON object each.
    catalogue : dict
        As `Rows.catalogue`.
    """
    parsed = json.loads(f"[{','.join(details)}]")
    table = Table(meta=catalogue["meta"])
    for entry in catalogue["columns"]:
        dtype = np.dtype(entry["dtype"])
        home = entry.get("in")
        if home is not None:
            values, mask = common[home], np.zeros(len(details), bool)
            mask[entry.get("mask", [])] = True
        else:
            name, mask = _marked(entry["name"]), np.zeros(len(details), bool)
            try:
                values = [row[name] for row in parsed]
            except KeyError:
                mask = np.array([name not in row for row in parsed], bool)
                values = [row.get(name, _MASKED) for row in parsed]
        array, mask = _array(values, mask, dtype, tuple(entry.get("shape", ())))
        kind = MaskedColumn if entry["masked"] or mask.any() else Column
        options = {"mask": mask} if kind is MaskedColumn else {}
        table[entry["name"]] = kind(
            array, unit=entry["unit"], description=entry["description"], format=entry["format"], meta=entry["meta"],
            **options,
        )  # fmt: skip
    return table


def _find_column(table: Table, home: str) -> str | None:
    for name in (home, _OTHER_NAMES.get(home)):
        if name in table.colnames:
            return name
    return None


def _common(column: Any, home: str) -> tuple[pa.Array, bool] | None:
    """Values for a common column, null where NaN or masked, and whether they are the catalogue's own, exactly."""
    if column.ndim != 1:
        return None
    mask = np.broadcast_to(np.asarray(getattr(column, "mask", False)), len(column))
    values = np.asarray(column.filled() if hasattr(column, "filled") else column)
    values = values.astype(values.dtype.newbyteorder("="))
    if home == "name":
        if values.dtype.kind != "U":
            return None
        texts = values.tolist()
        clean = [clean_text(text) for text in texts]
        return pa.array(clean, pa.string(), mask=mask), clean == texts
    if values.dtype.kind not in "fiu" or values.dtype.itemsize > 8:
        return None
    if home == "flags":
        if values.dtype.kind == "f" or values.dtype == np.uint64:
            return None
        return pa.array(values.astype(np.int64), mask=mask), True
    exact = values.dtype.kind == "f" or values.dtype.itemsize < 8
    with np.errstate(invalid="ignore"):  # of NaN that signal
        numbers = values.astype(float)
    wanted, unit = _UNITS.get(home), column.unit
    if wanted and unit is not None and unit != u.Unit(wanted):
        try:
            numbers, exact = u.Quantity(numbers, unit).to_value(wanted), False
        except u.UnitConversionError:
            return None
    return pa.array(numbers, mask=mask | np.isnan(numbers)), exact


def _describe(column: Any) -> dict[str, Any]:
    if not isinstance(column, Column):
        raise OptionError(
            f"column {column.info.name!r}: expected numbers or text, got {type(column).__name__}; write the catalogue "
            "with plain columns"
        )
    entry = {
        "name": column.name,
        "dtype": column.dtype.newbyteorder("=").str,
        "unit": None if column.unit is None else column.unit.to_string(),
        "description": column.description,
        "format": column.format if isinstance(column.format, str) else None,
        "meta": _plain_meta(column.meta),
        "masked": isinstance(column, MaskedColumn),
    }
    if column.ndim > 1:
        entry["shape"] = list(column.shape[1:])
    return entry


def _plain_meta(meta: Any) -> dict[str, Any]:
    return plain(dict(meta or {}))


def _fragment(column: Any) -> pa.Array:
    """For every row ``"name": value`` as JSON; null where the value is masked."""
    name = json.dumps(_marked(column.name))
    mask = np.asarray(getattr(column, "mask", False))
    values = np.asarray(column.data.data if isinstance(column, MaskedColumn) else column)
    values = values.astype(values.dtype.newbyteorder("="))
    if column.ndim > 1 or values.dtype.kind not in "fiubUS" or values.dtype.itemsize > 8 and values.dtype.kind == "f":
        mask = np.broadcast_to(mask, values.shape)
        texts = [json.dumps(_nested(one, hidden)) for one, hidden in zip(values, mask, strict=True)]
        text, hidden = pa.array(texts, pa.string()), np.zeros(len(values), bool)
    else:
        text, hidden = _scalars(values), np.broadcast_to(mask, len(values))
    if hidden.any():
        text = pc.if_else(pa.array(hidden), pa.scalar(None, pa.string()), text)
    return pc.binary_join_element_wise(pa.scalar(f"{name}:"), text, "", null_handling="emit_null")


def _scalars(values: np.ndarray) -> pa.Array:
    kind = values.dtype.kind
    if kind == "f":
        if values.dtype.itemsize == 2:
            values = values.astype(np.float32)
        text = pa.array(values).cast(pa.string())
        # JSON knows neither; and "-0" would come back as the integer 0.
        for condition, word in (
            (np.isnan(values), "null"), (np.isposinf(values), '"inf"'), (np.isneginf(values), '"-inf"'),
            ((values == 0) & np.signbit(values), "-0.0"),
        ):  # fmt: skip
            if condition.any():
                text = pc.if_else(pa.array(condition), pa.scalar(word), text)
        return text
    if kind in "iub":
        return pa.array(values).cast(pa.string())
    decode = (lambda text: text.decode("latin-1")) if kind == "S" else str
    return pa.array([json.dumps(_marked(decode(text))) for text in values.tolist()], pa.string())


def _marked(text: str) -> str:
    return f"\\={text}" if text == _MASKED else mark_text(text)


def _nested(value: Any, mask: Any) -> Any:
    if np.ndim(value):
        return [_nested(one, hidden) for one, hidden in zip(value, mask, strict=True)]
    if mask:
        return _MASKED
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, bytes):
        return _marked(value.decode("latin-1"))
    if isinstance(value, str):
        return _marked(value)
    return plain(value)


def _objects(fragments: list[pa.Array], count: int) -> pa.Array:
    if not fragments or not count:
        return pa.array(["{}"] * count, pa.string())
    inside = pc.binary_join_element_wise(*fragments, ",", null_handling="skip")
    return pc.binary_join_element_wise("{", inside, "}", "")


def _array(
    values: list[Any], mask: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    if not shape and dtype.kind != "c":
        return _flat(values, mask, dtype), mask
    if dtype.kind == "c":
        shape = (*shape, 2)
    size = int(np.prod(shape))
    flat: list[Any] = []
    for value in values:
        flat.extend(_leaves(value, len(shape)) if value != _MASKED else [_MASKED] * size)
    hidden = np.array([leaf == _MASKED if isinstance(leaf, str) else False for leaf in flat], bool)
    part = np.empty(0, dtype).real.dtype if dtype.kind == "c" else dtype
    array = _flat(flat, hidden, part).reshape(len(values), *shape)
    hidden = hidden.reshape(array.shape)
    if dtype.kind == "c":
        return (array[..., 0] + 1j * array[..., 1]).astype(dtype), hidden[..., 0]
    return array, hidden


def _leaves(value: Any, depth: int) -> list[Any]:
    if depth == 1:
        return list(value)
    return [leaf for one in value for leaf in _leaves(one, depth - 1)]


def _flat(values: list[Any], mask: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """One value after the other as numpy has them; masked ones as zero or empty."""
    hidden = mask.any()
    if dtype.kind == "f":
        # None becomes NaN, and the text "inf" infinity.
        numbers = [None if gone else one for one, gone in zip(values, mask, strict=True)] if hidden else values
        return np.array(numbers, float if dtype.itemsize <= 8 else dtype).astype(dtype)
    if dtype.kind in "iub":
        zero = dtype.type(0).item()
        whole = [zero if gone else one for one, gone in zip(values, mask, strict=True)] if hidden else values
        return np.array(whole, dtype)
    if dtype.kind in "US":
        texts = ["" if one is None or gone else one for one, gone in zip(values, mask, strict=True)]
        texts = [unmark_text(text) for text in texts]
        return np.array([text.encode("latin-1") for text in texts] if dtype.kind == "S" else texts, dtype)
    array = np.empty(len(values), dtype)
    for place, value in enumerate(values):
        array[place] = None if hidden and mask[place] else value
    return array
