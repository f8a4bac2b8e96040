"""From raw maps to candidates as tensors: the sums of `models.yolo.candidates.find_candidates`, for a batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.detections import Detections
from models.yolo.candidates import AGREE_BEAMS, MEANS, fine_counts, named_params
from models.yolo.head import HeadSpec, decode
from models.yolo.reflect import partners


@dataclass
class Candidates:
    """Rows of detections on the device, in window pixels.

    Attributes
    ----------
    item : Tensor of int64, shape (n,)
        Which of the batch.
    centre : Tensor of float64, shape (n, ndim)
    size, logit : Tensor of float32, shapes (n, ndim) and (n,)
    anchor : Tensor of int64, shape (n, ndim)
    means : dict of Tensor of float64, shape (n, k)
        ``classes``, ``params`` and ``scales`` of the head.
    """

    item: Tensor
    centre: Tensor
    size: Tensor
    logit: Tensor
    anchor: Tensor
    means: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.item)

    def __getitem__(self, index: Tensor) -> Candidates:
        rows = (part[index] for part in (self.item, self.centre, self.size, self.logit, self.anchor))
        return Candidates(*rows, {name: value[index] for name, value in self.means.items()})

    def fetch(self, spec: HeadSpec) -> tuple[np.ndarray, Detections]:
        """Copied to the host, in one piece: which of the batch, and the detections with the head's parameters."""
        ndim, names = self.centre.shape[1], list(self.means)
        parts = [self.item[:, None], self.centre, self.size, self.logit[:, None], self.anchor, *self.means.values()]
        rows = torch.cat([part.to(torch.float64) for part in parts], 1).cpu().numpy()
        widths = np.cumsum([0, *(part.shape[1] for part in parts)])
        item, centre, size, logit, anchor, *means = (rows[:, a:b] for a, b in zip(widths, widths[1:], strict=False))
        found = Detections(
            np.ascontiguousarray(centre), size.astype(np.float32), logit[:, 0].astype(np.float32),
            anchor.astype(np.int64).reshape(-1, ndim), named_params(dict(zip(names, means, strict=True)), spec),
        )  # fmt: skip
        return item[:, 0].astype(int), found


def find_candidates(raw: Tensor, spec: HeadSpec, *, beam_px: float, min_logit: float) -> Candidates:
    """Candidates of all windows of a batch.

    Parameters
    ----------
    raw : Tensor of float32, shape (B, channels, *grid)
    spec : HeadSpec
    beam_px : float
        FWHM of the beam in px (geometric mean).
    min_logit : float
        Candidates below this are not worth carrying.
    """
    counts = fine_counts(spec)
    ndim, device = spec.ndim, raw.device
    values = raw.reshape(len(raw), spec.boxes, spec.box_channels, *raw.shape[2:])
    if counts is None:
        return _all_boxes(values, spec, beam_px, min_logit)
    logits = _fine_grid(values[:, :, spec.slot("presence").start], counts)
    index = (_peaks(logits) & (logits > min_logit)).nonzero()
    item, cells = index[:, 0], index[:, 1:]
    units = torch.from_numpy(spec.units(beam_px)).to(device)
    priors = torch.tensor(spec.priors, dtype=torch.float32, device=device)
    split = torch.tensor(counts, device=device)
    pitch = torch.tensor([s / c for s, c in zip(spec.stride, counts, strict=True)], dtype=torch.float64, device=device)
    limits = torch.tensor(logits.shape[1:], device=device)

    def gather(cells: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        inner, cell = cells % split, cells // split
        box = inner[:, 0]
        for axis in range(1, ndim):
            box = box * counts[axis] + inner[:, axis]
        vectors = values[(item, box, slice(None), *cell.T)]
        prior = priors[box] * units
        out = decode(vectors, (cells + 0.5) * pitch - 0.5, prior, spec)
        # Priors may differ from box to box, so that means are taken of sizes in px.
        out["log_size"] = out["log_size"] + prior.log()
        return out, vectors[:, spec.slot("presence").start]

    best, best_logit = gather(cells)
    total = torch.zeros(len(cells), dtype=torch.float64, device=device)
    mean = {name: torch.zeros_like(best[name], dtype=torch.float64) for name in MEANS}
    for step in product((-1, 0, 1), repeat=ndim):
        moved = cells + torch.tensor(step, device=device)
        inside = ((moved >= 0) & (moved < limits)).all(1)
        part, _ = gather(moved.clamp(min=0).minimum(limits - 1))
        distance = ((part["centre"] - best["centre"]) / units).square().sum(1).sqrt()
        # Smooth weights, so that rounding cannot switch a neighbour in or out.
        weight = inside * part["presence"] * (1.5 - distance / AGREE_BEAMS).clamp(0, 1)
        total += weight
        for name in mean:
            mean[name] += weight[:, None] * part[name]
    mean = {name: value / total[:, None] for name, value in mean.items()}
    anchor = ((cells + 0.5) * pitch).floor().to(torch.int64)
    size = mean.pop("log_size").exp().to(torch.float32)
    return Candidates(item, mean.pop("centre"), size, best_logit, anchor, mean)


def _all_boxes(values: Tensor, spec: HeadSpec, beam_px: float, min_logit: float) -> Candidates:
    """Every box above the limit, for heads whose boxes share an anchor; suppression sorts them out."""
    presence, device = spec.slot("presence").start, values.device
    index = (values[:, :, presence] > min_logit).nonzero()
    item, box, cells = index[:, 0], index[:, 1], index[:, 2:]
    vectors = values[(item, box, slice(None), *cells.T)]
    corner = torch.tensor(spec.anchors, dtype=torch.float64, device=device)[box]
    anchors = (cells + corner) * torch.tensor(spec.stride, dtype=torch.float64, device=device) - 0.5
    priors = torch.tensor(spec.priors, dtype=torch.float32, device=device)[box]
    out = decode(vectors, anchors, priors * torch.from_numpy(spec.units(beam_px)).to(device), spec)
    means = {name: out[name].to(torch.float64) for name in MEANS if name not in ("centre", "log_size")}
    anchor = (anchors + 0.5).floor().to(torch.int64)
    return Candidates(item, out["centre"], out["size"].to(torch.float32), vectors[:, presence], anchor, means)


def _fine_grid(logits: Tensor, counts: tuple[int, ...]) -> Tensor:
    """(B, boxes, *grid) on the grid of anchors, (B, *fine)."""
    grid = logits.shape[2:]
    ndim = len(grid)
    split = logits.reshape(len(logits), *counts, *grid)
    order = [0, *(1 + i for axis in range(ndim) for i in (ndim + axis, axis))]
    return split.permute(order).reshape(len(logits), *(g * c for g, c in zip(grid, counts, strict=True)))


def _peaks(logits: Tensor) -> Tensor:
    """Where no neighbour is higher; of two equal neighbours the first in raster order is the maximum."""
    ndim = logits.ndim - 1
    padded = functional.pad(logits, (1, 1) * ndim, value=-torch.inf)
    peak = torch.ones_like(logits, dtype=torch.bool)
    for step in product((-1, 0, 1), repeat=ndim):
        if not any(step):
            continue
        place = tuple(slice(1 + s, 1 + s + n) for s, n in zip(step, logits.shape[1:], strict=True))
        other = padded[(slice(None), *place)]
        peak &= (logits > other) if step < (0,) * ndim else (logits >= other)
    return peak


def look_twice(network, snr: Tensor, *others: Tensor, spec: HeadSpec) -> Tensor:
    """As `models.yolo.reflect.look_twice`, on the device."""
    axes = tuple(range(2, snr.ndim))
    raw = network(snr.flip(axes), *others)
    grid = raw.shape[2:]
    boxes = raw.reshape(len(raw), spec.boxes, spec.box_channels, *grid)[:, partners(spec)]
    turned = boxes.flip(tuple(range(3, boxes.ndim)))
    turned[:, :, spec.slot("offset")] *= -1
    return (turned.reshape(raw.shape) + network(snr, *others)) * 0.5
