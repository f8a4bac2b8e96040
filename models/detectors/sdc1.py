"""The 17-layer reference network for 2D images (Cornu et al. 2024, A&A 690, A211), adapted.

Kept: the layers, their widths and kernels, nine boxes per cell of 16 x 16 pixels, leaky ReLU of slope 0.05.
Changed: group normalisation, whose answer depends on the whole tile, is a batch normalisation, which folds
into the next layer. The input is signal-to-noise compressed at three depths, and the beam is an input too:
one set of weights serves any unit, depth and sampling. Nine boxes divide the cell by position, not by size.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.detectors.light import KNEES, PARAMS, SCALES
from models.layers import BeamBias, begin_weights, compress
from models.registry import register_model
from models.yolo.head import HeadSpec

# (channels out, kernel, stride) of layers 1 to 16; the seventeenth is the head.
LAYERS = (
    (32, 5, 1), (16, 2, 2), (24, 3, 1), (32, 3, 1),
    (64, 2, 2), (128, 1, 1), (192, 3, 1),
    (128, 2, 2), (192, 1, 1), (384, 3, 1), (256, 1, 1), (384, 3, 1),
    (512, 2, 2), (768, 1, 1), (1024, 3, 1), (2048, 1, 1),
)  # fmt: skip
# The layers that shrink the map: the beam's biases behind them reach every scale at no measurable cost.
BEAM_LAYERS = (2, 5, 8, 13)
NORMALISED_LAYER = 15
SLOPE = 0.05
THIRDS = (1 / 6, 1 / 2, 5 / 6)


class Sdc1Detector(nn.Module):
    """The network: signal-to-noise and beam in, raw YOLO maps out.

    Parameters
    ----------
    dropout : float
        Rate before the last layer while training.

    Attributes
    ----------
    name, stride, receptive_field, head, options
        "sdc1"; 16 and 100 pixels (no cell sees further than 42 pixels from its own 16 x 16); the layout of
        the output; the arguments that rebuild it.
    """

    name = "sdc1"
    stride = 16
    receptive_field = 100

    def __init__(self, dropout: float = 0.25) -> None:
        super().__init__()
        self.options = {"dropout": dropout}
        anchors = tuple((y, x) for y in THIRDS for x in THIRDS)
        self.head = HeadSpec(
            stride=(16, 16),
            anchors=anchors,
            priors=((1.0, 1.0),) * 9,
            params=PARAMS,
            scales=SCALES,
            reach=1.0,
        )
        self.blocks = nn.ModuleList()
        layers: list[nn.Module] = []
        width = len(KNEES)
        for number, (channels, kernel, stride) in enumerate(LAYERS, 1):
            layers.append(nn.Conv2d(width, channels, kernel, stride, kernel // 2 if stride == 1 else 0))
            width = channels
            if number in BEAM_LAYERS:
                self.blocks.append(nn.Sequential(*layers))
                layers = []
            layers.append(nn.LeakyReLU(SLOPE))
            if number == NORMALISED_LAYER:
                layers.append(nn.BatchNorm2d(width, eps=1e-3))
        layers += [nn.Dropout(dropout), nn.Conv2d(width, self.head.channels, 1)]
        self.blocks.append(nn.Sequential(*layers))
        self.beam = BeamBias([LAYERS[number - 1][0] for number in BEAM_LAYERS])
        begin_weights(self, self.blocks[-1][-1], self.head, share=0.01, slope=SLOPE, std=0.01)

    def forward(self, snr: Tensor, beam: Tensor) -> Tensor:
        """Raw maps of an S/N image.

        Parameters
        ----------
        snr : Tensor, shape (B, 1, H, W)
            Background-subtracted image over local rms, blanks 0; H and W multiples of 16.
        beam : Tensor, shape (B, 4)
            ln major, ln minor (FWHM in px), e cos 2 theta, e sin 2 theta with e = 1 - minor/major.

        Returns
        -------
        Tensor, shape (B, head.channels, H / 16, W / 16)
        """
        maps = compress(snr, KNEES)
        for block, bias in zip(self.blocks, self.beam(beam), strict=False):
            maps = block(maps) + bias
        return self.blocks[-1](maps)


@register_model("sdc1", kind="detector", ndim=2)
def build_sdc1(*, dropout: float = 0.25) -> Sdc1Detector:
    """Reference network of 17 layers and 12.7 million weights: stride 16, nine boxes per cell.

    Parameters
    ----------
    dropout : float
        Rate before the last layer while training.
    """
    return Sdc1Detector(dropout)
