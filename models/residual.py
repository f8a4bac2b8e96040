"""Small residual networks for pictures, shared by the classifiers of galaxies and of photographs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.answers import Answers
from models.signature import NetworkInput

if TYPE_CHECKING:
    from models.classifier_lesson import ClassifierLesson
    from models.training import TrainOptions


class PictureClassifier(nn.Module):
    """What all classifiers of pictures share; see `models.classifiers`.

    A picture comes to the network as ``prepare`` makes it: its central part, 0 to 1.

    Attributes
    ----------
    side, channels : int
        Of what it reads.
    field : float
        Central share of a picture's side that this is.
    options : dict
        That build it again.
    """

    name = ""

    def __init__(self, *, side: int, channels: int, classes: Sequence[str], options: dict, field: float = 1.0):
        super().__init__()
        if not 0 < field <= 1:
            raise ValueError(f"field {field:g}: expected a share of a picture's side, above 0 and up to 1")
        self.side, self.channels, self.field = side, channels, field
        self.options = options
        self.answers = Answers(tuple(classes))

    @property
    def inputs(self) -> tuple[NetworkInput, ...]:
        """See `models.signature.network_inputs`."""
        return (NetworkInput("image", (self.channels, self.side, self.side)),)

    @property
    def whole(self) -> int:
        """Side that a picture is reduced to, px, so that the part that is read has its own."""
        return round(self.side / self.field)

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """The network's input: the central square of pictures, shape (N, channels, side, side), float32, 0 to 1.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (N, H, W, channels)
            Whole pictures, ``whole`` px a side; not smaller than the network's side.
        """
        top, left = ((length - self.side) // 2 for length in pixels.shape[1:3])
        part = pixels[:, top : top + self.side, left : left + self.side]
        return np.ascontiguousarray(part.transpose(0, 3, 1, 2), np.float32) / np.float32(255)

    def take_classes(self, classes: Sequence[str]) -> None:
        """Answer with the classes of the data; the last layer begins anew where their number changes."""
        if len(classes) != self.answers.outputs:
            self.answer = self._last(len(classes))
        self.answers = Answers(tuple(classes))
        self.options["classes"] = list(classes)

    @abstractmethod
    def _last(self, outputs: int) -> nn.Module:
        """A new last layer, which ``self.answer`` is."""

    def lesson(self, options: TrainOptions) -> ClassifierLesson:
        """Pictures with classes, in ``options.data``."""
        from models.lessons.images import images_lesson

        return images_lesson(self, options)


class Normalise(nn.Module):
    """Values of 0 to 1 to about -1 to 1, about the middle that such pictures have."""

    def __init__(self, middle: float, width: float):
        super().__init__()
        self.middle, self.width = middle, width

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.middle) / self.width


class _Block(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution of its own where sides or channels change."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside),
        )  # fmt: skip
        same = stride == 1 and inside == outside
        self.beside = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(inside, outside, 1, stride=stride, bias=False), nn.BatchNorm2d(outside)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layers(x) + self.beside(x))


def residual_trunk(
    channels: int, widths: Sequence[int], blocks: Sequence[int], *, first: int = 5, stride: int = 2,
    middle: float = 0.5, width: float = 0.25,
) -> nn.Sequential:  # fmt: skip
    """Layers from a picture to features: each stage but the first halves the sides.

    Parameters
    ----------
    channels : int
        Of the picture.
    widths, blocks : sequence of int
        Channels and residual blocks of each stage.
    first, stride : int
        Size and stride of the first convolution.
    middle, width : float
        See `Normalise`.
    """
    layers: list[nn.Module] = [
        Normalise(middle, width),
        nn.Conv2d(channels, widths[0], first, stride=stride, padding=first // 2, bias=False),
        nn.BatchNorm2d(widths[0]), nn.ReLU(),
    ]  # fmt: skip
    for stage, (inside, outside) in enumerate(pairwise([widths[0], *widths])):
        for block in range(blocks[stage]):
            step = 2 if stage and not block else 1
            layers.append(_Block(inside if not block else outside, outside, step))
    return nn.Sequential(*layers)


def averaged(run: Callable[[Tensor], Tensor], image: Tensor, views: int) -> Tensor:
    """Mean answer over a picture and its mirror images: 1, 2 (left-right) or 4 (both ways) views."""
    seen = [image]
    if views >= 2:
        seen.append(image.flip(3))
    if views >= 4:
        seen += [one.flip(2) for one in seen]
    return torch.stack([run(one) for one in seen]).mean(dim=0) if views > 1 else run(image)
