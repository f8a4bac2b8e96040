"""Molecular species in spectra of 35,000 channels from 80 to 115 GHz, any number of them at once.

As in Kessler et al. (2025, A&A 704, A324) the network reads three normalisations of the same spectrum, has a trunk of
14 convolutions and answers with one probability a species. It need not learn where the lines are: beside the trunk it
looks through windows that are laid on the rest frequencies of the shipped list (`survey_io.line_lists`), all on one
scale of velocities, so that lines of one molecule, and molecules of one source, agree at the same place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor, nn

from models.answers import Answers
from models.registry import register_model
from models.signature import NetworkInput
from survey_io.line_lists import LIGHT_KMS, LineList, molecular_lines
from survey_io.simulate.molecules import GRID

if TYPE_CHECKING:
    from models.classifier_lesson import ClassifierLesson
    from models.training import TrainOptions

# Baseline and noise are medians over blocks of so many channels; those of noise are smoothed over so many blocks.
BLOCK, NOISE_BLOCKS = 125, 9
# Limits of the S/N: a line of this brightness needs no more, and nothing is deeper than noise.
LOWEST, HIGHEST = -6.0, 20.0
# Windows reach so far from rest on a scale of so many km/s, as fine as the finest channel.
REACH, STEP = 62.4, 2.6
TAPS = 7
_NORMAL = 1.4826


def prepare(flux: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The network's input: three normalisations of S/N, and where there is a measurement.

    A running baseline is taken off and the rest divided by its local noise, both robust to lines. The channels are S/N,
    clipped, a fifth of it; a third of its inverse hyperbolic sine; S/N over its largest value; and 1 where measured.

    Parameters
    ----------
    flux : ndarray, shape (N, 35000)
        On `GRID`, any unit, NaN where missing.
    seen : ndarray, shape (N, 35000)
        Share of each channel that was observed, 0..1.

    Returns
    -------
    ndarray of float32, shape (N, 4, 35000); 0 where missing
    """
    flux = np.where(np.asarray(seen) > 0.5, flux, np.nan).astype(np.float32, copy=False)
    good = np.isfinite(flux)
    blocks = np.where(good, flux, np.nan).reshape(len(flux), -1, BLOCK)
    level, counted = _medians(blocks)
    level = _filled(level, counted)
    rest = blocks - np.repeat(level, BLOCK, axis=1).reshape(blocks.shape)
    noise = _filled(_NORMAL * _medians(np.abs(rest))[0], counted)
    noise = median_filter(noise, (1, NOISE_BLOCKS), mode="nearest")
    noise = _between(noise)
    usable = good & (noise > 0)
    snr = np.divide(flux - _between(level), noise, out=np.zeros_like(flux), where=usable)
    out = np.empty((len(flux), 4, flux.shape[1]), np.float32)
    out[:, 0] = np.clip(snr, LOWEST, HIGHEST) / 5
    out[:, 1] = np.arcsinh(snr) / 3
    out[:, 2] = snr / np.maximum(snr.max(1, keepdims=True), 1.0)
    out[:, 3] = usable
    return out


def _medians(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median of each block and how many values it has, shape (N, blocks); NaN where it has none."""
    # Sorting puts NaN last, so that the median is at half the count.
    ordered = np.sort(blocks, axis=2)
    count = np.isfinite(ordered).sum(axis=2)
    found = np.take_along_axis(ordered, (np.maximum(count - 1, 0) // 2)[:, :, None], axis=2)[:, :, 0]
    return found, count


def _between(values: np.ndarray) -> np.ndarray:
    """Values of blocks as a straight line between their centres, constant beyond the first and last: every channel."""
    padded = np.concatenate([values[:, :1], values, values[:, -1:]], axis=1).astype(np.float32)
    part = np.arange(BLOCK, dtype=np.float32) / BLOCK
    lines = padded[:, :-1, None] + np.diff(padded, axis=1)[:, :, None] * part
    # The middle of a block of odd length is a channel: the first line starts so many channels before the first one.
    first = BLOCK - BLOCK // 2
    return lines.reshape(len(values), -1)[:, first : first + values.shape[1] * BLOCK]


def _filled(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Blocks with less than a fifth of their channels take over what lies between their neighbours'; 0 without any."""
    out, place = np.zeros(values.shape), np.arange(values.shape[1])
    for row in range(len(values)):
        known = counted[row] >= BLOCK // 5
        if not known.any():
            known = counted[row] > 0
        if known.any():
            out[row] = np.interp(place, place[known], values[row, known])
    return out


def window_channels(lines: LineList) -> np.ndarray:
    """Channel of `GRID` at each line (rows) and velocity (columns, ascending), int64."""
    velocity = np.arange(-REACH, REACH + STEP / 2, STEP)
    frequency = lines.frequency[:, None] * (1 - velocity / LIGHT_KMS)
    return np.clip(np.rint((frequency - GRID.start) / GRID.step), 0, GRID.count - 1).astype(np.int64)


class _Trunk(nn.Module):
    """14 convolutions of 7 taps and padding 3, the first ten of stride 2, and a dense layer over what is left."""

    def __init__(self, widths: tuple[int, ...], outside: int):
        super().__init__()
        layers: list[nn.Module] = []
        inside, length = 4, GRID.count
        for number, width in enumerate(widths):
            stride = 2 if number < 10 else 1
            layers += [
                nn.Conv1d(inside, width, TAPS, stride=stride, padding=TAPS // 2, bias=False),
                nn.BatchNorm1d(width), nn.ReLU(),
            ]  # fmt: skip
            inside, length = width, -(-length // stride)
        self.layers = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(inside * length, outside), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.layers(x))


class MoleculeClassifier(nn.Module):
    """Trunk, windows on the lines, and one logit a species.

    Parameters
    ----------
    widths : sequence of int
        Filters of the trunk's 14 convolutions.
    context : int
        Numbers that the trunk tells the answers.
    features : int
        Of a window at each velocity.
    hidden : int
        Of a species at each velocity, and of its answer.
    windows : bool
        False leaves the windows out: the trunk alone, as published.
    """

    name = "molecules"
    grid = GRID
    inputs = (NetworkInput("spectrum", (4, GRID.count)),)
    prepare = staticmethod(prepare)

    def __init__(
        self, widths: tuple[int, ...] = (8, 12, 16, 16, 24, 24, 32, 32, 32, 32, 32, 32, 32, 32), context: int = 64,
        features: int = 24, hidden: int = 32, windows: bool = True,
    ):  # fmt: skip
        super().__init__()
        if len(widths) != 14:
            raise ValueError(f"expected the filters of 14 convolutions, came {len(widths)}")
        self.options = {
            "widths": list(widths), "context": context, "features": features, "hidden": hidden, "windows": windows,
        }  # fmt: skip
        lines = molecular_lines()
        self.answers = Answers(lines.species, exclusive=False)
        species = len(lines.species)
        self.trunk = _Trunk(tuple(widths), context)
        self.windows = windows
        if not windows:
            self.answer = nn.Linear(context, species)
            return
        channels = window_channels(lines)
        self.places = channels.shape
        self.register_buffer("channels", torch.from_numpy(channels.ravel()))
        belongs = np.arange(species)[:, None] == lines.line_species
        self.register_buffer("belongs", torch.from_numpy(belongs.astype(np.float32)))
        self.look = nn.Sequential(
            nn.Conv2d(4, features, (1, TAPS), padding=(0, TAPS // 2), bias=False), nn.BatchNorm2d(features), nn.ReLU(),
            nn.Conv2d(features, features, (1, TAPS), padding=(0, TAPS // 2), bias=False), nn.BatchNorm2d(features),
            nn.ReLU(),
        )  # fmt: skip
        # What a feature of a line says of its species is the line's own: some lines are bright, others are not.
        self.mix = nn.Parameter(torch.randn(len(lines), features, features) * (2 / features) ** 0.5)
        self.shift = nn.Parameter(torch.zeros(len(lines), features, 1))
        self.judge = nn.Sequential(nn.Conv2d(features, hidden, (1, 5), padding=(0, 2)), nn.ReLU())
        self.common = nn.Sequential(nn.Conv1d(2 * hidden, hidden, 5, padding=2), nn.ReLU())
        self.weigh = nn.Sequential(nn.Conv2d(2 * hidden, hidden, 1), nn.ReLU())
        self.own = nn.Linear(2 * hidden, hidden)
        self.told = nn.Linear(context, hidden)
        self.last = nn.Parameter(torch.randn(species, hidden) * (1 / hidden) ** 0.5)
        self.prior = nn.Parameter(torch.full((species,), -2.0))

    def forward(self, spectrum: Tensor) -> Tensor:
        """Logit of each species.

        Parameters
        ----------
        spectrum : Tensor, shape (B, 4, 35000)
            As `prepare` makes it.

        Returns
        -------
        Tensor, shape (B, species)
        """
        context = self.trunk(spectrum)
        if not self.windows:
            return self.answer(context)
        seen = self.look(spectrum[:, :, self.channels].reshape(-1, 4, *self.places))
        # (B, lines, features, velocities): every line's own mixture, then the sum over each species' lines.
        lines = torch.relu(self.mix @ seen.transpose(1, 2) + self.shift)
        species = self.judge(self.belongs @ lines.transpose(1, 2))
        # What all species together say of each velocity: lines of one source agree.
        common = self.common(torch.cat([species.amax(2), species.mean(2)], 1))
        together = torch.cat([species, common[:, :, None].expand_as(species)], 1)
        weighed = self.weigh(together)
        found = torch.cat([weighed.amax(3), weighed.mean(3)], 1).transpose(1, 2)
        hidden = torch.relu(self.own(found) + self.told(context)[:, None])
        # As a product of matrices: of a product and a sum OpenVINO 2026.4 made a wrong one for more than 24 spectra.
        return (hidden[:, :, None] @ self.last[:, :, None]).flatten(1) + self.prior

    def lesson(self, options: TrainOptions) -> ClassifierLesson:
        """How it is trained: on simulated spectra of its lines."""
        from models.molecule_lesson import MoleculeLesson

        return MoleculeLesson(self, options)


@register_model("molecules", kind="classifier", ndim=1)
def build_molecules(**options) -> MoleculeClassifier:
    """Molecular species between 80 and 115 GHz, any number at once: 14 convolutions and windows on known lines."""
    return MoleculeClassifier(**options)
