"""What detectors learn from: endless simulated fields with targets, and the loss of their heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.cube_loader import CubeFields
from models.fields import Batch
from models.loader import SkyFields
from models.precision import as_layout, autocast
from models.rounding import CHANGE, Rounding, decision_change
from models.yolo.head import HeadSpec
from models.yolo.loss import LossWeights, yolo_loss

if TYPE_CHECKING:
    from models.training import TrainOptions

# Faint galaxies in a cube are hard to tell from noise and three or four anchors answer for each: at equal weights
# presence would drown what is learned of sizes and angles.
CUBE_WEIGHTS = LossWeights(presence=0.5, objectness=0.1, background=0.5, size=0.3, position=0.5, params=1.0, angle=1.5)


class DetectorLesson:
    """How a detector is trained: see `models.training.Lesson`."""

    def __init__(self, head: HeadSpec, options: TrainOptions):
        self.head, self.options = head, options
        # Set where the network is trained for 8 bits.
        self.rounding: Rounding | None = None

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> SkyFields | CubeFields:
        """See `models.training.Lesson`."""
        return make_fields(self.head, self.options, seed=seed, pool=self.options.pool, first=first, every=every)

    def held_out(self) -> list[Batch]:
        """Fields of skies of another seed; the first are left out, which come while the pool is small."""
        source = iter(make_fields(self.head, self.options, seed=987_654, pool=16))
        return [next(source) for _ in range(24)][8:]

    def loss(
        self, net: nn.Module, batch: Batch, device: torch.device, precision: str
    ) -> tuple[Tensor, dict[str, float]]:
        """See `models.training.Lesson`."""
        return batch_loss(net, batch, device, precision, rounding=self.rounding)

    def draw(self, net: nn.Module, batch: Batch, path: Path) -> None:
        """See `models.training.Lesson`."""
        draw_predictions(net, batch, path)


def make_fields(
    head: HeadSpec, options: TrainOptions, *, seed: int, pool: int, first: int = 0, every: int = 1
) -> SkyFields | CubeFields:
    """Endless batches for a head of two (sky) or three dimensions (cubes)."""
    common = {"batch": options.batch, "seed": seed, "pool": pool, "first": first, "every": every}
    if head.ndim == 3:
        return CubeFields(head, size=options.cube_size, templates=options.templates, **common)
    return SkyFields(head, size=options.size, **common)


def batch_loss(
    net: nn.Module, batch: tuple, device: torch.device, precision: str, *, rounding: Rounding | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Forward pass and loss of one batch on a device.

    Trained for 8 bits, a network is to be good with rounding and without, and to decide the same: the loss is the mean
    of both and a term of what the rounding changes, whose root mean square is told as "rounding".
    """
    snr, beam, assigned, targets = batch
    snr, beam, assigned = as_layout(snr.to(device, non_blocking=True), net), beam.to(device), assigned.to(device)
    targets = {name: value.to(device) for name, value in targets.items()}
    weights = CUBE_WEIGHTS if net.head.ndim == 3 else None

    def answer() -> tuple[Tensor, Tensor, dict[str, float]]:
        with autocast(device, precision):
            raw = net(snr, beam)
        return raw, *yolo_loss(raw, assigned, targets, net.head, weights=weights)

    raw, loss, parts = answer()
    if rounding is None:
        return loss, parts
    with rounding.off():
        exact, exact_loss, _ = answer()
    change = decision_change(exact, raw, net.head)
    return (loss + exact_loss) / 2 + CHANGE * change, parts | {"rounding": float(change.detach()) ** 0.5}


@torch.no_grad()
def draw_predictions(net: nn.Module, batch: tuple, path: Path) -> None:
    """Picture of a batch's first fields: S/N with true centres (red) and the map of P beside it.

    Of cubes the highest values over the channels are shown.
    """
    from matplotlib.figure import Figure

    snr, beam, assigned, targets = batch
    device = next(net.parameters()).device
    net.eval()
    raw = net(snr[:3].to(device), beam[:3].to(device)).float().cpu()
    net.train()
    spec = net.head
    values = raw.reshape(len(raw), spec.boxes, spec.box_channels, *raw.shape[2:])
    presence = torch.sigmoid(values[:, :, spec.slot("presence").start]).amax(dim=1)
    shown = snr[:3, 0]
    if spec.ndim == 3:
        presence, shown = presence.amax(dim=1), shown.amax(dim=1)
    figure = Figure(figsize=(10, 5 * len(raw)))
    axes = figure.subplots(len(raw), 2, squeeze=False)
    for i, (left, right) in enumerate(axes):
        left.imshow(torch.asinh(shown[i] / 3).numpy(), origin="lower", cmap="gray", vmin=-1.2, vmax=3)
        right.imshow(presence[i].numpy(), origin="lower", vmin=0, vmax=1)
        rows = assigned[i][assigned[i] >= 0].unique()
        centre = targets["centre"][rows].numpy()
        left.scatter(centre[:, -1], centre[:, -2], s=30, edgecolors="red", facecolors="none", linewidths=0.7)
        left.set_title(f"S/N, {len(rows)} demanded sources")
        right.set_title("P per cell")
    figure.tight_layout()
    figure.savefig(path, dpi=60)
