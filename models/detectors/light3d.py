"""The light detector for cubes: a residual network of stride 8 x 4 x 4 with one box per 8 x 2 x 2 voxels.

4,500 multiply-accumulates per voxel, where the 23-layer reference takes 6,900 and runs slower still for its thin early
layers. One strided convolution with long kernels along the channels is the filter bank of a classical line finder,
learned; behind it wide layers work on 1/128 of the voxels. No normalisation layer: a voxel's answer depends on its
surroundings within the receptive field and on nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import BeamBias, begin_weights, compress
from models.registry import register_model
from models.yolo.head import HeadSpec

# S/N is compressed: nearly linear for noise, whose sum over many voxels is what shows a faint line,
# and bounded for bright galaxies.
KNEES = (5.0, 60.0)
QUARTERS = ((0.5, 0.25, 0.25), (0.5, 0.25, 0.75), (0.5, 0.75, 0.25), (0.5, 0.75, 0.75))
PARAMS = ("log_flux", "log_size", "log_w20", "inclination", "cos_theta", "sin_theta")
SCALES = ("position", "log_flux", "log_size", "log_w20", "inclination", "angle")


class Block3d(nn.Module):
    """Residual block: 3 x 3 x 3, then 3 dilated taps along the channels, for which lines are longer than discs wide."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, (3, 1, 1), padding=(dilation, 0, 0), dilation=(dilation, 1, 1))
        # A block starts as the identity: without normalisation layers this keeps a deep stack trainable.
        self.gain = nn.Parameter(torch.full((1, width, 1, 1, 1), 0.2))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return torch.relu(x + self.gain * self.second(torch.relu(self.first(x) + bias)))


class Light3dDetector(nn.Module):
    """See the module's text.

    Parameters
    ----------
    stem, width, wide : int
        Channels at stride 4 x 2 x 2, at stride 8 x 4 x 4, and before the head.
    dilations : tuple of int
        Along the channels, one residual block each.
    """

    name = "light3d"
    stride = (8, 4, 4)

    def __init__(self, stem: int = 24, width: int = 64, wide: int = 128, dilations: tuple[int, ...] = (1, 2, 3, 1)):
        super().__init__()
        self.options = {"stem": stem, "width": width, "wide": wide, "dilations": list(dilations)}
        self.head = HeadSpec(
            stride=self.stride, anchors=QUARTERS, priors=((1.0, 1.0, 1.0),) * 4, params=PARAMS, scales=SCALES, reach=2.0
        )
        self.stem = nn.Conv3d(len(KNEES), stem, (8, 4, 4), stride=(4, 2, 2), padding=(2, 1, 1))
        self.down = nn.Conv3d(stem, width, 2, stride=2)
        self.blocks = nn.ModuleList(Block3d(width, d) for d in dilations)
        self.mix = nn.Conv3d(width, wide, 1)
        self.out = nn.Conv3d(wide, self.head.channels, 1)
        self.beam = BeamBias([stem, width, *[width] * len(dilations), wide], ndim=3)
        # A cell's own voxels and what the stem reaches beyond them; then each block's taps.
        taps = sum(1 + d for d in dilations)
        self.receptive_field = (12 + 16 * taps, 6 + 8 * len(dilations), 6 + 8 * len(dilations))
        begin_weights(self, self.out, self.head, share=0.003)

    def forward(self, snr: Tensor, beam: Tensor) -> Tensor:
        """Raw maps of an S/N cube.

        Parameters
        ----------
        snr : Tensor, shape (B, 1, C, H, W)
            Level-subtracted cube over local rms, blanks 0; C a multiple of 8, H and W of 4.
        beam : Tensor, shape (B, 4)
            ln major, ln minor (FWHM in px), e cos 2 theta, e sin 2 theta with e = 1 - minor/major.

        Returns
        -------
        Tensor, shape (B, head.channels, C / 8, H / 4, W / 4)
        """
        biases = self.beam(beam)
        x = torch.relu(self.stem(compress(snr, KNEES)) + biases[0])
        x = torch.relu(self.down(x) + biases[1])
        for block, bias in zip(self.blocks, biases[2:-1], strict=True):
            x = block(x, bias)
        return self.out(torch.relu(self.mix(x) + biases[-1]))


@register_model("light3d", kind="detector", ndim=3)
def build_light3d(**options) -> Light3dDetector:
    """Light 3D detector for cubes, 4,500 multiply-accumulates per voxel (default for cubes)."""
    return Light3dDetector(**options)
