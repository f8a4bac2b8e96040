"""From a raw map to things on a photograph: every box and class with its score, overlapping ones of a class removed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.boxes import from_centres, nms_overlap
from models.yolo.head import HeadSpec, decode


@dataclass(frozen=True)
class Things:
    """What was found on one image, best first.

    Attributes
    ----------
    boxes : ndarray of float32, shape (n, 4)
        (y_lo, x_lo, y_hi, x_hi), edges in px of what the network was given.
    scores : ndarray of float32, shape (n,)
        0 to 1.
    labels : ndarray of int, shape (n,)
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def decode_photographs(
    raw: np.ndarray,
    head: HeadSpec,
    *,
    least: float = 0.005,
    overlap: float = 0.45,
    most: int = 200,
    quality: float = 0.5,
) -> Things:
    """Decode one image's raw map.

    Parameters
    ----------
    raw : ndarray of float32, shape (channels, *grid)
    head : HeadSpec
    least : float
        Lowest score that is kept. Average precision wants the doubtful ones too.
    overlap : float
        IoU above which the lesser of two boxes of one class goes.
    most : int
        Boxes kept at most.
    quality : float
        0 to 1: how far the score is P (0) or O (1), each times the class's; between them their geometric mean.

    Returns
    -------
    Things
    """
    grid = raw.shape[1:]
    values = np.moveaxis(raw.reshape(head.boxes, head.box_channels, *grid), 1, -1).reshape(-1, head.box_channels)
    anchors = head.anchor_positions(grid).reshape(-1, 2)
    priors = np.repeat(np.array(head.priors, np.float32), int(np.prod(grid)), axis=0)
    # An anchor with nothing in it need not be decoded.
    likely = np.flatnonzero(values[:, head.slot("presence").start] > np.log(least / (1 - least)))
    out = decode(values[likely], anchors[likely], priors[likely], head)
    seen = out["presence"] ** (1 - quality) * out["objectness"] ** quality
    scores = seen[:, None] * out["classes"]
    box, label = np.nonzero(scores >= least)
    score = scores[box, label]
    order = np.argsort(-score, kind="stable")[: 4 * most]
    box, label, score = box[order], label[order], score[order]
    centre, size = out["centre"][box], out["size"][box]
    # Classes do not compete: each is moved to a plane of its own.
    apart = np.stack([label * 1e5, np.zeros(len(label))], axis=-1)
    # The order is by score already, and stays.
    keep = np.flatnonzero(nms_overlap(centre + apart, size, score, iou=overlap))[:most]
    sides = np.tile([grid[0] * head.stride[0], grid[1] * head.stride[1]], 2) - 0.5
    boxes = np.clip(from_centres(centre[keep], size[keep]), -0.5, sides)
    return Things(boxes.astype(np.float32), score[keep].astype(np.float32), label[keep])
