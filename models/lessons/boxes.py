"""Lesson ``boxes``: things on photographs with labelled boxes, in the layouts of VOC and COCO."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.lessons import lesson_options, register_lesson
from models.photo_augment import Scene, colours, letterbox, mosaic, place, random_view
from models.precision import as_layout, autocast
from models.streams import NumberedBatches, shuffled_rows
from models.yolo.assign import assign_priors
from models.yolo.head import HeadSpec
from models.yolo.loss import LossWeights, yolo_loss
from survey_io.datasets.coco import read_coco
from survey_io.datasets.photographs import (
    Photograph,
    PhotographSet,
    check_photographs,
    read_photograph,
    split_by_name,
)
from survey_io.datasets.report import DataReport
from survey_io.datasets.voc import read_voc
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from models.training import TrainOptions

# The unit of position errors and of priors, px: there is no beam.
UNIT_PX = 1.0
# Classes weigh as much as presence, which has about two boxes of the grid for each thing, and O beside it.
WEIGHTS = LossWeights(
    presence=0.5, objectness=0.2, background=0.5, size=1.0, position=0.3, params=0.0, angle=0.0, classes=2.0
)


class PhotographOptions(BaseModel):
    """Options of lessons on photographs with boxes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Literal["voc", "coco"] = Field("voc", description="layout of the data")
    train: tuple[str, ...] = Field(("2007_trainval", "2012_trainval"), description="splits to train on")
    test: tuple[str, ...] = Field(("2007_test",), description="splits to report on")
    validation_share: float = Field(0.05, gt=0, lt=0.5, description="of the training images, kept to choose by")
    faults: Literal["mend", "refuse"] = Field("mend", description="what to do with faulty images and boxes")
    memory_megabytes: int = Field(1500, ge=0, description="decoded images kept in memory; the others are read anew")


class BoxesOptions(PhotographOptions):
    """Options of the lesson ``boxes``."""

    first_size: int = Field(0, ge=0, description="side at the beginning, px, growing to the network's; 0: its own")
    mosaic: float = Field(0.2, ge=0, le=1, description="share of training images put together of four")


# What a batch holds: images (B, 3, H, W) uint8, assigned (B, boxes, *grid), and the targets of models.yolo.loss.
Batch = tuple[Tensor, Tensor, dict[str, Tensor]]


class Pixels:
    """Decoded photographs, the first ones kept in memory."""

    def __init__(self, megabytes: int):
        self.left = megabytes * 1_000_000
        self.kept: dict[str, np.ndarray] = {}

    def __call__(self, item: Photograph) -> Scene:
        image = self.kept.get(item.name)
        if image is None:
            image = read_photograph(item.path)
            if image.nbytes <= self.left:
                self.left -= image.nbytes
                self.kept[item.name] = image
        return Scene(image, item.boxes, item.labels, item.difficult)


def make_batch(scenes: list[Scene], head: HeadSpec) -> Batch:
    """Scenes of one size as a batch with its assignment."""
    size = scenes[0].image.shape[0]
    grid = tuple(size // one for one in head.stride)
    # Priors count pixels of the size that the network is made for.
    priors = np.array(head.priors, np.float32)
    assigned, boxes, labels, first = [], [], [], 0
    for scene in scenes:
        ignored = scene.difficult
        one = assign_priors(scene.boxes, ignored, priors, grid, head.stride)
        # Only demanded boxes are targets: rows are counted over those of the whole batch.
        row = np.cumsum(~ignored) - 1 + first
        assigned.append(np.where(one >= 0, row[np.maximum(one, 0)] if len(row) else one, one))
        boxes.append(scene.boxes[~ignored])
        labels.append(scene.labels[~ignored])
        first += int((~ignored).sum())
    every = np.concatenate(boxes)
    classes = np.zeros((len(every), len(head.classes)), np.float32)
    classes[np.arange(len(every)), np.concatenate(labels)] = 1
    targets = {
        "centre": (every[:, :2] + every[:, 2:]) / 2, "size": every[:, 2:] - every[:, :2],
        "beam": np.full(len(every), UNIT_PX, np.float32), "params": np.zeros((len(every), 0), np.float32),
        "param_weight": np.zeros((len(every), 0), np.float32), "classes": classes,
    }  # fmt: skip
    images = np.ascontiguousarray(np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2))
    return (
        torch.from_numpy(images),
        torch.from_numpy(np.stack(assigned).astype(np.int32)),
        {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in targets.items()},
    )


class Drawn:
    """Augmented batches of photographs by number, for `models.streams.NumberedBatches`.

    Parameters
    ----------
    photographs : PhotographSet
    head : HeadSpec
    batch : int
    size : callable
        Side of the canvas, px, of batch number k.
    full : int
        Side that it has at last.
    options : BoxesOptions
    seed : int
        Of the order of the photographs.
    """

    def __init__(
        self, photographs: PhotographSet, head: HeadSpec, *, batch: int, size: Callable[[int], int], full: int,
        options: BoxesOptions, seed: int,
    ):  # fmt: skip
        self.photographs, self.head, self.batch, self.size, self.full = photographs, head, batch, size, full
        self.options, self.seed, self.pixels = options, seed, Pixels(options.memory_megabytes)

    def __call__(self, number: int, rng: np.random.Generator) -> Batch:
        """Batch of a number; each round shows every photograph once."""
        size, items = self.size(number), self.photographs.items
        scenes = []
        for row in shuffled_rows(len(items), self.batch, seed=self.seed, number=number):
            scene = self.pixels(items[row])
            if rng.random() < self.options.mosaic:
                others = [self.pixels(items[one]) for one in rng.integers(0, len(items), 3)]
                scene = mosaic([scene, *others], size, rng)
            else:
                # On small canvases things are shown larger, halfway to the size in px that they will have at last.
                view = random_view(scene.image.shape[:2], size, rng, zoom=math.sqrt(self.full / size))
                scene = place(scene, view, size)
            scenes.append(Scene(colours(scene.image, rng), scene.boxes, scene.labels, scene.difficult))
        return make_batch(scenes, self.head)


@dataclass(frozen=True)
class Parts:
    """The photographs of each part."""

    train: PhotographSet
    validation: PhotographSet
    test: PhotographSet


def read_parts(options: TrainOptions, own: PhotographOptions, classes: tuple[str, ...]) -> tuple[Parts, DataReport]:
    """Read and check the photographs of a recipe; classes are those that the network answers with.

    Raises
    ------
    OptionError
        When no data is given, or it has other classes.
    InputError
        As `survey_io.datasets.voc.read_voc`.
    """
    if options.data is None:
        raise OptionError(
            f"lesson {options.lesson!r}: no data given; expected --data DIR with the layout of VOC or COCO in it"
        )
    early = DataReport(str(options.data))
    read = {"voc": read_voc, "coco": read_coco}[own.layout]
    unknown = "drop" if own.faults == "mend" else "refuse"
    sets = {
        name: read(options.data, splits, report=early, unknown=unknown)
        for name, splits in (("train", own.train), ("test", own.test))
    }
    for one in sets.values():
        if one.classes != classes:
            raise OptionError(
                f"{options.data}: {len(one.classes)} classes ({', '.join(one.classes[:3])}, ...), but the network "
                f"answers with {len(classes)} ({', '.join(classes[:3])}, ...); expected the same: give "
                "model_options.classes"
            )
    left, report = check_photographs(f"lesson {options.lesson}", sets, faults=own.faults)
    report.problems[:0] = early.problems
    share = own.validation_share
    parts = split_by_name(left["train"].items, (("validation", share), ("train", 1 - share)))
    train, validation = (PhotographSet(classes, tuple(parts[name])) for name in ("train", "validation"))
    return Parts(train, validation, left["test"]), report


class BoxesLesson:
    """How a detector of things on photographs is trained: see `models.training.Lesson`."""

    input_scaling = "RGB of 0 to 1, the whole image laid on a grey square canvas with its aspect kept"

    def __init__(self, net: nn.Module, options: TrainOptions):
        self.head, self.size, self.options = net.head, net.size, options
        self.own = lesson_options(BoxesOptions, options)

    @cached_property
    def checked(self) -> tuple[Parts, DataReport]:
        """The parts after the check of every image, and what it found."""
        return read_parts(self.options, self.own, self.head.classes)

    @property
    def parts(self) -> Parts:
        """Photographs to train on, to choose by and to report on."""
        return self.checked[0]

    @property
    def description(self) -> str:
        """What is trained on, for the card."""
        splits = ", ".join(self.own.train)
        return f"{len(self.parts.train):,} photographs of {splits} in the layout of {self.own.layout}"

    def check(self) -> DataReport:
        """Every image and box looked at."""
        return self.checked[1]

    def size_of(self, index: int) -> int:
        """Side of the canvas of batch number ``index``: small images first, which cost less, and large ones last."""
        if not self.own.first_size:
            return self.size
        step = index // (self.options.accumulate * self.options.devices)
        share = min(1.0, step / max(1, 0.7 * self.options.steps))
        return int(32 * round((self.own.first_size + share * (self.size - self.own.first_size)) / 32))

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> NumberedBatches:
        """See `models.training.Lesson`."""
        drawn = Drawn(
            self.parts.train, self.head, batch=self.options.batch, size=self.size_of, full=self.size, options=self.own,
            seed=seed,
        )  # fmt: skip
        return NumberedBatches(drawn, seed=seed, first=first, every=every)

    def held_out(self) -> list[Batch]:
        """The validation part as it is, laid whole on the canvas."""
        pixels, found = Pixels(0), []
        items = self.parts.validation.items
        for start in range(0, len(items), self.options.batch):
            scenes = [pixels(item) for item in items[start : start + self.options.batch]]
            laid = [place(one, letterbox(one.image.shape[:2], self.size), self.size) for one in scenes]
            found.append(make_batch(laid, self.head))
        return found

    def loss(
        self, net: nn.Module, batch: Batch, device: torch.device, precision: str
    ) -> tuple[Tensor, dict[str, float]]:
        """See `models.training.Lesson`."""
        images, assigned, targets = batch
        images = as_layout(images.to(device, non_blocking=True).float().div_(255), net)
        with autocast(device, precision):
            raw = net(images)
        targets = {name: value.to(device) for name, value in targets.items()}
        return yolo_loss(raw, assigned.to(device), targets, self.head, weights=WEIGHTS)

    @torch.no_grad()
    def draw(self, net: nn.Module, batch: Batch, path: Path) -> None:
        """Picture of a batch's images with true boxes (green) and the network's (red, with class and score)."""
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        from models.yolo.photographs import decode_photographs

        images, assigned, targets = batch
        count = min(6, len(images))
        net.eval()
        raw = net(images[:count].to(next(net.parameters()).device).float() / 255).float().cpu().numpy()
        net.train()
        figure = Figure(figsize=(12, 8))
        for i, axis in enumerate(figure.subplots(2, 3).ravel()[:count]):
            axis.imshow(images[i].permute(1, 2, 0).numpy())
            axis.set_axis_off()
            rows = assigned[i][assigned[i] >= 0].unique()
            true = torch.cat([targets["centre"][rows], targets["size"][rows]], dim=1).numpy()
            for y, x, high, wide in true:
                axis.add_patch(Rectangle((x - wide / 2, y - high / 2), wide, high, fill=False, ec="lime", lw=1.2))
            found = decode_photographs(raw[i], self.head)
            for box, score, label in zip(found.boxes[:8], found.scores[:8], found.labels[:8], strict=True):
                if score >= 0.2:
                    corner = (box[1], box[0])
                    sides = (box[3] - box[1], box[2] - box[0])
                    axis.add_patch(Rectangle(corner, *sides, fill=False, ec="red", lw=1))
                    axis.text(*corner, f"{self.head.classes[label]} {score:.2f}", color="red", fontsize=7)
        figure.tight_layout()
        figure.savefig(path, dpi=70)


@register_lesson("boxes")
def boxes_lesson(net: nn.Module, options: TrainOptions) -> BoxesLesson:
    """Things on photographs with labelled boxes."""
    return BoxesLesson(net, options)
