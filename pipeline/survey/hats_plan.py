"""How the current sources are divided into HEALPix partitions of bounded rows, and which partitions touch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from .cells import touching
from .schema import source
from .sky import ORDER

__all__ = ["DEEPEST", "Partition", "Plan", "make_plan"]

# Orders at which rows are counted: cells of 14 arcmin, and of 51 arcsec within those that hold too many.
_COARSE, DEEPEST = 8, 12
# A prime below 2**16: products of two remainders, added up over 2e9 rows, stay below 2**63.
_PRIME = 65_521


@dataclass(frozen=True, order=True)
class Partition:
    """A HEALPix cell with its rows.

    Attributes
    ----------
    order, pixel : int
        Of the cell, nested.
    rows : int
    fingerprint : str
        Of the rows' ids and objects: another one when a row comes, goes or changes its object.
    """

    order: int
    pixel: int
    rows: int = 0
    fingerprint: str = ""

    @property
    def first(self) -> int:
        """Its first number of order 29."""
        return self.pixel << (2 * (ORDER - self.order))

    @property
    def last(self) -> int:
        """Its last number of order 29."""
        return ((self.pixel + 1) << (2 * (ORDER - self.order))) - 1

    @property
    def path(self) -> str:
        """Its file within a catalogue's folder ``dataset``."""
        return f"Norder={self.order}/Dir={self.pixel // 10_000 * 10_000}/Npix={self.pixel}.parquet"


@dataclass(frozen=True)
class Plan:
    """The whole sky as partitions in their order on it, those without rows as well.

    Attributes
    ----------
    cells : tuple of Partition
    """

    cells: tuple[Partition, ...]

    @property
    def partitions(self) -> list[Partition]:
        """Those that have rows."""
        return [one for one in self.cells if one.rows]

    @property
    def fingerprint(self) -> str:
        """Of all rows and their division."""
        text = ";".join(f"{one.order}/{one.pixel}:{one.fingerprint}" for one in self.partitions)
        return hashlib.sha256(text.encode()).hexdigest()

    def around(self) -> dict[Partition, list[Partition]]:
        """For each cell that has rows, or touches one that has: those with rows that touch it."""
        starts = np.array([one.first for one in self.cells], np.int64)
        found: dict[Partition, set[Partition]] = {one: set() for one in self.partitions}
        for order in sorted({one.order for one in self.cells}):
            own = [one for one in self.cells if one.order == order]
            near = touching(np.array([one.pixel for one in own]), order).T
            holding = np.searchsorted(starts, near << (2 * (ORDER - order)), side="right") - 1
            for one, pixels, places in zip(own, near.tolist(), holding.tolist(), strict=True):
                for pixel, place in zip(pixels, places, strict=True):
                    other = self.cells[place]
                    # What is finer than this cell says so itself.
                    if pixel < 0 or other.order > order or not (one.rows or other.rows):
                        continue
                    for cell, neighbour in ((one, other), (other, one)):
                        if neighbour.rows:
                            found.setdefault(cell, set()).add(neighbour)
        return {cell: sorted(others) for cell, others in found.items()}


def mark(ids: np.ndarray, objects: np.ndarray) -> tuple[int, int, int, int]:
    """What a fingerprint is made of, of rows with ids (n,) and objects (n,), 0 for none; adds up over rows."""
    a, b = ids % _PRIME, objects % _PRIME
    return len(ids), int(a.sum()), int(b.sum()), int((a * b).sum())


def fingerprint(marks: tuple[int, ...], layout: str) -> str:
    """A fingerprint of `mark` and of the columns' layout."""
    return "-".join(map(str, marks)) + f"-{layout}"


def make_plan(connection: Connection, *, max_rows: int, layout: str, deepest: int = DEEPEST) -> Plan:
    """Divide the current sources that have a position.

    Parameters
    ----------
    connection : Connection
        Each of the two queries sees one state of the store; only two numbers per occupied cell are read.
    max_rows : int
        Cells of the deepest order may have more.
    layout : str
        Of the columns, into the fingerprints.
    deepest : int
        Order of the smallest cells, at most `DEEPEST`.
    """
    starts, marks = _count(connection, _COARSE, None)
    crowded = np.flatnonzero(marks[:, 0] > max_rows)
    if len(crowded):
        width = 1 << (2 * (ORDER - _COARSE))
        finer = [
            _count(connection, DEEPEST, (first, first + width - 1)) for first in starts[crowded].tolist()
        ]
        kept = np.setdiff1d(np.arange(len(starts)), crowded)
        starts = np.concatenate([starts[kept], *(one[0] for one in finer)])
        marks = np.concatenate([marks[kept], *(one[1] for one in finer)])
        order = np.argsort(starts, kind="stable")
        starts, marks = starts[order], marks[order]
    total = np.concatenate([np.zeros((1, 4), np.int64), np.cumsum(marks, axis=0)])
    cells: list[Partition] = []
    waiting = [Partition(0, pixel) for pixel in range(11, -1, -1)]
    while waiting:
        one = waiting.pop()
        a, b = np.searchsorted(starts, [one.first, one.last + 1])
        inside = tuple((total[b] - total[a]).tolist())
        if inside[0] > max_rows and one.order < deepest:
            waiting += [Partition(one.order + 1, 4 * one.pixel + quarter) for quarter in (3, 2, 1, 0)]
        else:
            cells.append(Partition(one.order, one.pixel, inside[0], fingerprint(inside, layout) if inside[0] else ""))
    return Plan(tuple(cells))


def _count(connection: Connection, order: int, within: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """First numbers (n,) of occupied cells of an order, ascending, and what their fingerprints are made of (n, 4)."""
    s = source.c
    shift = 2 * (ORDER - order)
    cell = s.hpx29.bitwise_rshift(sa.literal(shift, sa.Integer))
    a, b = s.id % _PRIME, sa.func.coalesce(s.object_id, 0) % _PRIME
    query = sa.select(cell, sa.func.count(), sa.func.sum(a), sa.func.sum(b), sa.func.sum(a * b))
    query = query.where(s.current, s.hpx29.is_not(None)).group_by(cell)
    if within is not None:
        query = query.where(s.hpx29.between(*within))
    rows = sorted(tuple(map(int, row)) for row in connection.execute(query))
    found = np.array(rows, np.int64).reshape(len(rows), 5)
    return found[:, 0] << shift, found[:, 1:]
