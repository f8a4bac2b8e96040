"""Average precision of things on photographs, as PASCAL VOC and as COCO count it.

VOC (Everingham et al. 2010, IJCV 88, 303): by confidence, each detection takes the true box of its class that it
overlaps most; it is right if they overlap by half and the box was not taken before, wrong otherwise; difficult boxes
count neither way. COCO (Lin et al. 2014, as cocoeval defines it): each detection takes the free true box that it
overlaps most, for ten overlaps from 0.50 to 0.95; crowds take any number of detections, which then do not count.

Both match image by image, so that the score of any choice of images (bootstrap) costs a sort and no new matching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COCO_OVERLAPS = np.linspace(0.5, 0.95, 10)
COCO_AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
COCO_MOST = (1, 10, 100)


@dataclass(frozen=True)
class TrueBoxes:
    """What is on one image.

    Attributes
    ----------
    boxes : ndarray, shape (n, 4)
        (y_lo, x_lo, y_hi, x_hi): edges in px, so that VOC's inclusive corners are one px apart from theirs.
    labels : ndarray of int, shape (n,)
    ignored : ndarray of bool, shape (n,)
        VOC's difficult, COCO's crowds.
    areas : ndarray or None
        px2, for COCO's ranges; None: of the boxes. COCO's own are those of the outlines.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray | None = None


@dataclass(frozen=True)
class FoundBoxes:
    """What was found on one image, in any order; the same conventions."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision per class.

    Attributes
    ----------
    classes : ndarray, shape (n_classes,)
        0 to 1; NaN for a class without true boxes.
    """

    classes: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over the classes that have true boxes; NaN where none has."""
        known = self.classes[np.isfinite(self.classes)]
        return float(known.mean()) if len(known) else float("nan")


def overlaps(found: np.ndarray, true: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """IoU of every found with every true box, (n_found, n_true); with crowds the area of the found box divides."""
    lo, hi = np.maximum(found[:, None, :2], true[None, :, :2]), np.minimum(found[:, None, 2:], true[None, :, 2:])
    shared = np.clip(hi - lo, 0, None).prod(axis=-1)
    one, other = (np.clip(box[:, 2:] - box[:, :2], 0, None).prod(axis=-1) for box in (found, true))
    whole = one[:, None] + other[None] - shared
    if crowd is not None:
        whole = np.where(crowd[None], one[:, None], whole)
    return shared / np.maximum(whole, 1e-12)


class VocMatches:
    """Detections of a set of images matched by VOC's rule, ready to be scored on any of the images.

    Parameters
    ----------
    found : sequence of FoundBoxes
        One per image.
    true : sequence of TrueBoxes
        In the same order.
    n_classes : int
    overlap : float
        Least IoU of a right detection.
    """

    def __init__(self, found: Sequence[FoundBoxes], true: Sequence[TrueBoxes], n_classes: int, *, overlap: float = 0.5):
        if len(found) != len(true):
            raise ValueError(f"{len(found)} images with detections and {len(true)} with true boxes")
        self.n_classes = n_classes
        matched = [_match_voc(one, other, overlap) for one, other in zip(found, true, strict=True)]
        # Difficult boxes' detections are gone, so that what is left is right or wrong.
        self._score = [one[0] for one in matched]
        self._label = [one[1] for one in matched]
        self._right = [one[2] for one in matched]
        self._demanded = np.stack(
            [np.bincount(one.labels[~one.ignored], minlength=n_classes) for one in true]
        ).reshape(len(true), n_classes)  # fmt: skip

    def curve(self, label: int, images: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Recall, precision and score after each detection of a class, best first."""
        images = np.arange(len(self._score)) if images is None else images
        score = np.concatenate([self._score[i] for i in images] or [np.zeros(0)])
        names = np.concatenate([self._label[i] for i in images] or [np.zeros(0, int)])
        right = np.concatenate([self._right[i] for i in images] or [np.zeros(0, bool)])
        score, right = score[names == label], right[names == label]
        return self._curve(score, right, int(self._demanded[images, label].sum()))

    def average_precision(self, images: np.ndarray | None = None, *, points: int = 0) -> AveragePrecision:
        """Average precision per class over these images, which may repeat.

        Parameters
        ----------
        images : ndarray of int or None
            None: all.
        points : int
            0: area under the precision envelope over all recalls (VOC since 2010); 11: its mean at eleven recalls
            (VOC to 2009).
        """
        images = np.arange(len(self._score)) if images is None else images
        score = np.concatenate([self._score[i] for i in images] or [np.zeros(0)])
        names = np.concatenate([self._label[i] for i in images] or [np.zeros(0, int)])
        right = np.concatenate([self._right[i] for i in images] or [np.zeros(0, bool)])
        demanded = self._demanded[images].sum(axis=0)
        result = np.full(self.n_classes, np.nan)
        for label in np.flatnonzero(demanded):
            mine = names == label
            recall, precision, _ = self._curve(score[mine], right[mine], int(demanded[label]))
            result[label] = area_under(recall, precision, points=points)
        return AveragePrecision(result)

    @staticmethod
    def _curve(score: np.ndarray, right: np.ndarray, demanded: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = np.argsort(-score, kind="stable")
        hits = np.cumsum(right[order])
        count = np.arange(1, len(order) + 1)
        return hits / max(demanded, 1), hits / np.maximum(count, 1), score[order]


def area_under(recall: np.ndarray, precision: np.ndarray, *, points: int = 0) -> float:
    """Area under the envelope of a precision-recall curve, or its mean at ``points`` evenly spaced recalls."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1] if len(precision) else precision
    if points:
        places = np.searchsorted(recall, np.linspace(0, 1, points) - 1e-12, side="left")
        return float(np.append(envelope, 0.0)[places].mean())
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def _match_voc(found: FoundBoxes, true: TrueBoxes, overlap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.argsort(-found.scores, kind="stable")
    boxes, scores, labels = found.boxes[order], found.scores[order], found.labels[order]
    right, counts = np.zeros(len(order), bool), np.ones(len(order), bool)
    if len(order) and len(true.boxes):
        table = np.where(labels[:, None] == true.labels[None], overlaps(boxes, true.boxes), -1.0)
        best = table.argmax(axis=1)
        close = table[np.arange(len(order)), best] >= overlap
        taken = np.zeros(len(true.boxes), bool)
        for row in np.flatnonzero(close):
            if true.ignored[best[row]]:
                counts[row] = False
            elif not taken[best[row]]:
                taken[best[row]] = right[row] = True
    return scores[counts], labels[counts], right[counts]


def coco_scores(found: Sequence[FoundBoxes], true: Sequence[TrueBoxes], n_classes: int) -> dict[str, float]:
    """COCO's twelve numbers.

    Returns
    -------
    dict
        AP (mean over overlaps and classes), AP50, AP75, AP_small, AP_medium, AP_large; AR_1, AR_10, AR_100 (at so many
        detections per image), AR_small, AR_medium, AR_large. -1 where there is no true box.
    """
    precision: dict[str, list[np.ndarray]] = {name: [] for name in COCO_AREAS}
    recall: dict[tuple[str, int], list[np.ndarray]] = {}
    for label in range(n_classes):
        images = [
            (_of_class(one, label), _true_of_class(other, label)) for one, other in zip(found, true, strict=True)
        ]
        images = [(one, other) for one, other in images if len(one[0]) or len(other[0])]
        for area, (least, largest) in COCO_AREAS.items():
            matched = [_match_coco(one, other, least, largest) for one, other in images]
            demanded = sum(int((~one[3]).sum()) for one in matched)
            if demanded == 0:
                continue
            for most in COCO_MOST if area == "all" else (COCO_MOST[-1],):
                curve, reached = _accumulate(matched, demanded, most)
                recall.setdefault((area, most), []).append(reached)
                if most == COCO_MOST[-1]:
                    precision[area].append(curve)

    def mean(values: list[np.ndarray]) -> float:
        return float(np.mean(values)) if values else -1.0

    return {
        "AP": mean(precision["all"]),
        "AP50": mean([one[0] for one in precision["all"]]),
        "AP75": mean([one[5] for one in precision["all"]]),
        **{f"AP_{name}": mean(precision[name]) for name in ("small", "medium", "large")},
        **{f"AR_{most}": mean(recall.get(("all", most), [])) for most in COCO_MOST},
        **{f"AR_{name}": mean(recall.get((name, COCO_MOST[-1]), [])) for name in ("small", "medium", "large")},
    }


def _of_class(found: FoundBoxes, label: int) -> tuple[np.ndarray, np.ndarray]:
    mine = np.flatnonzero(found.labels == label)
    mine = mine[np.argsort(-found.scores[mine], kind="stable")][: COCO_MOST[-1]]
    return found.boxes[mine], found.scores[mine]


def _true_of_class(true: TrueBoxes, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mine = np.flatnonzero(true.labels == label)
    sides = true.boxes[mine, 2:] - true.boxes[mine, :2]
    areas = sides.prod(axis=-1) if true.areas is None else true.areas[mine]
    return true.boxes[mine], true.ignored[mine], areas


def _match_coco(found, true, least: float, largest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, whether matched and whether not counted (n_overlaps, n_found), and which true boxes are not demanded."""
    boxes, scores = found
    true_boxes, crowd, areas = true
    ignored = crowd | (areas < least) | (areas > largest)
    # Demanded boxes first, as a detection prefers them whatever the overlap.
    order = np.argsort(ignored, kind="stable")
    true_boxes, crowd, ignored = true_boxes[order], crowd[order], ignored[order]
    table = overlaps(boxes, true_boxes, crowd)
    matched = np.zeros((len(COCO_OVERLAPS), len(boxes)), bool)
    apart = np.zeros_like(matched)
    for level, wanted in enumerate(COCO_OVERLAPS):
        taken = np.zeros(len(true_boxes), bool)
        for row in range(len(boxes)):
            best, value = -1, min(wanted, 1 - 1e-10)
            for column in range(len(true_boxes)):
                if taken[column] and not crowd[column]:
                    continue
                if best > -1 and not ignored[best] and ignored[column]:
                    break
                # Of equal overlaps the later one counts.
                if table[row, column] >= value:
                    best, value = column, table[row, column]
            if best > -1:
                taken[best] = matched[level, row] = True
                apart[level, row] = ignored[best]
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=-1)
    apart |= ~matched & ((sides < least) | (sides > largest))[None]
    return scores, matched, apart, ignored


def _accumulate(matched: list, demanded: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision at 101 recalls, (n_overlaps, 101), and the largest recall, (n_overlaps,)."""
    scores = np.concatenate([one[0][:most] for one in matched])
    order = np.argsort(-scores, kind="stable")
    right = np.concatenate([one[1][:, :most] for one in matched], axis=1)[:, order]
    apart = np.concatenate([one[2][:, :most] for one in matched], axis=1)[:, order]
    hits, misses = np.cumsum(right & ~apart, axis=1), np.cumsum(~right & ~apart, axis=1)
    curve = np.zeros((len(COCO_OVERLAPS), 101))
    reached = np.zeros(len(COCO_OVERLAPS))
    for level in range(len(COCO_OVERLAPS)):
        recall = hits[level] / demanded
        precision = hits[level] / np.maximum(hits[level] + misses[level], 1e-12)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        curve[level] = np.append(envelope, 0.0)[places]
        reached[level] = recall[-1] if len(recall) else 0.0
    return curve, reached
