"""Photographs: digits, and whatever has a folder of pictures for each class."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.registry import register_model
from models.residual import PictureClassifier, averaged, residual_trunk

_DIGITS = tuple(str(digit) for digit in range(10))


class Digits(PictureClassifier):
    """The lecture course's LeNet: two convolutions with pooling and three dense layers, with ReLU.

    Parameters
    ----------
    classes : sequence of str, optional
        None: those of the data that it is trained on.
    dropout : tuple of float
        After the first and the second dense layer.
    """

    name = "digits"

    def __init__(self, classes: Sequence[str] | None = None, dropout: tuple[float, float] = (0.5, 0.2)):
        named = tuple(classes or _DIGITS)
        options = {"classes": None if classes is None else list(classes), "dropout": list(dropout)}
        super().__init__(side=28, channels=1, classes=named, options=options)
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(16 * 7 * 7, 256), nn.ReLU(), nn.Dropout(dropout[0]),
            nn.Linear(256, 128), nn.ReLU(), nn.Dropout(dropout[1]),
        )  # fmt: skip
        self.answer = self._last(len(named))

    def _last(self, outputs: int) -> nn.Linear:
        return nn.Linear(128, outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Raw answers (B, classes) to pictures (B, 1, 28, 28) of 0 to 1."""
        return self.answer(self.trunk(image))


class Photographs(PictureClassifier):
    """Residual network for colour photographs of one thing.

    Parameters
    ----------
    classes : sequence of str, optional
        None: those of the data that it is trained on.
    side : int
        Pixels of the picture that it reads; from 96 on the first convolution has a stride of 2.
    width : int
        Channels of the first stage; 2, 4 and 8 times as many in the others.
    blocks : sequence of int
        Residual blocks of the four stages.
    dropout : float
    field : float
        Central share of a picture's side that it reads.
    """

    name = "photographs"

    def __init__(
        self, classes: Sequence[str] | None = None, side: int = 32, width: int = 16,
        blocks: Sequence[int] = (1, 1, 1, 1), dropout: float = 0.2, field: float = 1.0,
    ):  # fmt: skip
        named = tuple(classes or ("cat", "dog"))
        options = {
            "classes": None if classes is None else list(classes), "side": side, "width": width, "blocks": list(blocks),
            "dropout": dropout, "field": field,
        }  # fmt: skip
        super().__init__(side=side, channels=3, classes=named, options=options, field=field)
        self.width, self.dropout = 8 * width, dropout
        large = side >= 96
        self.trunk = residual_trunk(
            3, [width, 2 * width, 4 * width, 8 * width], blocks, first=5 if large else 3, stride=2 if large else 1
        )
        self.answer = self._last(len(named))

    def _last(self, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(self.width, outputs)
        )

    def _one_view(self, image: Tensor) -> Tensor:
        return self.answer(self.trunk(image))

    def forward(self, image: Tensor) -> Tensor:
        """Raw answers (B, classes) to pictures (B, 3, side, side) of 0 to 1; in use the mean over both hands."""
        return averaged(self._one_view, image, 1 if self.training else 2)


@register_model("digits", kind="classifier", ndim=2, reads="photograph")
def build_digits(**options) -> Digits:
    """Handwritten digits by the lecture course's LeNet, 0.2 million weights."""
    return Digits(**options)


@register_model("photographs", kind="classifier", ndim=2, reads="photograph")
def build_photographs(**options) -> Photographs:
    """Classes of colour photographs: residual network of 0.3 million weights."""
    return Photographs(**options)
