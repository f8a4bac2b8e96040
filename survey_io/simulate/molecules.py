"""Seeded spectra of molecular gas with known truth: 35,000 channels of 1 MHz from 80 to 115 GHz (Kessler et al. 2025).

Every spectrum is one source of one or two components of gas (`survey_io.simulate.radiation`), with lines of molecules
that no list has, seen by receivers with their tunings, baselines and gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from survey_io.errors import OptionError
from survey_io.line_lists import LIGHT_KMS, LineList, molecular_lines
from survey_io.simulate.radiation import Component, column_for_depth, paint
from survey_io.simulate.receiver import ReceiverModel, add_lines, observe
from survey_io.spectral_grid import SpectralGrid

# Channels are 80.000 to 80.001 GHz, and so on to 114.999 to 115.000.
GRID = SpectralGrid(start=80.0005, step=0.001, count=35_000, unit="GHz")
MIDDLE = 97.5
# A species whose brightest line has this S/N in a matched filter must be named; one whose lines together stay below the
# second is as good as absent; between them it is neither demanded nor punished.
DEMANDED, IGNORED_BELOW = 4.0, 2.5


@dataclass(frozen=True)
class MoleculeModel:
    """What the sources are like.

    Attributes
    ----------
    presence : (float, float)
        Least and greatest share of the species that a source has; drawn evenly for each.
    snr : (float, float)
        S/N of the brightest line in a matched filter, log-uniform.
    width : (float, float)
        FWHM of lines, km/s, log-uniform; a channel is 2.6 to 3.7 km/s wide.
    velocity : float
        Largest velocity against the grid's frame, km/s: spectra are shifted to rest as well as it is known.
    temperature : (float, float)
        Excitation temperatures, K, log-uniform for a source; its species scatter by 25%.
    depth : (float, float)
        Optical depth of the deepest line of the deepest species, log-uniform.
    depth_range : float
        How much shallower other species are at most, dex, uniform.
    beam : (float, float)
        The telescope's beam at 100 GHz, arcsec FWHM, log-uniform; sources are 3 to 100 arcsec.
    second : float
        Share of sources with a second component of another velocity, width, size and temperature.
    unknown : float
        Mean number of lines of unknown molecules per source, exponentially distributed; one source in ten has ten times
        as many.
    """

    presence: tuple[float, float] = (0.05, 0.6)
    snr: tuple[float, float] = (2.0, 60.0)
    width: tuple[float, float] = (0.8, 30.0)
    velocity: float = 30.0
    temperature: tuple[float, float] = (6.0, 130.0)
    depth: tuple[float, float] = (0.003, 10.0)
    depth_range: float = 1.7
    beam: tuple[float, float] = (1.0, 60.0)
    second: float = 0.3
    unknown: float = 8.0

    def __post_init__(self) -> None:
        for name in ("presence", "snr", "width", "temperature", "depth", "beam"):
            low, high = getattr(self, name)
            if not (0 <= low <= high and (low > 0 or name == "presence")):
                raise OptionError(f"{name}: expected two positive numbers, ascending, came {low:g} and {high:g}")


@dataclass(frozen=True)
class Source:
    """A source of gas: components of all the species of a line list, and lines of unknown origin.

    Attributes
    ----------
    components : tuple of Component
    unknown : ndarray, shape (K, 3)
        Centre (channels), FWHM (channels) and peak over the brightest known line's, of lines no list has.
    snr : float
        Of the brightest line, as it will be observed.
    """

    components: tuple[Component, ...]
    unknown: np.ndarray
    snr: float


@dataclass(frozen=True)
class MoleculeSpectrum:
    """One spectrum and its truth.

    Attributes
    ----------
    flux : ndarray of float32, shape (count,)
        Main-beam brightness temperature, K; NaN where the receivers did not look.
    noise : ndarray of float32, shape (count,)
        Standard deviation of each channel, K.
    sky : ndarray of float32, shape (count,)
        The lines alone, K.
    present : ndarray of bool, shape (species,)
    snr : ndarray, shape (species,)
        Of the brightest line in covered channels, by a matched filter: sqrt(sum (T / noise)^2) over its channels,
        without the lines of other species, less where noise is correlated; 0 where none is covered.
    total_snr : ndarray, shape (species,)
        Likewise of all its lines together.
    covered : ndarray of bool, shape (species,)
        Whether any line of the species lies in covered channels, present or not.
    source : Source
    """

    flux: np.ndarray
    noise: np.ndarray
    sky: np.ndarray
    present: np.ndarray
    snr: np.ndarray
    total_snr: np.ndarray
    covered: np.ndarray
    source: Source

    @property
    def demanded(self) -> np.ndarray:
        """Species that must be named, bool, shape (species,)."""
        return self.snr >= DEMANDED

    @property
    def ignored(self) -> np.ndarray:
        """Species that are neither demanded nor punished, bool, shape (species,)."""
        return (self.snr < DEMANDED) & (self.total_snr >= IGNORED_BELOW)


def draw_source(model: MoleculeModel, lines: LineList, rng: np.random.Generator) -> Source:
    """Draw what a source consists of; columns follow from optical depths, so that no species is always faint."""
    count = len(lines.species)
    present = rng.random(count) < rng.uniform(*model.presence)
    snr = _log_uniform(model.snr, rng)
    velocity, width = rng.uniform(-model.velocity, model.velocity), _log_uniform(model.width, rng)
    warmth, beam = _log_uniform(model.temperature, rng), _log_uniform(model.beam, rng)
    deepest = _log_uniform(model.depth, rng)
    components = []
    for order in range(1 + (rng.random() < model.second)):
        if order:
            # The second one is another cloud on the line of sight, or the warm core within an envelope.
            velocity = velocity + rng.normal(0, 0.6 * width + 1.0)
            width, warmth = width * np.exp(rng.normal(0, 0.4)), warmth * np.exp(rng.normal(0, 0.4))
            deepest *= 10 ** rng.uniform(-1.5, 0.3)
            present = present & (rng.random(count) < 0.7)
        temperature = np.clip(warmth * np.exp(rng.normal(0, 0.25, count)), 4.0, 300.0)
        widths = np.clip(width * np.exp(rng.normal(0, 0.1, count)), 0.2, 60.0)
        depth = np.where(present, deepest * 10 ** -rng.uniform(0, model.depth_range, count), 0.0)
        column = column_for_depth(lines, depth, temperature, widths)
        shifts = velocity + rng.normal(0, 0.05 * width, count)
        components.append(Component(column, temperature, shifts, widths, _log_uniform((3.0, 100.0), rng), beam))
    mean = model.unknown * (10.0 if rng.random() < 0.1 else 1.0)
    number = int(rng.exponential(mean)) if model.unknown else 0
    fwhm = width / LIGHT_KMS * MIDDLE / GRID.step * np.exp(rng.normal(0, 0.2, number))
    unknown = np.stack([rng.uniform(0, GRID.count, number), fwhm, 10 ** -rng.uniform(0, 2, number)], 1)
    return Source(tuple(components), unknown, snr)


def make_spectrum(
    source: Source, lines: LineList, rng: np.random.Generator, *, receiver: ReceiverModel | None = None
) -> MoleculeSpectrum:
    """Observe a source: lines, unknown lines, noise of the tunings, baselines, gaps.

    The noise is such that the brightest line, over the whole band, has the source's S/N where the noise is typical. Of
    a source without known lines it is 1 K, and its unknown lines are as bright as the S/N says.
    """
    count = len(lines.species)
    channel, alone, sky = _paint_all(source, lines)
    # One kind of S/N everywhere: that of a matched filter over a line's channels.
    pattern = observe(GRID.count, rng, receiver or ReceiverModel())
    windows = _line_windows(source, lines)
    bright = _line_snr(channel, alone, windows, lines, np.ones(len(channel))) if len(channel) else np.zeros(count)
    rms = float(bright.max(initial=0.0)) / source.snr if bright.max(initial=0.0) > 0 else 1.0
    if len(source.unknown):
        peak = float(sky.max()) if len(channel) else source.snr
        sky = add_lines(sky, source.unknown, peak)
    noise = pattern.noise * np.float32(rms)
    flux = pattern.draw_noise(rng)
    flux += pattern.baseline
    flux *= np.float32(rms)
    flux += sky
    flux[~pattern.covered] = np.nan
    present = np.max([one.column for one in source.components], axis=0) > 0
    snr, total = np.zeros(count), np.zeros(count)
    if len(channel):
        weight = pattern.covered[channel] / noise[channel]
        snr = _line_snr(channel, alone, windows, lines, weight)
        total = np.sqrt(((alone * weight) ** 2).sum(1))
        if pattern.smoothed:
            gain = pattern.noise_gain(source.components[0].width / LIGHT_KMS * MIDDLE / GRID.step)
            snr, total = snr / gain, total / gain
    place = np.clip(np.rint((lines.frequency - GRID.start) / GRID.step).astype(np.int64), 0, GRID.count - 1)
    covered = np.bincount(lines.line_species, pattern.covered[place], minlength=count) > 0
    return MoleculeSpectrum(flux, noise, sky, present, snr, total, covered, source)


def _paint_all(source: Source, lines: LineList) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Channels with lines, brightness of each species alone in them (species, C), and the whole spectrum."""
    painted = [paint(lines, one, GRID) for one in source.components]
    sky = np.zeros(GRID.count, np.float32)
    for one in painted:
        sky[one.channel] += one.total
    channel = np.unique(np.concatenate([one.channel for one in painted]))
    alone = np.zeros((len(lines.species), len(channel)))
    for one in painted:
        alone[one.species[:, None], np.searchsorted(channel, one.channel)] += one.alone
    return channel, alone, sky


def _line_windows(source: Source, lines: LineList) -> np.ndarray:
    """First and last channel of each line, shape (L, 2): one FWHM to either side, over all components."""
    own = lines.line_species
    ends = []
    for one in source.components:
        centre = (lines.frequency * (1 - one.velocity[own] / LIGHT_KMS) - GRID.start) / GRID.step
        half = lines.frequency * one.width[own] / LIGHT_KMS / GRID.step + 1.0
        ends.append((centre - half, centre + half))
    return np.stack([np.min([low for low, _ in ends], axis=0), np.max([high for _, high in ends], axis=0)], 1)


def _line_snr(
    channel: np.ndarray, alone: np.ndarray, windows: np.ndarray, lines: LineList, weight: np.ndarray
) -> np.ndarray:
    """S/N of the brightest line of each species, shape (species,)."""
    power = np.concatenate([np.zeros((len(alone), 1)), np.cumsum((alone * weight) ** 2, axis=1)], axis=1)
    first = np.searchsorted(channel, windows[:, 0])
    last = np.searchsorted(channel, windows[:, 1], side="right")
    own = lines.line_species
    found = np.sqrt(np.maximum(power[own, last] - power[own, first], 0.0))
    best = np.zeros(len(alone))
    np.maximum.at(best, own, found)
    return best


def draw_spectrum(
    model: MoleculeModel, rng: np.random.Generator, *, lines: LineList | None = None,
    receiver: ReceiverModel | None = None,
) -> MoleculeSpectrum:  # fmt: skip
    """Draw a source and observe it; the lines are those that ship unless others are given."""
    lines = molecular_lines() if lines is None else lines
    return make_spectrum(draw_source(model, lines, rng), lines, rng, receiver=receiver)


def simulate_molecules(
    count: int, *, seed: int, model: MoleculeModel | None = None, lines: LineList | None = None,
    receiver: ReceiverModel | None = None,
) -> Iterator[MoleculeSpectrum]:  # fmt: skip
    """Spectra one after the other; the same seed gives the same ones, whatever their number."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield draw_spectrum(model or MoleculeModel(), rng, lines=lines, receiver=receiver)


def truth_table(spectra: list[MoleculeSpectrum], lines: LineList) -> Table:
    """One row for each spectrum and species: what is there and how well it can be seen."""
    names = np.array(lines.species)
    rows, number = len(spectra), len(names)
    table = Table({"spectrum": np.repeat(np.arange(rows), number), "species": np.tile(names, rows)})
    for name in ("present", "demanded", "ignored", "covered"):
        table[name] = np.concatenate([getattr(one, name) for one in spectra])
    for name, column in (("snr", "snr"), ("total_snr", "total_snr")):
        table[name] = np.concatenate([getattr(one, column) for one in spectra]).astype(np.float32)
    for name, unit in (("column", "1 / cm2"), ("temperature", "K"), ("velocity", "km / s"), ("width", "km / s")):
        # Of the first component, which most sources are.
        table[name] = np.concatenate([getattr(one.source.components[0], name) for one in spectra])
        table[name].unit = unit
    table.meta["demanded"] = f"brightest line at {DEMANDED:g} sigma or more in a matched filter"
    table.meta["ignored"] = f"fainter, but all lines together at {IGNORED_BELOW:g} sigma or more"
    return table


def write_molecules(spectra: list[MoleculeSpectrum], folder: Path, *, name: str, lines: LineList) -> dict[str, Path]:
    """Write spectra as the rows of one FITS image with a frequency axis, and the truth as a FITS table."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"spectra": folder / f"{name}.fits", "truth": folder / f"{name}_truth.fits"}
    header = fits.Header()
    header["OBJECT"], header["BUNIT"] = "simulated", "K"
    header["CTYPE1"], header["CUNIT1"] = "FREQ", "Hz"
    header["CRPIX1"], header["CRVAL1"], header["CDELT1"] = 1.0, GRID.start * 1e9, GRID.step * 1e9
    header["SPECSYS"] = "LSRK"
    fits.PrimaryHDU(np.stack([one.flux for one in spectra]).astype(">f4"), header).writeto(
        paths["spectra"], overwrite=True
    )
    truth_table(spectra, lines).write(paths["truth"], format="fits", overwrite=True)
    return paths


def _log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))
