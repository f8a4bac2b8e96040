"""Parts that detectors of images and of cubes share: compressed input, the beam as biases, how weights begin."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.yolo.head import HeadSpec

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def compress(snr: Tensor, knees: tuple[float, ...]) -> Tensor:
    """Copies of S/N data compressed by s / (k + |s|), (B, 1, *sides) to (B, len(knees), *sides), each within -1..1.

    The operation is exact in every engine.
    """
    size = snr.abs()
    return torch.cat([snr / (size + knee) for knee in knees], dim=1)


class BeamBias(nn.Module):
    """Per-channel biases from the beam's (ln major, ln minor, e cos 2 theta, e sin 2 theta), FWHM in px.

    Parameters
    ----------
    widths : list of int
        Channels of each layer that gets biases.
    ndim : int
        Axes of the maps that they are added to.
    """

    def __init__(self, widths: list[int], *, ndim: int = 2, hidden: int = 48):
        super().__init__()
        self.widths, self.ndim = widths, ndim
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, sum(widths)))

    def forward(self, beam: Tensor) -> list[Tensor]:
        biases = self.layers(beam)[(..., *(None,) * self.ndim)]
        return list(torch.split(biases, self.widths, dim=1))


def begin_weights(
    net: nn.Module, last: nn.Module, head: HeadSpec, *, share: float, slope: float = 0.0, std: float = 0.02
) -> None:
    """Weights to begin a training with.

    Parameters
    ----------
    net : nn.Module
        All its convolutions begin as Kaiming's for leaky ReLU of this ``slope``.
    last : nn.Module
        The convolution that makes the raw output; its weights are small, with this ``std``.
    head : HeadSpec
    share : float
        Presence and objectness that every box begins with: sources are rare, and the first steps shall not fight
        the background.
    """
    for layer in net.modules():
        if isinstance(layer, _CONVOLUTIONS):
            nn.init.kaiming_normal_(layer.weight, a=slope, nonlinearity="leaky_relu")
            nn.init.zeros_(layer.bias)
    nn.init.normal_(last.weight, std=std)
    logit = torch.logit(torch.tensor(share))
    with torch.no_grad():
        for slot in ("presence", "objectness"):
            last.bias.view(head.boxes, -1)[:, head.slot(slot)] = logit
