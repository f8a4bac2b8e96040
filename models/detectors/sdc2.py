"""The 23-layer reference network for cubes (Cornu et al., A&A 707, A203), adapted.

Kept: the layers, their widths and kernels, one box per cell of 16 channels x 8 x 8 pixels, leaky ReLU of slope 0.1.
Changed as in ``sdc1``: group normalisation is a batch normalisation, which folds into the next layer; the input is
signal-to-noise compressed at two depths; the beam is an input too. Two boxes share a cell of the reference's one prior,
an upper and a lower half in channels, so that two galaxies on one line of sight need not compete.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.detectors.light3d import KNEES, PARAMS, SCALES
from models.layers import BeamBias, begin_weights, compress
from models.registry import register_model
from models.yolo.head import HeadSpec

# (channels out, kernel, stride, padding) of layers 1 to 22, axes (channel, y, x); the 23rd is the head.
LAYERS = (
    (12, (8, 1, 1), (2, 1, 1), (3, 0, 0)), (8, (1, 3, 3), (1, 1, 1), (0, 1, 1)), (8, (5, 1, 1), (1, 1, 1), (2, 0, 0)),
    (8, (6, 2, 2), (2, 2, 2), (2, 0, 0)), (16, (3, 3, 3), (1, 1, 1), (1, 1, 1)), (12, (3, 1, 1), (1, 1, 1), (1, 0, 0)),
    (16, (6, 1, 1), (2, 1, 1), (2, 0, 0)), (24, (3, 3, 3), (1, 1, 1), (1, 1, 1)), (16, (3, 1, 1), (1, 1, 1), (1, 0, 0)),
    (24, (3, 3, 3), (1, 1, 1), (1, 1, 1)), (16, (3, 1, 1), (1, 1, 1), (1, 0, 0)),
    (48, (3, 2, 2), (1, 2, 2), (1, 0, 0)), (96, (3, 3, 3), (1, 1, 1), (1, 1, 1)), (48, (3, 1, 1), (1, 1, 1), (1, 0, 0)),
    (96, (3, 3, 3), (1, 1, 1), (1, 1, 1)), (48, (3, 1, 1), (1, 1, 1), (1, 0, 0)),
    (128, (4, 2, 2), (2, 2, 2), (1, 0, 0)), (256, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    (128, (3, 1, 1), (1, 1, 1), (1, 0, 0)), (256, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    (1024, (1, 1, 1), (1, 1, 1), (0, 0, 0)), (768, (1, 1, 1), (1, 1, 1), (0, 0, 0)),
)  # fmt: skip
# The layers that shrink the map: the beam's biases behind them reach every scale.
BEAM_LAYERS = (4, 7, 12, 17)
NORMALISED_LAYER, DROPPED_LAYER = 20, 21
SLOPE = 0.1


class Sdc2Detector(nn.Module):
    """The network: signal-to-noise and beam in, raw YOLO maps out.

    Parameters
    ----------
    dropout : float
        Rate behind layer 21 while training.
    """

    name = "sdc2"
    stride = (16, 8, 8)

    def __init__(self, dropout: float = 0.25) -> None:
        super().__init__()
        self.options = {"dropout": dropout}
        self.head = HeadSpec(
            stride=self.stride, anchors=((0.25, 0.5, 0.5), (0.75, 0.5, 0.5)), priors=((2.25, 4.0, 4.0),) * 2,
            params=PARAMS, scales=SCALES, reach=1.0,
        )  # fmt: skip
        self.blocks = nn.ModuleList()
        layers: list[nn.Module] = []
        width, field, jump = len(KNEES), [1, 1, 1], [1, 1, 1]
        for number, (channels, kernel, stride, padding) in enumerate(LAYERS, 1):
            layers.append(nn.Conv3d(width, channels, kernel, stride, padding))
            width = channels
            field = [f + (k - 1) * j for f, k, j in zip(field, kernel, jump, strict=True)]
            jump = [j * s for j, s in zip(jump, stride, strict=True)]
            if number in BEAM_LAYERS:
                self.blocks.append(nn.Sequential(*layers))
                layers = []
            layers.append(nn.LeakyReLU(SLOPE))
            if number == NORMALISED_LAYER:
                layers.append(nn.BatchNorm3d(width, eps=1e-3))
            if number == DROPPED_LAYER:
                layers.append(nn.Dropout(dropout))
        layers.append(nn.Conv3d(width, self.head.channels, 1))
        self.blocks.append(nn.Sequential(*layers))
        # Even kernels see one voxel more to one side of a cell's centre than to the other.
        self.receptive_field = tuple(f + f % 2 + 2 * (axis == 0) for axis, f in enumerate(field))
        self.beam = BeamBias([LAYERS[number - 1][0] for number in BEAM_LAYERS], ndim=3)
        begin_weights(self, self.blocks[-1][-1], self.head, share=0.003, slope=SLOPE, std=0.01)

    def forward(self, snr: Tensor, beam: Tensor) -> Tensor:
        """Raw maps of an S/N cube, (B, 1, C, H, W) with C a multiple of 16, H and W of 8; see `light3d`.

        Returns
        -------
        Tensor, shape (B, head.channels, C / 16, H / 8, W / 8)
        """
        maps = compress(snr, KNEES)
        for block, bias in zip(self.blocks, self.beam(beam), strict=False):
            maps = block(maps) + bias
        return self.blocks[-1](maps)


@register_model("sdc2", kind="detector", ndim=3)
def build_sdc2(*, dropout: float = 0.25) -> Sdc2Detector:
    """Reference network for cubes: 23 layers, 3.4 million weights, stride 16 x 8 x 8, two boxes per cell.

    Parameters
    ----------
    dropout : float
        Rate behind layer 21 while training.
    """
    return Sdc2Detector(dropout)
