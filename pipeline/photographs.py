"""Finds things on photographs: the image laid on the network's canvas, run through an engine, and boxes laid back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.engines.base import load_engine
from models.photo_augment import letterbox, show
from models.weights import load_weights
from models.yolo.head import HeadSpec
from models.yolo.photographs import Things, decode_photographs
from survey_io.datasets.photographs import Photograph, read_photograph

from .scorers.average_precision import FoundBoxes, TrueBoxes

# Images that go through the network together.
BATCH = 8


@dataclass(frozen=True)
class Laid:
    """The raw map of one image, and how the image lay on the canvas."""

    raw: np.ndarray
    shape: tuple[int, int]
    size: int

    def things(self, head: HeadSpec, **settings: float) -> Things:
        """What is on the image, in its own px; ``settings`` as of `models.yolo.photographs.decode_photographs`."""
        found = decode_photographs(self.raw, head, **settings)
        boxes = letterbox(self.shape, self.size).back(found.boxes, self.shape[1])
        height, width = self.shape
        boxes = np.clip(boxes, -0.5, np.array([height, width, height, width]) - 0.5)
        return Things(boxes.astype(np.float32), found.scores, found.labels)


class PhotographFinder:
    """A trained detector of things on photographs.

    Parameters
    ----------
    model : str or path
        Name of weights or a safetensors file.
    engine : str
        As `models.engines.base.load_engine`.
    threads : int
    """

    def __init__(self, model: str | Path, *, engine: str = "auto", threads: int = 2):
        module, self.card = load_weights(model)
        self.head, self.size = module.head, module.size
        self.engine = load_engine(engine, module, threads=threads)
        # What was chosen on validation images when the weights were made.
        self.settings = {name: self.card.calibration[name] for name in ("overlap", "quality")
                         if name in self.card.calibration}  # fmt: skip

    def raw_maps(self, paths: Iterable[Path]) -> Iterator[Laid]:
        """Raw maps of images, in order."""
        pixels, shapes = [], []
        for path in paths:
            image = read_photograph(path)
            pixels.append(show(image, letterbox(image.shape[:2], self.size), self.size))
            shapes.append(image.shape[:2])
            if len(pixels) == BATCH:
                yield from self._run(pixels, shapes)
                pixels, shapes = [], []
        if pixels:
            yield from self._run(pixels, shapes)

    def _run(self, pixels: list[np.ndarray], shapes: list[tuple[int, int]]) -> Iterator[Laid]:
        batch = np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255
        for raw, shape in zip(self.engine(batch), shapes, strict=True):
            yield Laid(raw, shape, self.size)

    def find(self, path: Path, **settings: float) -> Things:
        """Things on one image, best first, boxes in its px."""
        (laid,) = self.raw_maps([path])
        return laid.things(self.head, **{**self.settings, **settings})

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()


def found_boxes(things: Things) -> FoundBoxes:
    """Things as a scorer takes them."""
    return FoundBoxes(things.boxes, things.scores, things.labels)


def true_boxes(items: Sequence[Photograph]) -> list[TrueBoxes]:
    """Labels as a scorer takes them."""
    return [TrueBoxes(item.boxes, item.labels, item.difficult) for item in items]
