"""The detector of lines in spectra: a residual network of stride 4 with one box per 2 channels.

9,900 multiply-accumulates per channel. Lines are 2 to 150 channels wide: besides what a learned stem makes of single
channels, the network gets means over 8 to 128 channels as S/N of their own, in which a line far below the noise of a
channel stands out; dilated convolutions compare each place with its surroundings. No normalisation layer: a channel's
answer depends on its surroundings within the receptive field and on nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import begin_weights, compress
from models.registry import register_model
from models.signature import NetworkInput
from models.yolo.head import HeadSpec

if TYPE_CHECKING:
    from models.line_lesson import LineLesson
    from models.training import TrainOptions

# S/N is compressed: nearly linear for noise and bounded for bright lines and spikes.
KNEES = (4.0, 60.0)
# Widths of the means, channels, and the S/N at which one channel's share in them begins to be bounded.
WIDTHS, SOFT = (8, 16, 32, 64, 128), 20.0
HALVES = ((0.25,), (0.75,))
PARAMS = ("log_flux", "log_width")
SCALES = ("position", "log_flux", "log_width")
CLASSES = ("emission", "absorption")


class Block1d(nn.Module):
    """Residual block of two dilated convolutions with 3 taps."""

    def __init__(self, width: int, dilations: tuple[int, int]):
        super().__init__()
        first, second = dilations
        self.first = nn.Conv1d(width, width, 3, padding=first, dilation=first)
        self.second = nn.Conv1d(width, width, 3, padding=second, dilation=second)
        # A block starts as the identity: without normalisation layers this keeps a deep stack trainable.
        self.gain = nn.Parameter(torch.full((1, width, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.gain * self.second(torch.relu(self.first(x))))


class LineDetector(nn.Module):
    """See the module's text.

    Parameters
    ----------
    stem, width, wide : int
        Channels at stride 2, at stride 4, and before the head.
    dilations : tuple of (int, int)
        Of each residual block's two convolutions.
    """

    name = "lines"
    stride = 4
    inputs = (NetworkInput("snr", (1, "length")),)

    def __init__(
        self, stem: int = 24, width: int = 36, wide: int = 64,
        dilations: tuple[tuple[int, int], ...] = ((1, 2), (4, 8), (16, 20), (1, 4)),
    ):  # fmt: skip
        super().__init__()
        self.options = {"stem": stem, "width": width, "wide": wide, "dilations": [list(d) for d in dilations]}
        self.head = HeadSpec(
            stride=(4,), anchors=HALVES, priors=((2.5,),) * 2, params=PARAMS, scales=SCALES, classes=CLASSES,
            reach=8.0, line_channels=4.0,
        )  # fmt: skip
        self.stem = nn.Conv1d(len(KNEES) + 1, stem, 6, stride=2, padding=2)
        self.down = nn.Conv1d(stem, width, 4, stride=2, padding=1)
        self.means = nn.Conv1d(2 * len(WIDTHS), width, 1)
        self.blocks = nn.ModuleList(Block1d(width, tuple(d)) for d in dilations)
        self.mix = nn.Conv1d(width, wide, 1)
        self.out = nn.Conv1d(wide, self.head.channels, 1)
        # The widest mean reaches further than the stem; then each block's taps.
        self.receptive_field = max(WIDTHS) + 8 * sum(sum(d) for d in dilations)
        begin_weights(self, self.out, self.head, share=0.01)

    def lesson(self, options: TrainOptions) -> LineLesson:
        """What it learns from: `models.training.Lesson`."""
        from models.line_lesson import LineLesson

        return LineLesson(self.head, options)

    def forward(self, snr: Tensor) -> Tensor:
        """Raw maps of a spectrum in units of its noise.

        Parameters
        ----------
        snr : Tensor, shape (B, 1, C)
            Continuum-subtracted spectrum over local rms, blanks exactly 0; C a multiple of 4.

        Returns
        -------
        Tensor, shape (B, head.channels, C / 4)
        """
        seen = snr.sign().abs()
        x = torch.relu(self.stem(torch.cat([compress(snr, KNEES), seen], dim=1)))
        x = self.down(x) + self.means(self._means(compress(snr, (SOFT,)), seen))
        x = torch.relu(x)
        for block in self.blocks:
            x = block(x)
        return self.out(torch.relu(self.mix(x)))

    @staticmethod
    def _means(soft: Tensor, seen: Tensor) -> Tensor:
        """S/N of means around each cell, within -1..1, and the share of channels that they rest on."""
        parts = []
        for width in WIDTHS:
            padding = (width - LineDetector.stride) // 2
            mean, share = (F.avg_pool1d(values, width, LineDetector.stride, padding) for values in (soft, seen))
            parts += [compress(mean * (SOFT * width**0.5), (KNEES[0],)), share]
        return torch.cat(parts, dim=1)


@register_model("lines", kind="detector", ndim=1)
def build_lines(**options) -> LineDetector:
    """Detector of emission and absorption lines in spectra, 9,900 multiply-accumulates per channel (default for 1D)."""
    return LineDetector(**options)
