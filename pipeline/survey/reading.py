"""What the store gives back: runs, catalogues, cones, and where a row comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table
from sqlalchemy import Connection

from survey_io.errors import InputError, OptionError

from .cells import prefer_indexes
from .queue import Queue
from .rows import rows_to_table
from .schema import COMMON, clean_text, observation, run, source, unresolved
from .sky import cone_ranges, separation

__all__ = ["CONE_COLUMNS", "Reading"]

CONE_COLUMNS = tuple(column.name for column in source.c if column.name not in ("hpx29", "details"))
"""Columns of `Reading.cone`, before flux_unit and distance."""

_UNITS = {
    "ra": "deg", "dec": "deg", "maj": "arcsec", "min": "arcsec", "pa": "deg", "freq": "Hz", "w20": "km/s",
    "distance": "deg",
}  # fmt: skip
_WHOLE = {"id", "run_id", "observation_id", "row", "flags", "object_id"}
_BRIEF = [column for column in run.c if column.name not in ("options", "manifest", "catalogue")]
# Rows that are fetched by their numbers in one query.
_IDS = 1000


class Reading(Queue):
    """Reads of the store; none of them changes anything."""

    def runs(
        self,
        observation_id: int | None = None,
        *,
        current: bool | None = None,
        weights: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        newest: bool = False,
    ) -> list[dict[str, Any]]:
        """Runs in the order in which they were recorded, without options and manifest.

        Parameters
        ----------
        observation_id : int, optional
            Only those of this observation.
        current : bool, optional
            Only those that count now, or only those that were superseded.
        weights : str, optional
            Only those with weights whose SHA-256 begins so, or of the model of this name.
        limit, offset : int
            How many, from which.
        newest : bool
            In the opposite order.

        Returns
        -------
        list of dict
            The columns of the table ``run``, and the observation's name as ``observation``.
        """
        query = sa.select(*_BRIEF, observation.c.name.label("observation"))
        query = query.join_from(run, observation, observation.c.id == run.c.observation_id)
        query = query.order_by(run.c.id.desc() if newest else run.c.id).limit(limit).offset(offset or None)
        if observation_id is not None:
            query = query.where(run.c.observation_id == observation_id)
        if current is not None:
            query = query.where(run.c.current == current)
        if weights is not None:
            starts = run.c.weights_sha256.startswith(clean_text(weights), autoescape=True)
            query = query.where(sa.or_(starts, run.c.model == weights))
        return self.read(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    def run(self, id: int) -> dict[str, Any]:
        """One run with its options and its manifest.

        Raises
        ------
        InputError
            When there is no such run.
        """
        return self.read(lambda connection: self._run(connection, id))

    def find_run(self, key: str) -> int | None:
        """Id of the run of a key (see `run_key`), None when there is none: what would be recorded is there already."""
        query = sa.select(run.c.id).where(run.c.key == key)
        return self.read(lambda connection: connection.execute(query).scalar())

    def weights(self) -> list[dict[str, Any]]:
        """For each weights the runs that they made: model, weights_sha256, runs, current, sources, first, last."""
        current = sa.case((run.c.current, 1), else_=0)
        query = (
            sa.select(
                run.c.model, run.c.weights_sha256, sa.func.count().label("runs"), sa.func.sum(current).label("current"),
                sa.func.sum(run.c.rows * current).label("sources"), sa.func.min(run.c.recorded).label("first"),
                sa.func.max(run.c.recorded).label("last"),
            )
            .group_by(run.c.model, run.c.weights_sha256)
            .order_by(sa.func.min(run.c.recorded))
        )  # fmt: skip
        found = self.read(lambda connection: [dict(row) for row in connection.execute(query).mappings()])
        return [row | {"current": int(row["current"]), "sources": int(row["sources"])} for row in found]

    def counts(self) -> dict[str, Any]:
        """Observations by state; runs, sources, and of both those that count now.

        Returns
        -------
        dict
            ``observations`` (dict of int by state), ``runs``, ``current_runs``, ``sources``, ``current_sources``.
        """

        def work(connection: Connection) -> dict[str, Any]:
            # The runs know how many rows they have: counting millions would take seconds.
            query = sa.select(run.c.current, sa.func.count(), sa.func.sum(run.c.rows)).group_by(run.c.current)
            by = {bool(current): (count, int(rows or 0)) for current, count, rows in connection.execute(query)}
            new, old = by.get(True, (0, 0)), by.get(False, (0, 0))
            return {
                "observations": self._queue_counts(connection), "runs": new[0] + old[0], "current_runs": new[0],
                "sources": new[1] + old[1], "current_sources": new[1],
            }  # fmt: skip

        return self.read(work)

    def sources(self, run_id: int) -> Table:
        """The catalogue of a run as it was recorded: columns, types, units, descriptions, UCDs, values, masks.

        Raises
        ------
        InputError
            When there is no such run.
        """
        columns = [source.c[name] for name in COMMON]
        query = sa.select(*columns, sa.cast(source.c.details, sa.Text)).where(source.c.run_id == run_id)

        def work(connection: Connection) -> tuple[dict[str, Any], Sequence[Any]]:
            catalogue = self._run(connection, run_id)["catalogue"]
            return catalogue, connection.execute(query.order_by(source.c.row)).all()

        catalogue, rows = self.read(work)
        values = list(zip(*rows, strict=True)) or [()] * (len(COMMON) + 1)
        return rows_to_table(dict(zip(COMMON, values[:-1], strict=True)), list(values[-1]), catalogue)

    def cone(
        self,
        ra: float,
        dec: float,
        radius: float,
        *,
        where: sa.ColumnElement[bool] | str | None = None,
        current: bool = True,
        limit: int | None = None,
    ) -> Table:
        """Sources within a distance of a position, nearest first.

        Parameters
        ----------
        ra, dec : float
            ICRS degrees; any right ascension, it is taken modulo 360.
        radius : float
            Degrees, 0 to 180; 0 finds what lies exactly there.
        where : SQL condition, optional
            On columns of ``source``. Text is SQL as it stands: never of somebody who must not read the whole store.
        current : bool
            Without superseded runs.
        limit : int, optional
            The nearest so many.

        Returns
        -------
        Table
            Columns `CONE_COLUMNS`, ``flux_unit`` and ``distance`` (degrees). The column flux has a unit when all rows
            share it.

        Raises
        ------
        OptionError
            When a number is out of range.
        StoreError
        """
        if not (np.isfinite(ra) and -90 <= dec <= 90):
            raise OptionError(f"expected a right ascension and a declination from -90 to 90, got {ra}, {dec} degrees")
        if not 0 <= radius <= 180:
            raise OptionError(f"expected a radius from 0 to 180 degrees, got {radius}")
        if limit is not None and limit < 0:
            raise OptionError(f"expected a limit of 0 or more rows, got {limit}")
        conditions = [source.c.ra.is_not(None), source.c.dec.is_not(None), source.c.hpx29.is_not(None)]
        if current:
            conditions.append(source.c.current)
        if where is not None:
            conditions.append(sa.text(f"({where})") if isinstance(where, str) else where)
        ranges = cone_ranges(ra, dec, radius)
        if ranges is not None:
            conditions.append(sa.or_(*(source.c.hpx29.between(*one) for one in ranges)))
        # A query with a limit looks at positions first: a wide cone with many rows then stays small.
        columns = [source.c[name] for name in CONE_COLUMNS]
        slim = [source.c.id, source.c.ra, source.c.dec]

        def work(connection: Connection) -> tuple[list[Any], np.ndarray]:
            if ranges is not None:
                prefer_indexes(connection)
            query = sa.select(*(slim if limit is not None else columns)).where(*conditions)
            rows = connection.execute(query).all()
            at = 1 if limit is not None else CONE_COLUMNS.index("ra")
            position = np.array([row[at : at + 2] for row in rows], float).reshape(len(rows), 2)
            distance = separation(ra, dec, *position.T)
            # A position that differs from the centre by rounding alone lies at distance 0.
            inside = np.flatnonzero(distance <= radius + 1e-12)
            ids = np.array([row[0] for row in rows], np.int64)[inside]
            inside = inside[np.lexsort((ids, distance[inside]))][:limit]
            chosen = [rows[place] for place in inside]
            if limit is not None:
                chosen = _by_id(connection, [row[0] for row in chosen], columns)
            return chosen, distance[inside], self._flux_units(connection, {row[1] for row in chosen})

        rows, distance, flux_units = self.read(work)
        return _cone_table(rows, distance, flux_units)

    def provenance(self, source_id: int) -> dict[str, Any]:
        """From a row back to its file, weights, options and run.

        Returns
        -------
        dict
            ``source`` (id, row, name, ra, dec, current), ``file``, ``sha256``, ``bytes``, ``observation_id``,
            ``model``, ``weights_sha256``, ``engine``, ``precision`` (in which the network computed), ``options``,
            ``versions``, ``run`` (as `runs` gives it),
            ``files`` (what the run wrote), ``superseded_by`` (id of the run that counts now, or None), ``unresolved``
            (a dict with source_id, reason and distance for each source that could be the same and is not joined).

        Raises
        ------
        InputError
            When there is no such source.
        """
        names = ("id", "row", "name", "ra", "dec", "current", "object_id", "run_id", "observation_id")

        def work(connection: Connection) -> dict[str, Any] | None:
            query = sa.select(*(source.c[name] for name in names)).where(source.c.id == source_id)
            row = connection.execute(query).mappings().first()
            if row is None:
                return None
            found = self._run(connection, row["run_id"])
            seen = sa.select(observation).where(observation.c.id == row["observation_id"])
            file = connection.execute(seen).mappings().one()
            same = sa.and_(run.c.observation_id == file["id"], run.c.current)
            newest = connection.execute(sa.select(run.c.id).where(same)).scalar()
            manifest = found["manifest"]
            return {
                "source": {name: row[name] for name in names[:-2]},
                "file": file["path"], "sha256": file["sha256"], "bytes": file["bytes"], "observation_id": file["id"],
                "model": found["model"], "weights_sha256": found["weights_sha256"], "engine": found["engine"],
                "precision": (manifest.get("model") or {}).get("precision"), "options": found["options"],
                "versions": manifest.get("versions") or {"skysift": found["skysift_version"]},
                "run": {column.name: found[column.name] for column in _BRIEF},
                "files": manifest.get("files") or {},
                "superseded_by": None if row["current"] else newest,
                "unresolved": _conflicts(connection, source_id),
            }  # fmt: skip

        found = self.read(work)
        if found is None:
            raise InputError(f"{self.place}: expected the id of a source, there is none with {source_id}")
        return found

    def _run(self, connection: Connection, id: int) -> dict[str, Any]:
        query = sa.select(run, observation.c.name.label("observation")).where(run.c.id == id)
        found = connection.execute(query.join_from(run, observation, observation.c.id == run.c.observation_id))
        row = found.mappings().first()
        if row is None:
            raise InputError(f"{self.place}: expected the id of a run, there is none with {id}")
        return dict(row)

    def _flux_units(self, connection: Connection, runs: set[int]) -> dict[int, str | None]:
        units: dict[int, str | None] = {}
        wanted = sorted(runs)
        for first in range(0, len(wanted), _IDS):
            part = run.c.id.in_(wanted[first : first + _IDS])
            units |= dict(connection.execute(sa.select(run.c.id, run.c.flux_unit).where(part)).all())
        return units


def _conflicts(connection: Connection, source_id: int) -> list[dict[str, Any]]:
    """Sources that lie close enough to be one with this source and are not joined with it."""
    u, found = unresolved.c, []
    for mine, other in ((u.source_id, u.other_id), (u.other_id, u.source_id)):
        query = sa.select(other.label("source_id"), u.reason, u.distance).where(mine == source_id)
        found += [dict(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=lambda one: one["source_id"])


def _by_id(connection: Connection, ids: list[int], columns: list[sa.Column[Any]]) -> list[Any]:
    """Rows of ``source`` by their ids, in the order of these."""
    found = {}
    for first in range(0, len(ids), _IDS):
        query = sa.select(*columns).where(source.c.id.in_(ids[first : first + _IDS]))
        found |= {row[0]: row for row in connection.execute(query)}
    return [found[id] for id in ids]


def _cone_table(rows: list[Any], distance: np.ndarray, flux_units: dict[int, str | None]) -> Table:
    values = dict(zip(CONE_COLUMNS, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(CONE_COLUMNS, ())
    values["flux_unit"] = tuple(flux_units.get(run_id) or "" for run_id in values["run_id"])
    table = Table()
    for name, column in (*values.items(), ("distance", distance)):
        if name in ("name", "kind", "flux_unit"):
            table[name] = Column([text or "" for text in column], dtype=str)
        elif name == "current":
            table[name] = Column(column, dtype=bool)
        elif name in _WHOLE:
            gone = np.array([value is None for value in column], bool)
            whole = np.array([0 if value is None else value for value in column], np.int64)
            table[name] = MaskedColumn(whole, mask=gone) if gone.any() or name == "object_id" else Column(whole)
        else:
            table[name] = Column(np.array(column, float), unit=_UNITS.get(name))
    shared = set(values["flux_unit"])
    if len(shared) == 1 and (unit := shared.pop()):
        table["flux"].unit = table["flux_err"].unit = u.Unit(unit)
    return table
