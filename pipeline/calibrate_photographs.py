"""What a detector of things on photographs needs beside its weights, chosen on validation images only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from survey_io.datasets.photographs import PhotographSet

from .photographs import PhotographFinder, found_boxes, true_boxes
from .scorers.average_precision import VocMatches

OVERLAPS = (0.35, 0.45, 0.55)
QUALITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Share of right detections at the threshold: from there on one is more likely right than wrong.
_LEAST_PRECISION = 0.5


def calibrate_photographs(
    weights: str | Path, validation: PhotographSet, *, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Choose how raw maps are read, and the score from which a detection is more likely right than wrong.

    Returns
    -------
    dict
        ``threshold``; ``calibration`` with ``overlap`` and ``quality`` of `models.yolo.photographs.decode_photographs`;
        ``score`` with mAP50 of the validation images.
    """
    finder = PhotographFinder(weights)
    laid = list(finder.raw_maps(item.path for item in validation.items))
    finder.close()
    true = true_boxes(validation.items)
    best: tuple[float, dict[str, float], VocMatches] | None = None
    for overlap in OVERLAPS:
        for quality in QUALITIES:
            settings = {"overlap": overlap, "quality": quality}
            found = [found_boxes(one.things(finder.head, **settings)) for one in laid]
            matches = VocMatches(found, true, len(finder.head.classes))
            value = matches.average_precision().mean
            if best is None or value > best[0]:
                best = value, settings, matches
    value, settings, matches = best
    threshold = even_odds(matches, len(finder.head.classes))
    report(f"{weights}: validation mAP50 {value:.3f} with {settings}, threshold {threshold:.2f}")
    return {
        "threshold": threshold,
        "calibration": settings,
        "score": {"validation_map50": round(value, 4), "validation_images": len(validation)},
    }


def even_odds(matches: VocMatches, n_classes: int) -> float:
    """Lowest score from which, over all classes, at least half of the detections are right."""
    scores, rights = [], []
    for label in range(n_classes):
        recall, precision, score = matches.curve(label)
        hits = np.round(precision * np.arange(1, len(score) + 1))
        scores.append(score)
        rights.append(np.diff(hits, prepend=0.0))
    score, right = np.concatenate(scores), np.concatenate(rights)
    order = np.argsort(-score, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(precision >= _LEAST_PRECISION)
    return round(float(score[order][good[-1]]), 3) if len(good) else 0.5
