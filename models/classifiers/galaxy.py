"""Galaxies by their shapes: classes of them, or the 37 answers of Galaxy Zoo 2's decision tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from models.registry import register_model
from models.residual import PictureClassifier, averaged, residual_trunk
from models.votes import VoteAnswers
from survey_io.datasets.galaxy_zoo import COARSE_CLASSES

if TYPE_CHECKING:
    from models.classifier_lesson import ClassifierLesson
    from models.training import TrainOptions

# Galaxies are bright on a dark sky: the mean of SDSS colour pictures is about 0.1.
_MIDDLE, _WIDTH = 0.1, 0.2


class _Galaxy(PictureClassifier):
    """Residual trunk, mean over the picture, one dense layer; in use it averages over mirror images."""

    def __init__(
        self, classes: Sequence[str], outputs: int, *, side: int, width: int, blocks: Sequence[int], dropout: float,
        views: int, field: float, options: dict,
    ):  # fmt: skip
        super().__init__(side=side, channels=3, classes=classes, options=options, field=field)
        self.views = views
        self.width, self.dropout = 8 * width, dropout
        self.trunk = residual_trunk(
            3, [width, 2 * width, 4 * width, 8 * width], blocks, middle=_MIDDLE, width=_WIDTH
        )  # fmt: skip
        self.answer = self._last(outputs)

    def _last(self, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(self.width, outputs)
        )

    def _one_view(self, image: Tensor) -> Tensor:
        return self.answer(self.trunk(image))

    def forward(self, image: Tensor) -> Tensor:
        """Raw answers.

        Parameters
        ----------
        image : Tensor, shape (B, 3, side, side)
            As `prepare` makes it.

        Returns
        -------
        Tensor, shape (B, answers.outputs)
        """
        return averaged(self._one_view, image, 1 if self.training else self.views)


class GalaxyClassifier(_Galaxy):
    """Classes of galaxies.

    Parameters
    ----------
    classes : sequence of str, optional
        None: those of the data that it is trained on.
    side : int
        Pixels of the picture that it reads.
    width : int
        Channels at stride 2; 2, 4 and 8 times as many at strides 4, 8 and 16.
    blocks : sequence of int
        Residual blocks at these four strides.
    dropout : float
    views : int
        Mirror images averaged in use: 1, 2 or 4.
    field : float
        Central share of a picture's side that it reads.
    """

    name = "galaxy"

    def __init__(
        self, classes: Sequence[str] | None = None, side: int = 64, width: int = 16,
        blocks: Sequence[int] = (1, 1, 1, 1), dropout: float = 0.2, views: int = 4,
        field: float = 0.75,
    ):  # fmt: skip
        named = tuple(classes or COARSE_CLASSES)
        options = {
            "classes": None if classes is None else list(classes), "side": side, "width": width, "blocks": list(blocks),
            "dropout": dropout, "views": views, "field": field,
        }  # fmt: skip
        super().__init__(
            named, len(named), side=side, width=width, blocks=blocks, dropout=dropout, views=views, field=field,
            options=options
        )


class GalaxyVotes(_Galaxy):
    """All answers of the decision tree: a softmax for each question, see `models.votes.VoteAnswers`.

    Parameters
    ----------
    dispersion : bool
        Also how much the votes of a question scatter beyond chance; to be learned from counts only.
    side, width, blocks, dropout, views, field
        As for `GalaxyClassifier`.
    """

    name = "galaxy-votes"

    def __init__(
        self, dispersion: bool = False, side: int = 64, width: int = 16,
        blocks: Sequence[int] = (1, 1, 1, 1), dropout: float = 0.4, views: int = 4,
        field: float = 0.75,
    ):  # fmt: skip
        options = {
            "dispersion": dispersion, "side": side, "width": width, "blocks": list(blocks), "dropout": dropout,
            "views": views, "field": field,
        }  # fmt: skip
        answers = VoteAnswers(dispersion)
        super().__init__(
            answers.classes, answers.outputs, side=side, width=width, blocks=blocks, dropout=dropout, views=views,
            field=field, options=options,
        )  # fmt: skip
        self.answers = answers

    def lesson(self, options: TrainOptions) -> ClassifierLesson:
        """Galaxies with votes, in ``options.data``."""
        from models.lessons.votes import votes_lesson

        return votes_lesson(self, options)


class CourseGalaxy(PictureClassifier):
    """The lecture course's network: convolutions with group normalisation, classes averaged over the picture."""

    name = "galaxy-course"

    def __init__(self, classes: Sequence[str] | None = None, side: int = 64, field: float = 0.75):
        named = tuple(classes or COARSE_CLASSES)
        options = {"classes": None if classes is None else list(classes), "side": side, "field": field}
        super().__init__(side=side, channels=3, classes=named, options=options, field=field)
        layers: list[nn.Module] = []
        # Filter size and filters of each convolution; (0, groups) is pooling and normalisation.
        last = [(3, 128), (1, 64), (3, 128), (0, 16)]
        plan = [(5, 16), (0, 4), (3, 32), (0, 4), (3, 64), (0, 8), *(last if side < 128 else last * 2)]
        width = 3
        for size, filters in plan:
            if size:
                layers += [nn.Conv2d(width, filters, size, padding=size // 2), nn.LeakyReLU(0.1)]
                width = filters
            else:
                layers += [nn.MaxPool2d(2), nn.GroupNorm(filters, width)]
        self.trunk = nn.Sequential(*layers)
        self.width = width
        self.answer = self._last(len(named))

    def _last(self, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(self.width, outputs, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, image: Tensor) -> Tensor:
        """As `GalaxyClassifier.forward`."""
        return self.answer(self.trunk(2 * image - 1))


@register_model("galaxy", kind="classifier", ndim=2, reads="photograph")
def build_galaxy(**options) -> GalaxyClassifier:
    """Classes of galaxies in colour pictures: residual network of 0.3 million weights."""
    return GalaxyClassifier(**options)


@register_model("galaxy-votes", kind="classifier", ndim=2, reads="photograph")
def build_galaxy_votes(**options) -> GalaxyVotes:
    """The 37 answers of Galaxy Zoo 2's decision tree, a softmax for each question."""
    return GalaxyVotes(**options)


@register_model("galaxy-course", kind="classifier", ndim=2, reads="photograph")
def build_galaxy_course(**options) -> CourseGalaxy:
    """Classes of galaxies by the lecture course's network: the reference."""
    return CourseGalaxy(**options)
