"""Judge of detectors of things on photographs: mAP50 as VOC counts it, over the images of the held-out split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.lessons.boxes import BoxesLesson
from models.train_options import TrainOptions
from models.weights import load_weights
from models.yolo.photographs import Things
from survey_io.datasets.photographs import Photograph, read_photograph

from ..calibrate_photographs import calibrate_photographs
from ..photographs import PhotographFinder, found_boxes, true_boxes
from ..scorers.average_precision import VocMatches, coco_scores
from . import register_calibrator, register_judge
from .evaluation import Evaluation


@register_judge("boxes")
def judge_boxes(
    weights: str | Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> Evaluation:
    """Run a detector over the test part of its recipe's data.

    Writes ``average_precision.json``, ``precision_recall.png`` and ``found.png`` into the folder.
    """
    module, _ = load_weights(weights)
    test = BoxesLesson(module, options).parts.test
    finder = PhotographFinder(weights)
    found = [
        one.things(finder.head, **finder.settings) for one in finder.raw_maps(item.path for item in test.items)
    ]
    finder.close()
    boxes, true = [found_boxes(one) for one in found], true_boxes(test.items)
    matches = VocMatches(boxes, true, len(test.classes))
    per_class = matches.average_precision()
    known = [None if np.isnan(one) else round(float(one), 4) for one in per_class.classes]
    numbers = {
        "map50": per_class.mean,
        "map50_11_points": matches.average_precision(points=11).mean,
        "coco": coco_scores(boxes, true, len(test.classes)),
        "classes": dict(zip(test.classes, known, strict=True)),
        "images": len(test),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "average_precision.json").write_text(json.dumps(numbers, indent=1))
    pictures = folder / "precision_recall.png", folder / "found.png"
    draw_curves(matches, test.classes, pictures[0])
    draw_found(test.items, found, test.classes, finder.card.threshold or 0.3, pictures[1])
    report(f"{weights}: mAP50 {numbers['map50']:.3f} on {len(test)} images")
    return Evaluation(
        metric="mAP50",
        units=tuple(item.name for item in test.items),
        score=lambda rows: matches.average_precision(rows).mean,
        numbers=numbers,
        pictures=pictures,
    )


@register_calibrator("boxes")
def calibrate_boxes(
    weights: str | Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """See `pipeline.calibrate_photographs.calibrate_photographs`; by the validation part of the recipe's data."""
    module, _ = load_weights(weights)
    return calibrate_photographs(weights, BoxesLesson(module, options).parts.validation, report=report)


def draw_curves(matches: VocMatches, classes: tuple[str, ...], path: Path) -> None:
    """Precision against recall, a panel per class."""
    from matplotlib.figure import Figure

    columns = min(5, len(classes))
    rows = -(-len(classes) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * rows))
    values = matches.average_precision().classes
    for label, axis in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        if label >= len(classes):
            axis.set_axis_off()
            continue
        recall, precision, _ = matches.curve(label)
        axis.plot(recall, precision, lw=1)
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.set_title(f"{classes[label]}: AP {values[label]:.2f}", fontsize=9)
    figure.supxlabel("recall")
    figure.supylabel("precision")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def draw_found(
    items: tuple[Photograph, ...], found: list[Things], classes: tuple[str, ...], threshold: float, path: Path
) -> None:
    """Some images, evenly chosen, with true boxes (green) and what was found above the threshold (red)."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    chosen = np.unique(np.linspace(0, len(items) - 1, min(12, len(items))).astype(int))
    figure = Figure(figsize=(14, 3.4 * -(-len(chosen) // 4)))
    axes = figure.subplots(-(-len(chosen) // 4), 4, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, row in zip(axes, chosen, strict=False):
        axis.imshow(read_photograph(items[row].path))
        shown = found[row].scores >= threshold
        boxes = [(box, "lime", classes[label]) for box, label in zip(items[row].boxes, items[row].labels, strict=True)]
        boxes += [
            (box, "red", f"{classes[label]} {score:.2f}")
            for box, score, label in zip(
                found[row].boxes[shown], found[row].scores[shown], found[row].labels[shown], strict=True
            )
        ]
        for (y_lo, x_lo, y_hi, x_hi), colour, text in boxes:
            axis.add_patch(Rectangle((x_lo, y_lo), x_hi - x_lo, y_hi - y_lo, fill=False, ec=colour, lw=1.2))
            axis.text(x_lo, y_lo if colour == "red" else y_hi, text, color=colour, fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
