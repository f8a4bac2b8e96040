"""Seeded spectra with emission and absorption lines of known truth: noise, continuum, blends, gaps, spikes.

Axes are in channels, the noise has an rms of about 1; `write_spectrum` puts a spectrum on a wavelength, frequency or
velocity axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from survey_io.simulate.line_shapes import SHAPES, Profile, draw_profile, gaussian_profile

__all__ = ["LineModel", "SimulatedSpectrum", "simulate_lines", "write_spectrum"]

Array = NDArray[np.float64]
HANNING = np.array([0.25, 0.5, 0.25])
# Narrowest and widest lines, FWHM in channels before the spectrograph.
FWHM_RANGE = (1.9, 150.0)
# Lines with a shape of their own are narrower than this nowhere: the spectrograph would have rounded them.
LEAST_SHAPED = 5.0
# Between the least S/N and this one lie the faint lines, beyond it the bright ones.
FAINT = 25.0
# Profiles drawn for one spectrum: its lines share them.
PROFILES = 5
# Half a channel's own width adds to every line as a Gaussian of this FWHM would.
CHANNEL_FWHM = 0.68


@dataclass(frozen=True)
class LineModel:
    """What a spectrum is like; lengths in channels, heights in units of the noise's rms.

    Attributes
    ----------
    channels : int
    density : float
        Lines per 1000 channels.
    width, width_scatter : float
        Median FWHM and its scatter (sigma of the natural log); clipped to `FWHM_RANGE`.
    shapes : tuple of str
        Which of `line_shapes.SHAPES` occur.
    absorbing : float
        Share of lines in absorption, 0 to 1.
    least_snr, most_snr, bright : float
        Matched-filter S/N: log-uniform from least to `FAINT`, a share ``bright`` of lines on to most.
    blended : float
        Share of lines that get a companion within 0.6 to 2 FWHM.
    smoothing : str
        "none", "hanning" (both noise and lines), or "resampled": noise interpolated to ``resampling`` times finer
        channels.
    resampling : float
    noise_bend : float
        Scatter of the slow changes of ln rms.
    loud : float
        Stretches of 3 to 60 channels with 2 to 5 times the noise, per 1000 channels.
    spikes : float
        Cosmic rays or interference in one channel, per 1000 channels.
    gaps, flagged : float
        Blank stretches of up to 200 channels per 1000 channels, and share of single channels flagged.
    level, slope, bend, bend_length : float
        Continuum: constant, change along the spectrum, rms and correlation length of its bends.
    ripple, ripple_period : float
        Amplitude and period of a standing wave.
    """

    channels: int = 2048
    density: float = 5.0
    width: float = 8.0
    width_scatter: float = 0.4
    shapes: tuple[str, ...] = SHAPES
    absorbing: float = 0.3
    least_snr: float = 1.5
    most_snr: float = 300.0
    bright: float = 0.25
    blended: float = 0.15
    smoothing: str = "none"
    resampling: float = 1.7
    noise_bend: float = 0.1
    loud: float = 0.0
    spikes: float = 0.3
    gaps: float = 0.1
    flagged: float = 0.0
    level: float = 0.0
    slope: float = 0.0
    bend: float = 0.0
    bend_length: float = 800.0
    ripple: float = 0.0
    ripple_period: float = 150.0


@dataclass
class SimulatedSpectrum:
    """A spectrum and what lies in it.

    Attributes
    ----------
    flux : ndarray, shape (channels,)
        All together, NaN where blank.
    rms : ndarray
        True noise of each channel.
    continuum : ndarray
        Level with bends and ripple.
    blank : ndarray of bool
    lines : Table
        ``z`` (centre) and ``width`` (FWHM as seen), channels; ``flux`` (signed sum over channels), ``snr`` (of the
        matched filter in the channels that are not blank, positive), ``shape``.
    """

    flux: Array
    rms: Array
    continuum: Array
    blank: NDArray[np.bool_]
    lines: Table


def simulate_lines(model: LineModel, seed: int | np.random.Generator) -> SimulatedSpectrum:
    """Draw a spectrum.

    Parameters
    ----------
    model : LineModel
    seed : int or numpy Generator
    """
    rng = np.random.default_rng(seed)
    count = model.channels
    noise, covariance = _noise(model, rng)
    rms = _noise_course(model, rng)
    blank = rng.random(count) < model.flagged
    for _ in range(rng.poisson(model.gaps * count / 1000)):
        first = int(rng.integers(0, count))
        blank[first : first + int(np.exp(rng.uniform(0, np.log(200))))] = True
    lines, total = _draw_lines(model, rms, covariance, ~blank, rng)
    continuum = _continuum(model, rng)
    flux = total + continuum + noise * rms
    number = rng.poisson(model.spikes * count / 1000)
    for at in rng.integers(0, count, number):
        height = float(np.exp(rng.uniform(np.log(4), np.log(2000)))) * rms[at] * (1 if rng.random() < 0.8 else -1)
        flux[at] += height
        # A hit near a channel's edge leaves a little in its neighbour.
        if rng.random() < 0.3 and at + 1 < count:
            flux[at + 1] += height * rng.uniform(0.02, 0.3)
    flux[blank] = np.nan
    return SimulatedSpectrum(flux, rms, continuum, blank, lines)


def _noise(model: LineModel, rng: np.random.Generator) -> tuple[Array, Array]:
    """Noise of unit rms and its covariance at lags 0, 1, 2 ..."""
    count = model.channels
    if model.smoothing == "hanning":
        noise = np.convolve(rng.standard_normal(count + 2), HANNING, mode="valid")
        covariance = np.convolve(HANNING, HANNING)[2:]
        return noise / np.sqrt(covariance[0]), covariance / covariance[0]
    if model.smoothing == "resampled":
        step = 1 / model.resampling
        place = rng.random() + np.arange(count) * step
        raw = rng.standard_normal(int(place[-1]) + 3)
        index = place.astype(int)
        share = place - index
        noise = raw[index] * (1 - share) + raw[index + 1] * share
        # Linear interpolation at random phase: the triangle's correlation with itself.
        lag = np.arange(int(np.ceil(2 / step)) + 1) * step
        covariance = np.where(lag < 1, 2 / 3 - lag**2 + lag**3 / 2, np.clip(2 - lag, 0, None) ** 3 / 6)
        return noise / np.sqrt(2 / 3), covariance / covariance[0]
    if model.smoothing != "none":
        raise ValueError(f"smoothing: expected none, hanning or resampled, got {model.smoothing!r}")
    return rng.standard_normal(count), np.ones(1)


def _noise_course(model: LineModel, rng: np.random.Generator) -> Array:
    rms = np.exp(model.noise_bend * _smooth(model.channels, 300.0, rng))
    for _ in range(rng.poisson(model.loud * model.channels / 1000)):
        first = int(rng.integers(0, model.channels))
        rms[first : first + int(np.exp(rng.uniform(np.log(3), np.log(60))))] *= rng.uniform(2, 5)
    return rms


def _smooth(count: int, length: float, rng: np.random.Generator) -> Array:
    """Random course of unit scatter and that correlation length."""
    points = rng.standard_normal(int(count / length * 4) + 12)
    coarse = gaussian_filter1d(points, 2.0)
    coarse /= 0.375
    return np.interp(np.arange(count) / length * 4 + 4, np.arange(len(points)), coarse)


def _continuum(model: LineModel, rng: np.random.Generator) -> Array:
    z = np.arange(model.channels)
    continuum = model.level + model.slope * (z / model.channels - 0.5)
    if model.bend:
        continuum = continuum + model.bend * _smooth(model.channels, model.bend_length, rng)
    if model.ripple:
        # Standing waves are regular in frequency and change slowly in strength.
        phase = 2 * np.pi * z / model.ripple_period * (1 + rng.uniform(-0.1, 0.1) * z / model.channels)
        strength = 1 + 0.3 * _smooth(model.channels, 600.0, rng)
        continuum = continuum + model.ripple * strength * np.sin(phase + rng.uniform(0, 2 * np.pi))
    return continuum


def _draw_lines(
    model: LineModel, rms: Array, covariance: Array, seen: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Table, Array]:
    count = model.channels
    number = rng.poisson(model.density * count / 1000)
    centre = rng.uniform(-0.5, count - 0.5, number)
    width = np.clip(model.width * np.exp(model.width_scatter * rng.standard_normal(number)), *FWHM_RANGE)
    pairs = np.flatnonzero(rng.random(number) < model.blended)
    shift = rng.uniform(0.6, 2.0, len(pairs)) * rng.choice([-1, 1], len(pairs))
    centre = np.r_[centre, centre[pairs] + shift * width[pairs]]
    width = np.r_[width, width[pairs] * np.exp(rng.normal(0, 0.3, len(pairs)))]
    width = np.clip(width, *FWHM_RANGE)
    sign = np.where(rng.random(len(centre)) < model.absorbing, -1.0, 1.0)
    middle = float(np.clip(FAINT, model.least_snr, model.most_snr))
    strength = np.exp(rng.uniform(np.log(model.least_snr), np.log(middle), len(centre)))
    brighter = rng.random(len(centre)) < model.bright
    strength = np.where(brighter, np.exp(rng.uniform(np.log(middle), np.log(model.most_snr), len(centre))), strength)
    profiles: list[tuple[str, Profile]] = []
    for _ in range(min(PROFILES, max(len(centre), 1))):
        shape = str(rng.choice(model.shapes))
        profiles.append((shape, draw_profile(shape, rng)))
    total = np.zeros(count)
    rows = []
    kernel = HANNING if model.smoothing == "hanning" else None
    broadened = np.sqrt(width**2 + CHANNEL_FWHM**2 + (4.0 if kernel is not None else 0.0))
    round_ones = [pair for pair in profiles if pair[0] in ("gaussian", "voigt")] or [("gaussian", gaussian_profile())]
    for at, fwhm, apparent, s, snr in zip(centre, width, broadened, sign, strength, strict=True):
        able = profiles if fwhm >= LEAST_SHAPED else round_ones
        shape, profile = able[int(rng.integers(len(able)))]
        # A line of which a spectrum holds less than half is none of its own.
        if not -0.5 <= at < count - 0.5:
            continue
        low, part = profile.paint(count, float(at), float(fwhm))
        if kernel is not None:
            padded = np.convolve(np.pad(part, 2), kernel, mode="valid")
            first, last = max(low - 1, 0), min(low + len(part) + 1, count)
            part, low = padded[first - (low - 1) : last - (low - 1)], first
        scaled = part / rms[low : low + len(part)]
        response = _filter_response(scaled, covariance)
        if not response > 0:
            continue
        amount = s * snr / response
        total[low : low + len(part)] += amount * part
        left = _filter_response(scaled * seen[low : low + len(part)], covariance)
        rows.append((at, apparent, amount, snr * left / response, shape))
    names = ("z", "width", "flux", "snr", "shape")
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in names]
    types = ("f8", "f8", "f8", "f8", "U12")
    table = Table([np.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)
    table.sort("z")
    return table, total


def _filter_response(profile: Array, covariance: Array) -> float:
    """S/N of a line of flux 1 in a filter of its own shape, in noise of unit rms with that covariance."""
    power = float(profile @ profile)
    variance = covariance[0] * power
    for lag in range(1, min(len(covariance), len(profile))):
        variance += 2 * covariance[lag] * float(profile[lag:] @ profile[:-lag])
    return power / np.sqrt(variance) if variance > 0 else 0.0


def write_spectrum(
    spectrum: SimulatedSpectrum, path: str | Path, *, kind: str = "WAVE", unit: str = "Angstrom", first: float = 5000.0,
    step: float = 1.25, flux_unit: str = "Jy", rest_frequency: float | None = None,
) -> Path:  # fmt: skip
    """Write a simulated spectrum as a one-dimensional FITS image with a linear spectral axis.

    Parameters
    ----------
    spectrum : SimulatedSpectrum
    path : str or Path
    kind : str
        CTYPE of the axis: "WAVE", "AWAV", "FREQ", "VRAD", "VOPT".
    unit : str
        Of the axis.
    first, step : float
        Value at the first channel and from channel to channel, which may be negative.
    flux_unit : str
    rest_frequency : float, optional
        Hz.
    """
    header = fits.Header()
    header["CTYPE1"], header["CUNIT1"] = kind, unit
    header["CRPIX1"], header["CRVAL1"], header["CDELT1"] = 1.0, first, step
    header["BUNIT"] = flux_unit
    if rest_frequency is not None:
        header["RESTFRQ"] = rest_frequency
    fits.PrimaryHDU(spectrum.flux.astype(np.float32), header).writeto(path, overwrite=True)
    return Path(path)
