"""Questions to the survey: cones, boxes and conditions over sources or objects, as tables with units."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from astropy.table import Column, MaskedColumn, Table
from sqlalchemy import Connection

from survey_io.columns import IMAGE_COLUMNS
from survey_io.cube_columns import CUBE_COLUMNS
from survey_io.errors import OptionError

from .database import Database
from .places import Box, Cone
from .problems import StoreError
from .schema import run, sky_object, source
from .sky import cone_ranges, separation
from .where import parse_where

__all__ = ["DEFAULT_COLUMNS", "in_time", "query_objects", "query_sources", "source_columns"]

DEFAULT_COLUMNS = (
    "id", "object_id", "name", "ra", "dec", "kind", "p_real", "snr", "flux", "flux_err", "flux_unit", "maj", "min",
    "pa", "flags", "freq", "w20",
)  # fmt: skip
"""Columns that a query gives when none are named."""

T = TypeVar("T")
OBJECT_COLUMNS = ("id", "ra", "dec", "n_sources", "n_observations", "status", "first_seen", "last_seen")

# Seconds that a question may take.
PATIENCE = 300.0
_KNOWN = {one.name: one for one in (*CUBE_COLUMNS, *IMAGE_COLUMNS)}
_OWN = {
    "id": ("meta.id;meta.main", "number of the source in the survey"),
    "object_id": ("meta.id.assoc", "number of the object that the source belongs to"),
    "observation_id": ("meta.id;obs", "number of the observation"),
    "run_id": ("meta.id", "number of the run that found the source"),
    "row": ("meta.record", "row in the run's catalogue, from 0"),
    "kind": ("meta.code.class", "image, cube, spectrum or classes"),
    "current": ("meta.code", "whether the run counts, or was superseded"),
    "flux": ("phot.flux", "flux of an image's source, line flux of a cube's; in flux_unit"),
    "flux_err": ("stat.error;phot.flux", "standard error of flux"),
    "flux_unit": ("meta.unit", "unit of flux and flux_err"),
    "freq": ("em.freq;spect.line", "frequency of a line"),
    "distance": ("pos.angDistance", "distance from the centre of the cone"),
    "hpx29": ("pos.healpix", "HEALPix number, order 29, nested"),
    "n_sources": ("meta.number", "sources of the object"),
    "n_observations": ("meta.number;obs", "observations that the object was seen in"),
    "status": ("meta.code", "single, associated, or unresolved: another could be the same"),
    "first_seen": ("time.start", "when the first observation of it came"),
    "last_seen": ("time.end", "when the last observation of it came"),
}
_UNITS = {"freq": "Hz", "w20": "km/s", "distance": "deg", "flux": None, "flux_err": None}


def source_columns() -> dict[str, sa.ColumnElement[Any]]:
    """All that may be asked for of a source: columns of the store, and of images' and cubes' catalogues in details."""
    columns: dict[str, sa.ColumnElement[Any]] = {
        one.name: one for one in source.c if one.name not in ("details", "hpx29")
    }
    columns["flux_unit"] = run.c.flux_unit
    for name, known in _KNOWN.items():
        if name not in columns:
            text = source.c.details[name].as_string()
            if known.dtype[0] == "U":
                columns[name] = text
            elif known.dtype.startswith("int"):
                columns[name] = source.c.details[name].as_integer()
            else:
                infinite = {"inf": np.inf, "-inf": -np.inf}
                others = [(text == word, sa.literal(value, sa.Double)) for word, value in infinite.items()]
                columns[name] = sa.case(*others, else_=source.c.details[name].as_float())
    return columns


def query_sources(
    store: Database,
    *,
    cone: Cone | None = None,
    box: Box | None = None,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    all_versions: bool = False,
    limit: int | None = None,
    place: sa.ColumnElement[bool] | None = None,
    patience: float = PATIENCE,
) -> Table:
    """Sources in a cone or box for which a condition holds.

    Parameters
    ----------
    store : Database
    cone : Cone, optional
        The result then has a column ``distance`` (deg) and is sorted by it; otherwise it is sorted by ``id``.
    box : Box, optional
        With a cone: what lies in both.
    where : str, optional
        A condition, see `parse_where`.
    columns : sequence of str, optional
        Of `source_columns`; default `DEFAULT_COLUMNS`.
    all_versions : bool
        Sources of superseded runs as well, with the column ``current``.
    limit : int, optional
        Give no more rows: the nearest of a cone, otherwise those with the lowest ids.
    place : sqlalchemy expression, optional
        A further condition.
    patience : float
        Seconds that the database may take.

    Returns
    -------
    Table

    Raises
    ------
    OptionError
        A condition or column that there is not, or a question that takes too long.
    StoreError
    """
    known = source_columns()
    names = list(columns) if columns is not None else [*DEFAULT_COLUMNS, *(["current"] if all_versions else [])]
    conditions = [] if all_versions else [source.c.current]
    frame = sa.join(source, run, source.c.run_id == run.c.id)
    return _query(
        store, source, frame, known, names, conditions, cone=cone, box=box, place=place, where=where, limit=limit,
        patience=patience,
    )  # fmt: skip


def query_objects(
    store: Database,
    *,
    cone: Cone | None = None,
    box: Box | None = None,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    limit: int | None = None,
    place: sa.ColumnElement[bool] | None = None,
    patience: float = PATIENCE,
) -> Table:
    """Objects (sources associated over observations) in a cone or box; see `query_sources`."""
    known = {one.name: one for one in sky_object.c if one.name != "hpx29"}
    names = list(columns) if columns is not None else list(OBJECT_COLUMNS)
    return _query(
        store, sky_object, sky_object, known, names, [], cone=cone, box=box, place=place, where=where, limit=limit,
        patience=patience,
    )  # fmt: skip


def _query(
    store: Database, table: sa.Table, frame: Any, known: dict[str, sa.ColumnElement[Any]], names: list[str],
    conditions: list[Any], *, cone: Cone | None, box: Box | None, place: sa.ColumnElement[bool] | None,
    where: str | None, limit: int | None, patience: float,
) -> Table:  # fmt: skip
    unknown = [name for name in names if name not in known]
    if unknown:
        raise OptionError(f"--columns: there is no column {unknown[0][:40]!r}; there are {', '.join(sorted(known))}")
    if limit is not None and limit < 0:
        raise OptionError(f"--limit: expected 0 or more rows, got {limit}")
    conditions = [*conditions, *_place_conditions(table, cone, box), *([] if place is None else [place])]
    if where is not None:
        conditions.append(parse_where(where, known))
    chosen = [known[name].label(name) for name in names]
    query = sa.select(table.c.id, table.c.ra, table.c.dec, *chosen).select_from(frame).where(*conditions)
    if cone is None:
        # Of rows in a place the index of places finds all, where one of ids would have the whole table read for it.
        anywhere = box is None and place is None
        query = query.order_by(table.c.id if anywhere else table.c.id + 0).limit(limit)

    query = query.execution_options(stream_results=True)
    rows = in_time(store, lambda connection: connection.execute(query).all(), patience)
    distance = None
    if cone is not None:
        at = np.array([row[1:3] for row in rows], float).reshape(len(rows), 2)
        far = separation(cone.ra, cone.dec, *at.T)
        # A position that differs from the centre by rounding alone lies at distance 0.
        inside = np.flatnonzero(far <= cone.radius + 1e-12)
        ids = np.array([rows[one][0] for one in inside], np.int64)
        inside = inside[np.lexsort((ids, far[inside]))][:limit]
        rows, distance = [rows[one] for one in inside], far[inside]
    return _make_table(names, known, [row[3:] for row in rows], distance)


def in_time(store: Database, work: Callable[[Connection], T], patience: float) -> T:
    """Read from the store, and give up after some seconds.

    Raises
    ------
    OptionError
        When the database takes longer, or a condition's numbers grow beyond what it can hold.
    StoreError
    """

    def limited(connection: Connection) -> T:
        _limit_time(connection, patience)
        try:
            return work(connection)
        finally:
            _limit_time(connection, None)

    try:
        return store.read(limited)
    except StoreError as error:
        if "interrupted" in str(error) or "57014" in str(error):
            raise OptionError(f"the query took longer than {patience:g} s; ask for a smaller part of the sky") from None
        if "22003" in str(error):
            raise OptionError("--where: a number grows beyond what the database can hold; use smaller ones") from None
        raise


def _place_conditions(table: sa.Table, cone: Cone | None, box: Box | None) -> list[Any]:
    conditions = []
    for one in (cone, box.around() if box is not None else None):
        ranges = None if one is None else cone_ranges(one.ra, one.dec, one.radius)
        if one is not None:
            conditions.append(table.c.hpx29.is_not(None))
        if ranges is not None:
            conditions.append(sa.or_(*(table.c.hpx29.between(*pair) for pair in ranges)))
    if box is not None:
        conditions.append(table.c.dec.between(box.dec1, box.dec2))
        if box.ra1 is not None and box.ra2 is not None:
            after, before = table.c.ra >= box.ra1, table.c.ra <= box.ra2
            conditions.append(sa.or_(after, before) if box.ra1 > box.ra2 else sa.and_(after, before))
    return conditions


def _limit_time(connection: Connection, seconds: float | None) -> None:
    """Let the database give up after some seconds."""
    if connection.dialect.name == "postgresql":
        if seconds is not None:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        return
    until = None if seconds is None else time.monotonic() + seconds
    late = None if until is None else lambda: time.monotonic() > until
    connection.connection.driver_connection.set_progress_handler(late, 100_000)


def _make_table(names: list[str], known: dict[str, Any], rows: list[Any], distance: np.ndarray | None) -> Table:
    values = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    table = Table()
    for name in names:
        kind = known[name].type
        if isinstance(kind, sa.Boolean):
            table[name] = Column([bool(one) for one in values[name]], dtype=bool)
        elif isinstance(kind, sa.Integer):
            table[name] = _whole(values[name])
        elif isinstance(kind, (sa.Float, sa.Numeric)):
            table[name] = Column(np.array(values[name], float))
        else:
            table[name] = Column([one or "" for one in values[name]], dtype=str)
    if distance is not None:
        table["distance"] = distance
    for name in table.colnames:
        column, common = table[name], _KNOWN.get(name)
        if name in _OWN:
            column.meta["ucd"], column.description = _OWN[name]
        elif common is not None:
            column.meta["ucd"], column.description = common.ucd, common.meaning
        column.unit = _UNITS.get(name, None if common is None else common.unit)
    shared = set(values.get("flux_unit", ()))
    if len(shared) == 1 and (unit := shared.pop()):
        for name in {"flux", "flux_err"} & set(names):
            table[name].unit = unit
    return table


def _whole(values: Iterable[Any]) -> Column:
    gone = np.array([one is None for one in values], bool)
    numbers = np.array([0 if one is None else one for one in values], np.int64)
    return MaskedColumn(numbers, mask=gone) if gone.any() else Column(numbers)
