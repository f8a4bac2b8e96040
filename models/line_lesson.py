"""What the detector of lines in spectra learns from, and its loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.fields import Batch
from models.line_loader import SpectrumFields
from models.precision import autocast
from models.yolo.head import HeadSpec
from models.yolo.loss import LossWeights, yolo_loss

if TYPE_CHECKING:
    from models.training import TrainOptions

# Wide lines have many anchors, each with a say on presence; what is measured must not drown in it.
LINE_WEIGHTS = LossWeights(presence=0.3, objectness=0.05, background=0.3, size=0.5, position=1.0, params=1.0)


class LineLesson:
    """How a detector of lines is trained: see `models.training.Lesson`."""

    def __init__(self, head: HeadSpec, options: TrainOptions):
        self.head, self.options = head, options

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> SpectrumFields:
        """See `models.training.Lesson`."""
        options = self.options
        # A spectrum takes far less memory than a sky, and there are few fields in one.
        return SpectrumFields(
            self.head, batch=options.batch, size=options.channels, seed=seed, pool=2 * options.pool, first=first,
            every=every,
        )  # fmt: skip

    def held_out(self) -> list[Batch]:
        """Fields of spectra of another seed."""
        fields = SpectrumFields(self.head, batch=16, size=self.options.channels, seed=987_654, pool=64, renew=1)
        source = iter(fields)
        return [next(source) for _ in range(32)]

    def loss(
        self, net: nn.Module, batch: Batch, device: torch.device, precision: str
    ) -> tuple[Tensor, dict[str, float]]:
        """See `models.training.Lesson`."""
        snr, _, assigned, targets = batch
        with autocast(device, precision):
            raw = net(snr.to(device, non_blocking=True))
        targets = {name: value.to(device) for name, value in targets.items()}
        return yolo_loss(raw, assigned.to(device), targets, net.head, weights=LINE_WEIGHTS)

    @torch.no_grad()
    def draw(self, net: nn.Module, batch: Batch, path: Path) -> None:
        """Picture of a batch's first fields: S/N, demanded lines below it (red emission, blue absorption), and P."""
        from matplotlib.figure import Figure

        snr, _, assigned, targets = (part[:8] if isinstance(part, Tensor) else part for part in batch)
        net.eval()
        raw = net(snr.to(next(net.parameters()).device)).float().cpu()
        net.train()
        spec = self.head
        values = raw.reshape(len(raw), spec.boxes, spec.box_channels, -1)
        presence = torch.sigmoid(values[:, :, spec.slot("presence").start]).transpose(1, 2).reshape(len(raw), -1)
        at = np.sort(spec.anchor_positions(tuple(raw.shape[2:])).ravel())
        figure = Figure(figsize=(18, 2.6 * len(raw)))
        for one, axis in enumerate(np.ravel(figure.subplots(len(raw), 1, squeeze=False))):
            axis.step(np.arange(snr.shape[2]), np.arcsinh(snr[one, 0].numpy() / 3), where="mid", lw=0.6, color="black")
            for row in assigned[one][assigned[one] >= 0].unique():
                centre, width = float(targets["centre"][row, 0]), float(targets["size"][row, 0])
                colour = "red" if targets["classes"][row, 0] > 0 else "blue"
                axis.plot([centre - width / 2, centre + width / 2], [-2.2, -2.2], color=colour, lw=3)
                axis.axvline(centre, color=colour, lw=0.3)
            axis.plot(at, 2 * presence[one].numpy() - 4.5, color="green", lw=0.8)
            axis.set_ylim(-4.7, 5)
            axis.margins(x=0)
        figure.tight_layout()
        figure.savefig(path, dpi=50)
