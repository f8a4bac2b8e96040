"""Rows of the store as Parquet files of the partitioned set, a block of rows at a time."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy import Connection

from survey_io.columns import IMAGE_COLUMNS, Column
from survey_io.cube_columns import CUBE_COLUMNS

from .cells import touching
from .database import Database
from .hats_plan import Partition, fingerprint, mark
from .schema import run, source
from .sky import ORDER

__all__ = ["INDEX", "MAIN", "SCHEMA", "Margin", "read_fingerprint", "write_margins", "write_partition"]

INDEX = "_healpix_29"
"""Column of HEALPix numbers, by which a partition is sorted."""

MAIN = (
    INDEX, "id", "object_id", "observation_id", "run_id", "kind", "name", "ra", "dec", "ra_err", "dec_err", "p_real",
    "snr", "flux", "flux_err", "flux_unit", "maj", "min", "pa", "flags", "freq", "w20",
)  # fmt: skip
"""Columns that a reader is given who asks for none in particular."""

# Rows of a block: what is in memory, and a row group of the file.
_BLOCK = 20_000
_OF_STORE = (
    "id", "object_id", "observation_id", "run_id", "row", "kind", "name", "ra", "dec", "p_real", "snr", "flux",
    "flux_err", "maj", "min", "pa", "flags", "freq", "w20",
)  # fmt: skip
# Columns of catalogues that the store has under these names, or that are a number within one catalogue only.
_ELSEWHERE = {*_OF_STORE, "line_flux", "line_flux_err", "frequency", "source_id"}
_KEY = b"skysift.fingerprint"


def _describe(name: str, kind: pa.DataType, column: Column | None, unit: str | None = None) -> pa.Field:
    words = {} if column is None else {"ucd": column.ucd, "description": column.meaning, "unit": column.unit or ""}
    if unit is not None:
        words["unit"] = unit
    return pa.field(name, kind, metadata={key: value for key, value in words.items() if value} or None)


def _schema() -> tuple[pa.Schema, pa.Schema]:
    """All columns of the set, and those of them that lie in details."""
    known = {one.name: one for one in (*CUBE_COLUMNS, *IMAGE_COLUMNS)}
    units = {"freq": "Hz", "w20": "km/s", "flux": None, "flux_err": None}
    fields = [pa.field(INDEX, pa.int64())]
    for name in _OF_STORE:
        kind = source.c[name].type
        text, whole = isinstance(kind, sa.Text) or hasattr(kind, "impl"), isinstance(kind, sa.Integer)
        # The unit of a flux is that of its image, which flux_unit says.
        column = known.get(name) if name not in ("flux", "flux_err", "row") else None
        stored = pa.string() if text else pa.int64() if whole else pa.float64()
        fields.append(_describe(name, stored, column, units.get(name)))
    fields.append(pa.field("flux_unit", pa.string()))
    details = [
        _describe(one.name, pa.string() if one.dtype[0] == "U" else pa.from_numpy_dtype(one.dtype), one)
        for one in known.values()
        if one.name not in _ELSEWHERE
    ]
    return pa.schema([*fields, *details]), pa.schema(details)


SCHEMA, _DETAILS = _schema()
"""Columns of the set: those of the store, then those of images' and cubes' catalogues (null where a row has none)."""


def write_partition(store: Database, partition: Partition, path: Path, *, layout: str) -> bool:
    """Write the rows of a partition, whole or not at all.

    Parameters
    ----------
    store : Database
    partition : Partition
    path : Path
    layout : str
        Of the columns, as in the plan.

    Returns
    -------
    bool
        False, and nothing is written, when the store's rows are no longer those of the plan.
    """
    return store.read(lambda connection: _write_rows(connection, partition, path, layout))


def _write_rows(connection: Connection, partition: Partition, path: Path, layout: str) -> bool:
    total = np.zeros(4, np.int64)
    with _Writer(path, partition.fingerprint) as writer:
        for block, ids, objects in _blocks(connection, partition):
            total += mark(ids, objects)
            writer.write(block)
        writer.good = fingerprint(tuple(total.tolist()), layout) == partition.fingerprint
    return writer.good


def _blocks(connection: Connection, partition: Partition) -> Iterator[tuple[pa.Table, np.ndarray, np.ndarray]]:
    """The rows in blocks by position, with their ids and objects (0 for none)."""
    s = source.c
    units = dict(connection.execute(sa.select(run.c.id, run.c.flux_unit).where(run.c.current)).all())
    columns = [s.hpx29, *(s[name] for name in _OF_STORE), sa.cast(s.details, sa.Text)]
    query = sa.select(*columns).where(s.current, s.hpx29.between(partition.first, partition.last))
    query = query.order_by(s.hpx29, s.id).execution_options(stream_results=True, yield_per=_BLOCK)
    for rows in connection.execute(query).partitions(_BLOCK):
        values = dict(zip((INDEX, *_OF_STORE, "details"), zip(*rows, strict=True), strict=True))
        details = _parse(values.pop("details"))
        values["flux_unit"] = [units.get(one) for one in values["run_id"]]
        arrays = [
            pa.array(values[field.name], field.type) if field.name in values else details[field.name]
            for field in SCHEMA
        ]
        objects = np.array([one or 0 for one in values["object_id"]], np.int64)
        yield pa.table(arrays, schema=SCHEMA), np.array(values["id"], np.int64), objects


def _parse(details: tuple[str, ...]) -> dict[str, pa.Array]:
    """Columns of what lies in details as JSON."""
    text = "\n".join(details)
    if '"inf"' not in text and '"-inf"' not in text:
        options = pa.json.ParseOptions(explicit_schema=_DETAILS, unexpected_field_behavior="ignore")
        reading = pa.json.ReadOptions(block_size=1 << 24)
        try:
            table = pa.json.read_json(io.BytesIO(text.encode()), read_options=reading, parse_options=options)
            if table.num_rows == len(details):
                return {name: table[name].combine_chunks() for name in _DETAILS.names}
        except pa.ArrowInvalid:
            # Another catalogue's column of the same name and another type.
            pass
    rows = [json.loads(one) for one in details]
    return {field.name: _coerce([row.get(field.name) for row in rows], field.type) for field in _DETAILS}


def _coerce(values: list[Any], kind: pa.DataType) -> pa.Array:
    def one(value: Any) -> Any:
        if pa.types.is_string(kind):
            return value if isinstance(value, str) else None
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
        return number if pa.types.is_floating(kind) else int(number) if np.isfinite(number) else None

    return pa.array([one(value) for value in values], kind)


@dataclass(frozen=True)
class Margin:
    """The rows around a cell: a file to be written.

    Attributes
    ----------
    cell : Partition
    near : tuple of Partition
        Partitions that touch it.
    path : Path
    mark : str
        Fingerprint to write into the file.
    """

    cell: Partition
    near: tuple[Partition, ...]
    path: Path
    mark: str


def write_margins(margins: list[Margin], data: Path, *, order: int) -> list[int]:
    """Write the margins of some cells, best near to each other, from the files of the partitions around them.

    Parameters
    ----------
    margins : list of Margin
    data : Path
        Folder of the partitions' files.
    order : int
        Of the small cells that belong to a margin where they touch the cell.

    Returns
    -------
    list of int
        Rows of each; without rows there is no file.
    """
    found: dict[Partition, list[pa.Table]] = {one.cell: [] for one in margins}
    wanted: dict[Partition, list[Partition]] = {}
    for one in margins:
        for near in one.near:
            wanted.setdefault(near, []).append(one.cell)
    shift = 2 * (ORDER - order)
    for near, cells in sorted(wanted.items()):
        with pq.ParquetFile(data / near.path) as parquet:
            for group in range(parquet.num_row_groups):
                number = parquet.read_row_group(group, columns=[INDEX])[INDEX].to_numpy() >> shift
                small, where = np.unique(number, return_inverse=True)
                around = touching(small, order)
                ends = [(one.first >> shift, one.last >> shift) for one in cells]
                masks = [((around >= a) & (around <= b)).any(axis=0)[where] for a, b in ends]
                if not np.any(masks):
                    continue
                rows = parquet.read_row_group(group)
                for one, mask in zip(cells, masks, strict=True):
                    if mask.any():
                        found[one].append(rows.filter(pa.array(mask)))
    return [_write_margin(one, found[one.cell]) for one in margins]


def _write_margin(margin: Margin, parts: list[pa.Table]) -> int:
    if not parts:
        return 0
    rows = pa.concat_tables(parts).sort_by([(INDEX, "ascending"), ("id", "ascending")])
    with _Writer(margin.path, margin.mark) as writer:
        writer.write(rows)
    return rows.num_rows


def read_fingerprint(path: Path) -> str | None:
    """The fingerprint in a file of the set; None where there is no such file, or it is damaged."""
    try:
        return (pq.read_metadata(path).metadata or {}).get(_KEY, b"").decode() or None
    except (OSError, pa.ArrowException):
        return None


class _Writer:
    """A Parquet file that takes its place when the block ends well and `good` is not False, and vanishes otherwise."""

    def __init__(self, path: Path, mark: str):
        self._path, self.good = path, True
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._schema = SCHEMA.with_metadata({_KEY: mark.encode()})

    def __enter__(self) -> _Writer:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._partial, self._schema, compression="zstd", use_dictionary=_TEXTS)
        return self

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows.cast(self._schema), row_group_size=_BLOCK)

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            self._writer.close()
            if kind is None and self.good:
                with open(self._partial, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)


_TEXTS = [field.name for field in SCHEMA if pa.types.is_string(field.type)]
