"""Rows of the survey around the rows of another catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table, vstack

from survey_io.errors import OptionError
from survey_io.outside import Positions

from .cells import ranges_around, within
from .database import Database
from .query import DEFAULT_COLUMNS, query_objects, query_sources
from .schema import sky_object, source

__all__ = ["rows_near"]

# Degrees around a row within which its density is known, at least.
_KNOWN = 0.1


def rows_near(
    store: Database,
    places: Positions,
    radius: float,
    *,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    objects: bool = False,
    everything: bool = False,
) -> tuple[Table, float]:
    """Sources, or objects, that could be partners of a catalogue's rows, and what is around them.

    Parameters
    ----------
    store : Database
    places : Positions
    radius : float
        Of the match, arcsec.
    where : str, optional
        A condition, see `parse_where`.
    columns : sequence of str, optional
        Default: those of a query, and the errors of positions.
    objects : bool
    everything : bool
        All rows of the survey.

    Returns
    -------
    (Table, float)
        Degrees around each place within which the table is complete.

    Raises
    ------
    OptionError, StoreError
        As `query_sources`.
    """
    ask, table = (query_objects, sky_object) if objects else (query_sources, source)
    needed = ("ra", "dec") if objects else ("ra", "dec", "ra_err", "dec_err")
    if columns is not None:
        if "distance" in columns:
            raise OptionError("--columns: distance is what the match gives, it is no column of the survey")
        columns = [*columns, *(name for name in needed if name not in columns)]
    elif not objects:
        columns = [*DEFAULT_COLUMNS[:5], "ra_err", "dec_err", *DEFAULT_COLUMNS[5:]]
    if everything:
        return ask(store, where=where, columns=columns), 180.0
    known = max(_KNOWN, 20.0 * radius / 3600.0)
    there = np.isfinite(places.ra) & np.isfinite(places.dec)
    ranges = ranges_around(places.ra[there], places.dec[there], known)
    if not ranges:
        return ask(store, where=where, columns=columns, limit=0), known
    parts = [ask(store, where=where, columns=columns, place=place) for place in within(table.c.hpx29, ranges)]
    full = [part for part in parts if len(part)] or parts[:1]
    return full[0] if len(full) == 1 else vstack(full, metadata_conflicts="silent"), known
