"""Spectral lines of gas in local thermodynamic equilibrium, as a receiver's channels see them.

Peak optical depths follow from column density, excitation temperature and width; lines of several species in one parcel
of gas add in optical depth and share its radiation, parcels add in brightness (e.g. Goldsmith & Langer 1999, Mangum &
Shirley 2015). Within a channel a line is averaged over its profile, so that flux is conserved however narrow it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from survey_io.line_lists import LIGHT_CM, LIGHT_KMS, PER_GHZ, LineList
from survey_io.simulate.render import FWHM_TO_SIGMA
from survey_io.spectral_grid import SpectralGrid

BACKGROUND = 2.725
# Peak optical depths below this are nothing; profiles end at this depth, or at this share of their peak if it is thin.
NOTHING, EDGE = 1e-6, 1e-4
# Sub-bins of a channel per line width, over which 1 - exp(-tau) is averaged; and the most of them.
FINENESS, MOST_BINS = 6.0, 40
# Frequency that a beam is told at, GHz.
BEAM_AT = 100.0


@dataclass(frozen=True)
class Component:
    """A parcel of gas: all its species lie along the same lines of sight.

    Attributes
    ----------
    column : ndarray, shape (species,)
        Column densities, cm^-2; 0 for what is absent.
    temperature : ndarray, shape (species,)
        Of excitation, K.
    velocity : ndarray, shape (species,)
        km/s, radio convention.
    width : ndarray, shape (species,)
        FWHM of the optical depth, km/s.
    size, beam : float
        FWHM of source and of the telescope's beam at 100 GHz, arcsec; a beam of 0 is filled.
    """

    column: np.ndarray
    temperature: np.ndarray
    velocity: np.ndarray
    width: np.ndarray
    size: float = 1.0
    beam: float = 0.0

    def dilution(self, frequency: np.ndarray) -> np.ndarray:
        """Share of a beam that the source fills, both Gaussian: s^2 / (s^2 + b^2), with b going as 1 / frequency."""
        beam = self.beam * BEAM_AT / np.asarray(frequency)
        return self.size**2 / (self.size**2 + beam**2)


@dataclass(frozen=True)
class Painted:
    """Brightness in the channels where there is any.

    Attributes
    ----------
    channel : ndarray of int, shape (C,)
        Ascending.
    total : ndarray, shape (C,)
        Of all species together, K.
    species : ndarray of int, shape (S,)
        Those that were painted.
    alone : ndarray, shape (S, C)
        What each would show without the others, K.
    """

    channel: np.ndarray
    total: np.ndarray
    species: np.ndarray
    alone: np.ndarray


def radiation_temperature(frequency: np.ndarray, temperature: np.ndarray | float) -> np.ndarray:
    """Rayleigh-Jeans equivalent J(T) of a black body, K; frequency in GHz."""
    quantum = PER_GHZ * np.asarray(frequency)
    return quantum / np.expm1(quantum / temperature)


def integrated_depth(lines: LineList, column: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """Optical depth integrated over frequency of each line, GHz, shape (L,).

    c^2 / (8 pi nu^2) A g_u N / Q(T) exp(-E_u / kT) (exp(h nu / kT) - 1), with ``column`` (cm^-2) and ``temperature``
    (K) by species.
    """
    own = lines.line_species
    warmth = np.asarray(temperature, np.float64)[own]
    share = lines.upper_weight * np.exp(-lines.upper_energy / warmth) / lines.partition(temperature)[lines.ladder]
    stimulated = np.expm1(PER_GHZ * lines.frequency / warmth)
    constant = LIGHT_CM**2 / (8 * np.pi) * 1e-27
    area = constant / lines.frequency**2 * lines.einstein_a * share * stimulated
    return area * np.asarray(column, np.float64)[own]


def peak_depth(lines: LineList, component: Component) -> np.ndarray:
    """Optical depth at the centre of each line, shape (L,)."""
    fwhm = lines.frequency * component.width[lines.line_species] / LIGHT_KMS
    return integrated_depth(lines, component.column, component.temperature) / (fwhm * np.sqrt(np.pi / (4 * np.log(2))))


def paint(lines: LineList, component: Component, grid: SpectralGrid) -> Painted:
    """Brightness above the background of one component, averaged over the channels of a linear grid in GHz."""
    peak = peak_depth(lines, component)
    row = np.flatnonzero(peak > NOTHING)
    own = lines.line_species[row]
    shifted = lines.frequency[row] * (1 - component.velocity[own] / LIGHT_KMS)
    fwhm = lines.frequency[row] * component.width[own] / LIGHT_KMS / grid.step
    centre = (shifted - grid.start) / grid.step
    # Thick lines are wide: to where their depth, not their share of the peak, is small.
    reach = fwhm * np.sqrt(np.log(np.maximum(1.0, peak[row]) / EDGE) / (4 * np.log(2))) + 1.0
    inside = (centre + reach > 0) & (centre - reach < grid.count - 1)
    row, own, fwhm, centre, reach = (values[inside] for values in (row, own, fwhm, centre, reach))
    species = np.unique(own)
    if not len(row):
        return Painted(np.zeros(0, np.int64), np.zeros(0), species, np.zeros((0, 0)))
    bins = int(np.clip(np.ceil(FINENESS / fwhm.min()), 1, MOST_BINS))
    first = np.floor(centre - reach).astype(np.int64)
    wide = int(np.ceil(2 * reach.max())) + 2
    window = first[:, None] + np.arange(wide)
    # Edges of the sub-bins in units of the line's sigma; depth is the mean over a sub-bin of a Gaussian profile.
    edge = first[:, None] - 0.5 + np.arange(wide * bins + 1) / bins
    share = np.diff(ndtr((edge - centre[:, None]) / (fwhm * FWHM_TO_SIGMA)[:, None]), axis=1) * bins
    area = integrated_depth(lines, component.column, component.temperature)[row] / grid.step
    depth = area[:, None, None] * share.reshape(len(row), wide, bins)
    kept = (window >= 0) & (window < grid.count)
    channel, compact = np.unique(window[kept], return_inverse=True)
    size = len(channel) * bins
    place = np.searchsorted(species, own)[:, None] * len(channel) + np.zeros_like(window)
    place = (place[kept] + compact)[:, None] * bins + np.arange(bins)
    depths = np.bincount(place.ravel(), depth[kept].ravel(), minlength=len(species) * size)
    depths = depths.reshape(len(species), len(channel), bins)
    frequency = grid.start + grid.step * channel
    warm = radiation_temperature(frequency, component.temperature[species][:, None])
    cold = radiation_temperature(frequency, BACKGROUND)
    diluted = component.dilution(frequency)
    alone = diluted * (warm - cold) * -np.expm1(-depths).mean(2)
    together = depths.sum(0)
    # Where species overlap, photons leave from each in proportion to its share of the optical depth.
    source = (depths * warm[..., None]).sum(0) / np.maximum(together, 1e-300)
    total = diluted * (-np.expm1(-together) * (source - cold[:, None])).mean(1)
    return Painted(channel, total, species, alone)


def column_for_depth(
    lines: LineList, depth: np.ndarray, temperature: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Column densities, cm^-2, at which each species' deepest line has these peak optical depths, shape (species,)."""
    ones = np.ones(len(lines.species))
    peak = peak_depth(lines, Component(ones, temperature, np.zeros_like(ones), width))
    deepest = np.zeros(len(ones))
    np.maximum.at(deepest, lines.line_species, peak)
    return np.asarray(depth) / np.maximum(deepest, 1e-300)
