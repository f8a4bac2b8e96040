"""HEALPix cells around many positions, as ranges of the numbers that the store has."""

from __future__ import annotations

from typing import Any

import numpy as np
import sqlalchemy as sa
from astropy_healpix import neighbours

from .sky import ORDER, healpix_number

__all__ = [
    "cells_within", "merge_ranges", "order_of_margin", "prefer_indexes", "ranges_around", "touching", "within",
]  # fmt: skip

# Width of a cell of order 0 in degrees, and the share of a cell's width that nothing crosses a cell within: of 300,000
# random steps of 0.65 widths none leads beyond the cells that touch the first one, of 0.7 some do.
_WIDTH, _NARROWEST = 58.63, 1 / 1.6
# Ranges in one query, and how many are no matter.
_RANGES, _FEW = 200, 200


def order_of_margin(degrees: float) -> int:
    """The finest order at which nothing within a distance lies beyond the cells that touch a position's own."""
    return int(np.clip(np.floor(np.log2(_WIDTH * _NARROWEST / max(degrees, 1e-9))), 0, ORDER))


def touching(cells: np.ndarray, order: int) -> np.ndarray:
    """The cells (8, n) that touch each of some cells of an order; -1 where a corner of the sphere has only seven."""
    with np.errstate(invalid="ignore"):
        return neighbours(cells, 1 << order, order="nested")


def cells_within(cells: np.ndarray, order: int) -> np.ndarray:
    """Cells (m,) of an order, nested and ascending, with all that touch them."""
    cells = np.unique(cells)
    if not len(cells):
        return cells
    around = np.unique(touching(cells, order))
    return np.union1d(cells, around[around >= 0])


def merge_ranges(cells: np.ndarray, order: int) -> list[tuple[int, int]]:
    """Ranges (first, last), both inclusive, of numbers of order 29 that ascending cells of an order cover."""
    if not len(cells):
        return []
    starts = np.flatnonzero(np.r_[True, np.diff(cells) > 1])
    ends = np.r_[starts[1:], len(cells)] - 1
    shift = 2 * (ORDER - order)
    return [(int(a) << shift, ((int(b) + 1) << shift) - 1) for a, b in zip(cells[starts], cells[ends], strict=True)]


def ranges_around(ra: np.ndarray, dec: np.ndarray, degrees: float) -> list[tuple[int, int]]:
    """Ranges of numbers that hold everything within a distance of any of the positions, and some beyond.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        ICRS degrees, finite.
    degrees : float

    Returns
    -------
    list of (first, last)
        Both inclusive, ascending, apart from each other.
    """
    order = order_of_margin(degrees)
    cells = np.unique(healpix_number(ra, dec) >> (2 * (ORDER - order)))
    ranges = merge_ranges(cells_within(cells, order), order)
    # Each range is looked up by itself: coarser cells hold some rows more that lie farther, and are fewer.
    while order > 0 and len(ranges) > max(_FEW, len(ra) // 16):
        order -= 1
        cells = np.unique(cells >> 2)
        ranges = merge_ranges(cells_within(cells, order), order)
    return ranges


def prefer_indexes(connection: sa.Connection) -> None:
    """For this transaction, let PostgreSQL look ranges up in an index whatever it knows of the table.

    Of a table that was filled since its statistics were taken it expects most rows in a few hundred small ranges, and
    reads it whole: 1.8 s for each query of a table of 400,000 rows, many times what the index takes.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        # What it expects to be long it compiles first, which takes longer than a look into an index.
        connection.execute(sa.text("SET LOCAL jit = off"))


def within(column: sa.Column[Any], ranges: list[tuple[int, int]]) -> list[sa.ColumnElement[bool]]:
    """Conditions that a column of HEALPix numbers lies in any of the ranges: one for each query that this takes."""
    # As text: building these from parts took ten times as long as the database needs for the answer.
    name = f'"{column.table.name}"."{column.name}"'
    return [
        sa.text(f"({' OR '.join(f'{name} BETWEEN {int(a)} AND {int(b)}' for a, b in ranges[at : at + _RANGES])})")
        for at in range(0, len(ranges), _RANGES)
    ]
