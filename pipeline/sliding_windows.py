"""Detection by a classifier of cut-outs that slides over a photograph: the slow reference for detectors in one look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from models.boxes import from_centres, nms_overlap
from models.classifiers.cutouts import BACKGROUND
from models.engines.base import load_engine
from models.photo_augment import letterbox, show
from models.photo_cutouts import cut
from models.weights import load_weights
from models.yolo.photographs import Things
from survey_io.datasets.photographs import read_photograph
from survey_io.errors import OptionError

# Side of the canvas, and sides of windows with their steps, px: 1 + 9 + 49 = 59 windows, as in the course.
CANVAS = 288
WINDOWS = ((288, 288), (144, 72), (72, 36))


def window_boxes() -> np.ndarray:
    """All windows on the canvas, edges in px, shape (59, 4)."""
    found = []
    for side, step in WINDOWS:
        starts = np.arange(0, CANVAS - side + 1, step) - 0.5
        y, x = np.meshgrid(starts, starts, indexing="ij")
        found.append(np.stack([y.ravel(), x.ravel(), y.ravel() + side, x.ravel() + side], axis=-1))
    return np.concatenate(found).astype(np.float32)


class SlidingFinder:
    """A classifier of cut-outs with a class for background, used as a detector.

    Parameters
    ----------
    model : str or path
        Name of weights or a safetensors file.
    engine : str
        As `models.engines.base.load_engine`.
    threads : int

    Raises
    ------
    OptionError
        When the classifier does not know background: every window would then be a thing.
    """

    def __init__(self, model: str | Path, *, engine: str = "auto", threads: int = 2):
        self.net, self.card = load_weights(model)
        if self.net.answers.classes[-1:] != (BACKGROUND,):
            raise OptionError(
                f"{model}: its classes are {', '.join(self.net.answers.classes[:3])}, ... without {BACKGROUND!r}; "
                "expected a classifier trained with it, as by the recipe voc-cutouts-background"
            )
        self.engine = load_engine(engine, self.net, threads=threads)
        self.windows = window_boxes()

    def find(self, path: Path, *, least: float = 0.005, overlap: float = 0.3) -> Things:
        """Things on one image, best first, boxes in its px: windows, cut at the image, that show no background."""
        image = read_photograph(path)
        view = letterbox(image.shape[:2], CANVAS)
        canvas = show(image, view, CANVAS)
        pixels = np.stack([cut(canvas, window, self.net.side) for window in self.windows])
        logits = self.engine(self.net.prepare(pixels)).astype(np.float64)
        chance = np.exp(logits - logits.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        window, label = np.nonzero(chance[:, :-1] >= least)
        score = chance[window, label]
        boxes = self.windows[window]
        centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        apart = np.stack([label * 1e5, np.zeros(len(label))], axis=-1)
        keep = np.flatnonzero(nms_overlap(centre + apart, size, score, iou=overlap))
        keep = keep[np.argsort(-score[keep], kind="stable")]
        height, width = image.shape[:2]
        laid = view.back(from_centres(centre[keep], size[keep]), width)
        laid = np.clip(laid, -0.5, np.array([height, width, height, width]) - 0.5)
        return Things(laid.astype(np.float32), score[keep].astype(np.float32), label[keep])

    def find_all(self, paths: Iterable[Path]) -> Iterator[Things]:
        """`find` on each image, in order."""
        return (self.find(path) for path in paths)

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()
