"""Classifiers on the part "test" of their examples, which neither training nor calibration saw."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.answers import AnswerCalibration, Answers
from models.training import make_lesson
from models.weights import load_weights
from pipeline.calibrate_classifier import calibrate_classifier, run_network, score_answers
from pipeline.judges import register_calibrator, register_judge
from pipeline.judges.evaluation import Evaluation
from pipeline.scorers.classification import class_average_precision

if TYPE_CHECKING:
    from models.train_options import TrainOptions


@register_judge("default:classifier1d", "default:classifier2d")
def judge_classes(
    weights: str | os.PathLike[str], options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> Evaluation:
    """Units are examples; the metric is the accuracy of exclusive classes, else the macro average precision.

    Parameters
    ----------
    weights : str or path
    options : TrainOptions
        Say where the examples are.
    folder : Path
        Not used: the reliability diagram is drawn by the calibration.
    report : callable
    """
    module, card = load_weights(weights)
    answers = module.answers
    inputs, targets = make_lesson(module, options).examples.fixed("test")
    raw = run_network(module, inputs)
    calibration = AnswerCalibration.from_card(card.calibration)
    probability = calibration.probability(raw, answers)
    wanted = np.asarray(targets["classes"])
    keep = np.asarray(targets.get("class_weight", np.ones_like(wanted))) > 0
    right = wanted.argmax(axis=1) == probability.argmax(axis=1)

    def accuracy(units: np.ndarray) -> float:
        return float(right[units].mean())

    def precision(units: np.ndarray) -> float:
        each = class_average_precision(wanted[units] > 0.5, probability[units], keep=keep[units])
        return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")

    numbers = score_answers(raw, targets, answers, calibration)
    metric, score = ("accuracy", accuracy) if answers.exclusive else ("macro_average_precision", precision)
    names = tuple(f"example {i}" for i in range(len(wanted)))
    found = Evaluation(metric, names, score, numbers=numbers)
    report(f"{len(wanted):,} test examples: {metric} {found.value:.4f}")
    return found


@register_calibrator("default:classifier1d", "default:classifier2d")
def calibrate_classes(
    weights: Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> dict[str, Any] | None:
    """See `pipeline.calibrate_classifier.calibrate_classifier`; None for a lesson or answers of another kind."""
    module, _ = load_weights(weights)
    examples = getattr(make_lesson(module, options), "examples", None)
    if examples is None or not isinstance(getattr(module, "answers", None), Answers):
        return None
    picture = folder / f"{weights.stem}_reliability.png"
    return {"threshold": 0.5, **calibrate_classifier(module, examples, report=report, picture=picture)}
