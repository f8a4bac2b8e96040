"""Stars to train on: a library's spectra, at each draw with another velocity, resolution, noise, dust and coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr

from models.classifier_lesson import Arrays, ClassifierLesson, Examples
from survey_io.datasets.stellar_spectra import CLASSES, StellarLibrary, read_stellar_spectra, split_by_star
from survey_io.errors import OptionError
from survey_io.spectral_grid import resample
from survey_io.spectrum import Spectrum

if TYPE_CHECKING:
    from torch import nn

    from models.training import TrainOptions

# A spectral class in the literature is uncertain by about a subclass: stars near a border belong partly to both sides.
TYPE_SCATTER, SOFT_SHARE = 0.08, 0.5
LIGHT_KM_S = 299_792.458
# Ranges of what a draw changes: km/s; pixels of blurring (sigma); S/N per pixel; slope of dust in magnitudes from end
# to end; shares of draws with each.
VELOCITY, BLUR, SNR, DUST = 300.0, (0.3, 2.5), (10.0, 300.0), 2.0
BLUR_SHARE, NOISE_SHARE, GAP_SHARE, CUT_SHARE, MIX_SHARE = 0.5, 0.7, 0.3, 0.15, 0.5
MIX = 0.2


class StellarExamples(Examples):
    """A library on the network's grid.

    Parameters
    ----------
    library : StellarLibrary
    net : nn.Module
        With ``grid``, ``answers`` and ``prepare``.
    """

    def __init__(self, library: StellarLibrary, net: nn.Module):
        self.prepare, self.answers = net.prepare, net.answers
        kept = net.options.get("keep_continuum", False)
        self.dust = 0.0 if kept else DUST
        self.part = split_by_star(library.name, library.label)
        self.centres = net.grid.centres()
        placed = [
            resample(Spectrum(str(name), "", library.wavelength, net.grid.axis_unit, np.asarray(flux, float)), net.grid)
            for name, flux in zip(library.name, library.flux, strict=True)
        ]
        self.flux = np.stack([flux for flux, _ in placed])
        self.flux /= np.nanmedian(np.abs(self.flux), axis=1, keepdims=True)
        self.seen = np.stack([seen for _, seen in placed])
        self.filled = np.stack([_fill(row) for row in self.flux])
        self.hard, self.soft = np.eye(len(CLASSES))[library.label], soft_classes(library)
        values = np.stack([v.encode(getattr(library, v.name)) for v in net.answers.values], axis=1)
        self.known = np.isfinite(values)
        self.values = np.where(self.known, values, 0.0)
        train = np.flatnonzero(self.part == "train")
        counts = np.bincount(library.label[train], minlength=len(CLASSES))
        # Rare classes are drawn more often, but a few stars not over and over.
        weight = 1 / np.sqrt(np.maximum(counts, 1))[library.label[train]]
        self.train, self.weight = train, weight / weight.sum()
        state = "kept" if kept else "taken off"
        self.description = (
            f"{len(train)} stars of the Indo-US library (Valdes et al. 2004), continuum {state}, with random velocity, "
            "resolution, noise, dust and coverage"
        )

    def draw(self, count: int, rng: np.random.Generator) -> Arrays:
        """See `Examples`; half of the batches are mixtures of two stars each (mixup)."""
        rows = rng.choice(self.train, count, p=self.weight)
        pairs = [self._changed(row, rng) for row in rows]
        inputs = self.prepare(np.stack([flux for flux, _ in pairs]), np.stack([seen for _, seen in pairs]))
        targets = {"classes": self.soft[rows], "values": self.values[rows], "value_weight": self.known[rows] * 1.0}
        if rng.random() < MIX_SHARE:
            share, other = float(rng.beta(MIX, MIX)), rng.permutation(count)
            inputs = share * inputs + (1 - share) * inputs[other]
            targets["value_weight"] = targets["value_weight"] * targets["value_weight"][other]
            for name in ("classes", "values"):
                targets[name] = share * targets[name] + (1 - share) * targets[name][other]
        return (inputs,), targets

    def fixed(self, part: str) -> Arrays:
        """See `Examples`."""
        rows = self.part == part
        inputs = self.prepare(self.flux[rows], self.seen[rows])
        targets = {"classes": self.hard[rows], "values": self.values[rows], "value_weight": self.known[rows] * 1.0}
        return (inputs,), targets

    def _changed(self, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A star as another telescope would see it, on the same grid."""
        rest = self.centres / (1 + rng.uniform(-VELOCITY, VELOCITY) / LIGHT_KM_S)
        flux = np.interp(rest, self.centres, self.filled[row])
        seen = np.interp(rest, self.centres, self.seen[row])
        if rng.random() < BLUR_SHARE:
            flux = gaussian_filter1d(flux, rng.uniform(*BLUR), mode="nearest")
        length = len(flux)
        # A continuum that is kept is kept as the library has it.
        slope = rng.uniform(-self.dust, self.dust) * np.linspace(-0.5, 0.5, length)
        knots = np.interp(np.linspace(0, 1, length), np.linspace(0, 1, 8), rng.normal(0, 0.02, 8))
        flux = flux * 10 ** (0.4 * slope) * (1 + knots)
        if rng.random() < NOISE_SHARE:
            level = np.median(np.abs(flux)) / np.exp(rng.uniform(*np.log(SNR)))
            flux = flux + level * rng.standard_normal(length)
        if rng.random() < GAP_SHARE:
            first = int(rng.integers(0, length - 400))
            seen[first : first + int(rng.integers(50, 400))] = 0
        if rng.random() < CUT_SHARE:
            edge = int(rng.integers(200, length // 2))
            seen[slice(0, edge) if rng.random() < 0.5 else slice(length - edge, None)] = 0
        return np.where(seen >= 0.5, flux, np.nan), seen


def _fill(flux: np.ndarray) -> np.ndarray:
    """Missing pixels interpolated, so that shifting and blurring do not spread them."""
    known = np.isfinite(flux)
    places = np.arange(len(flux))
    return np.interp(places, places[known], flux[known])


def soft_classes(library: StellarLibrary) -> np.ndarray:
    """Targets of each star, shape (N, classes): half its own class, half the classes within a subtype's uncertainty."""
    middle = library.subtype + 0.05
    edges = np.arange(len(CLASSES) + 1)
    share = np.diff(ndtr((edges - middle[:, None]) / TYPE_SCATTER), axis=1)
    share /= share.sum(axis=1, keepdims=True)
    return SOFT_SHARE * share + (1 - SOFT_SHARE) * np.eye(len(CLASSES))[library.label]


def stellar_lesson(net: nn.Module, options: TrainOptions) -> ClassifierLesson:
    """The lesson of `models.classifiers.stellar`.

    Raises
    ------
    OptionError
        Without a folder of spectra.
    """
    if options.data is None:
        raise OptionError(
            f"model {net.name!r} is trained on real stars: give --data FOLDER with cflib.npz and labels.csv (Indo-US "
            "library of stellar spectra)"
        )
    return ClassifierLesson(StellarExamples(read_stellar_spectra(options.data), net), net.answers, batch=options.batch)
