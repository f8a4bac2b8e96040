"""What a lesson is, and which one a recipe asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from models.detector_lesson import DetectorLesson
from models.lessons import get_lesson
from models.train_options import TrainOptions


class Lesson(Protocol):
    """What a network learns from and how it is judged; a network with a method ``lesson(options)`` brings its own."""

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> IterableDataset:
        """Endless batches to train on: the numbers first, first + every, ..., each of which depends on the seed only.

        `models.streams.NumberedBatches` is the way to make them. A lesson may leave out ``first`` and ``every``: its
        runs cannot be resumed exactly then, and go on with another seed instead.
        """
        ...

    def held_out(self) -> list[Any]:
        """Batches that are never trained on, the same at every call."""
        ...

    def loss(
        self, net: nn.Module, batch: Any, device: torch.device, precision: str
    ) -> tuple[Tensor, dict[str, float]]:
        """Forward pass and loss of one batch on a device, with its terms by name; see `models.precision.autocast`."""
        ...

    def draw(self, net: nn.Module, batch: Any, path: Path) -> None:
        """Picture of what the network answers for a batch."""
        ...


def make_lesson(net: nn.Module, options: TrainOptions) -> Lesson:
    """The lesson that the recipe names, else the network's own, else that of detectors."""
    if options.lesson:
        return get_lesson(options.lesson)(net, options)
    own = getattr(net, "lesson", None)
    return DetectorLesson(net.head, options) if own is None else own(options)
