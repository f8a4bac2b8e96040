"""Seeded light curves with known truth: transiting planets, eclipsing binaries, and stars with neither.

The window is a sector of TESS, 28.4 days, in bins of 10 minutes, the cadence of its full-frame images from the third
year on: the shortest transits (40 minutes) still have four bins, and 4096 bins are a size that networks like.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from survey_io.errors import OptionError
from survey_io.simulate.eclipses import SHAPES, Orbit, box, light_lost, scaled_axis, time_from_middle, trapezoid
from survey_io.simulate.star_noise import StarNoiseModel, coverage, log_uniform, systematics, variability
from survey_io.spectral_grid import SpectralGrid, resample
from survey_io.spectrum import Spectrum

GRID = SpectralGrid(start=0.0, step=1 / 144, count=4096, unit="d")
# Exclusive: a system that eclipses without a planet is a class of its own, since that is what most dips in surveys are.
CLASSES = ("none", "transit", "eclipsing binary")
# Bins of a light curve with a cadence of half an hour.
_COARSE = 3


@dataclass(frozen=True)
class TransitModel:
    """What light curves are like.

    Attributes
    ----------
    transit, binary : float
        Shares of curves with a planet and with an eclipsing binary.
    period : (float, float)
        Days, log-uniform; at least two events are observed.
    snr : (float, float)
        S/N of all transits together in a matched filter, sqrt(sum (dip / noise)^2) over observed bins, log-uniform. Of
        a box this is depth / noise * sqrt(bins in transit).
    bright : float
        Share of planets with an S/N from the greatest of ``snr`` to ten times that: giants around near stars.
    binary_snr : (float, float)
        Likewise of binaries.
    noise : (float, float)
        Standard deviation of a bin's white noise in relative flux, log-uniform.
    deepest : float
        No transit is deeper; the noise is lowered for those that would be.
    density : (float, float)
        Mean density of the star over the Sun's, log-uniform: what durations follow from.
    shape : str
        One of `survey_io.simulate.eclipses.SHAPES`, or "any": mostly limb-darkened.
    star : StarNoiseModel
        Variability, systematics and gaps.
    """

    transit: float = 0.4
    binary: float = 0.2
    period: tuple[float, float] = (0.5, 14.0)
    snr: tuple[float, float] = (5.0, 50.0)
    bright: float = 0.2
    binary_snr: tuple[float, float] = (7.0, 500.0)
    noise: tuple[float, float] = (5e-5, 5e-3)
    deepest: float = 0.03
    density: tuple[float, float] = (0.25, 6.0)
    shape: str = "any"
    star: StarNoiseModel = field(default_factory=StarNoiseModel)

    def __post_init__(self) -> None:
        for name in ("period", "snr", "binary_snr", "noise", "density"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise OptionError(f"{name}: expected two positive numbers, ascending, came {low:g} and {high:g}")
        longest = 0.5 * GRID.count * GRID.step
        if self.period[1] > longest or self.period[0] < 0.3:
            raise OptionError(f"period: expected 0.3 to {longest:g} d, two events in a window, came {self.period}")
        if not 0 <= self.bright <= 1:
            raise OptionError(f"bright: expected a share from 0 to 1, came {self.bright:g}")
        if min(self.transit, self.binary) < 0 or self.transit + self.binary > 1:
            raise OptionError(
                f"expected shares of transits and binaries that add to 1 or less, came {self.transit:g} and "
                f"{self.binary:g}"
            )
        if self.shape not in ("any", *SHAPES):
            raise OptionError(f"shape: expected any, {', '.join(SHAPES)}, came {self.shape!r}")


@dataclass(frozen=True)
class LightCurve:
    """One light curve and its truth; what only a dip has is NaN (or "") for a star without.

    Attributes
    ----------
    flux : ndarray of float64, shape (4096,)
        Relative flux on `GRID`, NaN where nothing was observed.
    dips : ndarray of float64, shape (4096,)
        Flux with the dips alone: 1 outside.
    noise : float
        Standard deviation of a bin's white noise.
    label : int
        Place in `CLASSES`.
    period, epoch, duration : float
        Days; the epoch is the middle of the first event in the window, from the middle of the first bin.
    depth : float
        Relative flux lost in the middle of the (primary) event.
    snr : float
        See `TransitModel.snr`.
    events : int
        Observed ones: with half of their bins or more.
    shape : str
    impact, ratio : float
        Impact parameter, and ratio of radii.
    second_depth : float
        Of a binary's secondary eclipse.
    coarse : bool
        Whether it was observed with a cadence of half an hour.
    """

    flux: np.ndarray
    dips: np.ndarray
    noise: float
    label: int = 0
    period: float = np.nan
    epoch: float = np.nan
    duration: float = np.nan
    depth: float = np.nan
    snr: float = 0.0
    events: int = 0
    shape: str = ""
    impact: float = np.nan
    ratio: float = np.nan
    second_depth: float = np.nan
    coarse: bool = False


def draw_light_curve(model: TransitModel, rng: np.random.Generator) -> LightCurve:
    """One light curve of a star that has a planet, a companion star or neither, as the model's shares say."""
    time = GRID.centres()
    label = int(np.searchsorted(np.cumsum([model.transit, model.binary]), rng.random(), side="right"))
    label = (1, 2, 0)[label]
    noise = log_uniform(*model.noise, rng)
    seen = coverage(time, model.star, rng)
    curve = LightCurve(np.ones(len(time)), np.ones(len(time)), noise)
    if label == 1:
        curve = _planet(time, seen, noise, model, rng)
    elif label == 2:
        curve = _binary(time, seen, noise, model, rng)
    noise = curve.noise
    flux = curve.dips * (1 + variability(time, noise, model.star, rng)) + systematics(time, noise, model.star, rng)
    flux += noise * rng.standard_normal(len(time))
    flux[~seen] = np.nan
    coarse = bool(rng.random() < model.star.coarse)
    return replace(curve, flux=_as_coarse(flux) if coarse else flux, coarse=coarse)


def _planet(
    time: np.ndarray, seen: np.ndarray, noise: float, model: TransitModel, rng: np.random.Generator
) -> LightCurve:
    shape = model.shape if model.shape != "any" else str(rng.choice(SHAPES, p=(0.15, 0.15, 0.7)))
    while True:
        period, density = log_uniform(*model.period, rng), log_uniform(*model.density, rng)
        bright = (model.snr[1], 10 * model.snr[1])
        snr = log_uniform(*(bright if rng.random() < model.bright else model.snr), rng)
        impact = rng.uniform(0.0, 0.95)
        axis = scaled_axis(period, density)
        if axis < 1.5:
            continue
        epoch = rng.uniform(0.0, period)
        offset = time_from_middle(time, period, epoch)
        # The depth follows from the S/N, and the planet's size from the depth.
        duration = Orbit(period, 0.05, impact, axis).duration
        inside = np.count_nonzero(seen & (np.abs(offset) < 0.5 * duration))
        if not inside:
            continue
        sigma = min(noise, 0.9 * model.deepest / snr * np.sqrt(inside))
        orbit = Orbit(period, float(np.sqrt(snr * sigma / np.sqrt(inside))), impact, axis, _limb(rng))
        pattern = _pattern(offset, orbit, shape, rng)
        events = _events(time, seen, period, epoch, orbit.duration)
        total = float(np.sqrt((pattern[seen] ** 2).sum()))
        if events < 2 or total == 0 or pattern.max() <= 0:
            continue
        depth = snr * sigma / total
        if depth <= model.deepest:
            return LightCurve(
                time, 1 - depth * pattern, sigma, 1, period, epoch, orbit.duration, depth, snr, events, shape, impact,
                orbit.ratio,
            )  # fmt: skip


def _pattern(offset: np.ndarray, orbit: Orbit, shape: str, rng: np.random.Generator) -> np.ndarray:
    """A transit's light curve with depth 1, averaged over each bin."""
    # A bin lasts as long as the ingress of a small planet.
    parts = []
    middle = np.zeros(1)
    rounded = rng.uniform(0.3, 0.95)
    for shift in (-GRID.step / 3, 0.0, GRID.step / 3):
        at = offset + shift
        if shape == "box":
            # What is box-shaped in the bins needs no averaging: the depth is that of every bin within.
            return box(offset, orbit.duration)
        if shape == "trapezoid":
            parts.append(trapezoid(at, orbit.duration, rounded * orbit.duration))
        else:
            parts.append(light_lost(at, orbit))
            middle = light_lost(np.zeros(1), orbit)
    return np.mean(parts, axis=0) / (middle[0] if shape == "limb-darkened" else 1.0)


def _binary(
    time: np.ndarray, seen: np.ndarray, noise: float, model: TransitModel, rng: np.random.Generator
) -> LightCurve:
    while True:
        period, density = log_uniform(*model.period, rng), log_uniform(*model.density, rng)
        ratio, impact = rng.uniform(0.2, 1.0), rng.uniform(0.0, 1.0)
        impact *= 0.98 * (1 + ratio)
        # Two stars pull together: a third more than one, and twice for twins.
        axis = scaled_axis(period, density) * (1 + ratio**2) ** (1 / 3)
        if axis < 1.25 * (1 + ratio):
            continue
        epoch = rng.uniform(0.0, period)
        offset = time_from_middle(time, period, epoch)
        # Surface brightness of the smaller star, and light of others within the aperture.
        bright = min(1.0, log_uniform(0.01, 2.0, rng))
        diluted = 1.0 if rng.random() < 0.6 else log_uniform(1.0, 30.0, rng)
        front, back = Orbit(period, ratio, impact, axis, _limb(rng)), Orbit(period, ratio, impact, axis, (0.0, 0.0))
        # Eccentric orbits shift the secondary eclipse from the half of the period.
        late = 0.5 * period + period * rng.normal(0, 0.06) * (rng.random() < 0.3)
        share = 1 / (1 + ratio**2 * bright) / diluted
        lost = np.zeros(len(time))
        behind = time_from_middle(time, period, epoch + late)
        for shift in (-GRID.step / 3, 0.0, GRID.step / 3):
            lost += share / 3 * light_lost(offset + shift, front)
            lost += share * bright / 3 * light_lost(behind + shift, back)
        depth = share * float(light_lost(np.zeros(1), front)[0])
        second = share * bright * float(light_lost(np.zeros(1), back)[0])
        # Tides make both stars eggs: dim in eclipse and half an orbit later.
        egg = share * rng.uniform(0.3, 1.2) * axis**-3 * (1 - min(impact / axis, 1.0) ** 2)
        lost += egg * (0.5 + 0.5 * np.cos(4 * np.pi * offset / period))
        events = _events(time, seen, period, epoch, front.duration)
        if depth < 2e-4 or events < 2:
            continue
        snr, power = log_uniform(*model.binary_snr, rng), float(np.sqrt((lost[seen] ** 2).sum()))
        noise = float(np.clip(power / snr, model.noise[0], 2 * model.noise[1]))
        if power / noise < model.binary_snr[0]:
            continue
        return LightCurve(
            time, 1 - lost, noise, 2, period, epoch, front.duration, depth, power / noise, events, "binary", impact,
            ratio, second,
        )  # fmt: skip


def _limb(rng: np.random.Generator) -> tuple[float, float]:
    """Quadratic limb darkening of stars from F to M in red light."""
    return rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.35)


def _events(time: np.ndarray, seen: np.ndarray, period: float, epoch: float, duration: float) -> int:
    """Events of which half was observed."""
    number = np.rint((time - epoch) / period).astype(int)
    inside = np.abs(time - epoch - number * period) < 0.5 * max(duration, GRID.step)
    count = np.bincount(number[inside] + 1, minlength=2)
    watched = np.bincount(number[inside & seen] + 1, minlength=len(count))
    return int(((count > 0) & (watched >= 0.5 * duration / GRID.step)).sum())


def _as_coarse(flux: np.ndarray) -> np.ndarray:
    """The same seen with a cadence of half an hour, and put on the grid as data of that cadence are."""
    count = len(flux) // _COARSE
    mean = flux[: count * _COARSE].reshape(count, _COARSE).mean(axis=1)
    axis = GRID.start + GRID.step * ((_COARSE - 1) / 2 + _COARSE * np.arange(count))
    spectrum = Spectrum("", "", axis, GRID.axis_unit, mean)
    return resample(spectrum, GRID)[0]


def simulate_transits(count: int, *, seed: int, model: TransitModel | None = None) -> Iterator[LightCurve]:
    """Light curves one after the other; the same seed gives the same ones, whatever their number."""
    for number in range(count):
        yield draw_light_curve(model or TransitModel(), np.random.default_rng([seed, number]))


def truth_table(curves: list[LightCurve]) -> Table:
    """One row a light curve: its class and, where it has dips, what they are."""
    table = Table({"name": [_name(row) for row in range(len(curves))]})
    table["class"] = [CLASSES[one.label] for one in curves]
    for name, unit in (
        ("period", "d"), ("epoch", "d"), ("duration", "d"), ("depth", ""), ("second_depth", ""), ("snr", ""),
        ("noise", ""), ("impact", ""), ("ratio", ""),
    ):  # fmt: skip
        table[name] = np.array([getattr(one, name) for one in curves])
        if unit:
            table[name].unit = unit
    for name in ("events", "shape", "coarse"):
        table[name] = [getattr(one, name) for one in curves]
    return table


def _name(row: int) -> str:
    return f"star {row + 1}"


def write_transits(
    curves: list[LightCurve], folder: Path, *, name: str = "transits", start: float = 1325.3
) -> dict[str, Path]:
    """Write light curves as the rows of one FITS table, and the truth as another.

    Parameters
    ----------
    curves : list of LightCurve
    folder : Path
    name : str
    start : float
        Middle of the first bin, as TESS counts: BJD - 2457000, days. Epochs in the truth count from the same day.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"light_curves": folder / f"{name}.fits", "truth": folder / f"{name}_truth.fits"}
    time = start + GRID.centres()
    table = Table({"NAME": [_name(row) for row in range(len(curves))]})
    table["TIME"] = np.repeat(time[None], len(curves), axis=0)
    table["TIME"].unit = "d"
    table["FLUX"] = np.stack([one.flux for one in curves])
    table["FLUX_ERR"] = np.stack([np.where(np.isfinite(one.flux), one.noise, np.nan) for one in curves])
    table.write(paths["light_curves"], format="fits", overwrite=True)
    truth = truth_table(curves)
    truth["epoch"] += start
    truth.write(paths["truth"], format="fits", overwrite=True)
    return paths
