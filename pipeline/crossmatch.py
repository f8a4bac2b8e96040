"""One-to-one matching of two catalogues, on the sky or in pixels."""

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from survey_io.errors import OptionError

METHODS = ("greedy", "mutual", "nearest")


@dataclass(frozen=True)
class Match:
    """Pairs of rows of two catalogues.

    Attributes
    ----------
    first, second : numpy.ndarray
        Row numbers (n,) in the two catalogues, sorted by `first`.
    separation : numpy.ndarray
        Distance (n,) of each pair, arcsec on the sky, pixels otherwise.
    """

    first: np.ndarray
    second: np.ndarray
    separation: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.first)

    def of_first(self, length: int) -> np.ndarray:
        """Partner (length,) of every row of the first catalogue, -1 without one."""
        partner = np.full(length, -1, dtype=np.int64)
        partner[self.first] = self.second
        return partner

    def of_second(self, length: int) -> np.ndarray:
        """Partner (length,) of every row of the second catalogue, -1 without one."""
        partner = np.full(length, -1, dtype=np.int64)
        partner[self.second] = self.first
        return partner


def match_sky(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    *,
    radius: float | np.ndarray,
    method: str = "greedy",
    fluxes: tuple[np.ndarray, np.ndarray] | None = None,
    flux_factor: float | None = None,
) -> Match:
    """Match two lists of sky positions within a great-circle radius.

    Parameters
    ----------
    first, second : (ra, dec)
        Degrees, each (n,). Rows with a position that is not finite match nothing.
    radius : float or array
        Arcsec: one for all, or one per row of `second` (the catalogue whose sizes are trusted, as a truth
        table).
    method : "greedy", "mutual" or "nearest"
        greedy: all pairs by growing distance, each row used once, so that the loser of a pair takes its next
        best
        partner; mutual: pairs in which each is the other's nearest; nearest: the nearest of `second` for
        each row of `first`, of which a row of `second` keeps the nearest only (no next best).
    fluxes : pair of arrays, optional
    flux_factor : float, optional
        With `fluxes`: only pairs whose fluxes differ by no more than this factor (> 1).

    Returns
    -------
    Match
        Separations in arcsec.
    """
    limit = _radius(radius, len(second[0]))
    chord = 2.0 * np.sin(np.radians(np.minimum(limit / 3600.0, 180.0)) / 2.0)
    match = _match(unit_vectors(*first), unit_vectors(*second), chord, method, fluxes, flux_factor)
    separation = np.degrees(2.0 * np.arcsin(np.clip(match.separation / 2.0, 0.0, 1.0))) * 3600.0
    return Match(match.first, match.second, separation)


def match_pixels(
    first: tuple[np.ndarray, ...],
    second: tuple[np.ndarray, ...],
    *,
    radius: float | np.ndarray,
    method: str = "greedy",
    fluxes: tuple[np.ndarray, np.ndarray] | None = None,
    flux_factor: float | None = None,
) -> Match:
    """Match two lists of pixel positions (x, y, ...) of any number of axes; see `match_sky`. Distances in
    pixels."""
    points = [
        np.stack([np.asarray(axis, dtype=np.float64) for axis in one], axis=-1) for one in (first, second)
    ]
    return _match(*points, _radius(radius, len(points[1])), method, fluxes, flux_factor)


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Directions (n, 3) on the unit sphere of positions in degrees."""
    ra, dec = np.radians(np.asarray(ra, dtype=np.float64)), np.radians(np.asarray(dec, dtype=np.float64))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _radius(radius: float | np.ndarray, length: int) -> np.ndarray:
    values = np.asarray(radius, dtype=np.float64)
    if values.ndim and values.shape != (length,):
        raise OptionError(
            f"expected one radius, or one per row of the second list ({length}), got {values.shape}"
        )
    if np.any(~(values >= 0.0)):
        raise OptionError("expected match radii of 0 or more, got a negative or undefined one")
    return np.broadcast_to(values, (length,))


def pairs_within(
    first: np.ndarray, second: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of points (n, d), (m, d) closer than the radius (m,) of the second: rows and distances,
    each (p,)."""
    good_1, good_2 = (np.flatnonzero(np.isfinite(points).all(axis=1)) for points in (first, second))
    if len(good_1) == 0 or len(good_2) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    tree = cKDTree(first[good_1])
    found = tree.query_ball_point(second[good_2], radius[good_2], return_sorted=True)
    counts = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    i = good_1[np.concatenate([np.asarray(one, dtype=np.int64) for one in found])]
    j = good_2[np.repeat(np.arange(len(found)), counts)]
    return i, j, np.linalg.norm(first[i] - second[j], axis=1)


def _match(
    first: np.ndarray,
    second: np.ndarray,
    radius: np.ndarray,
    method: str,
    fluxes: tuple[np.ndarray, np.ndarray] | None,
    flux_factor: float | None,
) -> Match:
    if method not in METHODS:
        raise OptionError(f"expected a matching method among {', '.join(METHODS)}, got {method!r}.")
    i, j, distance = pairs_within(first, second, radius)
    if flux_factor is not None:
        if fluxes is None or not flux_factor > 1.0:
            raise OptionError(f"expected a flux_factor above 1 together with fluxes, got {flux_factor}.")
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.asarray(fluxes[0], dtype=np.float64)[i] / np.asarray(fluxes[1], dtype=np.float64)[j]
        similar = (ratio <= flux_factor) & (ratio >= 1.0 / flux_factor)
        i, j, distance = i[similar], j[similar], distance[similar]
    chosen = choose_pairs(i, j, distance, method=method)
    return Match(i[chosen], j[chosen], distance[chosen])


def choose_pairs(i: np.ndarray, j: np.ndarray, distance: np.ndarray, *, method: str = "greedy") -> np.ndarray:
    """Of all pairs of rows (n,) of two catalogues those (m,) that a method takes (see `match_sky`), sorted by `i`."""
    chosen = _nearest(i, j, distance) if method == "nearest" else _rounds(i, j, distance, once=method == "mutual")
    return chosen[np.argsort(i[chosen], kind="stable")]


def sky_offsets(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps in arcsec, eastward and northward, between directions (n, 3) near to each other; also across a pole."""
    step, middle = second - first, second + first
    east = np.stack([-middle[:, 1], middle[:, 0], np.zeros(len(middle))], axis=-1)
    length = np.linalg.norm(east, axis=1, keepdims=True)
    # At a pole east is any direction.
    east = np.where(length > 0, east / np.where(length > 0, length, 1.0), [[0.0, 1.0, 0.0]])
    north = np.cross(middle / np.linalg.norm(middle, axis=1, keepdims=True), east) if len(middle) else step
    x, y = (np.degrees(np.sum(step * axis, axis=1)) * 3600.0 for axis in (east, north))
    return x, y


def _is_lowest(group: np.ndarray, rank: np.ndarray) -> np.ndarray:
    best = np.full(int(group.max()) + 1 if len(group) else 0, np.iinfo(np.int64).max)
    np.minimum.at(best, group, rank)
    return best[group] == rank


def _nearest(i: np.ndarray, j: np.ndarray, distance: np.ndarray) -> np.ndarray:
    order = np.lexsort((j, i, distance))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    left = np.flatnonzero(_is_lowest(i, rank))
    return left[_is_lowest(j[left], rank[left])]


def _rounds(i: np.ndarray, j: np.ndarray, distance: np.ndarray, *, once: bool) -> np.ndarray:
    """Pairs in which each row is the other's best, repeated without the rows already used: the same pairs
    as a loop over all pairs by distance would take, in a few vectorised rounds."""
    order = np.lexsort((j, i, distance))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    left = np.arange(len(order))
    used_i, used_j = (np.zeros(int(one.max()) + 1 if len(one) else 0, dtype=bool) for one in (i, j))
    taken = []
    while len(left):
        best = left[_is_lowest(i[left], rank[left]) & _is_lowest(j[left], rank[left])]
        taken.append(best)
        if once:
            break
        used_i[i[best]] = True
        used_j[j[best]] = True
        left = left[~used_i[i[left]] & ~used_j[j[left]]]
    return np.concatenate(taken) if taken else np.zeros(0, dtype=np.int64)
