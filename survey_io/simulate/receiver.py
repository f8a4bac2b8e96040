"""What receivers do to a spectrum of many channels: noise that changes with the tuning, baselines, gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from survey_io.simulate.render import FWHM_TO_SIGMA

# Correlation of neighbours and next neighbours after Hanning smoothing.
CORRELATION = (4 / 6, 1 / 6)


@dataclass(frozen=True)
class ReceiverModel:
    """How a band is covered.

    Attributes
    ----------
    tuned : float
        Share of spectra put together of several tunings, each with noise and offset of its own.
    ripple : float
        Share of spectra with standing waves.
    ripple_amplitude : float
        Mean amplitude of a wave in units of the channels' noise, exponentially distributed.
    ripple_period : (float, float)
        Channels, log-uniform.
    offset : float
        Standard deviation of a tuning's constant offset, in units of the noise.
    gapped : float
        Share of spectra that do not cover the whole band.
    coverage : (float, float)
        Share of the band that those cover, uniform.
    flagged : float
        Largest share of single channels or short runs that are flagged, in a third of the spectra.
    smoothed : float
        Share of spectra whose noise is correlated between channels as by Hanning smoothing: backends and resampling.
    spikes : float
        Share of spectra with one to five single channels that are wrong by 5 to 40 times the noise, up or down.
    """

    tuned: float = 0.6
    ripple: float = 0.4
    ripple_amplitude: float = 0.4
    ripple_period: tuple[float, float] = (60.0, 2000.0)
    offset: float = 1.0
    gapped: float = 0.6
    coverage: tuple[float, float] = (0.15, 0.95)
    flagged: float = 0.05
    smoothed: float = 0.25
    spikes: float = 0.15


@dataclass(frozen=True)
class Observation:
    """What the receivers add, in units of the typical noise.

    Attributes
    ----------
    noise : ndarray, shape (count,)
        Standard deviation of each channel; its median over the band is 1.
    baseline : ndarray, shape (count,)
        Offsets, standing waves and spikes.
    covered : ndarray of bool, shape (count,)
    smoothed : bool
        Whether the noise of neighbours is correlated, by `CORRELATION`.
    """

    noise: np.ndarray
    baseline: np.ndarray
    covered: np.ndarray
    smoothed: bool = False

    def draw_noise(self, rng: np.random.Generator) -> np.ndarray:
        """Noise of the channels, float32, in units of the typical one."""
        count = len(self.noise)
        if not self.smoothed:
            return rng.standard_normal(count, dtype=np.float32) * self.noise
        white = rng.standard_normal(count + 2, dtype=np.float32)
        return (white[:-2] + 2 * white[1:-1] + white[2:]) * (self.noise * np.float32(1 / np.sqrt(6)))

    def noise_gain(self, fwhm: np.ndarray) -> np.ndarray:
        """How much noisier a matched filter of Gaussian lines is than for independent channels: FWHM in channels.

        The filter's output varies by the noise's correlation times the line's own at the same lag.
        """
        square = 4 * (np.asarray(fwhm) * FWHM_TO_SIGMA) ** 2
        lags = enumerate(CORRELATION if self.smoothed else (), 1)
        return np.sqrt(1 + sum(2 * share * np.exp(-(lag**2) / square) for lag, share in lags))


def observe(count: int, rng: np.random.Generator, model: ReceiverModel) -> Observation:
    """Draw noise, baseline and coverage of a spectrum of so many channels."""
    channel = np.arange(count, dtype=np.float32)
    noise, baseline = np.ones(count, np.float32), np.zeros(count, np.float32)
    if rng.random() < model.tuned:
        edges = np.sort(rng.integers(0, count, rng.integers(1, 9)))
        edges = np.concatenate([[0], edges, [count]])
        level = np.exp(rng.normal(0, 0.25, len(edges) - 1)).astype(np.float32)
        offset = (model.offset * rng.standard_normal(len(edges) - 1)).astype(np.float32)
        noise *= np.repeat(level, np.diff(edges))
        baseline += np.repeat(offset * level, np.diff(edges))
    # The atmosphere and the receiver's response: a slow slope, and the rise towards the oxygen line near 118 GHz.
    # Straight between 100 knots: an exponential of every channel would cost as much as all the rest.
    slow = np.linspace(0, 1, 101)
    response = np.exp(rng.normal(0, 0.15) * (slow - 0.5)) * (1 + rng.uniform(0, 1.0) * np.exp((slow - 1) / 0.06))
    part = np.arange(-(-count // 100)) * (100 / count)
    noise *= (response[:-1, None] + np.diff(response)[:, None] * part).astype(np.float32).ravel()[:count]
    noise /= np.median(noise[::16])
    if rng.random() < model.ripple:
        for _ in range(rng.integers(1, 4)):
            period = np.exp(rng.uniform(*np.log(model.ripple_period)))
            wave = np.cos(channel * np.float32(2 * np.pi / period) + np.float32(rng.uniform(0, 2 * np.pi)))
            baseline += np.float32(rng.exponential(model.ripple_amplitude)) * wave
    if rng.random() < model.spikes:
        places = rng.integers(0, count, rng.integers(1, 6))
        height = np.exp(rng.uniform(np.log(5), np.log(40), len(places))) * rng.choice((-1.0, 1.0), len(places))
        baseline[places] += height * noise[places]
    covered = np.ones(count, bool)
    if rng.random() < model.gapped:
        covered = _coverage(count, rng.uniform(*model.coverage), rng)
    if model.flagged and rng.random() < 1 / 3:
        share = rng.uniform(0, model.flagged)
        length = int(rng.integers(1, 40))
        for first in rng.integers(0, count, max(int(share * count / length), 1)):
            covered[first : first + length] = False
    return Observation(noise, baseline, covered, bool(rng.random() < model.smoothed))


def _coverage(count: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Up to six windows at random places that together cover about a share of the band."""
    covered = np.zeros(count, bool)
    windows = int(rng.integers(1, 7))
    parts = rng.dirichlet(np.full(windows, 3.0)) * share * count
    gaps = rng.dirichlet(np.ones(windows + 1)) * (1 - share) * count
    first = gaps[0]
    for part, gap in zip(parts, gaps[1:], strict=True):
        covered[int(first) : int(first + part) + 1] = True
        first += part + gap
    return covered


def add_lines(sky: np.ndarray, lines: np.ndarray, unit: float) -> np.ndarray:
    """A spectrum with Gaussian lines added, each averaged over the channels.

    Parameters
    ----------
    sky : ndarray, shape (count,)
    lines : ndarray, shape (K, 3)
        Centre and FWHM in channels, peak before averaging in units of ``unit``.
    unit : float
    """
    centre, fwhm, peak = lines.T
    sigma = fwhm * FWHM_TO_SIGMA
    half = int(np.ceil(4 * sigma.max())) + 1
    window = np.rint(centre).astype(np.int64)[:, None] + np.arange(-half, half + 1)
    edge = np.rint(centre)[:, None] + np.arange(-half, half + 2) - 0.5
    share = np.diff(ndtr((edge - centre[:, None]) / sigma[:, None]), axis=1)
    value = unit * (peak * sigma * np.sqrt(2 * np.pi))[:, None] * share
    kept = (window >= 0) & (window < len(sky))
    out = sky + np.bincount(window[kept], value[kept], minlength=len(sky))
    return out.astype(sky.dtype)
