"""Judge of classifiers of cut-outs: accuracy over the things of the held-out split, and background's recall."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.classifiers.cutouts import BACKGROUND
from models.engines.base import load_engine
from models.lessons.cutouts import CutoutLesson
from models.train_options import TrainOptions
from models.weights import load_weights

from ..photographs import found_boxes, true_boxes
from ..scorers.average_precision import VocMatches
from ..sliding_windows import SlidingFinder
from . import register_judge
from .evaluation import Evaluation

_PIECE = 64


@register_judge("cutouts")
def judge_cutouts(
    weights: str | Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> Evaluation:
    """Classify every thing of the test part, and as much background as in training.

    Networks that know background are run as a sliding-window detector too. Writes ``cutouts.json`` into the folder.
    """
    module, _ = load_weights(weights)
    lesson = CutoutLesson(module, options)
    test = lesson.parts.test
    pixels, labels = lesson.examples.cutouts(test)
    true = np.array(labels)
    engine = load_engine("auto", module, threads=2)
    said = np.concatenate(
        [
            engine(module.prepare(np.stack(pixels[first : first + _PIECE]))).argmax(axis=1)
            for first in range(0, len(pixels), _PIECE)
        ]
    )
    engine.close()
    classes = module.answers.classes
    empty = true == classes.index(BACKGROUND) if BACKGROUND in classes else np.zeros(len(true), bool)
    right = said == true
    things = np.flatnonzero(~empty)
    recall = {name: float(right[true == i].mean()) for i, name in enumerate(classes) if (true == i).any()}
    numbers = {"accuracy": float(right[things].mean()), "recall": recall, "things": len(things)}
    if empty.any():
        finder = SlidingFinder(weights)
        began = time.perf_counter()
        found = [found_boxes(one) for one in finder.find_all(item.path for item in test.items)]
        seconds = time.perf_counter() - began
        finder.close()
        matches = VocMatches(found, true_boxes(test.items), len(classes) - 1)
        numbers["sliding_windows"] = {
            "map50": matches.average_precision().mean, "images_per_second": len(test) / seconds
        }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cutouts.json").write_text(json.dumps(numbers, indent=1))
    report(f"{weights}: accuracy {numbers['accuracy']:.3f} of {len(things)} things")
    names = tuple(f"{item.name} {row}" for item, row in lesson.examples.things(test))
    return Evaluation("accuracy", names, lambda rows: float(right[things][rows].mean()), numbers=numbers)
