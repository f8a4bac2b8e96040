"""The light default detector: a residual network of stride 4 with one box per 2 x 2 pixels.

4,600 multiply-accumulates per pixel, where the 17-layer reference takes 88,000. It has no normalisation
layer, so that a pixel's answer depends on its surroundings within the receptive field and on nothing else,
and it knows the beam: shape and size enter as biases, which cost nothing per pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import BeamBias, begin_weights, compress
from models.registry import register_model
from models.yolo.head import HeadSpec

# S/N is compressed at three scales: noise, faint and bright sources each keep resolution.
KNEES = (4.0, 32.0, 256.0)
QUARTERS = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
PARAMS = ("log_flux", "log_major", "log_minor", "cos_2theta", "sin_2theta")
SCALES = ("position", "log_flux", "log_major", "log_minor", "angle")


class Block(nn.Module):
    """Residual block of two 3 x 3 convolutions; the beam's bias enters before the first activation."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        # A block starts as the identity: without normalisation layers this keeps a deep stack trainable.
        self.gain = nn.Parameter(torch.full((1, width, 1, 1), 0.2))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return torch.relu(x + self.gain * self.second(torch.relu(self.first(x) + bias)))


class LightDetector(nn.Module):
    """See the module's text.

    Parameters
    ----------
    stem, width, wide : int
        Channels at stride 2, at stride 4, and before the head.
    dilations : tuple of int
        One residual block each.
    """

    name = "light"
    stride = 4

    def __init__(
        self, stem: int = 16, width: int = 32, wide: int = 96, dilations: tuple[int, ...] = (1, 2, 2)
    ):
        super().__init__()
        self.options = {"stem": stem, "width": width, "wide": wide, "dilations": list(dilations)}
        self.head = HeadSpec(
            stride=(4, 4), anchors=QUARTERS, priors=((1.0, 1.0),) * 4, params=PARAMS, scales=SCALES, reach=2.0
        )
        self.stem = nn.Conv2d(len(KNEES), stem, 6, stride=2, padding=2)
        self.down = nn.Conv2d(stem, width, 2, stride=2)
        self.blocks = nn.ModuleList(Block(width, d) for d in dilations)
        self.mix = nn.Conv2d(width, wide, 1)
        self.out = nn.Conv2d(wide, self.head.channels, 1)
        self.beam = BeamBias([stem, width, *[width] * len(dilations), wide])
        # Pixels seen by one cell: the stem and the stride-2 step cover 8 (4 of them the cell's own).
        self.receptive_field = 8 + sum(8 * (d + 1) for d in dilations)
        begin_weights(self, self.out, self.head, share=0.01)

    def forward(self, snr: Tensor, beam: Tensor) -> Tensor:
        """Raw maps of an S/N image.

        Parameters
        ----------
        snr : Tensor, shape (B, 1, H, W)
            Background-subtracted image over local rms, blanks 0; H and W multiples of 4.
        beam : Tensor, shape (B, 4)
            ln major, ln minor (FWHM in px), e cos 2 theta, e sin 2 theta with e = 1 - minor/major.

        Returns
        -------
        Tensor, shape (B, head.channels, H / 4, W / 4)
        """
        biases = self.beam(beam)
        x = torch.relu(self.stem(compress(snr, KNEES)) + biases[0])
        x = torch.relu(self.down(x) + biases[1])
        for block, bias in zip(self.blocks, biases[2:-1], strict=True):
            x = block(x, bias)
        return self.out(torch.relu(self.mix(x) + biases[-1]))


@register_model("light", kind="detector", ndim=2)
def build_light(**options) -> LightDetector:
    """Light 2D detector, 4,600 multiply-accumulates per pixel (default)."""
    return LightDetector(**options)
