"""Retraining a detector of cubes on real ones: SDC2 as published, or your own with a truth in its columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from models.cube_survey_fields import CubeSurveyFields, RealCube
from models.detector_lesson import DetectorLesson
from models.fields import Batch
from models.lessons import lesson_options, register_lesson
from survey_io.datasets.report import DataReport
from survey_io.datasets.ska_sdc2 import SurveyCube, find_sdc2, open_survey_cube
from survey_io.datasets.sky_split import PARTS, TRAIN, VALIDATION, SkySplit, split_sky
from survey_io.datasets.survey import SurveyFiles, find_survey
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from models.training import TrainOptions


class CubeSurveyOptions(BaseModel):
    """Options of the lessons ``cube-survey`` and ``sdc2``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: list[dict[str, Any]] = Field(
        default_factory=list, description="image (a cube) and truth of each; none: by the names in data"
    )
    part: str = Field("ldev", description="of SDC2: ldev, dev or full")
    share: float = Field(0.5, gt=0, le=1, description="real fields among all; the others are simulated")
    fold: int = Field(0, ge=0, description="which strip of the sky is reported on")
    folds: int = Field(3, ge=1, description="strips that the sky is cut into")
    validation: float = Field(0.2, gt=0, lt=0.6, description="share of the rest that training is watched on")
    guard: int = Field(0, ge=0, description="width of guard bands, px; 0: receptive field and beam")
    block: int = Field(60, ge=8, description="side of the blocks that errors are drawn over, px")
    demanded: float = Field(4.0, gt=0, description="expected S/N from which a galaxy must be found")
    ignored: float = Field(2.6, ge=0, description="expected S/N below which a galaxy is background")
    augment: bool = Field(True, description="turn fields")

    @model_validator(mode="after")
    def _band(self) -> CubeSurveyOptions:
        if self.ignored > self.demanded:
            raise ValueError(f"ignored must not be above demanded, got {self.ignored} and {self.demanded}")
        return self


def cube_files(options: TrainOptions) -> list[SurveyFiles]:
    """The files that a recipe names.

    Raises
    ------
    OptionError
        When the recipe says not where its data is.
    """
    own = lesson_options(CubeSurveyOptions, options)
    if options.data is None:
        raise OptionError(f"lesson {options.lesson!r} learns from real cubes: give --data DIR with cubes and truths")
    if options.lesson == "sdc2" and not own.images:
        return [find_sdc2(options.data, part=own.part)]
    return find_survey(options.data, own.images)


def split_cube(cube: SurveyCube, receptive_field: int | tuple[int, ...], own: CubeSurveyOptions) -> SkySplit:
    """How the sky of a cube is split, for a network that sees so many voxels."""
    seen = receptive_field if isinstance(receptive_field, int) else max(receptive_field[1:])
    guard = own.guard or int(np.ceil(seen + cube.beam_px))
    return split_sky(cube.area, fold=own.fold, folds=own.folds, guard=guard, validation=own.validation, name=cube.name)


class CubeSurveyLesson(DetectorLesson):
    """See the module's text, and `models.training.Lesson`."""

    def __init__(self, net: nn.Module, options: TrainOptions):
        super().__init__(net.head, options)
        if self.head.ndim != 3:
            raise OptionError(
                f"lesson {options.lesson!r} trains detectors of cubes, got {options.name!r} of {self.head.ndim} axes"
            )
        self.own = lesson_options(CubeSurveyOptions, options)
        self.report = DataReport(options.lesson)
        self.cubes = [open_survey_cube(files, report=self.report) for files in cube_files(options)]
        self.splits = [split_cube(cube, net.receptive_field, self.own) for cube in self.cubes]
        for cube, split in zip(self.cubes, self.splits, strict=True):
            part = split.part_at(cube.galaxies["y"], cube.galaxies["x"])
            self.report.counts[cube.name] = {name: int((part == number).sum()) for number, name in enumerate(PARTS)}
        self.report.require()

    @property
    def description(self) -> str:
        """What was trained on, for the card."""
        names = ", ".join(cube.cube.path.name for cube in self.cubes)
        sides = " x ".join(str(side) for side in self.options.cube_size)
        return (
            f"{sides} voxels, {100 * self.own.share:.0f}% of them cut out of {names} (fold {self.own.fold} of "
            f"{self.own.folds} left out), the others simulated HI cubes"
        )

    def check(self) -> DataReport:
        """What a look at the data found."""
        return self.report

    def fields(
        self, part: int, *, seed: int, share: float, augment: bool, first: int = 0, every: int = 1
    ) -> CubeSurveyFields:
        """Batches of a part of the cubes."""
        cubes = []
        for cube, split in zip(self.cubes, self.splits, strict=True):
            usable = np.zeros(cube.cube.shape[1:], bool)
            for window in split.windows(part):
                usable[window] = True
            cubes.append(RealCube(cube.cube.pixels, cube.noise, cube.galaxies, cube.beam_px, usable))
        return CubeSurveyFields(
            self.head, [cube for cube in cubes if cube.usable.any()], demanded=self.own.demanded,
            ignored=self.own.ignored, share=share, augment=augment, batch=self.options.batch,
            size=self.options.cube_size, seed=seed, first=first, every=every,
        )  # fmt: skip

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> CubeSurveyFields:
        """See `models.training.Lesson`."""
        return self.fields(TRAIN, seed=seed, share=self.own.share, augment=self.own.augment, first=first, every=every)

    def held_out(self) -> list[Batch]:
        """Real fields of the validation part, as they are."""
        source = iter(self.fields(VALIDATION, seed=987_654, share=1.0, augment=False))
        return [next(source) for _ in range(4)]


@register_lesson("cube-survey")
@register_lesson("sdc2")
def build_cube_survey_lesson(net: nn.Module, options: TrainOptions) -> CubeSurveyLesson:
    """The lesson of real cubes for a detector of cubes."""
    return CubeSurveyLesson(net, options)
