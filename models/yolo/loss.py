"""The loss of a YOLO head: proper scores for presence, likelihoods for what is measured.

It differs from YOLO-CIANNA's sum of squared errors in that every term is divided by the number of targets,
presence is a cross-entropy (so that P is a probability), and position, parameters and angle are Laplace
likelihoods with a predicted scale: the network says how well it knows, and hopeless values stop pulling at
it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.yolo.assign import BACKGROUND
from models.yolo.head import HeadSpec, decode


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the loss, each already per target."""

    presence: float = 1.0
    objectness: float = 0.3
    background: float = 1.0
    size: float = 0.2
    position: float = 0.3
    params: float = 0.3
    angle: float = 0.2
    classes: float = 0.3


def laplace_nll(error: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log likelihood of absolute errors under a Laplace law, without its constant."""
    return error * torch.exp(-log_scale) + log_scale


def diou(a: Tensor, b: Tensor) -> Tensor:
    """DIoU (distance not squared) of boxes pair by pair, (n, 2 * ndim)."""
    n = a.shape[-1] // 2
    inter = (torch.minimum(a[:, n:], b[:, n:]) - torch.maximum(a[:, :n], b[:, :n])).clamp(min=0).prod(-1)
    union = (a[:, n:] - a[:, :n]).prod(-1) + (b[:, n:] - b[:, :n]).prod(-1) - inter
    distance = ((a[:, :n] + a[:, n:] - b[:, :n] - b[:, n:]) / 2).norm(dim=-1)
    diagonal = (torch.maximum(a[:, n:], b[:, n:]) - torch.minimum(a[:, :n], b[:, :n])).norm(dim=-1)
    return inter / union.clamp(min=1e-9) - distance / diagonal.clamp(min=1e-9)


def yolo_loss(
    raw: Tensor,
    assigned: Tensor,
    targets: dict[str, Tensor],
    spec: HeadSpec,
    *,
    weights: LossWeights | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch.

    Parameters
    ----------
    raw : Tensor, shape (B, channels, *grid)
        Network output.
    assigned : Tensor of int, shape (B, boxes, *grid)
        Row of ``targets`` (counted over the batch), BACKGROUND or IGNORED.
    targets : dict of Tensor
        ``centre`` (t, ndim) px; ``size`` (t, ndim) px, apparent; ``beam`` (t,) px, with ``spec.line_channels`` the
        scale of position errors and the unit of the priors; ``params`` (t, len(spec.params)); ``param_weight`` (t,
        len(spec.params)), in which the pair cos, sin of an angle carries the ellipticity; where the head has classes
        ``classes`` (t, len(spec.classes)), 0 or 1.
    spec : HeadSpec

    Returns
    -------
    loss : Tensor
        Scalar.
    parts : dict
        Terms for logging, per target.
    """
    w = weights or LossWeights()
    batch, _, *grid = raw.shape
    values = raw.float().reshape(batch, spec.boxes, spec.box_channels, *grid)
    values = values.movedim(2, -1).reshape(-1, spec.box_channels)
    flat = assigned.reshape(-1)
    positive = flat >= 0
    count = max(len(targets["centre"]), 1)
    presence = values[:, spec.slot("presence")][:, 0]
    objectness = values[:, spec.slot("objectness")][:, 0]
    background = flat == BACKGROUND
    parts = {
        "background": w.background * F.softplus(presence[background]).sum() / count,
        "objectness_background": w.objectness * F.softplus(objectness[background]).sum() / count,
    }
    index = torch.nonzero(positive)[:, 0]
    if len(index):
        row = flat[index].long()
        # A target's anchors share one vote, whatever the beam.
        votes = torch.bincount(row, minlength=count).clamp(min=1)[row].float()
        vote = 1.0 / votes
        anchors = torch.from_numpy(spec.anchor_positions(tuple(grid))).to(raw.device)
        anchors = anchors.reshape(1, -1, spec.ndim).expand(batch, -1, -1).reshape(-1, spec.ndim)[index]
        box = (index // int(torch.tensor(grid).prod())) % spec.boxes
        units = targets["beam"][row][:, None].repeat(1, spec.ndim)
        if spec.ndim != 2:
            units[:, 0] = spec.line_channels
        priors = torch.tensor(spec.priors, dtype=torch.float32, device=raw.device)[box] * units
        out = decode(values[index], anchors, priors, spec)
        scale = {name: out["scales"][:, i] for i, name in enumerate(spec.scales)}
        parts["presence"] = w.presence * F.softplus(-presence[index]).sum() / count
        offset = (out["centre"] - targets["centre"][row]).abs() / units
        term = laplace_nll(offset.mean(-1), scale["position"])
        parts["position"] = w.position * (vote * term).sum() / count
        log_target = torch.log(targets["size"][row] / priors)
        parts["size"] = w.size * (vote * (out["log_size"] - log_target).abs().mean(-1)).sum() / count
        half, half_t = out["size"] / 2, targets["size"][row] / 2
        iou = diou(
            torch.cat([out["centre"] - half, out["centre"] + half], -1),
            torch.cat([targets["centre"][row] - half_t, targets["centre"][row] + half_t], -1),
        )
        quality = ((1 + iou) / 2).clamp(0, 1).detach()
        term = F.binary_cross_entropy_with_logits(objectness[index], quality, reduction="sum")
        parts["objectness"] = w.objectness * term / count
        if spec.classes:
            logits, wanted = values[index][:, spec.slot("classes")], targets["classes"][row]
            if spec.exclusive:
                term = -(wanted * F.log_softmax(logits, dim=-1)).sum(-1)
            else:
                term = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(-1)
            parts["classes"] = w.classes * (vote * term).sum() / count
        error = (out["params"] - targets["params"][row]).abs()
        importance = targets["param_weight"][row] * vote[:, None]
        angle = [i for i, name in enumerate(spec.params) if name.startswith(("cos", "sin"))]
        for i, name in enumerate(spec.params):
            if i not in angle:
                term = laplace_nll(error[:, i], scale[name]) if name in scale else error[:, i]
                parts[name] = w.params * (importance[:, i] * term).sum() / count
        if angle:
            term = laplace_nll(error[:, angle].mean(-1), scale["angle"])
            parts["angle"] = w.angle * (importance[:, angle[0]] * term).sum() / count
    loss = sum(parts.values())
    return loss, {name: float(value.detach()) for name, value in parts.items()}
