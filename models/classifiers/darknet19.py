"""Darknet-19, the classifier whose layers the detectors of VOC and COCO begin with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.detectors.darknet import DARKNET19_LAYERS, SLOPE, make_layers
from models.registry import register_model
from models.residual import PictureClassifier


class Darknet19(PictureClassifier):
    """YOLO-CIANNA's variant: 18 convolutions, five halvings, one of 1 px for the classes, the mean over the map.

    ``body`` has the names that it has in `models.detectors.darknet.PhotographDetector`, which can begin with it
    (``start_partial``).

    Parameters
    ----------
    classes : sequence of str, optional
        None: those of the data that it is trained on.
    side : int
        Pixels of the picture that it reads; a multiple of 32.
    widths : float
        Factor of all filters.
    field : float
        Central share of a picture's side that it reads.
    """

    name = "darknet19"

    def __init__(
        self, classes: Sequence[str] | None = None, side: int = 224, widths: float = 1.0, field: float = 0.875
    ):
        named = tuple(classes or (f"class {i}" for i in range(1000)))
        options = {
            "classes": None if classes is None else list(classes), "side": side, "widths": widths, "field": field
        }  # fmt: skip
        super().__init__(side=side, channels=3, classes=named, options=options, field=field)
        self.body, self.width = make_layers(DARKNET19_LAYERS, widths=widths)
        self.answer = self._last(len(named))
        for layer in self.body.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")

    def _last(self, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(self.width, outputs, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, image: Tensor) -> Tensor:
        """Raw answers (B, classes) to pictures (B, 3, side, side) of 0 to 1."""
        return self.answer(self.body((image - 0.45) / 0.25))


@register_model("darknet19", kind="classifier", ndim=2, reads="photograph")
def build_darknet19(**options) -> Darknet19:
    """Classes of photographs by darknet-19, 20.8 M weights: the backbone of the darknet detectors."""
    return Darknet19(**options)
