"""Planets in light curves: whether something transits, how often, how deep and for how long; and eclipsing binaries.

A network that only slides along a curve sees single dips. This one is also given what repeats: the periodogram of a
box search, and at its two likeliest periods the folded curve and every event (`models.transit_views`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.answers import Answers, Value
from models.box_search import TRIALS
from models.light_curves import flatten
from models.registry import register_model
from models.signature import NetworkInput
from models.transit_views import (
    CANDIDATES,
    EVENT,
    EVENTS,
    LOCAL,
    LOCALS,
    PACK,
    SCALARS,
    WHOLE,
    candidate_packs,
    search,
)
from survey_io.simulate.transits import CLASSES, GRID

if TYPE_CHECKING:
    from models.classifier_lesson import ClassifierLesson
    from models.training import TrainOptions

ANSWERS = Answers(
    CLASSES,
    values=(
        Value("period", "d", offset=0.5, scale=0.4, logarithmic=True),
        Value("depth", "", offset=-2.7, scale=0.7, logarithmic=True),
        Value("duration", "h", offset=0.45, scale=0.25, logarithmic=True),
    ),
)
# The numbers of a candidate that its values begin from.
_OWN = tuple(SCALARS.index(value.name) for value in ANSWERS.values)


def prepare(flux: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The network's input.

    Parameters
    ----------
    flux : ndarray, shape (N, L)
        On `GRID`, any unit, NaN where missing.
    seen : ndarray, shape (N, L)
        Share of each bin that was observed, 0..1.

    Returns
    -------
    ndarray of float32, shape (N, 4, L)
        The flattened curve in units of its noise (compressed beyond a few), 0 where missing; where there is flux; S/N
        of the best box at each trial period, then the same over its trend and scatter; what is told of two candidates.
    """
    curves = flatten(np.where(np.asarray(seen) > 0, flux, np.nan))
    found = search(curves)
    given = np.zeros((len(curves.flat), 4, GRID.count), np.float32)
    given[:, 0] = np.arcsinh(curves.flat / 2)
    given[:, 1] = curves.weight
    given[:, 2, :TRIALS] = np.arcsinh(found.power / 5)
    given[:, 2, TRIALS:] = found.efficiency / 5
    given[:, 3] = candidate_packs(curves, found).reshape(len(given), -1)
    return given


def _conv(inside: int, outside: int, taps: int, *, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv1d(inside, outside, taps, stride=stride, padding=taps // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm1d(outside), nn.ReLU())


def _pooled(x: Tensor) -> Tensor:
    """Mean and largest of each channel."""
    return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)


class TransitClassifier(nn.Module):
    """Small convolutional networks over the curve, the periodogram and each candidate's views, joined by dense layers.

    The period is that of a candidate, weighed by how likely each is, times a small correction; likewise depth and
    duration.

    Parameters
    ----------
    width : int
        Channels of the first layers; twice and three times as many behind.
    dense : int
        Units before the answers.
    dropout : float
    """

    name = "transits"
    grid, answers = GRID, ANSWERS
    inputs = (NetworkInput("light_curve", (4, GRID.count)),)
    prepare = staticmethod(prepare)
    # The window of a long light curve that is told of is the one least like this class.
    background = CLASSES[0]

    def __init__(self, width: int = 16, dense: int = 128, dropout: float = 0.4):
        super().__init__()
        self.options = {"width": width, "dense": dense, "dropout": dropout}
        self.curve = nn.Sequential(
            _conv(2, width, 9, stride=4), _conv(width, width, 7, stride=4), _conv(width, 2 * width, 7, stride=4),
            _conv(2 * width, 2 * width, 5),
        )  # fmt: skip
        self.powers = nn.Sequential(
            _conv(2, width, 9, stride=4), _conv(width, width, 7, stride=4), _conv(width, width, 7, stride=4)
        )
        self.whole = nn.Sequential(
            _conv(2, width, 7, stride=2), _conv(width, width, 5, stride=2), _conv(width, 2 * width, 5, stride=4),
            _conv(2 * width, width, 3), nn.Flatten(),
        )  # fmt: skip
        self.local = nn.Sequential(
            _conv(2 * LOCALS, 2 * width, 5), _conv(2 * width, 2 * width, 5, stride=2),
            _conv(2 * width, 2 * width, 5, stride=4), _conv(2 * width, width, 3), nn.Flatten(),
        )  # fmt: skip
        self.event = nn.Sequential(
            _conv(1, width, 7, stride=2), _conv(width, width, 5, stride=2), _conv(width, 2 * width, 5, stride=4)
        )
        places = (WHOLE // 16 + LOCAL // 8) * width
        per_event = 2 * width * (EVENT // 16)
        self.candidate = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(places + 2 * per_event + len(SCALARS), dense), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(dense, dense // 2), nn.ReLU(),
        )  # fmt: skip
        self.choice = nn.Linear(dense // 2, 1)
        self.answer = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(4 * width + 2 * width + CANDIDATES * dense // 2, dense), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(dense, ANSWERS.outputs),
        )  # fmt: skip

    def forward(self, light_curve: Tensor) -> Tensor:
        """Raw answers.

        Parameters
        ----------
        light_curve : Tensor, shape (B, 4, 4096)
            As `prepare` makes it.

        Returns
        -------
        Tensor, shape (B, answers.outputs)
        """
        curve = _pooled(self.curve(light_curve[:, :2]))
        powers = _pooled(self.powers(light_curve[:, 2].reshape(-1, 2, TRIALS)))
        packs = light_curve[:, 3].reshape(-1, PACK)
        ends = np.cumsum([2 * WHOLE, 2 * LOCALS * LOCAL, EVENTS * EVENT, len(SCALARS)]).tolist()
        whole = self.whole(packs[:, : ends[0]].reshape(-1, 2, WHOLE))
        local = self.local(packs[:, ends[0] : ends[1]].reshape(-1, 2 * LOCALS, LOCAL))
        event = self.event(packs[:, ends[1] : ends[2]].reshape(-1, 1, EVENT))
        event = event.reshape(-1, EVENTS, event.shape[1] * event.shape[2])
        scalars = packs[:, ends[2] : ends[3]]
        told = self.candidate(torch.cat([whole, local, event.mean(dim=1), event.amax(dim=1), scalars], dim=1))
        weight = torch.softmax(self.choice(told).reshape(-1, CANDIDATES), dim=1)
        begun = (scalars[:, _OWN].reshape(-1, CANDIDATES, len(_OWN)) * weight[:, :, None]).sum(dim=1)
        joined = torch.cat([curve, powers, told.reshape(-1, CANDIDATES * told.shape[1])], dim=1)
        logits, mean, log_sigma = ANSWERS.parts(self.answer(joined))
        return torch.cat([logits, begun + 0.3 * mean, log_sigma], dim=1)

    def lesson(self, options: TrainOptions) -> ClassifierLesson:
        """How it is trained: on simulated light curves."""
        from models.transit_lesson import transit_lesson

        return transit_lesson(self, options)


@register_model("transits", kind="classifier", ndim=1)
def build_transits(**options) -> TransitClassifier:
    """Light curves: planets in transit, eclipsing binaries or neither, with period, depth and duration."""
    return TransitClassifier(**options)
