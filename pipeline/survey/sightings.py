"""Which sources of overlapping observations are one: a pure function of the set of sources, whatever their order."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.crossmatch import pairs_within, sky_offsets, unit_vectors

__all__ = ["ALONE", "AssociationOptions", "Groups", "Links", "Sightings", "find_links", "group_sightings"]

ARCSEC = np.degrees(1.0) * 3600.0
ALONE = ("same observation", "flux", "distance")
"""Why two sources that lie close enough are not one object, by the code of `Groups.reason`."""


@dataclass(frozen=True)
class AssociationOptions:
    """When two sources of different observations may be one. One survey keeps one set of options.

    Attributes
    ----------
    sigma : float
        Largest normalised distance.
    floor_beam, floor_arcsec : float
        Systematic error of a position on each axis: this share of the beam's FWHM and this many arcsec, added in
        quadrature to the measured error. Fits know nothing of the astrometry of their image, nor of blends.
    floor_width : float
        The same for the frequency of a line, as a share of its width.
    cap_beam, cap_arcsec : float
        Farthest apart two sources may lie whatever their errors: this many FWHM of the larger beam, or this many
        arcsec where no beam is known.
    flux_factor, flux_sigma : float
        Fluxes agree within this factor, or within this many errors of their difference.
    spectral_index : float
        How much steeper than flat a spectrum may be: the factor grows by the ratio of the two images' frequencies to
        this power.
    """

    sigma: float = 5.0
    floor_beam: float = 0.05
    floor_arcsec: float = 0.1
    floor_width: float = 0.1
    cap_beam: float = 1.0
    cap_arcsec: float = 5.0
    flux_factor: float = 3.0
    flux_sigma: float = 5.0
    spectral_index: float = 2.0


@dataclass(frozen=True)
class Sightings:
    """Sources of several observations, each array (n,).

    Attributes
    ----------
    ra, dec : numpy.ndarray
        Degrees, finite.
    ra_err, dec_err : numpy.ndarray
        arcsec on the sky; what is not finite counts as a quarter of the beam.
    beam : numpy.ndarray
        FWHM (the mean of both axes) of the observation in arcsec, NaN where unknown.
    flux, flux_err : numpy.ndarray
        In the unit of `unit`; NaN where it says nothing (as with a source at an image's edge).
    band : numpy.ndarray
        Frequency of the observation in Hz, NaN where unknown or where the source has its own.
    freq, freq_err, width : numpy.ndarray
        Of a line in Hz: its frequency, the error of that, and its width; NaN without one.
    kind, unit, observation : numpy.ndarray
        Names or codes. Only sources of one kind are compared, fluxes only within one unit; sources of one
        observation are different.
    rank : numpy.ndarray of int
        An order that does not depend on which observation came first (by content hash and row); it settles ties.
    """

    ra: np.ndarray
    dec: np.ndarray
    ra_err: np.ndarray
    dec_err: np.ndarray
    beam: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    band: np.ndarray
    freq: np.ndarray
    freq_err: np.ndarray
    width: np.ndarray
    kind: np.ndarray
    unit: np.ndarray
    observation: np.ndarray
    rank: np.ndarray

    def __len__(self) -> int:
        return len(self.ra)

    def __getitem__(self, rows: np.ndarray) -> Sightings:
        return Sightings(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})

    def position_errors(self, options: AssociationOptions) -> tuple[np.ndarray, np.ndarray]:
        """Errors (n,) in arcsec along right ascension and declination, with their systematic part."""
        beam = np.where(np.isfinite(self.beam), self.beam, options.cap_arcsec)
        floor = np.hypot(options.floor_arcsec, np.where(np.isfinite(self.beam), options.floor_beam * beam, 0.0))
        first, second = (
            np.hypot(np.where(np.isfinite(error) & (error >= 0), np.minimum(error, beam / 2), beam / 4), floor)
            for error in (self.ra_err, self.dec_err)
        )
        return first, second

    def reach(self, options: AssociationOptions) -> np.ndarray:
        """Distance (n,) in arcsec within which lies every partner whose own errors are no larger."""
        return np.sqrt(2.0) * options.sigma * np.maximum(*self.position_errors(options))


@dataclass(frozen=True)
class Links:
    """Pairs of sources of different observations that lie close enough to be one.

    Attributes
    ----------
    first, second : numpy.ndarray of int
        Rows (n,); the first has the lower rank.
    distance : numpy.ndarray
        Normalised distance (n,).
    alike : numpy.ndarray of bool
        Whether the fluxes agree as well, so that the two may be joined.
    """

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    alike: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Groups:
    """The objects that a set of sources makes up.

    Attributes
    ----------
    label : numpy.ndarray of int
        Group (n,) of every source, from 0; a source without a partner is a group of its own.
    first, second : numpy.ndarray of int
        Pairs (m,) of sources that lie close enough to be one and are not: conflicts.
    distance : numpy.ndarray
        Normalised distance (m,) of those.
    reason : numpy.ndarray of int
        Why (m,): index into `ALONE`.
    """

    label: np.ndarray
    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    reason: np.ndarray


def find_links(
    sightings: Sightings, options: AssociationOptions, *, among: tuple[np.ndarray, np.ndarray] | None = None
) -> Links:
    """Every pair of sources of different observations that could be one source.

    Parameters
    ----------
    sightings : Sightings
    options : AssociationOptions
    among : (rows, rows), optional
        Only pairs of one row of the first list with one of the second; by default all pairs.

    Returns
    -------
    Links
        Each pair once. Its numbers depend on the two sources alone.
    """
    everything = np.arange(len(sightings))
    rows_1, rows_2 = (everything, everything) if among is None else among
    vectors = unit_vectors(sightings.ra, sightings.dec)
    reach = _chord(sightings.reach(options) * (1 + 1e-9))
    # The one of a pair whose errors are larger reaches the other: looked for from both sides.
    a, b, _ = pairs_within(vectors[rows_1], vectors[rows_2], reach[rows_2])
    d, c, _ = pairs_within(vectors[rows_2], vectors[rows_1], reach[rows_1])
    i, j = rows_1[np.concatenate([a, c])], rows_2[np.concatenate([b, d])]
    apart = (sightings.observation[i] != sightings.observation[j]) & (sightings.kind[i] == sightings.kind[j])
    i, j = i[apart], j[apart]
    swapped = sightings.rank[i] > sightings.rank[j]
    i, j = np.where(swapped, j, i), np.where(swapped, i, j)
    i, j = np.unique(np.stack([i, j]), axis=1) if len(i) else (i, j)
    distance = _distance(sightings, vectors, i, j, options)
    near = distance <= options.sigma
    i, j, distance = i[near], j[near], distance[near]
    return Links(i, j, distance, _alike(sightings, i, j, options))


def _chord(arcsec: np.ndarray) -> np.ndarray:
    return 2.0 * np.sin(np.minimum(arcsec / ARCSEC, np.pi) / 2.0)


def _distance(
    sightings: Sightings, vectors: np.ndarray, i: np.ndarray, j: np.ndarray, options: AssociationOptions
) -> np.ndarray:
    """Normalised distance of pairs; infinite beyond the cap and for lines of which only one has a frequency."""
    along = sky_offsets(vectors[i], vectors[j])
    squares = np.zeros(len(i))
    for offset, error in zip(along, sightings.position_errors(options), strict=True):
        squares += offset**2 / (error[i] ** 2 + error[j] ** 2)
    freq, width = sightings.freq, np.nan_to_num(sightings.width)
    error = np.hypot(np.nan_to_num(sightings.freq_err), options.floor_width * width)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = (freq[i] - freq[j]) ** 2 / (error[i] ** 2 + error[j] ** 2)
    both, neither = (np.isfinite(freq[i]) & np.isfinite(freq[j])), (np.isnan(freq[i]) & np.isnan(freq[j]))
    squares += np.where(both, np.where(np.isnan(apart), 0.0, apart), np.where(neither, 0.0, np.inf))
    larger = np.fmax(sightings.beam[i], sightings.beam[j])
    cap = np.where(np.isfinite(larger), options.cap_beam * larger, options.cap_arcsec)
    separation = np.hypot(*along)
    return np.where(separation <= cap, np.sqrt(squares), np.inf)


def _alike(sightings: Sightings, i: np.ndarray, j: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Whether fluxes agree; those that say nothing, or are in different units, do not disagree."""
    flux, error = sightings.flux, np.nan_to_num(sightings.flux_err)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.abs(flux[i] - flux[j]) / np.hypot(error[i], error[j])
        ratio = np.maximum(flux[i], flux[j]) / np.minimum(flux[i], flux[j])
        bands = np.abs(np.log(sightings.band[i] / sightings.band[j]))
    factor = options.flux_factor * np.exp(options.spectral_index * np.nan_to_num(bands))
    silent = ~np.isfinite(flux[i]) | ~np.isfinite(flux[j]) | (sightings.unit[i] != sightings.unit[j])
    return silent | (apart <= options.flux_sigma) | ((ratio <= factor) & (ratio > 0))


def group_sightings(sightings: Sightings, links: Links) -> Groups:
    """Join sources into objects, nearest pairs first.

    A group is complete: each of its sources is linked to each other one, so that no two are of one observation and
    no chain of neighbours grows. Whatever is close enough to be joined and was not is a conflict with its reason.

    Parameters
    ----------
    sightings : Sightings
    links : Links
        All links among these sources.

    Returns
    -------
    Groups
        The same groups for any order of the sources.
    """
    n = len(sightings)
    graph = coo_array((np.ones(len(links), bool), (links.first, links.second)), shape=(n, n))
    count, component = connected_components(graph, directed=False)
    size = np.bincount(component, minlength=count)
    alike = np.bincount(component[links.first[links.alike]], minlength=count)
    whole = alike == size * (size - 1) // 2
    label = component.astype(np.int64)
    joined = np.flatnonzero(~whole[component[links.first]] & links.alike)
    order = np.lexsort((sightings.rank[links.second[joined]], sightings.rank[links.first[joined]],
                        links.distance[joined]))  # fmt: skip
    rows = np.flatnonzero(~whole[component])
    members = {row: [row] for row in rows.tolist()}
    home = {row: row for row in members}
    partners: dict[int, set[int]] = {row: set() for row in members}
    pairs = list(zip(links.first[joined].tolist(), links.second[joined].tolist(), strict=True))
    for i, j in pairs:
        partners[i].add(j)
        partners[j].add(i)
    for i, j in (pairs[k] for k in order.tolist()):
        a, b = home[i], home[j]
        if a != b and all(partners[one].issuperset(members[b]) for one in members[a]):
            for one in members.pop(b):
                members[a].append(one)
                home[one] = a
    for row in rows.tolist():
        label[row] = count + home[row]
    # Numbered from 0 by what they hold.
    _, label = np.unique(label, return_inverse=True)
    apart = np.flatnonzero(label[links.first] != label[links.second])
    seen: dict[int, set[int]] = {}
    for row, group in zip(rows.tolist(), label[rows].tolist(), strict=True):
        seen.setdefault(group, set()).add(int(sightings.observation[row]))
    reason = np.array(
        [
            1 if not good else 0 if seen[a] & seen[b] else 2
            for good, a, b in zip(
                links.alike[apart].tolist(), label[links.first[apart]].tolist(), label[links.second[apart]].tolist(),
                strict=True,
            )
        ],
        dtype=np.int64,
    )  # fmt: skip
    return Groups(label, links.first[apart], links.second[apart], links.distance[apart], reason)
