"""What light curves hold beside the dips that one looks for: stars that vary, telescopes that do, and gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StarNoiseModel:
    """How often a light curve shows what, as shares of the curves, and how much.

    Attributes
    ----------
    spots : float
        Rotating spots, quasi-periodic, of ``spot_amplitude`` (relative flux) and ``rotation`` (days), log-uniform.
    pulsation : float
        One or two pulsation modes with overtones: sinusoids and saw teeth.
    granulation : float
        Correlated noise of hours; its rms is 0.1 to 1 times the white noise of a bin.
    flares : float
    dumps : float
        Repeated disturbances every 2 to 6 days, as momentum dumps leave them.
    ramps : float
        Exponential settling after gaps, and slow humps of scattered light.
    jumps : float
        Steps of level, some of which recover.
    outliers : float
        Single wild bins.
    lone_dips : float
        A dip that does not come again.
    gapped : float
        Further gaps beside that in the middle.
    coarse : float
        Cadence of half an hour in place of 10 minutes.
    """

    spots: float = 0.65
    spot_amplitude: tuple[float, float] = (1e-4, 2e-2)
    rotation: tuple[float, float] = (1.2, 40.0)
    pulsation: float = 0.12
    granulation: float = 0.5
    flares: float = 0.15
    dumps: float = 0.25
    ramps: float = 0.35
    jumps: float = 0.15
    outliers: float = 0.4
    lone_dips: float = 0.08
    gapped: float = 0.4
    coarse: float = 0.2

    @classmethod
    def quiet(cls) -> StarNoiseModel:
        """White noise alone, without any gap but the one in the middle."""
        shares = (name for name, kind in cls.__annotations__.items() if kind == "float")
        return cls(**dict.fromkeys(shares, 0.0))


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    """A number between the two, evenly distributed in its log."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def variability(time: np.ndarray, noise: float, model: StarNoiseModel, rng: np.random.Generator) -> np.ndarray:
    """What the star adds to a flux of 1; ``noise`` is the standard deviation of a bin's white noise."""
    added = np.zeros(len(time))
    if rng.random() < model.spots:
        added += spots(time, log_uniform(*model.rotation, rng), log_uniform(*model.spot_amplitude, rng), rng)
    if rng.random() < model.pulsation:
        added += pulsation(time, log_uniform(0.08, 12.0, rng), log_uniform(2 * noise, 100 * noise, rng), rng)
    if rng.random() < model.granulation:
        added += granulation(time, log_uniform(0.02, 0.3, rng), noise * log_uniform(0.1, 1.0, rng), rng)
    if rng.random() < model.flares:
        added += flares(time, noise, rng)
    return added


def spots(time: np.ndarray, period: float, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """Rotation with spots that come and go over one to five turns: a wave and its first overtone, both wandering."""
    total = np.zeros(len(time))
    life = period * rng.uniform(1.0, 5.0)
    for overtone, share in ((1, 1.0), (2, rng.uniform(0.0, 0.8))):
        angle = 2 * np.pi * overtone * time / period
        total += share * (_wander(time, life, rng) * np.cos(angle) + _wander(time, life, rng) * np.sin(angle))
    return amplitude * total


def _wander(time: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random curve of unit variance: random values a ``scale`` apart, joined by cosines."""
    place = (time - time[0]) / scale
    knots = rng.standard_normal(int(place[-1]) + 3)
    first = place.astype(int)
    weight = 0.5 - 0.5 * np.cos(np.pi * (place - first))
    return ((1 - weight) * knots[first] + weight * knots[first + 1]) / np.hypot(weight, 1 - weight)


def pulsation(time: np.ndarray, period: float, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """One or two modes; overtones make some of them rise fast and fall slowly."""
    total = np.zeros(len(time))
    for _ in range(1 + (rng.random() < 0.4)):
        phase, lean = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.5) * (rng.random() < 0.5)
        for overtone in range(1, 4):
            total += amplitude * lean ** (overtone - 1) * np.sin(overtone * (2 * np.pi * time / period + phase))
        period, amplitude = period * rng.uniform(0.3, 0.95), amplitude * rng.uniform(0.2, 0.9)
    return total


def granulation(time: np.ndarray, scale: float, rms: float, rng: np.random.Generator) -> np.ndarray:
    """Noise with the power 1 / (1 + (2 pi f scale)^4) (Kallinger et al. 2014) and this rms."""
    step = time[1] - time[0]
    white = np.fft.rfft(rng.standard_normal(len(time)))
    frequency = np.fft.rfftfreq(len(time), step)
    power = 1 / (1 + (2 * np.pi * frequency * scale) ** 4)
    power[0] = 0.0
    noise = np.fft.irfft(white * np.sqrt(power), len(time))
    # The expected rms, so that single curves scatter as chance has it.
    return noise * rms / np.sqrt(2 * power.sum() / len(time))


def flares(time: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Sudden rises with exponential decays, 1 to 15 of them, their energies in a power law."""
    total = np.zeros(len(time))
    for _ in range(int(rng.integers(1, 16))):
        since = time - rng.uniform(time[0], time[-1])
        height = noise * min(5 * rng.pareto(1.0) + 3, 300.0)
        total += height * np.where(since >= 0, np.exp(-np.maximum(since, 0) / log_uniform(0.01, 0.15, rng)), 0.0)
    return total


def systematics(time: np.ndarray, noise: float, model: StarNoiseModel, rng: np.random.Generator) -> np.ndarray:
    """What the telescope adds to a flux of 1."""
    added = np.zeros(len(time))
    first, last = time[0], time[-1]
    middle = 0.5 * (first + last)
    if rng.random() < model.dumps:
        every, strength = rng.uniform(2.0, 6.0), rng.choice([-1, 1]) * noise * log_uniform(1.5, 15, rng)
        decay = log_uniform(0.03, 0.4, rng)
        for event in np.arange(first + rng.uniform(0, every), last, every):
            since = time - event - rng.normal(0, 0.02)
            size = strength * np.exp(rng.normal(0, 0.5)) * (rng.random() < 0.85)
            added += np.where(since >= 0, size * np.exp(-np.maximum(since, 0) / decay), 0.0)
    if rng.random() < model.ramps:
        for start in (first, middle + 0.5):
            size = rng.normal(0, 8 * noise)
            since = time - start
            added += np.where(since >= 0, size * np.exp(-np.maximum(since, 0) / rng.uniform(0.2, 1.5)), 0.0)
            top, wide = start + rng.uniform(5, 13), rng.uniform(0.3, 2.0)
            added += rng.normal(0, 5 * noise) * np.exp(-0.5 * ((time - top) / wide) ** 2)
    if rng.random() < model.jumps:
        for _ in range(int(rng.integers(1, 4))):
            since = time - rng.uniform(first, last)
            size = rng.normal(0, 6 * noise)
            decay = log_uniform(0.1, 3, rng) if rng.random() < 0.6 else np.inf
            added += np.where(since >= 0, size * np.exp(-np.maximum(since, 0) / decay), 0.0)
    if rng.random() < model.outliers:
        where = rng.integers(0, len(time), int(rng.integers(1, 12)))
        added[where] += rng.choice([-1, 1], len(where)) * noise * rng.uniform(4, 30, len(where))
    if rng.random() < model.lone_dips:
        half = 0.5 * log_uniform(0.04, 0.6, rng)
        since = np.abs(time - rng.uniform(first, last))
        added -= noise * log_uniform(1, 20, rng) * np.clip((half - since) / (half * rng.uniform(0.1, 1.0)), 0, 1)
    return added


def coverage(time: np.ndarray, model: StarNoiseModel, rng: np.random.Generator) -> np.ndarray:
    """Which bins were observed: all but the gap in the middle, in which data are sent down, and further gaps."""
    length = time[-1] - time[0]
    seen = np.ones(len(time), bool)
    middle, half = time[0] + rng.uniform(0.45, 0.55) * length, 0.5 * rng.uniform(0.6, 1.6)
    seen &= np.abs(time - middle) > half
    if rng.random() < model.gapped:
        for _ in range(int(rng.integers(1, 5))):
            start = rng.uniform(time[0], time[-1])
            seen &= (time < start) | (time > start + log_uniform(0.05, 1.5, rng))
        seen &= rng.random(len(time)) > rng.uniform(0, 0.04)
        # Some are short: half a window, as a target at the edge of a field has it.
        if rng.random() < 0.3:
            seen &= time < time[0] + length * rng.uniform(0.5, 1.0)
    # The first hour is where a light curve begins.
    seen[:6] = True
    return seen
