"""Classifiers of pictures, judged on the test part: accuracy, confusion, and whether probabilities come true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.answers import AnswerCalibration
from models.engines.base import load_engine
from models.lessons import get_lesson
from models.lessons.images import ImagesLesson, draw_pictures
from models.training import TrainOptions
from models.weights import load_weights
from pipeline.calibrate_classifier import fit_calibration, score_answers
from pipeline.judges import register_calibrator, register_judge
from pipeline.judges.evaluation import Evaluation
from pipeline.reliability_picture import draw_reliability
from pipeline.scorers import classification as scores

__all__ = ["calibrate_images", "judge_images", "run_pieces"]


@register_judge("images")
def judge_images(
    weights: str | Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> Evaluation:
    """Judge a classifier of pictures by the share of test pictures that it names rightly.

    Parameters
    ----------
    weights : str or path
        Name of shipped weights, or a safetensors file.
    options : TrainOptions
        Of a recipe with the lesson ``images``.
    folder : Path
        Receives ``confusion.png`` and ``mistakes.png``.
    report : callable

    Returns
    -------
    Evaluation
        Of the metric "accuracy"; its units are the names of the test pictures.
    """
    module, card = load_weights(weights)
    lesson: ImagesLesson = get_lesson(options.lesson or "images")(module, options)
    pictures = lesson.examples.pictures
    rows = pictures.rows("test")
    raw = run_pieces(module, lesson)
    probability = AnswerCalibration.from_card(card.calibration).probability(raw, module.answers)
    true, best = pictures.label[rows], probability.argmax(axis=1)
    right, stated = scores.top_class(true, probability)
    classes = module.answers.classes
    confusion = scores.confusion_matrix(true, best, len(classes))
    seen = confusion.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = np.diag(confusion) / seen, np.diag(confusion) / confusion.sum(axis=0)
    numbers = {
        "examples": len(rows),
        "accuracy": float(right.mean()) if len(rows) else float("nan"),
        "balanced_accuracy": scores.balanced_accuracy(confusion),
        "calibration_error": scores.expected_calibration_error(right, stated, bins=10),
        "log_loss": float(-np.log(np.maximum(probability[np.arange(len(rows)), true], 1e-12)).mean()),
        "recall": _by_class(classes, recall),
        "precision": _by_class(classes, precision),
        "confusion": confusion.tolist(),
        "classes": list(classes),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = [_draw_confusion(confusion, classes, folder / "confusion.png")]
    if not right.all():
        # Those that it was surest of teach most.
        worst = np.flatnonzero(~right)[np.argsort(-stated[~right], kind="stable")][:32]
        texts = [(f"{classes[true[k]]}, said {classes[best[k]]} {stated[k]:.2f}", False) for k in worst]
        draw_pictures(module.prepare(pictures.read(rows[worst])), texts, folder / "mistakes.png")
        files.append(folder / "mistakes.png")
    report(
        f"{module.name}: accuracy {numbers['accuracy']:.4f}, balanced {numbers['balanced_accuracy']:.4f}, calibration "
        f"error {numbers['calibration_error']:.4f} on {len(rows):,} held-out pictures"
    )
    return Evaluation(
        "accuracy", tuple(pictures.names[rows].tolist()), lambda which: float(right[which].mean()), numbers=numbers,
        pictures=tuple(files),
    )  # fmt: skip


@register_calibrator("images")
def calibrate_images(
    weights: Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Temperature fitted on the validation part, and scores of the test part, both read piece by piece.

    Returns
    -------
    dict
        "threshold", "calibration" and "score" for the card; ``folder`` receives the reliability diagram.
    """
    module, _ = load_weights(weights)
    lesson: ImagesLesson = get_lesson(options.lesson)(module, options)
    rows = {part: lesson.examples.pictures.rows(part) for part in ("validation", "test")}
    targets = {part: lesson.examples.targets(which) for part, which in rows.items()}
    calibration = fit_calibration(run_pieces(module, lesson, part="validation"), targets["validation"], module.answers)
    raw = run_pieces(module, lesson)
    score = score_answers(raw, targets["test"], module.answers, calibration)
    plain, fitted = (one.probability(raw, module.answers) for one in (AnswerCalibration(), calibration))
    right, stated = scores.top_class(targets["test"]["classes"].argmax(axis=1), fitted)
    draw_reliability(
        right, {"uncalibrated": plain.max(axis=1), "calibrated": stated}, folder / f"{weights.stem}_reliability.png",
        title=f"{module.name}, {len(raw):,} held-out pictures",
    )  # fmt: skip
    report(f"{module.name}: {score}")
    return {"threshold": 0.5, "calibration": calibration.for_card(), "score": score}


def run_pieces(module, lesson, *, part: str = "test", engine: str = "auto") -> np.ndarray:
    """Raw answers of a network to all examples of a part, shape (N, outputs), read piece by piece."""
    runner = load_engine(engine, module, threads=2)
    try:
        found = [runner(*inputs) for inputs, _ in lesson.examples.pieces(part)]
    finally:
        runner.close()
    return np.concatenate(found) if found else np.empty((0, module.answers.outputs), np.float32)


def _by_class(classes: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
    return {name: round(float(one), 4) if np.isfinite(one) else None for name, one in zip(classes, values, strict=True)}


def _draw_confusion(confusion: np.ndarray, classes: tuple[str, ...], path: Path) -> Path:
    """Shares of each true class, with their counts."""
    from matplotlib.figure import Figure

    count = len(classes)
    side = 2.5 + 0.75 * count
    figure = Figure(figsize=(side + 1, side))
    axis = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i in range(count):
        for k in range(count):
            if confusion[i, k]:
                axis.text(k, i, f"{confusion[i, k]:,}", ha="center", va="center", fontsize=8,
                          color="white" if share[i, k] > 0.5 else "black")  # fmt: skip
    axis.set_xticks(range(count), classes, rotation=45, ha="right")
    axis.set_yticks(range(count), classes)
    axis.set_xlabel("answered")
    axis.set_ylabel("true")
    right = np.diag(confusion).sum() / max(confusion.sum(), 1)
    axis.set_title(f"{100 * right:.1f}% of {confusion.sum():,} held-out pictures")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    return path
