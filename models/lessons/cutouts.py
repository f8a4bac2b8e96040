"""Lesson ``cutouts``: what a square cut out of a photograph shows, and that most squares show nothing."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field

from models.classifier_lesson import Arrays, Batch, ClassifierLesson, Examples, to_tensors
from models.lessons import lesson_options, register_lesson
from models.lessons.boxes import Parts, PhotographOptions, Pixels, read_parts
from models.photo_augment import MARGIN, Scene, colours
from models.photo_cutouts import background_square, cut, square_around
from survey_io.datasets.photographs import Photograph, PhotographSet
from survey_io.datasets.report import DataReport

if TYPE_CHECKING:
    from models.classifiers.cutouts import CutoutClassifier
    from models.training import TrainOptions

# Cut-outs of the curve while training.
_HELD_OUT = 1000


class CutoutOptions(PhotographOptions):
    """Options of the lesson."""

    background_share: float = Field(0.2, ge=0, lt=1, description="of the cut-outs, for networks with that class")


class CutoutExamples(Examples):
    """Cut-outs of photographs as a network takes them.

    Parameters
    ----------
    net : CutoutClassifier
    parts : callable
        Gives the photographs of each part.
    options : CutoutOptions
    """

    def __init__(self, net: CutoutClassifier, parts, options: CutoutOptions):
        from models.classifiers.cutouts import BACKGROUND

        self.net, self._parts = net, parts
        self.classes = net.answers.classes
        self.background = self.classes.index(BACKGROUND) if BACKGROUND in self.classes else None
        self.share = options.background_share if self.background is not None else 0.0
        self.pixels = Pixels(options.memory_megabytes)

    @property
    def description(self) -> str:
        """See `models.classifier_lesson.Examples`."""
        train = self.things(self._parts().train)
        extra = f" and {self.share:.0%} background" if self.share else ""
        return f"{len(train):,} things cut out of {len(self._parts().train):,} photographs{extra}"

    def things(self, photographs: PhotographSet) -> list[tuple[Photograph, int]]:
        """Every demanded box of a part: its photograph and row."""
        return [(item, row) for item in photographs.items for row in np.flatnonzero(~item.difficult)]

    @cached_property
    def _train(self) -> list[tuple[Photograph, int]]:
        return self.things(self._parts().train)

    def _empty(self, item: Photograph, rng: np.random.Generator) -> np.ndarray:
        """A cut-out of background, all grey where the photograph has no room for one."""
        scene = self.pixels(item)
        square = background_square(scene, rng)
        if square is None:
            return np.full((self.net.side, self.net.side, 3), MARGIN, np.uint8)
        return cut(scene.image, square, self.net.side, flip=bool(rng.random() < 0.5))

    def _arrays(self, pixels: list[np.ndarray], labels: list[int]) -> Arrays:
        classes = np.eye(len(self.classes), dtype=np.float32)[labels]
        return (self.net.prepare(np.stack(pixels)),), {"classes": classes}

    def draw(self, count: int, rng: np.random.Generator) -> Arrays:
        """See `models.classifier_lesson.Examples`."""
        pixels, labels = [], []
        for _ in range(count):
            item, row = self._train[rng.integers(len(self._train))]
            if rng.random() < self.share:
                one, label = self._empty(item, rng), self.background
            else:
                scene: Scene = self.pixels(item)
                grow, shift = np.exp(rng.uniform(-0.15, 0.25)), tuple(rng.uniform(-0.08, 0.08, 2))
                square = square_around(item.boxes[row], grow=grow, shift=shift)
                one = cut(scene.image, square, self.net.side, flip=bool(rng.random() < 0.5))
                label = int(item.labels[row])
            pixels.append(colours(one, rng))
            labels.append(label)
        return self._arrays(pixels, labels)

    def cutouts(self, photographs: PhotographSet, *, most: int | None = None) -> tuple[list[np.ndarray], list[int]]:
        """Every thing of a part, and as much background as in training; evenly thinned to ``most``."""
        things = self.things(photographs)
        if most is not None and len(things) > most:
            things = [things[i] for i in np.linspace(0, len(things) - 1, most).astype(int)]
        pixels = [cut(self.pixels(item).image, square_around(item.boxes[row]), self.net.side) for item, row in things]
        labels = [int(item.labels[row]) for item, row in things]
        rng = np.random.default_rng(20_240_101)
        for _ in range(round(len(things) * self.share / (1 - self.share))):
            pixels.append(self._empty(photographs.items[rng.integers(len(photographs))], rng))
            labels.append(self.background)
        return pixels, labels

    def fixed(self, part: str) -> Arrays:
        """See `models.classifier_lesson.Examples`."""
        return self._arrays(*self.cutouts(getattr(self._parts(), part)))


class CutoutLesson(ClassifierLesson):
    """How a classifier of cut-outs is trained: see `models.training.Lesson`."""

    def __init__(self, net: CutoutClassifier, options: TrainOptions):
        self.options, self.own, self.net = options, lesson_options(CutoutOptions, options), net
        super().__init__(CutoutExamples(net, lambda: self.parts, self.own), net.answers, batch=options.batch)

    @cached_property
    def checked(self) -> tuple[Parts, DataReport]:
        """The parts after the check of every image, and what it found."""
        from models.classifiers.cutouts import BACKGROUND

        known = tuple(one for one in self.net.answers.classes if one != BACKGROUND)
        return read_parts(self.options, self.own, known)

    @property
    def parts(self) -> Parts:
        """Photographs to train on, to choose by and to report on."""
        return self.checked[0]

    def check(self) -> DataReport:
        """Every image and box looked at."""
        return self.checked[1]

    def held_out(self) -> list[Batch]:
        """Cut-outs of the validation part in batches, thinned to what a look while training is worth."""
        pixels, labels = self.examples.cutouts(self.parts.validation, most=_HELD_OUT)
        found = []
        for first in range(0, len(pixels), 64):
            part = slice(first, first + 64)
            found.append(to_tensors(self.examples._arrays(pixels[part], labels[part])))
        return found

    @torch.no_grad()
    def draw(self, net, batch: Batch, path: Path) -> None:
        """Picture of a batch's first cut-outs with what they are and what the network says."""
        from matplotlib.figure import Figure

        inputs, targets = batch
        count = min(18, len(inputs[0]))
        net.eval()
        logits = net(inputs[0][:count].to(next(net.parameters()).device)).float().cpu()
        net.train()
        chance, said = torch.softmax(logits, dim=1).max(dim=1)
        true = targets["classes"][:count].argmax(dim=1)
        figure = Figure(figsize=(13, 7.5))
        axes = figure.subplots(3, 6).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, image, one, other, value in zip(axes, inputs[0], true, said, chance, strict=False):
            axis.imshow(image.permute(1, 2, 0).numpy())
            right = bool(one == other)
            text = f"{self.answers.classes[one]}" + ("" if right else f", taken for {self.answers.classes[other]}")
            axis.set_title(f"{text} {float(value):.2f}", fontsize=8, color="green" if right else "red")
        figure.tight_layout()
        figure.savefig(path, dpi=70)


@register_lesson("cutouts")
def cutouts_lesson(net: CutoutClassifier, options: TrainOptions) -> CutoutLesson:
    """Cut-outs of photographs with labelled boxes."""
    return CutoutLesson(net, options)
