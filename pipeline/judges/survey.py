"""How detectors are judged on real sky: the whole pipeline on the image, scored on the strips kept for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.lessons.survey import open_survey, split_image, survey_options
from models.outline import load_outline
from models.train_options import TrainOptions
from pipeline.calibrate_survey import calibrate_survey
from pipeline.judges import register_calibrator, register_judge
from pipeline.judges.evaluation import Evaluation
from pipeline.survey_score import PartScore, find_sources, score_part
from survey_io.datasets.sky_split import TEST


@register_judge("survey", "sdc1")
def judge_survey(
    weights: str | Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> Evaluation:
    """Run the pipeline with these weights, at their own threshold, and score the part that nothing was chosen on.

    The units are blocks of the image, so that errors hold the sky's own unevenness.
    """
    own = survey_options(options)
    outline, _ = load_outline(str(weights))
    images = open_survey(options)
    splits = [split_image(image, outline.receptive_field, own) for image in images]
    tables = [find_sources(image, str(weights)).table for image in images]
    result = score_part(tables, images, splits, TEST, side=own.block, exact=own.scorer == "sdc1")
    numbers = result.numbers()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{Path(weights).stem}_survey.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    report(f"{weights}: " + ", ".join(f"{name} {value}" for name, value in numbers.items()))
    return evaluation_of(result, exact=own.scorer == "sdc1")


@register_calibrator("survey", "sdc1")
def calibrate_on_survey(
    weights: Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """See `pipeline.calibrate_survey.calibrate_survey`."""
    return calibrate_survey(str(weights), options, report=report)


def evaluation_of(result: PartScore, *, exact: bool) -> Evaluation:
    """A score by blocks as judges hand it over."""

    def score(rows: np.ndarray) -> float:
        return float(result.value[rows].sum())

    name = "SDC1 score" if exact else "survey score"
    return Evaluation(name, result.blocks, score, numbers=result.numbers())
