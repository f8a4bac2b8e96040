"""What pages show of the store: lists by state and name, a run's sources as plain columns, one source in full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Connection

from survey_io.errors import InputError

from .queue import Queue
from .schema import COMMON, observation, run, source
from .sky import cone_ranges

__all__ = ["count_cone", "list_observations", "read_columns", "read_position", "read_source"]


def list_observations(
    store: Queue, *, state: str | None = None, text: str | None = None, ids: Sequence[int] | None = None,
    limit: int = 50, offset: int = 0,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Observations, newest first, each with what its current run says.

    Parameters
    ----------
    store : SurveyStore
    state : str, optional
        Only those of this state.
    text : str, optional
        Only those whose name holds this text, whatever its case.
    ids : sequence of int, optional
        Only these.
    limit, offset : int

    Returns
    -------
    (list of dict, int)
        Columns of ``observation`` and ``rows``, ``model``, ``started``, ``finished``, ``run_id`` of the current run
        (None without); and how many there are in all.
    """
    shown = [column for column in observation.c if column.name not in ("beat", "boot")]
    ours = [run.c.id.label("run_id"), run.c.rows, run.c.model, run.c.started, run.c.finished]
    joined = sa.outerjoin(observation, run, sa.and_(run.c.observation_id == observation.c.id, run.c.current))
    conditions = []
    if state is not None:
        conditions.append(observation.c.state == state)
    if text:
        conditions.append(observation.c.name.icontains(text, autoescape=True))
    if ids is not None:
        conditions.append(observation.c.id.in_(list(ids)))
    query = sa.select(*shown, *ours).select_from(joined).where(*conditions)
    query = query.order_by(observation.c.id.desc()).limit(limit).offset(offset)
    count = sa.select(sa.func.count()).select_from(observation).where(*conditions)

    def work(connection: Connection) -> tuple[list[dict[str, Any]], int]:
        return [dict(row) for row in connection.execute(query).mappings()], connection.execute(count).scalar_one()

    return store.read(work)


def count_cone(store: Queue, ra: float, dec: float, radius: float, most: int) -> int:
    """About how many sources a cone search looks at: those of the cells that cover the cone, at most `most`."""
    # Of superseded runs, too: the index alone then has the answer.
    conditions = [source.c.hpx29.is_not(None)]
    ranges = cone_ranges(ra, dec, radius)
    if ranges is not None:
        conditions.append(sa.or_(*(source.c.hpx29.between(*one) for one in ranges)))
    found = sa.select(source.c.hpx29).where(*conditions).limit(most).subquery()
    return store.read(lambda connection: connection.execute(sa.select(sa.func.count()).select_from(found)).scalar_one())


def read_columns(store: Queue, run_id: int, *, limit: int) -> tuple[dict[str, NDArray[Any]], int]:
    """Common columns of a run's sources by falling S/N.

    Parameters
    ----------
    store : SurveyStore
    run_id : int
    limit : int
        The so many of highest S/N.

    Returns
    -------
    (dict of str to ndarray, int)
        ``row`` and the columns of `pipeline.survey.schema.COMMON`: float64 with NaN, names as str; and how many rows
        the run has.
    """
    names = ("row", *COMMON)
    query = sa.select(*(source.c[name] for name in names)).where(source.c.run_id == run_id)
    query = query.order_by(sa.nulls_last(source.c.snr.desc()), source.c.row).limit(limit)
    total = sa.select(run.c.rows).where(run.c.id == run_id)

    def work(connection: Connection) -> tuple[Sequence[Any], int]:
        return connection.execute(query).all(), connection.execute(total).scalar() or 0

    rows, count = store.read(work)
    values = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    columns: dict[str, NDArray[Any]] = {}
    for name, column in values.items():
        if name == "name":
            columns[name] = np.array([text or "" for text in column], dtype=object)
        else:
            columns[name] = np.array(column, dtype=float)
    return columns, count


def read_source(store: Queue, run_id: int, row: int) -> dict[str, Any]:
    """One row of a run's catalogue with all its columns.

    Returns
    -------
    dict
        ``id``, ``object_id``, and ``items``: for every column its name, value, unit and description.

    Raises
    ------
    InputError
        When there is no such row.
    """
    columns = [source.c[name] for name in ("id", "object_id", *COMMON)]
    query = sa.select(*columns, sa.cast(source.c.details, sa.Text).label("details"))
    query = query.where(source.c.run_id == run_id, source.c.row == row)
    layout = sa.select(run.c.catalogue).where(run.c.id == run_id)

    def work(connection: Connection) -> tuple[Any, Any]:
        return connection.execute(query).mappings().first(), connection.execute(layout).scalar()

    found, catalogue = store.read(work)
    if found is None:
        raise InputError(f"{store.place}: expected a row of run {run_id}, there is none with {row}")
    details = json.loads(found["details"])
    items = [
        {
            "name": entry["name"],
            "value": found[entry["in"]] if entry.get("in") else details.get(entry["name"]),
            "unit": entry["unit"] or "",
            "description": entry["description"] or "",
        }
        for entry in catalogue["columns"]
    ]
    return {"id": found["id"], "object_id": found["object_id"], "items": items}


def read_position(store: Queue) -> tuple[float, float] | None:
    """ra and dec (deg) of some current source; None while there is none."""
    query = sa.select(source.c.ra, source.c.dec).where(source.c.current, source.c.hpx29.is_not(None)).limit(1)
    found = store.read(lambda connection: connection.execute(query).first())
    return None if found is None else (float(found[0]), float(found[1]))
