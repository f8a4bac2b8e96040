"""The channels of a spectrum as a regular sequence: rows that a file leaves out are blank channels here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import constants
from astropy import units as u
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import median_filter

from .spectrum import Spectrum

__all__ = ["Channels", "lay_out_channels"]

Array = NDArray[np.float64]
LIGHT = constants.c.to_value(u.m / u.s)
# Neighbours farther apart than so many usual distances have blank channels between them; of a gap between two arms of
# a spectrograph no more than so many, enough that nothing on one side is seen from the other.
GAP, MOST_BLANK = 1.6, 640
_USUAL = 41
_DOPPLER = {"radio": u.doppler_radio, "optical": u.doppler_optical, "relativistic": u.doppler_relativistic}


@dataclass(frozen=True)
class Channels:
    """A spectrum laid out in channels.

    Attributes
    ----------
    spectrum : Spectrum
    place : ndarray of int, shape (N,)
        Channel of each bin of the spectrum, ascending.
    count : int
        Channels, blank ones among them.
    """

    spectrum: Spectrum
    place: NDArray[np.int64]
    count: int

    def fill(self, values: ArrayLike) -> Array:
        """Values of the spectrum's bins in its channels, NaN in the blank ones, shape (count,)."""
        laid = np.full(self.count, np.nan)
        laid[self.place] = values
        return laid

    def axis(self, channel: ArrayLike) -> Array:
        """Axis values, in the spectrum's unit, at channels (fractions allowed; beyond the ends by the last step)."""
        return _extended(np.asarray(channel, float), self.place.astype(float), self.spectrum.axis)

    def bin(self, channel: ArrayLike) -> Array:
        """Number of the spectrum's bin, counted from 0 along the ascending axis, with its fraction."""
        return _extended(np.asarray(channel, float), self.place.astype(float), np.arange(len(self.place), dtype=float))

    def width(self, channel: ArrayLike) -> Array:
        """Axis width of the channels there, positive."""
        channel = np.asarray(channel, float)
        return self.axis(channel + 0.5) - self.axis(channel - 0.5)

    def frequency(self, channel: ArrayLike) -> Array:
        """Hz; NaN for a velocity axis without a rest frequency."""
        values = self.axis(channel) * self.spectrum.unit
        kind = self.spectrum.unit.physical_type
        if kind == "frequency":
            return values.to_value(u.Hz)
        if kind == "length":
            return LIGHT / values.to_value(u.m)
        if self.spectrum.rest_frequency is None:
            return np.full(np.shape(channel), np.nan)
        doppler = _DOPPLER[self.spectrum.convention](self.spectrum.rest_frequency * u.Hz)
        return values.to_value(u.Hz, equivalencies=doppler)

    def velocity(self, channel: ArrayLike) -> Array:
        """km/s in the spectrum's convention; NaN for other axes without a rest frequency."""
        if self.spectrum.unit.physical_type == "speed":
            return (self.axis(channel) * self.spectrum.unit).to_value(u.km / u.s)
        if self.spectrum.rest_frequency is None:
            return np.full(np.shape(channel), np.nan)
        doppler = _DOPPLER[self.spectrum.convention](self.spectrum.rest_frequency * u.Hz)
        return (self.frequency(channel) * u.Hz).to_value(u.km / u.s, equivalencies=doppler)

    def speed(self, channel: ArrayLike, width: ArrayLike) -> Array:
        """Width in km/s, c times the relative width in frequency or wavelength, of ``width`` channels there."""
        channel, width = np.asarray(channel, float), np.asarray(width, float)
        if self.spectrum.unit.physical_type == "speed":
            return width * (self.width(channel) * self.spectrum.unit).to_value(u.km / u.s)
        return LIGHT / 1e3 * width * self.width(channel) / np.abs(self.axis(channel))


def lay_out_channels(spectrum: Spectrum) -> Channels:
    """Give every bin of a spectrum its channel; where bins are missing, as many channels are left out as would fit."""
    step = np.diff(spectrum.axis)
    if len(step) == 0:
        return Channels(spectrum, np.zeros(len(spectrum.axis), np.int64), len(spectrum.axis))
    # The usual distance nearby: logarithmic axes and those of echelle spectra change theirs along the spectrum.
    usual = median_filter(step, _USUAL, mode="nearest")
    ratio = step / usual
    jump = np.ones(len(step), np.int64)
    for at in np.flatnonzero(ratio > GAP):
        # Bins that grow along the axis are larger behind a gap than before it.
        beside = (step[max(at - _USUAL // 2, 0) : at], step[at + 1 : at + 1 + _USUAL // 2])
        sides = [part for part in beside if len(part)]
        bins = step[at] / np.exp(np.mean([np.log(np.median(part)) for part in sides])) if sides else 1.0
        jump[at] = max(min(round(bins), MOST_BLANK + 1), 1)
    place = np.r_[0, np.cumsum(jump)]
    return Channels(spectrum, place, int(place[-1]) + 1)


def _extended(at: Array, x: Array, y: Array) -> Array:
    """Linear interpolation, continued straight beyond both ends."""
    if len(x) < 2:
        return np.full(at.shape, y[0])
    inner = np.interp(at, x, y)
    low = y[0] + (at - x[0]) * (y[1] - y[0]) / (x[1] - x[0])
    high = y[-1] + (at - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
    return np.where(at < x[0], low, np.where(at > x[-1], high, inner))
