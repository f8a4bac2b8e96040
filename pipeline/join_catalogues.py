"""Two catalogues side by side: which rows belong together, how sure that is, and one table of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Column, MaskedColumn, Table
from scipy.spatial import cKDTree

from pipeline.crossmatch import choose_pairs, pairs_within, sky_offsets, unit_vectors
from survey_io.errors import OptionError
from survey_io.outside import Positions

__all__ = ["FIND", "JOINS", "Joined", "join_positions", "join_tables"]

FIND = ("best", "all", "first")
JOINS = ("inner", "left", "right", "outer")

# Neighbours of the second catalogue that its local density is taken from.
_NEIGHBOURS = 12


@dataclass(frozen=True)
class Joined:
    """Pairs of rows, each array (n,), sorted by the first catalogue's row.

    Attributes
    ----------
    first, second : ndarray of int
    distance : ndarray
        arcsec.
    normalised : ndarray
        Distance over its error, NaN where neither catalogue has errors.
    chance : ndarray
        Probability that an unrelated row of the second catalogue lies as near, from the density of that around.
    """

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    normalised: np.ndarray
    chance: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def join_positions(
    first: Positions,
    second: Positions,
    *,
    radius: float,
    sigma: float | None = None,
    find: str = "best",
    known: float = 180.0,
) -> Joined:
    """Match two catalogues by position.

    Parameters
    ----------
    first, second : Positions
    radius : float
        Largest distance, arcsec.
    sigma : float, optional
        Largest normalised distance; pairs without errors are judged by the radius alone. Of several partners the one
        of the smallest normalised distance is then the best, otherwise the nearest one.
    find : "best", "all" or "first"
        best: each row of either catalogue at most once, the closest pairs first; all: every pair; first: for each row
        of the first catalogue its closest, of which several may share one.
    known : float
        Degrees around the first catalogue's rows within which the second is complete: where fewer than a dozen rows
        lie within it, those are counted for the density.

    Returns
    -------
    Joined

    Raises
    ------
    OptionError
    """
    if find not in FIND:
        raise OptionError(f"--find: expected one of {', '.join(FIND)}, got {find!r}")
    if not 0.0 < radius <= 3600.0:
        raise OptionError(f"--radius: expected a radius above 0 up to 3600 arcsec, got {radius:g}")
    if sigma is not None and not sigma > 0.0:
        raise OptionError(f"--sigma: expected a number above 0, got {sigma:g}")
    vectors = [unit_vectors(one.ra, one.dec) for one in (first, second)]
    limit = np.full(len(second), 2.0 * np.sin(np.radians(radius / 3600.0) / 2.0) * (1 + 1e-12))
    i, j, chord = pairs_within(*vectors, limit)
    distance = np.degrees(2.0 * np.arcsin(np.minimum(chord / 2.0, 1.0))) * 3600.0
    normalised = _normalise(first, second, i, j, sky_offsets(vectors[0][i], vectors[1][j]))
    rank = distance
    if sigma is not None:
        rank = np.where(np.isfinite(normalised), normalised, distance / radius * sigma)
        near = rank <= sigma
        i, j, distance, normalised, rank = i[near], j[near], distance[near], normalised[near], rank[near]
    if find == "all":
        chosen = np.lexsort((j, rank, i))
    elif find == "best":
        chosen = choose_pairs(i, j, rank)
    else:
        order = np.lexsort((j, rank, i))
        chosen = order[np.r_[True, np.diff(i[order]) > 0]] if len(order) else order
    i, j = i[chosen], j[chosen]
    density = _density(vectors[0][i], vectors[1][np.isfinite(vectors[1]).all(axis=1)], known)
    area = 2.0 * np.pi * (1.0 - np.cos(np.radians(distance[chosen] / 3600.0)))
    return Joined(i, j, distance[chosen], normalised[chosen], -np.expm1(-density * area))


def _normalise(
    first: Positions, second: Positions, i: np.ndarray, j: np.ndarray, offsets: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    squares = np.zeros(len(i))
    for offset, a, b in zip(offsets, (first.ra_err, first.dec_err), (second.ra_err, second.dec_err), strict=True):
        error = np.hypot(np.nan_to_num(a[i], posinf=0.0), np.nan_to_num(b[j], posinf=0.0))
        squares += (offset / np.where(error > 0, error, np.nan)) ** 2
    return np.sqrt(squares)


def _density(where: np.ndarray, points: np.ndarray, known: float) -> np.ndarray:
    """Points per steradian around some directions, each the partner of one of the points."""
    if not len(where) or not len(points):
        return np.zeros(len(where))
    tree, count = cKDTree(points), min(_NEIGHBOURS, len(points))
    chord = tree.query(where, k=count)[0].reshape(len(where), count)[:, -1]
    farthest = 2.0 * np.sin(np.radians(min(known, 180.0)) / 2.0)
    # Neither the partner itself nor the point that sets the radius tells of the density.
    others = np.full(len(where), max(count - 2.0, 1.0))
    if count < _NEIGHBOURS:
        chord, others = np.full(len(where), farthest), np.full(len(where), float(count))
    beyond = chord > farthest
    if beyond.any():
        inside = tree.query_ball_point(where[beyond], farthest, return_length=True)
        others[beyond], chord[beyond] = np.maximum(inside, 1), farthest
    # The cap around a direction out to a chord.
    return others / (np.pi * np.maximum(chord, 1e-12) ** 2)


def join_tables(first: Table, second: Table, joined: Joined, *, join: str = "inner") -> Table:
    """One table of both catalogues' columns, and ``distance``, ``normalised`` and ``chance``.

    Parameters
    ----------
    first, second : Table
    joined : Joined
    join : "inner", "left", "right" or "outer"
        Also the rows of the first, of the second, or of both that have no partner; what they lack is masked (NaN in
        columns of numbers with a point).

    Returns
    -------
    Table
        Names that both have get ``_1`` and ``_2``. Columns that are no plain column of values are left out.
    """
    if join not in JOINS:
        raise OptionError(f"--join: expected one of {', '.join(JOINS)}, got {join!r}")
    i, j = joined.first, joined.second
    alone = [np.setdiff1d(np.arange(len(table)), rows) for table, rows in ((first, i), (second, j))]
    left = alone[0] if join in ("left", "outer") else alone[0][:0]
    right = alone[1] if join in ("right", "outer") else alone[1][:0]
    i = np.concatenate([i, left, np.full(len(right), -1)])
    j = np.concatenate([j, np.full(len(left), -1), right])
    extra = {"distance": joined.distance, "normalised": joined.normalised, "chance": joined.chance}
    names = [[name for name in table.colnames if _is_plain(table[name])] for table in (first, second)]
    taken = [*names[0], *names[1], *extra]
    table = Table()
    for number, (one, own, rows) in enumerate(((first, names[0], i), (second, names[1], j)), start=1):
        for name in own:
            unique = name if taken.count(name) == 1 else f"{name}_{number}"
            while unique in table.colnames or (unique != name and unique in taken):
                unique += "_"
            table[unique] = _take(one[name], rows)
    units = {
        "distance": ("arcsec", "pos.angDistance", "distance of the two rows"),
        "normalised": (None, "stat.value", "distance over its standard error"),
        "chance": (None, "stat.probability", "probability that an unrelated row of the second lies as near"),
    }
    for name, values in extra.items():
        unit, ucd, meaning = units[name]
        whole = np.concatenate([values, np.full(len(left) + len(right), np.nan)])
        table[name] = Column(whole, unit=unit, description=meaning, meta={"ucd": ucd})
    return table


def _is_plain(column: object) -> bool:
    if not isinstance(column, Column) or column.ndim != 1:
        return False
    return column.dtype.kind in "fiubUS" or all(isinstance(one, str) for one in column.tolist())


def _take(column: Column, rows: np.ndarray) -> Column:
    gone = rows < 0
    data = np.asarray(np.ma.getdata(column))
    if data.dtype.kind in "SO":
        data = data.astype(str)
    mask = np.ma.getmaskarray(np.ma.asarray(column))
    if not len(data):
        data, mask = np.zeros(1, data.dtype), np.ones(1, bool)
    values, mask = data[np.maximum(rows, 0)], mask[np.maximum(rows, 0)] | gone
    told = {"name": column.name, "unit": column.unit, "description": column.description, "meta": dict(column.meta)}
    if values.dtype.kind == "f":
        return Column(np.where(mask, np.nan, values).astype(values.dtype), **told)
    return MaskedColumn(values, mask=mask, **told) if mask.any() else Column(values, **told)
