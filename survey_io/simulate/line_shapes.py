"""Profiles of spectral lines: each a cumulative flux on a grid, so that every channel gets its exact share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = ["SHAPES", "Profile", "draw_profile", "gaussian_profile", "horn_profile", "top_hat_profile", "voigt_profile"]

Array = NDArray[np.float64]

SHAPES = ("gaussian", "voigt", "horn", "top-hat")
FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
# Half the length of a profile's grid and its step, in FWHM.
REACH, STEP = 6.0, 0.005
_GRID = np.arange(-round(REACH / STEP), round(REACH / STEP) + 1) * STEP


@dataclass(frozen=True)
class Profile:
    """A line of flux 1, FWHM 1 and centre 0: the centre lies midway between the outer points at half the peak.

    Attributes
    ----------
    x : ndarray
        Ascending, in FWHM.
    cumulative : ndarray
        Flux up to there, 0 to 1.
    """

    x: Array
    cumulative: Array

    def paint(self, channels: int, centre: float, fwhm: float) -> tuple[int, Array]:
        """First channel and flux in each of the channels that the line reaches, within a spectrum of so many.

        Parameters
        ----------
        channels : int
        centre, fwhm : float
            In channels; the first channel's centre is 0.
        """
        low = int(np.clip(np.floor(centre + self.x[0] * fwhm), 0, channels))
        high = int(np.clip(np.ceil(centre + self.x[-1] * fwhm) + 1, low, channels))
        edges = (np.arange(low, high + 1) - 0.5 - centre) / fwhm
        return low, np.diff(np.interp(edges, self.x, self.cumulative))


def gaussian_profile() -> Profile:
    """Thermal or turbulent line."""
    return _from_cumulative(_GRID[np.abs(_GRID) <= 2.5], lambda x: ndtr(x / FWHM_TO_SIGMA))


def voigt_profile(lorentzian: float) -> Profile:
    """Pressure-broadened line, as a sum of a Lorentzian (share 0 to 1) and a Gaussian of one FWHM (pseudo-Voigt)."""
    return _from_cumulative(
        _GRID, lambda x: lorentzian * (0.5 + np.arctan(2 * x) / np.pi) + (1 - lorentzian) * ndtr(x / FWHM_TO_SIGMA)
    )


def top_hat_profile(edge: float) -> Profile:
    """Flat line between Gaussian edges whose sigma is that share of the width: saturated or unresolved in parts."""
    return _from_density(np.where(np.abs(_GRID) <= 0.5, 1.0, 0.0), edge)


def horn_profile(dispersion: float, *, inner: float = 0.2, lopsided: float = 0.0) -> Profile:
    """Global profile of a rotating disc.

    Parameters
    ----------
    dispersion : float
        Gaussian sigma of the gas over the full rotation width, 0.02 to 0.3.
    inner : float
        Share of the gas in the rising part of the rotation curve, which fills the middle.
    lopsided : float
        Difference of the sides over their sum, -0.5 to 0.5.
    """
    edges = np.clip(2 * np.r_[_GRID - 0.5 * STEP, _GRID[-1] + 0.5 * STEP], -1, 1)
    # A flat rotation curve gives 1 / sqrt(1 - v^2), gas in a rising one sqrt(1 - v^2); both integrated per step.
    flat = np.diff(np.arcsin(edges)) / np.pi
    rising = np.diff(edges * np.sqrt(1 - edges**2) + np.arcsin(edges)) / np.pi
    density = ((1 - inner) * flat + inner * rising) * (1 + 2 * lopsided * np.clip(2 * _GRID, -1, 1))
    return _from_density(density, dispersion)


def draw_profile(shape: str, rng: np.random.Generator) -> Profile:
    """A profile of one of `SHAPES`, with random details."""
    if shape == "gaussian":
        return gaussian_profile()
    if shape == "voigt":
        return voigt_profile(float(rng.uniform(0.2, 1.0)))
    if shape == "top-hat":
        return top_hat_profile(float(rng.uniform(0.03, 0.2)))
    return horn_profile(
        float(np.exp(rng.uniform(np.log(0.03), np.log(0.2)))), inner=float(rng.uniform(0.05, 0.6)),
        lopsided=float(np.clip(rng.normal(0, 0.12), -0.4, 0.4)),
    )  # fmt: skip


def _from_cumulative(x: Array, law) -> Profile:
    values = law(x)
    return Profile(x, (values - values[0]) / (values[-1] - values[0]))


def _from_density(density: Array, sigma: float) -> Profile:
    """Smoothed, then centred between its outer half-peak points and scaled to their distance."""
    reach = int(np.ceil(4 * sigma / STEP))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * STEP / sigma) ** 2)
    smooth = np.convolve(density, kernel / kernel.sum(), mode="same")
    above = np.flatnonzero(smooth >= 0.5 * smooth.max())
    first, last = above[0], above[-1]
    half = 0.5 * smooth.max()
    left = first - (smooth[first] - half) / (smooth[first] - smooth[first - 1])
    right = last + (smooth[last] - half) / (smooth[last] - smooth[last + 1])
    middle, width = 0.5 * (left + right), (right - left) * STEP
    lit = smooth > 1e-6 * smooth.max()
    cumulative = np.r_[0.0, np.cumsum(smooth[lit])]
    edges = (np.r_[np.flatnonzero(lit), np.flatnonzero(lit)[-1] + 1] - 0.5 - middle) * STEP / width
    return Profile(edges, cumulative / cumulative[-1])
