"""How deep an observation goes: flux limits over its area, and which sources are to be expected or were found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from pipeline.preview.overview import Overview
from survey_io.errors import SkysiftError
from survey_io.geometry import unit_vector

__all__ = ["Recovery", "area_limits", "expected_completeness", "find_truth", "measure_recovery"]

# Truth lists by the ending of `skysift simulate`.
TRUTH_ENDINGS = ("_truth.ecsv", "_truth.fits")


@dataclass(frozen=True)
class Recovery:
    """What a catalogue found of a truth list, by flux.

    Attributes
    ----------
    edges : ndarray (n + 1,)
        Flux, unit of the truth list.
    true, found : ndarray of int (n,)
    rows, matched : int
        Rows of the catalogue, and those that are a true source.
    """

    edges: NDArray[np.float64]
    true: NDArray[np.int64]
    found: NDArray[np.int64]
    rows: int
    matched: int


def area_limits(overview: Overview, sigma: float = 5.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of the area in which a point source of a flux stands above `sigma` times the local noise.

    Returns
    -------
    limit, share : ndarray
        Limits in image unit per beam, rising, and the share of the valid area that is at least that deep.
    """
    known = np.isfinite(overview.rms) & (overview.area > 0)
    limit, area = sigma * overview.rms[known].astype(float), overview.area[known].astype(float)
    order = np.argsort(limit)
    total = area.sum()
    return limit[order], np.cumsum(area[order]) / total if total > 0 else area[order]


def expected_completeness(
    flux: ArrayLike, overview: Overview, *, sigma: float = 5.0
) -> NDArray[np.float64]:
    """Share of point sources of a flux that Gaussian noise leaves above `sigma` times the local rms.

    The mean over the area of Phi(flux / rms - sigma): no confusion, no extended sources.

    Parameters
    ----------
    flux : array_like
        Image unit per beam.
    overview : Overview
    sigma : float
    """
    flux = np.atleast_1d(np.asarray(flux, float))
    limit, share = area_limits(overview, 1.0)
    if not len(limit):
        return np.full(flux.shape, np.nan)
    # Two hundred levels of noise stand for all cells of a large mosaic.
    levels = np.interp((np.arange(200) + 0.5) / 200, share, limit)
    return ndtr(flux[:, None] / levels[None, :] - sigma).mean(1)


def find_truth(path: str | Path) -> Path | None:
    """The truth list beside an observation, as `skysift simulate` writes it; None when there is none."""
    path = Path(path)
    stem = path.name
    for ending in (".gz", ".fits", ".fit"):
        stem = stem.removesuffix(ending)
    for ending in TRUTH_ENDINGS:
        candidate = path.with_name(stem + ending)
        if candidate.is_file():
            return candidate
    return None


def read_truth(path: Path) -> Table | None:
    """A truth list with ra, dec (deg) and flux; None when it cannot be understood."""
    from survey_io.catalogue import read_catalogue

    try:
        table = read_catalogue(path)
    except SkysiftError:
        return None
    names = {"ra": ("ra", "ra_core"), "dec": ("dec", "dec_core"), "flux": ("flux", "line_flux", "line_flux_integral")}
    found = {key: next((name for name in known if name in table.colnames), None) for key, known in names.items()}
    if None in found.values() or not len(table):
        return None
    return Table({key: np.asarray(table[name], float) for key, name in found.items()})


def measure_recovery(
    truth: Table, ra: ArrayLike, dec: ArrayLike, radius: float, *, bins: int = 14, lowest: float | None = None
) -> Recovery | None:
    """Match a catalogue with a truth list by position, nearest first, and count by true flux.

    Parameters
    ----------
    truth : Table
        ra, dec (deg), flux.
    ra, dec : array_like
        Of the catalogue, deg.
    radius : float
        Largest separation of a match, arcsec.
    bins : int
        Logarithmic bins of flux.
    lowest : float, optional
        Truth below this flux is matched and not counted by flux: far below the noise it only hides the rest.
    """
    from scipy.spatial import cKDTree

    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    use = np.isfinite(ra) & np.isfinite(dec)
    good = (truth["flux"] > 0) & np.isfinite(truth["ra"]) & np.isfinite(truth["dec"])
    truth = truth[good]
    if not len(truth):
        return None
    flux = np.asarray(truth["flux"])
    taken, matched = np.zeros(len(truth), bool), 0
    if use.any():
        tree = cKDTree(unit_vector(np.asarray(truth["ra"]), np.asarray(truth["dec"])))
        chord = 2 * np.sin(np.radians(radius / 3600) / 2)
        near = tree.query_ball_point(unit_vector(ra[use], dec[use]), chord)
        for candidates in near:
            free = [one for one in candidates if not taken[one]]
            if free:
                # Of several true sources within the radius the brightest is what was seen.
                taken[max(free, key=lambda one: flux[one])] = True
                matched += 1
    low = max(float(flux.min()), lowest or 0.0)
    high = float(flux.max())
    if not high > low:
        return None
    edges = np.geomspace(low, high * 1.0001, bins + 1)
    counts = [np.histogram(values, edges)[0] for values in (flux, flux[taken])]
    return Recovery(edges, counts[0], counts[1], int(use.sum()), matched)
