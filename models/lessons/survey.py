"""Retraining a detector of images on real sky: your own survey, or SDC1 as published, with a truth or reference.

The network starts from weights that were trained on simulated sky and goes on with fields of both, so that it learns
what this survey's sources look like and forgets nothing else.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from models.beam import beam_vector
from models.checkpoints import start_from
from models.detector_lesson import DetectorLesson
from models.fields import Batch
from models.lessons import lesson_options, register_lesson
from models.registry import get_model
from models.survey_fields import Band, RealSky, SurveyFields
from models.visibility import Visibility, crowding_of, design, fit_visibility, match_found
from models.yolo.candidates import find_candidates
from survey_io.datasets.report import DataReport
from survey_io.datasets.ska_sdc1 import find_sdc1
from survey_io.datasets.sky_split import PARTS, TEST, TRAIN, VALIDATION, SkySplit, split_sky
from survey_io.datasets.survey import SurveyFiles, SurveyImage, find_survey, open_survey_image
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from models.training import TrainOptions

# Sources fainter than this say nothing of what can be seen.
FAINTEST_SNR = 0.7
# A detection counts as found from this log odds on.
FOUND_LOGIT = 0.0
# Side of the windows in which the starting network looks for sources, and of the overlap with their neighbours.
LOOK = 512


class SurveyOptions(BaseModel):
    """Options of the lesson."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: list[dict[str, Any]] = Field(
        default_factory=list, description="image, truth, primary_beam, area of each; none: by the names in data"
    )
    columns: dict[str, str] = Field(default_factory=dict, description="the truth's columns, where names differ")
    share: float = Field(0.5, gt=0, le=1, description="real fields among all; the others are simulated")
    fold: int = Field(0, ge=0, description="which strip is reported on")
    folds: int = Field(3, ge=1, description="strips that an image is cut into")
    validation: float = Field(0.2, gt=0, lt=0.6, description="share of the rest that thresholds are chosen on")
    guard: int = Field(0, ge=0, description="width of guard bands, px; 0: receptive field and beam")
    block: int = Field(100, ge=16, description="side of the blocks that errors are drawn over, px")
    demanded: float = Field(0.25, gt=0, le=1, description="visibility from which a source must be found")
    ignored: float = Field(0.06, ge=0, le=1, description="visibility below which a source is background")
    scorer: Literal["survey", "sdc1"] = Field("survey", description="sdc1: the challenge's own score")
    augment: bool = Field(True, description="turn fields and add noise")

    @model_validator(mode="after")
    def _band(self) -> SurveyOptions:
        if self.ignored > self.demanded:
            raise ValueError(f"ignored must not be above demanded, got {self.ignored} and {self.demanded}")
        return self


class Sdc1Options(SurveyOptions):
    """Options of the lesson of SDC1."""

    band: int = Field(1, description="1, 2 or 5: 560, 1400 or 9200 MHz")
    depth: str = Field("1000h", description="8h, 100h or 1000h")
    scorer: Literal["survey", "sdc1"] = "sdc1"


def survey_options(options: TrainOptions) -> SurveyOptions:
    """The options of a recipe whose lesson is this one."""
    return lesson_options(Sdc1Options if options.lesson == "sdc1" else SurveyOptions, options)


def survey_files(options: TrainOptions) -> list[SurveyFiles]:
    """The files that a recipe names.

    Raises
    ------
    OptionError
        When the recipe says not where its data is.
    """
    own = survey_options(options)
    if options.data is None:
        raise OptionError(f"lesson {options.lesson!r} learns from real sky: give --data DIR with images and catalogues")
    if isinstance(own, Sdc1Options) and not own.images:
        return [find_sdc1(options.data, band=own.band, depth=own.depth)]
    return find_survey(options.data, own.images)


def open_survey(options: TrainOptions, *, report: DataReport | None = None) -> list[SurveyImage]:
    """The opened images of a recipe; faults go into the report."""
    own = survey_options(options)
    return [open_survey_image(files, columns=own.columns, report=report) for files in survey_files(options)]


def split_image(image: SurveyImage, receptive_field: int, own: SurveyOptions) -> SkySplit:
    """How an image is split, for a network that sees so many px."""
    guard = own.guard or int(np.ceil(receptive_field + image.beam_px))
    return split_sky(
        image.area, fold=own.fold, folds=own.folds, guard=guard, validation=own.validation, name=image.name
    )


def check_survey(images: list[SurveyImage], splits: list[SkySplit], report: DataReport) -> DataReport:
    """Counts of the parts, and sources that are trained on in one image and reported on in another."""
    places: dict[int, set[tuple[int, int]]] = {TRAIN: set(), TEST: set()}
    for image, split in zip(images, splits, strict=True):
        s = image.sources
        part = split.part_at(s.y, s.x)
        report.counts[image.name] = {name: int((part == number).sum()) for number, name in enumerate(PARTS)}
        for number, known in places.items():
            rows = s.row[part == number]
            # Cells of a beam: the same sky listed in two catalogues is never the same number.
            cell = image.observation.beam.major / 3600.0
            ra, dec = image.truth.ra[rows], image.truth.dec[rows]
            cells = np.stack([np.floor(ra * np.cos(np.radians(np.round(dec, 1))) / cell), np.floor(dec / cell)], -1)
            known |= {(int(a), int(b)) for a, b in cells}
    both = sorted(places[TRAIN] & places[TEST])
    if len(images) > 1:
        report.add("sky that is trained on in one image and reported on in another", [str(c) for c in both], "refused")
    return report


class SurveyLesson(DetectorLesson):
    """See the module's text, and `models.training.Lesson`."""

    def __init__(self, net: nn.Module, options: TrainOptions):
        super().__init__(net.head, options)
        if self.head.ndim != 2:
            raise OptionError(
                f"lesson {options.lesson!r} trains detectors of images, got {options.name!r} of {self.head.ndim} axes"
            )
        self.own = survey_options(options)
        self.report = DataReport(options.lesson)
        self.images = open_survey(options, report=self.report)
        self.splits = [split_image(image, net.receptive_field, self.own) for image in self.images]
        check_survey(self.images, self.splits, self.report).require()
        self.parts = {
            part: [real_sky(image, split, part) for image, split in zip(self.images, self.splits, strict=True)]
            for part in (TRAIN, VALIDATION)
        }

    @property
    def description(self) -> str:
        """What was trained on, for the card."""
        names = ", ".join(image.observation.path.name for image in self.images)
        return (
            f"{self.options.size} px, {100 * self.own.share:.0f}% of them cut out of {names} (fold {self.own.fold} of "
            f"{self.own.folds} left out), the others simulated radio continuum sky"
        )

    def check(self) -> DataReport:
        """What a look at the data found."""
        return self.report

    @cached_property
    def visibility(self) -> Visibility:
        """How likely a source is found, by the network that is started from or, without one, by a threshold."""
        net = None
        if self.options.start is not None:
            # Not the network in training, which after a resumption is another one than at the start.
            net = get_model(self.options.name).build(**self.options.model_options)
            start_from(net, self.options.start, partial=self.options.start_partial)
        rows, found = [], []
        for sky in self.parts[TRAIN]:
            s = sky.sources
            centre, score = look(net, sky)
            seen = match_found(s.x, s.y, s.snr, centre, score, sky.beam_px)
            crowding = crowding_of(s.x, s.y, s.snr, sky.beam_px)
            y, x = (np.clip(np.rint(at).astype(int), 0, n - 1) for at, n in zip((s.y, s.x), sky.snr.shape, strict=True))
            use = sky.usable[y, x] & (s.snr > FAINTEST_SNR)
            rows.append(design(s.snr, s.flux / np.maximum(s.snr, 1e-9), crowding)[use])
            found.append(seen[use])
        return fit_visibility(np.concatenate(rows), np.concatenate(found))

    def fields(
        self, part: int, *, seed: int, share: float, augment: bool, first: int = 0, every: int = 1
    ) -> SurveyFields:
        """Batches of a part of the images."""
        return SurveyFields(
            self.head, [sky for sky in self.parts[part] if sky.area], visibility=self.visibility,
            band=Band(self.own.demanded, self.own.ignored), share=share, augment=augment,
            batch=self.options.batch, size=self.options.size, seed=seed, first=first, every=every,
        )  # fmt: skip

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> SurveyFields:
        """See `models.training.Lesson`."""
        return self.fields(
            TRAIN, seed=seed, share=self.own.share, augment=self.own.augment, first=first, every=every
        )

    def held_out(self) -> list[Batch]:
        """Real fields of the validation part, as they are."""
        source = iter(self.fields(VALIDATION, seed=987_654, share=1.0, augment=False))
        return [next(source) for _ in range(4)]


def real_sky(image: SurveyImage, split: SkySplit, part: int) -> RealSky:
    """A part of an image as fields are cut from it."""
    s = image.sources
    rms = image.background.at(s.y, s.x)[1]
    windows = split.windows(part)
    usable = np.zeros(image.observation.shape, bool)
    for window in windows:
        usable[window] = True
    snr = image.snr_map()
    usable &= np.isfinite(snr)
    scaled = type(s)(**{**vars(s), "flux": s.flux / rms})
    return RealSky(snr, scaled, image.beam, usable, windows)


@torch.no_grad()
def look(net: nn.Module | None, sky: RealSky) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n, 2) in px, (y, x), and log odds of what is found in the usable part of an image."""
    if net is None:
        found = get_model("threshold").build().find(sky.snr, sky.beam)
        score = np.clip(found["score"], 1e-9, 1 - 1e-9)
        odds = np.log(score / (1 - score))
        keep = odds > FOUND_LOGIT
        return np.stack([found["y"], found["x"]], -1)[keep], odds[keep]
    net.eval()
    device = next(net.parameters()).device
    stride = int(max(net.head.stride))
    halo = -(-net.receptive_field // 2 // stride) * stride + stride
    vector = torch.from_numpy(beam_vector(sky.beam))[None].to(device)
    centres, scores = [np.empty((0, 2))], [np.empty(0)]
    ny, nx = sky.snr.shape
    for y0 in range(0, ny, LOOK):
        for x0 in range(0, nx, LOOK):
            if not sky.usable[y0 : y0 + LOOK, x0 : x0 + LOOK].any():
                continue
            window = np.zeros((LOOK + 2 * halo,) * 2, np.float32)
            top, left = max(y0 - halo, 0), max(x0 - halo, 0)
            piece = sky.snr[top : y0 + LOOK + halo, left : x0 + LOOK + halo]
            window[top - y0 + halo :, left - x0 + halo :][: piece.shape[0], : piece.shape[1]] = np.nan_to_num(piece)
            raw = net(torch.from_numpy(window)[None, None].to(device), vector)[0].float().cpu().numpy()
            part = find_candidates(raw, net.head, beam_px=sky.beam_px, min_logit=FOUND_LOGIT)
            own = ((part.centre >= halo - 0.5) & (part.centre < halo + LOOK - 0.5)).all(axis=1)
            centres.append(part.centre[own] + (y0 - halo, x0 - halo))
            scores.append(part.logit[own])
    net.train()
    return np.concatenate(centres), np.concatenate(scores)


@register_lesson("survey")
@register_lesson("sdc1")
def build_survey_lesson(net: nn.Module, options: TrainOptions) -> SurveyLesson:
    """The lesson of real sky for a detector of images."""
    return SurveyLesson(net, options)
