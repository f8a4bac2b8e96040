"""Positions as HEALPix numbers, and the ranges of numbers that a cone covers."""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.coordinates import angular_separation
from astropy_healpix import lonlat_to_healpix, nside_to_pixel_resolution
from astropy_healpix.core import healpix_cone_search

__all__ = ["ORDER", "cone_ranges", "healpix_number", "separation"]

ORDER = 29
"""Order of the numbers in the store: the finest of HEALPix, 0.4 milliarcsec, so that every coarser cell is a range."""

# Cells as wide as a cone's radius over this keep the ranges few and the rows outside the cone fewer than those inside.
_CELLS_PER_RADIUS = 8.0


def healpix_number(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """HEALPix numbers, order 29, nested.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        ICRS degrees.

    Returns
    -------
    ndarray of int64, shape (n,)
        -1 where a position is not finite or not on the sky.
    """
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90.0)
    number = np.full(ra.shape, -1, np.int64)
    if good.any():
        number[good] = lonlat_to_healpix(
            ra[good] % 360.0 * u.deg, dec[good] * u.deg, 1 << ORDER, order="nested"
        )
    return number


def cone_ranges(ra: float, dec: float, radius: float) -> list[tuple[int, int]] | None:
    """Ranges of HEALPix numbers, order 29, that hold everything within a cone, and some around it.

    Parameters
    ----------
    ra, dec : float
        Centre, ICRS degrees.
    radius : float
        Degrees.

    Returns
    -------
    list of (first, last), or None
        Both inclusive, ascending, apart from each other; None where the cone covers so much that ranges do not pay.
    """
    if radius > 60.0:
        return None
    size = max(radius, 1e-7) / _CELLS_PER_RADIUS
    order = int(np.clip(np.floor(np.log2(58.6 / size)), 0, ORDER))
    # The search of cells rounds at their borders: half a cell's diagonal more costs little and loses nothing.
    margin = nside_to_pixel_resolution(1 << order).to_value(u.deg)
    cells = healpix_cone_search(
        ra % 360.0 * u.deg, dec * u.deg, (radius + margin) * u.deg, 1 << order, order="nested"
    )
    cells = np.unique(np.asarray(cells, np.int64))
    starts = np.flatnonzero(np.r_[True, np.diff(cells) > 1])
    ends = np.r_[starts[1:], len(cells)] - 1
    shift = 2 * (ORDER - order)
    return [
        (int(first) << shift, ((int(last) + 1) << shift) - 1)
        for first, last in zip(cells[starts], cells[ends], strict=True)
    ]


def separation(ra: float, dec: float, ras: np.ndarray, decs: np.ndarray) -> np.ndarray:
    """Angular distances in degrees, exact at every distance (Vincenty's formula)."""
    radians = np.radians
    return np.degrees(angular_separation(radians(ra), radians(dec), radians(ras), radians(decs)))
