"""What classifiers of pictures learn from: a folder with classes, in any of the public layouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from models.answers import Answers
from models.classifier_lesson import Arrays, Batch, ClassifierLesson, Examples, to_tensors
from models.lessons import lesson_options, register_lesson
from models.picture_augment import Changes, changed
from models.streams import NumberedBatches, shuffled_rows
from survey_io.datasets.cifar10 import read_cifar10
from survey_io.datasets.galaxy_zoo import read_galaxy_zoo
from survey_io.datasets.image_folder import read_image_folder
from survey_io.datasets.imagenet import read_imagenet
from survey_io.datasets.mnist import read_mnist
from survey_io.datasets.pictures import Pictures, Split
from survey_io.errors import InputError, OptionError

if TYPE_CHECKING:
    from models.residual import PictureClassifier
    from models.training import TrainOptions
    from survey_io.datasets.report import DataReport

# Pictures given to a network at once when they are judged.
PIECE = 256


class PictureOptions(BaseModel):
    """Options of lessons on pictures; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation: float = Field(0.1, ge=0, lt=1, description="share that chooses and calibrates, where none is published")
    test: float = Field(0.15, ge=0, lt=1, description="share that is reported on, where none is published")
    folds: int = Field(0, ge=0, description="parts of a cross-validation by the hash of names; 0: none")
    fold: int = Field(0, ge=0, description="the part of the cross-validation that is reported on")
    without: Path | None = Field(None, description="table of names to leave out, as another recipe is judged on them")
    memory: float = Field(2.0, gt=0, description="GiB of pixels that are kept in memory; more is read while training")
    verify: bool = Field(True, description="decode pictures that stay on disk once, to leave out broken ones")
    held_out: int = Field(2000, ge=1, description="largest number of pictures for the curve while training")
    turn: float = Field(0.0, ge=0, le=180, description="largest turn, degrees")
    flip: str = Field("", pattern="^(|h|v|hv)$", description="mirror images: h left-right, v up-down, hv both")
    scale: float = Field(0.0, ge=0, le=1, description="ln of the largest factor of size")
    shift: float = Field(0.0, ge=0, le=0.5, description="largest shift over the network's side")
    light: float = Field(0.0, ge=0, le=1, description="ln of the largest change of brightness and of contrast")
    colour: float = Field(0.0, ge=0, le=1, description="scatter of each colour's brightness")
    noise: float = Field(0.0, ge=0, le=1, description="largest noise added, of a full scale of 1")

    @property
    def changes(self) -> Changes:
        """How training pictures are changed."""
        return Changes(self.turn, self.flip, self.scale, self.shift, self.light, self.colour, self.noise)

    def split(self) -> Split:
        """How pictures are parted.

        Raises
        ------
        OptionError
            For shares or folds that cannot be.
        """
        try:
            return Split(self.validation, self.test, self.folds, self.fold)
        except ValueError as error:
            raise OptionError(f"lesson_options: {error}") from None


class ImagesOptions(PictureOptions):
    """Options of the lesson ``images``."""

    layout: Literal["folders", "galaxy_zoo", "imagenet", "mnist", "cifar10"] = Field(
        "folders", description="layout of the data"
    )
    smoothing: float = Field(0.0, ge=0, lt=0.5, description="share of a label that is given to all classes")
    balance: float = Field(0.0, ge=0, le=1, description="0: classes as often as they come; 1: all equally often")


class PictureExamples(Examples):
    """Pictures as a network takes them.

    Parameters
    ----------
    pictures : Pictures
    net : PictureClassifier
    options : PictureOptions
    """

    def __init__(self, pictures: Pictures, net: PictureClassifier, options: PictureOptions):
        self.pictures, self.prepare = pictures, net.prepare
        self.side, self.field = net.side, net.field
        self.changes = options.changes
        self.train = pictures.rows("train")
        if not len(self.train) or not len(pictures.rows("validation")):
            raise InputError(
                f"{pictures.report.name}: {len(self.train)} pictures to train on and "
                f"{len(pictures.rows('validation'))} to validate: too few to part"
            )
        self.description = f"{len(self.train):,} {pictures.source}"

    def targets(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the network is to answer for these pictures."""
        return {"classes": np.eye(len(self.pictures.classes), dtype=np.float32)[self.pictures.label[rows]]}

    def changed(self, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """These pictures, changed at random."""
        return changed(self.pictures.read(rows), self.side, self.changes, rng)

    def draw(self, count: int, rng: np.random.Generator) -> Arrays:
        """See `models.classifier_lesson.Examples`."""
        rows = rng.choice(self.train, count)
        return (self.changed(rows, rng).numpy(),), self.targets(rows)

    def fixed(self, part: str) -> Arrays:
        """See `models.classifier_lesson.Examples`."""
        return self.arrays(self.pictures.rows(part))

    def arrays(self, rows: np.ndarray) -> Arrays:
        """Input and targets of these pictures, unchanged."""
        return (self.prepare(self.pictures.read(rows)),), self.targets(rows)

    def pieces(self, part: str) -> Iterator[Arrays]:
        """As `fixed`, in pieces that fit into memory."""
        rows = self.pictures.rows(part)
        for first in range(0, len(rows), PIECE):
            yield self.arrays(rows[first : first + PIECE])


class PictureLesson(ClassifierLesson):
    """How classifiers of pictures are trained: see `models.training.Lesson`."""

    def __init__(self, examples: PictureExamples, answers: Any, *, batch: int, options: PictureOptions):
        super().__init__(examples, answers, batch=batch)
        self.options = options

    @property
    def input_scaling(self) -> str:
        """What the network reads, for the card."""
        return (
            f"colours 0 to 1 of the central {self.examples.field:.0%} of a square picture's side, reduced to "
            f"{self.examples.side} px"
        )

    def check(self) -> DataReport:
        """What the data holds and what is wrong with it."""
        return self.examples.pictures.report

    def rows(self, seed: int, number: int) -> np.ndarray:
        """The pictures of a batch: in each epoch all of them once."""
        return self.examples.train[shuffled_rows(len(self.examples.train), self.batch, seed=seed, number=number)]

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> NumberedBatches:
        """See `models.training.Lesson`."""

        def make(number: int, rng: np.random.Generator) -> Batch:
            rows = self.rows(seed, number)
            return self.batch_of(rows, (self.examples.changed(rows, rng),))

        return NumberedBatches(make, seed=seed, first=first, every=every)

    def batch_of(self, rows: np.ndarray, inputs: tuple[torch.Tensor, ...]) -> Batch:
        """Inputs with the targets to train on."""
        return inputs, to_tensors(((), self.examples.targets(rows)))[1]

    def held_out(self) -> list[Batch]:
        """The validation part in batches, not more than the options allow."""
        rows = self.examples.pictures.rows("validation")
        if len(rows) > self.options.held_out:
            rows = rows[np.linspace(0, len(rows) - 1, self.options.held_out).astype(int)]
        pieces = range(0, len(rows), PIECE)
        return [to_tensors(self.examples.arrays(rows[first : first + PIECE])) for first in pieces]

    @torch.no_grad()
    def draw(self, net: nn.Module, batch: Batch, path: Path) -> None:
        """Picture of a batch's first pictures with what they are and what the network says."""
        inputs, targets = batch
        inputs = tuple(one[:24] for one in inputs)
        device = next(net.parameters()).device
        net.eval()
        raw = net(*(one.to(device) for one in inputs)).float().cpu().numpy()
        net.train()
        texts = self.titles(raw, {name: one[:24].numpy() for name, one in targets.items()})
        draw_pictures(inputs[0].numpy(), texts, path)

    def titles(self, raw: np.ndarray, targets: dict[str, np.ndarray]) -> list[tuple[str, bool]]:
        """A line for each picture, and whether the answer is right."""
        names = self.answers.classes
        best, true = raw.argmax(axis=1), targets["classes"].argmax(axis=1)
        return [
            (names[k] if k == one else f"{names[one]}, taken for {names[k]}", bool(k == one))
            for k, one in zip(best, true, strict=True)
        ]


class ImagesLesson(PictureLesson):
    """Pictures with one class each."""

    options: ImagesOptions
    answers: Answers

    def __init__(self, examples: PictureExamples, answers: Answers, *, batch: int, options: ImagesOptions):
        super().__init__(examples, answers, batch=batch, options=options)
        labels = examples.pictures.label[examples.train]
        count = np.bincount(labels, minlength=len(answers.classes))
        weight = (1 / np.maximum(count, 1))[labels]
        share = (1 - options.balance) / len(labels) + options.balance * weight / weight.sum()
        self.cumulative = np.cumsum(share) if options.balance else None

    def rows(self, seed: int, number: int) -> np.ndarray:
        """See `PictureLesson.rows`; with balance, drawn with replacement."""
        if self.cumulative is None:
            return super().rows(seed, number)
        rng = np.random.default_rng([seed, number, 1])
        places = np.searchsorted(self.cumulative, rng.random(self.batch) * self.cumulative[-1], side="right")
        return self.examples.train[np.minimum(places, len(self.cumulative) - 1)]

    def batch_of(self, rows: np.ndarray, inputs: tuple[torch.Tensor, ...]) -> Batch:
        """See `PictureLesson.batch_of`."""
        inputs, targets = super().batch_of(rows, inputs)
        smooth = self.options.smoothing
        targets["classes"] = (1 - smooth) * targets["classes"] + smooth / targets["classes"].shape[1]
        return inputs, targets


def read_pictures(net: PictureClassifier, options: ImagesOptions, data: Path) -> Pictures:
    """The pictures of a folder in the layout that the options name."""
    side, split = net.whole, options.split()
    if options.layout != "galaxy_zoo" and options.without is not None:
        raise OptionError("lesson_options: without is known for the layout galaxy_zoo only")
    if options.layout == "galaxy_zoo":
        return read_galaxy_zoo(
            data, side=side, split=split, without=options.without, memory=options.memory, verify=options.verify
        )
    if options.layout == "mnist":
        return read_mnist(data, split=split)
    if options.layout == "imagenet":
        return read_imagenet(data, side=side, memory=options.memory, verify=options.verify)
    if options.layout == "cifar10":
        return read_cifar10(data, split=split)
    return read_image_folder(
        data, side=side, channels=net.channels, split=split, memory=options.memory, verify=options.verify
    )


def fit_classes(net: PictureClassifier, pictures: Pictures) -> Pictures:
    """Bring the classes of network and data together: a network without its own takes the data's.

    Raises
    ------
    OptionError
        When the network has classes and none of them is in the data.
    """
    if net.options["classes"] is None:
        net.take_classes(pictures.classes)
        return pictures
    known = net.answers.classes
    if known == pictures.classes:
        return pictures
    place = {name: i for i, name in enumerate(known)}
    found = np.array([place.get(name, -1) for name in pictures.classes] or [-1])
    label = found[pictures.label]
    if (label < 0).all():
        raise OptionError(
            f"model_options.classes: the network answers with {', '.join(known)}, the data has "
            f"{', '.join(pictures.classes)}: leave classes out to take the data's"
        )
    strange = [name for name in pictures.classes if name not in place]
    names = pictures.names[label < 0].tolist()
    pictures.report.add(f"class unknown to the network ({', '.join(strange)})", names, "dropped")
    keep = label >= 0
    fitting = pictures.take(keep)
    fitting = Pictures(**{**vars(fitting), "label": label[keep], "classes": known})
    fitting.count()
    return fitting


@register_lesson("images")
def images_lesson(net: PictureClassifier, options: TrainOptions) -> ImagesLesson:
    """Pictures with one class each.

    Raises
    ------
    OptionError
        Without data, or with options that do not fit it.
    InputError
        For data that cannot be used.
    """
    chosen = lesson_options(ImagesOptions, options)
    if options.data is None:
        raise OptionError(f"lesson 'images': give --data FOLDER with pictures in the layout {chosen.layout!r}")
    pictures = fit_classes(net, read_pictures(net, chosen, options.data))
    if pictures.channels != net.channels or pictures.side < net.side:
        raise OptionError(
            f"model {net.name!r} reads {net.side} px of {net.channels} colours; {pictures.report.name} has "
            f"{pictures.side} px of {pictures.channels}: choose a network that fits, as the recipe does"
        )
    return ImagesLesson(PictureExamples(pictures, net, chosen), net.answers, batch=options.batch, options=chosen)


def draw_pictures(images: np.ndarray, titles: list[tuple[str, bool]], path: Path, *, columns: int = 8) -> None:
    """Pictures (N, C, H, W), 0 to 1, in rows with a line under each, red where it is wrong."""
    from matplotlib.figure import Figure

    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(1.9 * columns, 2.15 * rows))
    for i, axis in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        axis.set_axis_off()
        if i < len(images):
            shown = images[i].transpose(1, 2, 0)
            axis.imshow(shown[..., 0] if shown.shape[2] == 1 else shown, cmap="gray", vmin=0, vmax=1)
            axis.set_title(titles[i][0], fontsize=7, color="black" if titles[i][1] else "firebrick", wrap=True)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
