"""Calibrate a classifier on its validation examples, and score it on its test examples, which nothing else has seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from models.answers import AnswerCalibration, Answers
from models.engines.base import load_engine
from pipeline.scorers import classification as scores

if TYPE_CHECKING:
    from models.classifier_lesson import Examples

# Classes with fewer true validation examples than this are calibrated together.
ENOUGH = 50
# How much classes differ in slope and intercept of their calibration (1 sigma).
SPREAD = (0.2, 0.5)
BATCH = 32
# Parts by S/N that independent classes are scored in: all that is above 5, and what lies where.
SNR_PARTS = ((5.0, np.inf), (2.0, 5.0), (5.0, 8.0), (8.0, 15.0), (15.0, np.inf))


def calibrate_classifier(
    module: Any, examples: Examples, *, engine: str = "auto", report: Callable[[str], None] = print,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Temperature (exclusive classes) or logistic maps (each class), factors of the values' errors, and test scores.

    Parameters
    ----------
    module : torch module
        A classifier with its weights.
    examples : Examples
        Its "validation" part is fitted to, its "test" part is scored.
    engine : str
        What runs the network.
    report : callable
    picture : Path, optional
        Where to draw the reliability diagram of the test part.

    Returns
    -------
    dict
        "calibration" and "score" for the card.
    """
    answers = module.answers
    inputs, targets = examples.fixed("validation")
    raw = run_network(module, inputs, engine=engine)
    calibration = fit_calibration(raw, targets, answers)
    inputs, targets = examples.fixed("test")
    raw = run_network(module, inputs, engine=engine)
    score = score_answers(raw, targets, answers, calibration)
    if picture is not None:
        _draw(raw, targets, answers, calibration, picture, title=f"{module.name}, {len(raw)} held-out examples")
    report(f"{module.name}: {score}")
    return {"calibration": calibration.for_card(), "score": score}


def _draw(
    raw: np.ndarray, targets: dict[str, np.ndarray], answers: Answers, calibration: AnswerCalibration, path: Path, *,
    title: str,
) -> None:  # fmt: skip
    """Of exclusive classes the likeliest one counts, of others each decision."""
    from pipeline.reliability_picture import draw_reliability

    plain, fitted = (one.probability(raw, answers) for one in (AnswerCalibration(), calibration))
    wanted = np.asarray(targets["classes"])
    if answers.exclusive:
        right, stated = scores.top_class(wanted.argmax(axis=1), fitted)
        draw_reliability(right, {"uncalibrated": plain.max(axis=1), "calibrated": stated}, path, title=title)
        return
    keep = np.asarray(targets.get("class_weight", np.ones_like(wanted))) > 0
    draw_reliability(wanted > 0.5, {"uncalibrated": plain, "calibrated": fitted}, path, keep=keep, title=title)


def run_network(module: Any, inputs: tuple[np.ndarray, ...], *, engine: str = "auto") -> np.ndarray:
    """Raw answers of a network to any number of examples, shape (N, outputs)."""
    runner = load_engine(engine, module, threads=2)
    try:
        parts = [
            runner(*(one[first : first + BATCH] for one in inputs)) for first in range(0, len(inputs[0]), BATCH)
        ]
    finally:
        runner.close()
    return np.concatenate(parts)


def fit_calibration(raw: np.ndarray, targets: dict[str, np.ndarray], answers: Answers) -> AnswerCalibration:
    """The calibration that makes the true classes most likely, and standard errors that cover 68%.

    Parameters
    ----------
    raw : ndarray, shape (N, answers.outputs)
    targets : dict of ndarray
        As `models.classifier_lesson.Batch`.
    answers : Answers
    """
    logits = np.asarray(answers.parts(raw)[0], np.float64)
    wanted = np.asarray(targets["classes"], np.float64)
    if answers.exclusive:
        slope, intercept = (float(np.exp(_fit_temperature(logits, wanted))),), ()
    else:
        keep = np.asarray(targets.get("class_weight", np.ones_like(wanted))) > 0
        common = _fit_logistic(logits[keep], wanted[keep])
        found = []
        for k in range(len(answers.classes)):
            use = keep[:, k]
            trusted = min(wanted[use, k].sum(), (1 - wanted[use, k]).sum()) >= ENOUGH
            # A hundred true examples leave a class's own map so uncertain that classes do better near the common one.
            own = _fit_logistic(logits[use, k], wanted[use, k], near=common, width=SPREAD) if trusted else common
            found.append(own)
        slope, intercept = (tuple(column) for column in zip(*found, strict=True))
    factors = []
    for i in range(len(answers.values)):
        use = np.asarray(targets["value_weight"])[:, i] > 0
        _, mean, log_sigma = answers.parts(raw[use])
        ratio = np.abs(mean[:, i] - np.asarray(targets["values"])[use, i]) / np.exp(log_sigma[:, i])
        factors.append(float(np.quantile(ratio, 0.683)) if use.sum() >= ENOUGH else 1.0)
    return AnswerCalibration(slope, intercept, tuple(factors))


def _fit_temperature(logits: np.ndarray, wanted: np.ndarray) -> float:
    """Ln of the factor of all logits."""
    true = (wanted == wanted.max(axis=1, keepdims=True)).argmax(axis=1)

    def loss(factor: np.ndarray) -> float:
        scaled = np.exp(factor[0]) * logits
        top = scaled.max(axis=1)
        return float((top + np.log(np.exp(scaled - top[:, None]).sum(1)) - scaled[np.arange(len(true)), true]).mean())

    return float(minimize(loss, [0.0], method="Nelder-Mead").x[0])


def _fit_logistic(
    logits: np.ndarray, wanted: np.ndarray, *, near: tuple[float, float] = (1.0, 0.0),
    width: tuple[float, float] = (1.0, 2.0),
) -> tuple[float, float]:  # fmt: skip
    """Slope and intercept; held towards a pair within widths (1 sigma), which a few examples could not tell better."""

    def loss(p: np.ndarray) -> float:
        scaled = p[0] * logits + p[1]
        likelihood = (np.logaddexp(0, scaled) - wanted * scaled).sum()
        return float(likelihood + 0.5 * sum(((p[i] - near[i]) / width[i]) ** 2 for i in (0, 1)))

    found = minimize(loss, near, method="Nelder-Mead").x
    return float(found[0]), float(found[1])


def score_answers(
    raw: np.ndarray, targets: dict[str, np.ndarray], answers: Answers, calibration: AnswerCalibration
) -> dict[str, Any]:
    """Scores for the card: of exclusive classes accuracy, else average precision; calibration error; errors of values.

    Parameters
    ----------
    raw : ndarray, shape (N, answers.outputs)
    targets : dict of ndarray
    answers : Answers
    calibration : AnswerCalibration
    """
    probability = calibration.probability(raw, answers)
    wanted = np.asarray(targets["classes"])
    found: dict[str, Any] = {"examples": len(wanted)}
    if answers.exclusive:
        true = wanted.argmax(axis=1)
        right, stated = scores.top_class(true, probability)
        confusion = scores.confusion_matrix(true, probability.argmax(1), len(answers.classes))
        found["accuracy"] = float(right.mean())
        found["balanced_accuracy"] = scores.balanced_accuracy(confusion)
        found["calibration_error"] = scores.expected_calibration_error(right, stated, bins=10)
    else:
        keep = np.asarray(targets.get("class_weight", np.ones_like(wanted))) > 0
        each = scores.class_average_precision(wanted > 0.5, probability, keep=keep)
        found["macro_average_precision"] = float(np.nanmean(each))
        found["calibration_error"] = scores.expected_calibration_error(wanted > 0.5, probability, keep=keep)
        found["average_precision"] = dict(zip(answers.classes, each.round(4).tolist(), strict=True))
        if "class_snr" in targets:
            found["by_snr"] = scores.scores_by_strength(
                wanted > 0.5, probability, np.asarray(targets["class_snr"]), SNR_PARTS, keep=keep
            )
    for name, summary in score_values(raw, targets, answers, calibration).items():
        found[name] = summary
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}


def score_values(
    raw: np.ndarray, targets: dict[str, np.ndarray], answers: Answers, calibration: AnswerCalibration
) -> dict[str, dict[str, float]]:
    """By value: scatter (1.48 times the median absolute deviation), bias (median), coverage of 1 sigma, and count.

    Of a logarithmic value scatter and bias are in decimal logs.
    """
    found = {}
    for i, value in enumerate(answers.values):
        use = np.asarray(targets["value_weight"])[:, i] > 0
        if not use.any():
            continue
        _, mean, log_sigma = answers.parts(np.asarray(raw, np.float64)[use])
        error = mean[:, i] - np.asarray(targets["values"])[use, i]
        sigma = np.exp(log_sigma[:, i]) * (calibration.error_scale[i] if calibration.error_scale else 1.0)
        found[value.name] = {
            "scatter": round(float(1.4826 * np.median(np.abs(error - np.median(error))) * value.scale), 4),
            "bias": round(float(np.median(error) * value.scale), 4),
            "within_1_sigma": round(float((np.abs(error) < sigma).mean()), 4),
            "count": int(use.sum()),
        }
    return found
