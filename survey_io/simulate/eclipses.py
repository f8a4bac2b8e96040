"""Dips of light curves: planets in front of stars, and stars in front of stars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Scaled semi-major axis a/R of an orbit of one day around a star of the Sun's mean density (Kepler's third law).
AXIS_AT_ONE_DAY = 4.205
SHAPES = ("box", "trapezoid", "limb-darkened")


@dataclass(frozen=True)
class Orbit:
    """A circular orbit as a light curve shows it.

    Attributes
    ----------
    period : float
        Days.
    ratio : float
        Radius of what passes in front over that of the star.
    impact : float
        Smallest distance of the two centres, in radii of the star.
    axis : float
        Distance of the two, in radii of the star.
    limb : (float, float)
        Coefficients of the star's quadratic limb darkening.
    """

    period: float
    ratio: float
    impact: float
    axis: float
    limb: tuple[float, float] = (0.4, 0.25)

    @property
    def duration(self) -> float:
        """From first to last contact, days (Winn 2010, equation 14); 0 where the discs do not meet."""
        return self._crossing(1 + self.ratio)

    @property
    def full_duration(self) -> float:
        """From second to third contact, days; 0 for a grazing passage."""
        return self._crossing(1 - self.ratio)

    def _crossing(self, reach: float) -> float:
        if reach <= self.impact:
            return 0.0
        half = np.sqrt(reach**2 - self.impact**2) / np.sqrt(self.axis**2 - self.impact**2)
        return float(self.period / np.pi * np.arcsin(min(half, 1.0)))


def scaled_axis(period: float, density: float) -> float:
    """Semi-major axis over the star's radius, from the period in days and the star's mean density over the Sun's."""
    return AXIS_AT_ONE_DAY * (period**2 * density) ** (1 / 3)


def time_from_middle(time: np.ndarray, period: float, epoch: float) -> np.ndarray:
    """Time since the nearest event, days, from -period / 2 to period / 2."""
    return (time - epoch + 0.5 * period) % period - 0.5 * period


def box(offset: np.ndarray, duration: float) -> np.ndarray:
    """1 within an event, 0 elsewhere, of times since its middle."""
    return (np.abs(offset) < 0.5 * duration).astype(np.float64)


def trapezoid(offset: np.ndarray, duration: float, full: float) -> np.ndarray:
    """1 for ``full``, 0 outside ``duration``, straight between; a V where ``full`` is 0."""
    slope = max(0.5 * (duration - full), 1e-12)
    return np.clip((0.5 * duration - np.abs(offset)) / slope, 0.0, 1.0)


def light_lost(offset: np.ndarray, orbit: Orbit) -> np.ndarray:
    """Share of the star's light that a dark disc takes away, at times since the middle of its passage.

    Exact for a star without limb darkening; with it, the covered area has the brightness at its middle, as of small
    planets in Mandel & Agol (2002), section 5. Behind the star nothing is lost.
    """
    angle = 2 * np.pi * offset / orbit.period
    distance = np.hypot(orbit.axis * np.sin(angle), orbit.impact * np.cos(angle))
    near = (distance < 1 + orbit.ratio) & (np.cos(angle) > 0)
    lost = np.zeros(offset.shape)
    z = distance[near]
    inner, outer = z - orbit.ratio, np.minimum(z + orbit.ratio, 1.0)
    middle = np.abs(0.5 * (inner + outer))
    shade = 1 - np.sqrt(np.clip(1 - middle**2, 0.0, 1.0))
    first, second = orbit.limb
    bright = (1 - first * shade - second * shade**2) / (1 - first / 3 - second / 6)
    # A disc that covers a large part of the star also covers a large part of its shades.
    share = min(orbit.ratio, 1.0) ** 2
    lost[near] = overlap(z, orbit.ratio) * ((1 - share) * bright + share)
    return lost


def overlap(distance: np.ndarray, ratio: float) -> np.ndarray:
    """Area that a disc of radius ``ratio`` shares with one of radius 1, in areas of the latter."""
    z = np.asarray(distance, np.float64)
    small = min(ratio, 1.0)
    area = np.where(z <= abs(1 - ratio), small**2, 0.0)
    part = (z > abs(1 - ratio)) & (z < 1 + ratio)
    d = z[part]
    alpha = np.arccos(np.clip((d**2 + ratio**2 - 1) / (2 * d * ratio), -1, 1))
    beta = np.arccos(np.clip((d**2 + 1 - ratio**2) / (2 * d), -1, 1))
    kite = 0.5 * np.sqrt(np.clip((1 + ratio - d) * (d + ratio - 1) * (d - ratio + 1) * (d + 1 + ratio), 0, None))
    area[part] = (ratio**2 * alpha + beta - kite) / np.pi
    return area
