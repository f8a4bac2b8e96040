"""Sources of overlapping observations as objects in the store, kept up as each run is recorded.

What belongs together is a function of the set of current sources (`sightings`), so the objects do not depend on the
order in which observations came: only the ids of objects do. Two things make that quick. Whoever lies close enough to
be one and is not is written down in the table ``unresolved``: objects and those pairs are all links there are, and the
sources that a new run can change are found from them without looking at the sky again. And an object whose sources
all agree with one new source, as most do, takes it without being made again.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from .cells import prefer_indexes, ranges_around, within
from .fields import (
    UNRESOLVED,
    Field,
    among,
    assign,
    change_objects,
    drop_objects,
    join_fields,
    make_objects,
    read_field,
    scalars,
    summarise,
)
from .schema import run, sky_object, source, unresolved
from .sightings import ALONE, AssociationOptions, find_links, group_sightings

__all__ = ["KINDS", "associate", "pending"]

KINDS = ("image", "cube")
"""Catalogues whose sources have a place on the sky; the lines of a spectrum and classes have none to be joined by."""

DEFAULT = AssociationOptions()
# One lock for whoever joins sources, of PostgreSQL's locks that applications name by a number.
_LOCK = 7_305_171


def pending(connection: Connection) -> list[int]:
    """Observations whose sources are not all joined with those of others, as after an upgrade of the store."""
    r, s = run.c, source.c
    fresh = sa.select(r.observation_id).where(r.current, r.reach.is_(None))
    stale = sa.select(s.observation_id).where(sa.not_(s.current), s.object_id.is_not(None))
    return sorted(set(connection.execute(sa.union(fresh, stale)).scalars()))


def associate(connection: Connection, observation_id: int, *, options: AssociationOptions = DEFAULT) -> dict[str, int]:
    """Join the sources of an observation's current run with those of others, in the transaction of the connection.

    Sources of it that were superseded leave their objects. Doing it again changes nothing.

    Parameters
    ----------
    connection : Connection
        In a transaction that writes.
    observation_id : int
    options : AssociationOptions
        The same for a whole survey.

    Returns
    -------
    dict
        New ``sources`` with a place, how many of them were ``joined`` with others, how many are ``unresolved``; objects
        ``made`` and ``removed``.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    prefer_indexes(connection)
    s, r = source.c, run.c
    mine = sa.and_(s.observation_id == observation_id, s.current, s.object_id.is_(None))
    new = read_field(connection, [sa.and_(mine, s.hpx29.is_not(None), s.kind.in_(KINDS))])
    shrunk, touched = _leave(connection, observation_id)
    reach = float(np.max(new.sightings.reach(options), initial=0.0))
    known = sa.func.coalesce(r.reach, 0.0)
    newest = sa.and_(r.observation_id == observation_id, r.current)
    connection.execute(sa.update(run).where(newest).values(reach=sa.case((known < reach, reach), else_=known)))
    farthest = float(connection.execute(sa.select(sa.func.max(r.reach)).where(r.current)).scalar() or 0.0)
    around = read_field(connection, _around(new, max(farthest, reach)))

    both = join_fields(new, around)
    links = find_links(both.sightings, options, among=(np.arange(len(new)), np.arange(len(new), len(both))))
    swapped = links.first >= len(new)
    fresh, met = np.where(swapped, links.second, links.first), np.where(swapped, links.first, links.second)
    objects = both.objects[met]
    easy = _easy(connection, fresh, objects, links.alike, len(new), touched)
    given = np.full(len(new), -1, np.int64)
    given[fresh[easy]] = objects[easy]
    hard = np.zeros(len(new), bool)
    hard[fresh[~easy]] = True
    counts = {"sources": len(new), "joined": 0, "unresolved": 0, "made": 0, "removed": 0}

    alone = np.flatnonzero((given < 0) & ~hard)
    given[alone] = make_objects(connection, summarise(new[alone], np.arange(len(alone)), np.zeros(len(alone), bool)))
    counts["made"] += len(alone)
    taken = np.flatnonzero(given >= 0)
    assign(connection, new.ids[taken], given[taken])
    grown = set(given[np.setdiff1d(taken, alone)].tolist()) | shrunk
    members = read_field(connection, among(s.object_id, grown, s.current))
    ids, label = np.unique(members.objects, return_inverse=True)
    change_objects(connection, ids, summarise(members, label, np.zeros(len(members), bool)))
    counts["removed"] += drop_objects(connection, shrunk - set(ids.tolist()))
    counts["joined"] += len(taken) - len(alone)
    touched |= set(objects[~easy].tolist())
    if touched:
        _regroup(connection, new[hard], touched, options, counts)
    return counts


def _regroup(
    connection: Connection, new: Field, touched: set[int], options: AssociationOptions, counts: dict[str, int]
) -> None:
    """Make again all objects that hang together with the touched ones, with new sources among them."""
    s, apart = source.c, unresolved.c
    objects, grown = set(touched), set(touched)
    while grown:
        ids = scalars(connection, s.id, among(s.object_id, grown, s.current))
        others = {
            *scalars(connection, apart.other_id, among(apart.source_id, ids)),
            *scalars(connection, apart.source_id, among(apart.other_id, ids)),
        }
        grown = _objects_of(connection, others) - objects
        objects |= grown
    field = join_fields(new, read_field(connection, among(s.object_id, objects, s.current)))
    _forget_conflicts(connection, field.ids.tolist())
    groups = group_sightings(field.sightings, find_links(field.sightings, options))
    pairs = zip(
        field.ids[groups.first].tolist(), field.ids[groups.second].tolist(), groups.reason.tolist(),
        groups.distance.tolist(), strict=True,
    )  # fmt: skip
    rows = [{"source_id": a, "other_id": b, "reason": ALONE[why], "distance": d} for a, b, why, d in pairs]
    if rows:
        connection.execute(sa.insert(unresolved), rows)
    marked = np.zeros(len(field), bool)
    marked[groups.first] = marked[groups.second] = True
    summaries = summarise(field, groups.label, marked)
    ids = _keep_ids(field.objects, groups.label)
    made = ids < 0
    ids[made] = make_objects(connection, [one for one, is_new in zip(summaries, made, strict=True) if is_new])
    change_objects(connection, ids[~made], [one for one, is_new in zip(summaries, made, strict=True) if not is_new])
    given = ids[groups.label] if len(field) else field.objects
    moved = given != field.objects
    assign(connection, field.ids[moved], given[moved])
    counts["made"] += int(made.sum())
    counts["removed"] += drop_objects(connection, objects - set(ids.tolist()))
    counts["unresolved"] += int(marked[: len(new)].sum())
    shared = np.bincount(groups.label)[groups.label] > 1 if len(field) else marked
    counts["joined"] += int(shared[: len(new)].sum())


def _keep_ids(former: np.ndarray, label: np.ndarray) -> np.ndarray:
    """An object for every group (g,): the former one of most of its sources, -1 where that has to be a new one."""
    given = np.full(int(label.max(initial=-1)) + 1, -1, np.int64)
    had = former >= 0
    pairs, counts = np.unique(np.stack([label[had], former[had]]), axis=1, return_counts=True)
    taken: set[int] = set()
    for k in np.lexsort((pairs[0], pairs[1], -counts)).tolist():
        group, one = pairs[:, k].tolist()
        if given[group] < 0 and one not in taken:
            given[group] = one
            taken.add(one)
    return given


def _easy(
    connection: Connection, fresh: np.ndarray, objects: np.ndarray, alike: np.ndarray, count: int, touched: set[int]
) -> np.ndarray:
    """Links (n,) of new sources that agree with all sources of one object, which agrees with no other new source."""
    if not len(fresh):
        return np.zeros(0, bool)
    pairs, where, found = np.unique(np.stack([fresh, objects]), axis=1, return_inverse=True, return_counts=True)
    where = where.ravel()
    of_source = np.bincount(pairs[0], minlength=count)
    known, position, of_object = np.unique(pairs[1], return_inverse=True, return_counts=True)
    o = sky_object.c
    size = dict.fromkeys(known.tolist(), -1)
    for condition in among(o.id, known.tolist(), o.status != UNRESOLVED):
        size |= dict(connection.execute(sa.select(o.id, o.n_sources).where(condition)).all())
    size |= dict.fromkeys(touched, -1)
    simple = (of_source[pairs[0]] == 1) & (of_object[position] == 1) & (np.bincount(where, weights=alike) == found)
    simple &= found == np.array([size[one] for one in pairs[1].tolist()])
    return simple[where]


def _leave(connection: Connection, observation_id: int) -> tuple[set[int], set[int]]:
    """Take an observation's superseded sources out of their objects.

    Returns
    -------
    (set of int, set of int)
        Objects that are the same without them, and those that may have to be made again.
    """
    s, o, apart = source.c, sky_object.c, unresolved.c
    where = sa.and_(s.observation_id == observation_id, sa.not_(s.current), s.object_id.is_not(None))
    rows = connection.execute(sa.select(s.id, s.object_id).where(where)).all()
    ids, objects = [row.id for row in rows], {row.object_id for row in rows}
    # Whoever was in conflict with a source that is gone may be free to join another.
    unclear = set(scalars(connection, o.id, among(o.id, objects, o.status == UNRESOLVED)))
    unclear |= _objects_of(
        connection,
        {
            *scalars(connection, apart.other_id, among(apart.source_id, ids)),
            *scalars(connection, apart.source_id, among(apart.other_id, ids)),
        },
    )
    _forget_conflicts(connection, ids)
    connection.execute(sa.update(source).where(where).values(object_id=None))
    # All sources of a clear object are linked, and to no other: so are those that are left.
    clear = objects - unclear
    counts = sa.select(s.object_id, sa.func.count()).group_by(s.object_id)
    left = dict.fromkeys(clear, 0)
    for condition in among(s.object_id, clear):
        left |= dict(connection.execute(counts.where(condition)).all())
    if left:
        change_objects(connection, np.array(list(left)), [{"n_sources": count} for count in left.values()])
    return clear, unclear


def _objects_of(connection: Connection, ids: Iterable[int]) -> set[int]:
    s = source.c
    return set(scalars(connection, s.object_id, among(s.id, ids, s.current, s.object_id.is_not(None))))


def _forget_conflicts(connection: Connection, ids: list[int]) -> None:
    for column in (unresolved.c.source_id, unresolved.c.other_id):
        for condition in among(column, ids):
            connection.execute(sa.delete(unresolved).where(condition))


def _around(field: Field, arcsec: float) -> list[sa.ColumnElement[bool]]:
    """Conditions for sources with an object within a distance of these ones, and some beyond."""
    s = source.c
    ranges = ranges_around(field.sightings.ra, field.sightings.dec, arcsec / 3600.0) if len(field) else []
    return [
        sa.and_(s.current, s.object_id.is_not(None), s.kind.in_(KINDS), place) for place in within(s.hpx29, ranges)
    ]
