"""Layout and decoding of a YOLO head in 1, 2 or 3 dimensions.

Per box the channels are, in this order: centre offsets (one per axis), log sizes (one per axis), P (a source
is here), O (quality of the box), classes, parameters, and natural logs of the scale of each predicted
uncertainty. All boxes of a cell follow each other. The layout is that of YOLO-CIANNA (Cornu et al. 2024, A&A
690, A211) with unused axes left out and uncertainties added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Log sizes and log scales are clamped here before exp: a wild output must not become inf.
LOG_SIZE_LIMIT = 4.0
LOG_SCALE_RANGE = (-5.0, 3.0)


@dataclass(frozen=True)
class HeadSpec:
    """What a network's raw output means.

    Attributes
    ----------
    stride : tuple of int
        Pixels per cell, one per axis, in array order (y, x).
    anchors : tuple of tuple of float
        Per box, the point of the cell (0..1 per axis) from which its offset counts.
    priors : tuple of tuple of float
        Per box, the size (per axis) that a log size of 0 stands for, in `units`: beams on the sky.
    params : tuple of str
        Names of the regressed parameters.
    scales : tuple of str
        What has a predicted uncertainty: "position" and names out of ``params``; "angle" covers cos and sin.
    classes : tuple of str
        Names of classes; empty for one kind of object.
    exclusive : bool
        True: an object has one class, by softmax; False: any number of them, a sigmoid each.
    reach : float
        Largest offset from the anchor, in cells.
    line_channels : float
        Extent along a spectral axis, in channels, that stands where the beam stands on the sky: the unit of priors and
        position errors.
    """

    stride: tuple[int, ...]
    anchors: tuple[tuple[float, ...], ...]
    priors: tuple[tuple[float, ...], ...]
    params: tuple[str, ...]
    scales: tuple[str, ...]
    classes: tuple[str, ...] = ()
    reach: float = 2.0
    line_channels: float = 16.0
    exclusive: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.stride)

    @property
    def boxes(self) -> int:
        """Boxes per cell."""
        return len(self.anchors)

    @property
    def box_channels(self) -> int:
        """Channels of one box."""
        return 2 * self.ndim + 2 + len(self.classes) + len(self.params) + len(self.scales)

    @property
    def channels(self) -> int:
        """Channels of the raw output."""
        return self.boxes * self.box_channels

    def slot(self, name: str) -> slice:
        """Channels of a group in one box: offset, size, presence, objectness, classes, params or scales."""
        n = self.ndim
        starts = {
            "offset": (0, n),
            "size": (n, 2 * n),
            "presence": (2 * n, 2 * n + 1),
            "objectness": (2 * n + 1, 2 * n + 2),
            "classes": (2 * n + 2, 2 * n + 2 + len(self.classes)),
        }
        first = 2 * n + 2 + len(self.classes)
        starts["params"] = (first, first + len(self.params))
        starts["scales"] = (first + len(self.params), first + len(self.params) + len(self.scales))
        return slice(*starts[name])

    def units(self, beam_px: float) -> np.ndarray:
        """Extent per axis, px or channels, that a prior of 1 and a position error of 1 stand for.

        Images have two sky axes; spectra and cubes begin with a spectral one.
        """
        sky = np.full(self.ndim, beam_px, np.float32)
        if self.ndim != 2:
            sky[0] = self.line_channels
        return sky

    def anchor_positions(self, grid: tuple[int, ...]) -> np.ndarray:
        """Pixel positions of all anchors, in the order of a raw map viewed as (boxes, *grid).

        Pixel centres are at integers, so that a cell's lower edge is at ``index * stride - 0.5``.

        Returns
        -------
        ndarray of float32, shape (boxes, *grid, ndim)
        """
        cells = np.stack(np.meshgrid(*(np.arange(g) for g in grid), indexing="ij"), axis=-1)
        stride = np.array(self.stride)
        anchors = np.array(self.anchors).reshape(self.boxes, *(1,) * len(grid), self.ndim)
        return ((cells[None] + anchors) * stride - 0.5).astype(np.float32)


def decode(values, anchors, priors, spec: HeadSpec):
    """Turn raw vectors into boxes and parameters; works on numpy arrays and on torch tensors alike.

    Parameters
    ----------
    values : array, shape (n, box_channels)
        Raw network output of n boxes.
    anchors : array, shape (n, ndim)
        Pixel positions of their anchors.
    spec : HeadSpec
    priors : array, shape (n, ndim) or (ndim,)
        Sizes in px that a log size of 0 stands for: ``spec.priors`` of the box times ``spec.units``.

    Returns
    -------
    dict
        ``centre`` (n, ndim) px, ``size`` (n, ndim) px, ``presence`` and ``objectness`` (n,) in 0..1,
        ``classes`` (n, k), ``params`` (n, len(params)), ``scales`` (n, len(scales)) natural logs.
    """
    if isinstance(values, np.ndarray):
        xp, sigmoid, stride = np, _sigmoid, np.array(spec.stride, np.float32)
    else:
        import torch

        xp, sigmoid = torch, torch.sigmoid
        stride = torch.tensor(spec.stride, dtype=values.dtype, device=values.device)
    offset = xp.clip(values[:, spec.slot("offset")], -spec.reach, spec.reach)
    log_size = xp.clip(values[:, spec.slot("size")], -LOG_SIZE_LIMIT, LOG_SIZE_LIMIT)
    return {
        "centre": anchors + offset * stride,
        "log_size": log_size,
        "size": xp.exp(log_size) * priors,
        "presence": sigmoid(values[:, spec.slot("presence")][:, 0]),
        "objectness": sigmoid(values[:, spec.slot("objectness")][:, 0]),
        "classes": _softmax(values[:, spec.slot("classes")]) if spec.exclusive else sigmoid(
            values[:, spec.slot("classes")]
        ),
        "params": values[:, spec.slot("params")],
        "scales": xp.clip(values[:, spec.slot("scales")], *LOG_SCALE_RANGE),
    }


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))


def _softmax(x):
    """Softmax over the last axis, of numpy arrays and torch tensors alike."""
    if not isinstance(x, np.ndarray):
        return x.softmax(-1)
    grown = np.exp(x - x.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)
