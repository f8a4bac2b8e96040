"""Spectral classes of stars, with effective temperature, gravity and metallicity, from optical spectra.

The network reads continuum-normalised flux: in the libraries of this field the continuum is partly an artefact of the
known class (the Indo-US library's was forced to a template of it), and dust changes it in the sky.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor, nn

from models.answers import Answers, Value
from models.registry import register_model
from models.signature import NetworkInput
from survey_io.datasets.stellar_spectra import CLASSES
from survey_io.spectral_grid import SpectralGrid

if TYPE_CHECKING:
    from models.classifier_lesson import ClassifierLesson
    from models.training import TrainOptions

GRID = SpectralGrid(start=3466.6, step=1.6, count=3753, unit="Angstrom")
ANSWERS = Answers(
    CLASSES,
    values=(
        Value("teff", "K", offset=3.75, scale=0.15, logarithmic=True),
        Value("logg", "", offset=3.0, scale=1.2),
        Value("feh", "", offset=-0.2, scale=0.5),
    ),
)
# The continuum is the running median of this many bins of so many pixels: 243 Angstrom, wide beside the Balmer lines.
_BIN, _WINDOW = 8, 19
# Normalised flux is clipped: some spectra carry spikes of many times the continuum.
_LOWEST, _HIGHEST = -1.0, 1.0


def continuum(flux: np.ndarray) -> np.ndarray:
    """Running median of spectra, shape (N, L), NaN ignored; NaN where a spectrum has no value at all."""
    flux = np.asarray(flux, np.float64)
    length = flux.shape[1]
    bins = -(-length // _BIN)
    padded = np.full((len(flux), bins * _BIN), np.nan)
    padded[:, :length] = flux
    # Sorting puts NaN last: the median of what is there is at half its count.
    ordered = np.sort(padded.reshape(len(flux), bins, _BIN), axis=2)
    count = np.isfinite(ordered).sum(axis=2)
    low, high = np.maximum(count - 1, 0) // 2, np.maximum(count // 2, 0)
    pick = [np.take_along_axis(ordered, place[:, :, None], axis=2)[:, :, 0] for place in (low, high)]
    coarse = np.where(count > 0, 0.5 * (pick[0] + pick[1]), np.nan)
    at, places = (np.arange(length) + 0.5) / _BIN - 0.5, np.arange(bins)
    found = np.full(flux.shape, np.nan)
    for row in np.flatnonzero((count > 0).any(axis=1)):
        known = count[row] > 0
        filled = np.interp(places, places[known], coarse[row, known])
        found[row] = np.interp(at, places, median_filter(filled, _WINDOW, mode="nearest"))
    return found


def prepare(flux: np.ndarray, seen: np.ndarray, *, keep_continuum: bool = False) -> np.ndarray:
    """The network's input: flux over continuum less 1 (0 where missing), and where there is flux.

    Parameters
    ----------
    flux : ndarray, shape (N, L)
        On `GRID`, any unit, NaN where missing.
    seen : ndarray, shape (N, L)
        Share of each bin that was observed, 0..1.
    keep_continuum : bool
        Divide by the spectrum's median in place of its continuum: to measure how much the continuum gives away.

    Returns
    -------
    ndarray of float32, shape (N, 2, L)
    """
    if keep_continuum:
        flux = np.asarray(flux, np.float64)
        middle = np.nanmedian(np.where(np.isfinite(flux).any(axis=1, keepdims=True), flux, 0), axis=1, keepdims=True)
        level = np.broadcast_to(middle, flux.shape)
    else:
        level = continuum(flux)
    with np.errstate(invalid="ignore", divide="ignore"):
        lines = flux / level - 1
    good = np.isfinite(lines) & (level > 0) & (seen > 0)
    highest = 4 * _HIGHEST if keep_continuum else _HIGHEST
    return np.stack([np.where(good, np.clip(lines, _LOWEST, highest), 0.0), good], axis=1).astype(np.float32)


class _Classifier(nn.Module):
    """What both networks share; see `models.classifiers`."""

    grid, answers = GRID, ANSWERS
    inputs = (NetworkInput("spectrum", (2, GRID.count)),)
    prepare = staticmethod(prepare)

    def lesson(self, options: TrainOptions) -> ClassifierLesson:
        """How it is trained: on the library in ``options.data``."""
        from models.stellar_lesson import stellar_lesson

        return stellar_lesson(self, options)


class _Block(nn.Module):
    """Residual block of two convolutions, the first dilated."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 5, padding=2, bias=False),
            nn.BatchNorm1d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


def _down(inside: int, outside: int, taps: int) -> nn.Sequential:
    """A convolution that keeps every fourth pixel."""
    return nn.Sequential(
        nn.Conv1d(inside, outside, taps, stride=4, padding=taps // 2, bias=False), nn.BatchNorm1d(outside), nn.ReLU()
    )


class _Member(nn.Module):
    """Residual network to 59 places of 102 Angstrom, each with a few features, and a dense layer over all of them."""

    def __init__(self, width: int, features: int, dense: int, dropout: float):
        super().__init__()
        self.trunk = nn.Sequential(
            _down(2, width, 9), _Block(width, 1),
            _down(width, 2 * width, 5), _Block(2 * width, 1), _Block(2 * width, 2),
            _down(2 * width, 2 * width, 5), _Block(2 * width, 1),
            nn.Conv1d(2 * width, features, 1), nn.ReLU(),
        )  # fmt: skip
        places = -(-GRID.count // 64)
        self.answer = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(features * places, dense), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(dense, ANSWERS.outputs),
        )  # fmt: skip

    def forward(self, spectrum: Tensor) -> Tensor:
        return self.answer(self.trunk(spectrum))


class StellarClassifier(_Classifier):
    """Several small residual networks that learn apart and answer together.

    A few hundred stars leave each of them with errors of its own, which the mean of their answers has less of.

    Parameters
    ----------
    width : int
        Channels at stride 4; twice as many behind.
    features : int
        Kept per place.
    dense : int
        Units before the answers.
    dropout : float
    members : int
        Networks whose answers are averaged.
    keep_continuum : bool
        Read flux with its continuum: only to measure how much that gives away.
    """

    name = "stellar"

    def __init__(
        self, width: int = 16, features: int = 12, dense: int = 128, dropout: float = 0.4, members: int = 4,
        keep_continuum: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.options = {
            "width": width, "features": features, "dense": dense, "dropout": dropout, "members": members,
            "keep_continuum": keep_continuum,
        }  # fmt: skip
        if keep_continuum:
            self.prepare = partial(prepare, keep_continuum=True)
        self.members = nn.ModuleList(_Member(width, features, dense, dropout) for _ in range(members))

    def forward(self, spectrum: Tensor) -> Tensor:
        """Raw answers.

        Parameters
        ----------
        spectrum : Tensor, shape (B, 2, 3753)
            As `prepare` makes it.

        Returns
        -------
        Tensor, shape (B, answers.outputs)
            While training (members, B, answers.outputs): each member learns from its own errors.
        """
        answers = torch.stack([member(spectrum) for member in self.members])
        return answers if self.training else answers.mean(dim=0)


class CourseClassifier(_Classifier):
    """The lecture course's network: three strided convolutions and two dense layers, on the flux alone.

    It was given flux with its continuum; here it reads what the other network reads, but for where there is flux.
    """

    name = "stellar-course"

    def __init__(self, dropout: float = 0.4):
        super().__init__()
        self.options = {"dropout": dropout}
        layers: list[nn.Module] = [nn.ConstantPad1d((0, 3776 - GRID.count), 0.0)]
        for inside, outside in ((1, 8), (8, 16), (16, 32)):
            layers += [nn.Conv1d(inside, outside, 8, stride=4, padding=2), nn.ReLU()]
        layers += [nn.Flatten()]
        for inside in (32 * 59, 256):
            layers += [nn.Linear(inside, 256), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(256, ANSWERS.outputs))

    def forward(self, spectrum: Tensor) -> Tensor:
        """As `StellarClassifier.forward`."""
        return self.layers(spectrum[:, :1])


@register_model("stellar", kind="classifier", ndim=1)
def build_stellar(**options) -> StellarClassifier:
    """Stellar classes O to M with Teff, log g and [Fe/H]: residual network (default for spectra)."""
    return StellarClassifier(**options)


@register_model("stellar-course", kind="classifier", ndim=1)
def build_stellar_course(**options) -> CourseClassifier:
    """Stellar classes O to M by the lecture course's network, 0.6 million weights: the reference."""
    return CourseClassifier(**options)
