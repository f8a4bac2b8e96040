"""Detectors on photographs: the small network of the YOLO-CIANNA course, and the darknet-19 of its VOC and COCO runs.

Both follow YOLO-CIANNA's layer tables (Cornu et al. 2024; course of 2024/25) with batch normalisation in the place of
group normalisation, which is folded into the convolutions for inference, and with the head of `models.yolo.head`.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import begin_weights
from models.registry import register_model
from models.signature import NetworkInput
from models.yolo.head import HeadSpec
from survey_io.datasets.coco import CLASSES as COCO_CLASSES
from survey_io.datasets.voc import CLASSES as VOC_CLASSES

SLOPE = 0.1
# (height, width) in px at the size that the network is trained at: k-means by overlap of the boxes of VOC2007's
# training images, letterboxed. The course took its own from the test set.
LIGHT_PRIORS = ((25.0, 20.0), (58.0, 34.0), (74.0, 72.0), (140.0, 99.0), (166.0, 212.0))
LARGE_PRIORS = ((32.0, 32.0), (150.0, 92.0), (92.0, 150.0), (333.0, 208.0), (208.0, 333.0))
# Filters and side of each convolution; "pool": its map is halved.
LIGHT_LAYERS = (
    (24, 3, "pool"), (48, 3, "pool"), (96, 3, "pool"), (128, 3, "pool"), (256, 3, "pool"), (256, 3), (256, 3), (512, 1),
)  # fmt: skip
# The classifier's 18 layers, without its last.
DARKNET19_LAYERS = (
    (32, 3, "pool"), (64, 3, "pool"), (128, 3), (64, 1), (128, 3, "pool"), (256, 3), (128, 1), (256, 3, "pool"),
    (512, 3), (256, 1), (512, 3), (256, 1), (512, 3, "pool"), (1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3),
)  # fmt: skip
Layers = tuple[tuple[int, int] | tuple[int, int, str], ...]


class Layer(nn.Sequential):
    """Convolution, max pooling where asked for, batch normalisation, leaky ReLU.

    Pooling comes first, for normalisation and activation then have a quarter of the work; where the normalisation's
    factors are positive the answer is the same.
    """

    def __init__(self, inputs: int, filters: int, side: int, pool: str = ""):
        parts: list[nn.Module] = [nn.Conv2d(inputs, filters, side, padding=side // 2, bias=False)]
        if pool:
            parts.append(nn.MaxPool2d(2))
        super().__init__(*parts, nn.BatchNorm2d(filters), nn.LeakyReLU(SLOPE, inplace=True))


def make_layers(layers: Layers, *, inputs: int = 3, widths: float = 1.0) -> tuple[nn.Sequential, int]:
    """A stack of layers, their filters times ``widths``, and how many channels it gives."""
    stack: list[nn.Module] = []
    for filters, *rest in layers:
        filters = max(8, round(filters * widths))
        stack.append(Layer(inputs, filters, *rest))
        inputs = filters
    return nn.Sequential(*stack), inputs


class PhotographDetector(nn.Module):
    """A stack of convolutions and a YOLO head of stride 32.

    Parameters
    ----------
    name : str
    layers : tuple
        As `make_layers` takes them; five halve the map.
    priors : sequence of (height, width), px
    classes : sequence of str
    size : int
        Side of the canvas that images are laid on, px; a multiple of 32.
    dropout : float
        Before the head.
    widths : float
        Factor of all filters.
    """

    stride = 32

    def __init__(
        self, name: str, layers: Layers, *, priors, classes, size: int, dropout: float = 0.1, widths: float = 1.0
    ):
        super().__init__()
        self.name, self.size = name, size
        self.options = {
            "priors": [list(one) for one in priors], "classes": list(classes), "size": size, "dropout": dropout,
            "widths": widths,
        }  # fmt: skip
        self.inputs = (NetworkInput("image", (3, "height", "width")),)
        self.head = HeadSpec(
            stride=(32, 32), anchors=((0.5, 0.5),) * len(priors), priors=tuple(tuple(one) for one in priors),
            params=(), scales=("position",), classes=tuple(classes), reach=2.0, exclusive=True,
        )  # fmt: skip
        self.body, width = make_layers(layers, widths=widths)
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(width, self.head.channels, 1)
        for layer in self.body.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
        begin_weights(self.out, self.out, self.head, share=0.01)

    def forward(self, image: Tensor) -> Tensor:
        """Raw maps of RGB images 0..1, (B, 3, H, W), H and W multiples of 32; (B, head.channels, H / 32, W / 32)."""
        return self.out(self.dropout(self.body((image - 0.45) / 0.25)))


@register_model("voc-yolo-light", kind="detector", ndim=2, reads="photograph")
def build_voc_yolo_light(**options) -> PhotographDetector:
    """The course's detector of VOC's 20 classes: 288 px, 9 x 9 cells, 5 priors, 1.84 M parameters."""
    given = {"priors": LIGHT_PRIORS, "classes": VOC_CLASSES, "size": 288, "dropout": 0.1, **options}
    return PhotographDetector("voc-yolo-light", LIGHT_LAYERS, **given)


@register_model("voc-darknet19", kind="detector", ndim=2, reads="photograph")
def build_voc_darknet19(**options) -> PhotographDetector:
    """Darknet-19 with three more layers on VOC's 20 classes: 416 px, 48 M parameters."""
    return _darknet19("voc-darknet19", {"classes": VOC_CLASSES, **options})


@register_model("coco-darknet19", kind="detector", ndim=2, reads="photograph")
def build_coco_darknet19(**options) -> PhotographDetector:
    """Darknet-19 with three more layers on COCO's 80 classes: 416 px, 49 M parameters."""
    return _darknet19("coco-darknet19", {"classes": COCO_CLASSES, **options})


def _darknet19(name: str, options: dict) -> PhotographDetector:
    given = {"priors": LARGE_PRIORS, "size": 416, "dropout": 0.0, **options}
    return PhotographDetector(name, (*DARKNET19_LAYERS, (1024, 3), (1024, 3), (1024, 3)), **given)
