"""Classifiers of cut-outs of photographs: the YOLO-CIANNA course's network, with or without a class for background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.answers import Answers
from models.detectors.darknet import SLOPE, make_layers
from models.registry import register_model
from models.signature import NetworkInput
from survey_io.datasets.voc import CLASSES

if TYPE_CHECKING:
    from models.classifier_lesson import ClassifierLesson
    from models.training import TrainOptions

BACKGROUND = "background"
_LAYERS = (
    (16, 3, "pool"), (32, 3, "pool"), (64, 3, "pool"), (128, 3, "pool"), (256, 3, "pool"), (512, 3), (1024, 3),
    (1024, 3),
)  # fmt: skip


class CutoutClassifier(nn.Module):
    """Convolutions of 3 px, the map halved five times, a convolution of 1 px and the mean over the map.

    Parameters
    ----------
    name : str
    classes : sequence of str
        With `BACKGROUND` as the last where it has that.
    side : int
        Of a cut-out, px; a multiple of 32.
    widths : float
        Factor of all filters.
    """

    def __init__(self, name: str, *, classes, side: int = 128, widths: float = 1.0):
        super().__init__()
        self.name, self.side = name, side
        self.options = {"classes": list(classes), "side": side, "widths": widths}
        self.answers = Answers(tuple(classes))
        self.inputs = (NetworkInput("image", (3, side, side)),)
        self.body, width = make_layers(_LAYERS, widths=widths)
        self.out = nn.Conv2d(width, len(classes), 1)
        for layer in self.body.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")

    def forward(self, image: Tensor) -> Tensor:
        """Logits of RGB cut-outs 0..1, (B, 3, side, side) to (B, classes)."""
        return self.out(self.body((image - 0.45) / 0.25)).mean(dim=(2, 3))

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """The network's input of cut-outs, uint8 (N, side, side, 3): float32, 0 to 1, (N, 3, side, side)."""
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)

    def lesson(self, options: TrainOptions) -> ClassifierLesson:
        """Cut-outs of photographs with boxes, in ``options.data``."""
        from models.lessons.cutouts import CutoutLesson

        return CutoutLesson(self, options)

    @torch.inference_mode()
    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Probability of each class of cut-outs, by torch; engines do the same faster."""
        return torch.softmax(self.eval()(torch.from_numpy(self.prepare(pixels))), dim=1).numpy()


@register_model("voc-cutouts", kind="classifier", ndim=2, reads="photograph")
def build_voc_cutouts(**options) -> CutoutClassifier:
    """The course's classifier of cut-outs of VOC's 20 classes, 128 px, 15.75 M parameters."""
    return CutoutClassifier("voc-cutouts", **{"classes": CLASSES, **options})


@register_model("voc-cutouts-background", kind="classifier", ndim=2, reads="photograph")
def build_voc_cutouts_background(**options) -> CutoutClassifier:
    """The same with background as a 21st class, which a detector by sliding windows needs."""
    return CutoutClassifier("voc-cutouts-background", **{"classes": (*CLASSES, BACKGROUND), **options})
