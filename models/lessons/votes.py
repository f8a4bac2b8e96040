"""What networks learn from Galaxy Zoo's votes: the answers of many people to the questions of the decision tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from models.classifier_lesson import Batch
from models.lessons import lesson_options, register_lesson
from models.lessons.images import PictureExamples, PictureLesson, PictureOptions
from models.precision import autocast
from models.votes import VoteAnswers, votes_loss
from survey_io.datasets.galaxy_tree import QUESTIONS, question_shares
from survey_io.datasets.galaxy_zoo import read_galaxy_zoo
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from models.classifiers.galaxy import GalaxyVotes
    from models.training import TrainOptions

# A first question with more people than this has counts; fractions sum to 1.
_COUNTED = 1.5


class VotesOptions(PictureOptions):
    """Options of the lesson ``votes``."""

    squared: float = Field(
        1.0, ge=0, description="weight of the squared errors of the 37 fractions beside the likelihood"
    )
    debiased: bool = Field(False, description="share votes out by the catalogue's fractions debiased for redshift")


class VoteExamples(PictureExamples):
    """Galaxies with their votes."""

    def targets(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """See `PictureExamples.targets`."""
        return {"votes": self.pictures.votes[rows]}

    @property
    def counted(self) -> bool:
        """Whether the votes are counts of people."""
        return bool(question_shares(self.pictures.votes)[:, 0].mean() > _COUNTED)


class VotesLesson(PictureLesson):
    """How the answers of the decision tree are learned."""

    options: VotesOptions
    answers: VoteAnswers

    def loss(
        self, net: nn.Module, batch: Batch, device: torch.device, precision: str
    ) -> tuple[Tensor, dict[str, float]]:
        """See `models.training.Lesson`."""
        inputs, targets = batch
        with autocast(device, precision):
            raw = net(*(one.to(device, non_blocking=True) for one in inputs))
        return votes_loss(raw, targets["votes"].to(device), self.answers, squared=self.options.squared)

    def titles(self, raw: np.ndarray, targets: dict[str, np.ndarray]) -> list[tuple[str, bool]]:
        """The first question: the share of people that saw features, and what the network says."""
        first = QUESTIONS[0]
        said = self.answers.conditional(raw)[:, first.place]
        true = targets["votes"][:, first.place]
        true = true / true.sum(axis=1, keepdims=True)
        return [
            (f"features {100 * one[1]:.0f}%, said {100 * other[1]:.0f}%", bool(one.argmax() == other.argmax()))
            for one, other in zip(true, said, strict=True)
        ]


@register_lesson("votes")
def votes_lesson(net: GalaxyVotes, options: TrainOptions) -> VotesLesson:
    """Galaxies with the votes of the decision tree.

    Raises
    ------
    OptionError
        Without data, or with options that do not fit it.
    InputError
        For data that cannot be used.
    """
    chosen = lesson_options(VotesOptions, options)
    if options.data is None:
        raise OptionError("lesson 'votes': give --data FOLDER with Galaxy Zoo 2's pictures and votes")
    pictures = read_galaxy_zoo(
        options.data, target="votes", side=net.whole, split=chosen.split(), debiased=chosen.debiased,
        without=chosen.without, memory=chosen.memory, verify=chosen.verify,
    )  # fmt: skip
    examples = VoteExamples(pictures, net, chosen)
    if net.answers.dispersion and not examples.counted:
        raise OptionError(
            f"model_options.dispersion: {pictures.report.name} has fractions of votes; how votes scatter is learned "
            "from counts only"
        )
    return VotesLesson(examples, net.answers, batch=options.batch, options=chosen)
