"""Rows of the store that association reads and writes, as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from astropy.constants import c as LIGHT
from sqlalchemy import Connection

from pipeline.crossmatch import unit_vectors
from survey_io.columns import Flag

from .bulk import insert
from .schema import observation, run, sky_object, source
from .sightings import AssociationOptions, Sightings
from .sky import healpix_number

__all__ = [
    "UNRESOLVED", "Field", "among", "assign", "change_objects", "drop_objects", "join_fields", "make_objects",
    "read_field", "scalars", "summarise",
]  # fmt: skip

SINGLE, ASSOCIATED, UNRESOLVED = "single", "associated", "unresolved"
"""What is known of an object: seen once, seen in several observations, or with a source that another could be too."""

# Values in one statement: SQLite takes 32,766.
_BATCH = 10_000
_EDGES = int(Flag.EDGE | Flag.SPECTRAL_EDGE)


@dataclass(frozen=True)
class Field:
    """Rows of ``source``, each array (n,).

    Attributes
    ----------
    ids : ndarray of int
    objects : ndarray of int
        Their objects, -1 without one.
    arrived, sha256 : ndarray of str
        When their observation came, and its content hash.
    row : ndarray of int
        Their place in its catalogue.
    sightings : Sightings
    """

    ids: np.ndarray
    objects: np.ndarray
    arrived: np.ndarray
    sha256: np.ndarray
    row: np.ndarray
    sightings: Sightings

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: np.ndarray) -> Field:
        return Field(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


def join_fields(first: Field, second: Field) -> Field:
    """The rows of two, one after the other."""

    def joined(a: Any, b: Any) -> dict[str, np.ndarray]:
        names = [one.name for one in fields(a) if one.name not in ("sightings", "rank")]
        return {name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in names}

    both = joined(first, second)
    merged = joined(first.sightings, second.sightings)
    return Field(**both, sightings=Sightings(**merged, rank=_rank(both["sha256"], both["row"])))


def _rank(sha256: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Place of every source in an order in which nothing depends on which observation came first."""
    rank = np.empty(len(row), np.int64)
    rank[np.lexsort((row, sha256))] = np.arange(len(row))
    return rank


def among(column: Any, values: Iterable[int], *others: Any) -> list[sa.ColumnElement[bool]]:
    """Conditions that a column has one of many values, and the others hold: one for each statement that this takes."""
    values = sorted(values)
    return [sa.and_(column.in_(values[at : at + _BATCH]), *others) for at in range(0, len(values), _BATCH)]


def scalars(connection: Connection, column: Any, conditions: Iterable[sa.ColumnElement[bool]]) -> list[Any]:
    """Values of a column in the rows of any of the conditions."""
    return [value for one in conditions for value in connection.execute(sa.select(column).where(one)).scalars()]


def read_field(connection: Connection, conditions: Iterable[sa.ColumnElement[bool]]) -> Field:
    """Rows of ``source`` of any of the conditions, which exclude each other, in the order of their ids."""
    s = source.c
    columns = (
        s.id, s.run_id, s.row, s.kind, s.ra, s.dec, s.flux, s.flux_err, s.flags, s.freq, s.w20, s.object_id,
        *(s.details[name].as_string().label(name) for name in ("ra_err", "dec_err", "frequency_err")),
    )  # fmt: skip
    rows = sorted(row for one in conditions for row in map(tuple, connection.execute(sa.select(*columns).where(one))))
    values = dict(zip((column.name for column in columns), zip(*rows, strict=True), strict=True)) if rows else {}

    def numbers(name: str) -> np.ndarray:
        return np.array([np.nan if one is None else float(one) for one in values.get(name, ())], float)

    def whole(name: str, missing: int = 0) -> np.ndarray:
        return np.array([missing if one is None else one for one in values.get(name, ())], np.int64)

    known, which = np.unique(whole("run_id"), return_inverse=True)
    of_run = _read_runs(connection, known.tolist())
    freq = numbers("freq")
    kinds = np.array(values.get("kind", ()), str)
    sha256, row = of_run["sha256"][which], whole("row")
    sightings = Sightings(
        ra=numbers("ra"), dec=numbers("dec"), ra_err=numbers("ra_err"), dec_err=numbers("dec_err"),
        # A source at an edge has lost an unknown part of its flux.
        flux=np.where(whole("flags") & _EDGES, np.nan, numbers("flux")), flux_err=numbers("flux_err"),
        freq=freq, freq_err=numbers("frequency_err"), width=freq * numbers("w20") * 1e3 / LIGHT.value,
        kind=kinds, rank=_rank(sha256, row),
        **{name: of_run[name][which] for name in ("beam", "band", "unit", "observation")},
    )  # fmt: skip
    return Field(whole("id"), whole("object_id", -1), of_run["arrived"][which], sha256, row, sightings)


def _read_runs(connection: Connection, ids: list[int]) -> dict[str, np.ndarray]:
    """What the sources of a run have in common, for each of these in ascending order."""
    given = run.c.manifest
    columns = (
        run.c.id, run.c.observation_id, run.c.flux_unit, observation.c.sha256, observation.c.arrived,
        given[("input", "beam", "major")].as_string().label("major"),
        given[("input", "beam", "minor")].as_string().label("minor"),
        given[("input", "frequency_hz")].as_string().label("band"),
    )  # fmt: skip
    joined = run.join(observation, run.c.observation_id == observation.c.id)
    rows = [
        row
        for condition in among(run.c.id, ids)
        for row in connection.execute(sa.select(*columns).select_from(joined).where(condition).order_by(run.c.id))
    ]
    return {
        "beam": np.array([np.mean([_number(row.major), _number(row.minor)]) for row in rows], float),
        "band": np.array([_number(row.band) for row in rows], float),
        "unit": np.array([row.flux_unit or "" for row in rows], str),
        "observation": np.array([row.observation_id for row in rows], np.int64),
        "sha256": np.array([row.sha256 for row in rows], str),
        "arrived": np.array([row.arrived for row in rows], str),
    }


def _number(text: str | None) -> float:
    try:
        return np.nan if text is None else float(text)
    except ValueError:  # of a cube the manifest has the frequencies of both ends
        return np.nan


def summarise(field: Field, label: np.ndarray, marked: np.ndarray) -> list[dict[str, Any]]:
    """The columns of ``object`` for groups of sources.

    Parameters
    ----------
    field : Field
    label : ndarray of int, shape (n,)
        Group of every source, from 0 without gaps.
    marked : ndarray of bool, shape (n,)
        Sources that another could be too.

    Returns
    -------
    list of dict
        One per group. A mean position is weighted by the errors, and the same whatever the order of the sources.
    """
    count = int(label.max(initial=-1)) + 1
    order = np.lexsort((field.sightings.rank, label))
    label, marked, sightings = label[order], marked[order], field.sightings[order]
    first = np.searchsorted(label, np.arange(count))
    size = np.bincount(label, minlength=count)
    weight = 1.0 / sum(error**2 for error in sightings.position_errors(AssociationOptions()))
    vectors = unit_vectors(sightings.ra, sightings.dec) * weight[:, None]
    x, y, z = (np.bincount(label, weights=axis, minlength=count) for axis in vectors.T)
    ra, dec = np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))
    alone = size == 1
    ra[alone], dec[alone] = sightings.ra[first[alone]], sightings.dec[first[alone]]
    unclear = np.bincount(label, weights=marked, minlength=count) > 0
    arrived = field.arrived[order]
    by_time = np.lexsort((arrived, label))
    last = np.r_[first[1:], len(label)] - 1 if count else first
    status = np.where(unclear, UNRESOLVED, np.where(alone, SINGLE, ASSOCIATED))
    columns = {
        "ra": ra, "dec": dec, "hpx29": healpix_number(ra, dec), "n_sources": size, "n_observations": size,
        "first_seen": arrived[by_time][first], "last_seen": arrived[by_time][last], "status": status,
    }  # fmt: skip
    rows = zip(*(one.tolist() for one in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def make_objects(connection: Connection, summaries: list[dict[str, Any]]) -> np.ndarray:
    """Insert objects; their new ids in order. An id is never given twice."""
    count = len(summaries)
    if not count:
        return np.zeros(0, np.int64)
    if connection.dialect.name == "postgresql":
        query = "SELECT nextval(pg_get_serial_sequence('\"object\"', 'id')) FROM generate_series(1, :count)"
        ids = list(connection.execute(sa.text(query), {"count": count}).scalars())
    else:
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'object'"
        last = connection.exec_driver_sql(query).scalar() or 0
        ids = list(range(last + 1, last + 1 + count))
    rows = [{"id": id, **one} for id, one in zip(ids, summaries, strict=True)]
    insert(connection, '"object"', pa.Table.from_pylist(rows))
    return np.array(ids, np.int64)


def change_objects(connection: Connection, ids: np.ndarray, summaries: list[dict[str, Any]]) -> None:
    """Write new values into objects."""
    if not len(ids):
        return
    values = {name: sa.bindparam(f"new_{name}") for name in summaries[0]}
    query = sa.update(sky_object).where(sky_object.c.id == sa.bindparam("key")).values(**values)
    rows = [
        {"key": id} | {f"new_{name}": value for name, value in one.items()}
        for id, one in zip(ids.tolist(), summaries, strict=True)
    ]
    connection.execute(query, rows)


def drop_objects(connection: Connection, ids: Iterable[int]) -> int:
    """Delete objects that have no source any more; how many."""
    conditions = among(sky_object.c.id, ids)
    return sum(connection.execute(sa.delete(sky_object).where(one)).rowcount for one in conditions)


def assign(connection: Connection, ids: np.ndarray, objects: np.ndarray) -> None:
    """Give sources (n,) their objects (n,)."""
    if not len(ids):
        return
    execute = connection.exec_driver_sql
    if connection.dialect.name != "postgresql":
        cursor = connection.connection.driver_connection.cursor()
        pairs = zip(objects.tolist(), ids.tolist(), strict=True)
        cursor.executemany("UPDATE source SET object_id = ? WHERE id = ?", pairs)
        return
    execute("CREATE TEMPORARY TABLE IF NOT EXISTS joined (id BIGINT, object_id BIGINT) ON COMMIT DROP")
    insert(connection, "joined", pa.table({"id": ids, "object_id": objects}))
    execute("UPDATE source SET object_id = joined.object_id FROM joined WHERE source.id = joined.id")
    execute("TRUNCATE joined")
