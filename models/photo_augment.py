"""Changes of photographs that keep their labels: crops, scales, flips, mosaics, colours, blur."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Grey of the margins, near the mean of photographs.
MARGIN = 114


@dataclass(frozen=True)
class Scene:
    """An image with its boxes, as `survey_io.datasets.photographs.Photograph` has them.

    Attributes
    ----------
    image : ndarray of uint8, shape (height, width, 3)
    boxes : ndarray of float32, shape (n, 4)
        (y_lo, x_lo, y_hi, x_hi), edges in px with pixel centres at integers from 0.
    labels : ndarray of int, shape (n,)
    difficult : ndarray of bool, shape (n,)
        Neither demanded nor punished.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


@dataclass(frozen=True)
class View:
    """How an image is laid on a canvas: canvas px = scale * image px + shift, per axis, in edge coordinates.

    Edge coordinates are pixel coordinates + 0.5: 0 at the first pixel's lower edge.
    """

    scale: tuple[float, float]
    shift: tuple[float, float]
    flip: bool = False

    def boxes(self, boxes: np.ndarray, width: int) -> np.ndarray:
        """Boxes of the image (of that width before the flip) on the canvas."""
        edges = boxes.astype(np.float64) + 0.5
        if self.flip:
            edges[:, [1, 3]] = width - edges[:, [3, 1]]
        scale, shift = np.tile(self.scale, 2), np.tile(self.shift, 2)
        return (edges * scale + shift - 0.5).astype(np.float32)

    def back(self, boxes: np.ndarray, width: int) -> np.ndarray:
        """Boxes of the canvas on the image: the inverse of `boxes`."""
        scale, shift = np.tile(self.scale, 2), np.tile(self.shift, 2)
        edges = (boxes.astype(np.float64) + 0.5 - shift) / scale
        if self.flip:
            edges[:, [1, 3]] = width - edges[:, [3, 1]]
        return (edges - 0.5).astype(np.float32)


def letterbox(shape: tuple[int, int], size: int) -> View:
    """The whole image in the middle of a square canvas, its aspect kept."""
    scale = size / max(shape)
    return View((scale, scale), ((size - shape[0] * scale) / 2, (size - shape[1] * scale) / 2))


def random_view(shape: tuple[int, int], size: int, rng: np.random.Generator, *, zoom: float = 1.0) -> View:
    """A random scale (0.65 to 1.7 times ``zoom`` of the letterbox's), stretch (up to 1.3), place and flip."""
    zoom *= size / max(shape) * math.exp(rng.uniform(math.log(0.65), math.log(1.7)))
    stretch = math.exp(rng.uniform(-0.5, 0.5) * math.log(1.3))
    scale = (zoom * stretch, zoom / stretch)
    # Anywhere where image and canvas overlap as much as they can.
    shift = tuple(rng.uniform(*sorted((0.0, size - side * one))) for side, one in zip(shape, scale, strict=True))
    return View(scale, shift, flip=bool(rng.random() < 0.5))


def show(image: np.ndarray, view: View, size: int) -> np.ndarray:
    """The image on a square canvas, uint8 (size, size, 3); the margin is grey."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image[:, ::-1]) if view.flip else image)
    wide, high = max(1, round(picture.width * view.scale[1])), max(1, round(picture.height * view.scale[0]))
    # Reducing first keeps fine structure from folding; PIL's box filter is fast.
    picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (size, size), (MARGIN,) * 3)
    canvas.paste(picture, (round(view.shift[1]), round(view.shift[0])))
    return np.asarray(canvas)


def place(scene: Scene, view: View, size: int, *, visible: float = 0.4, smallest: float = 5.0) -> Scene:
    """A scene on a canvas.

    Boxes are cut at the canvas; those of which less than ``visible`` of the area, or less than ``smallest`` px of a
    side, is left become difficult, and those that lie outside are left out.
    """
    boxes = view.boxes(scene.boxes, scene.image.shape[1])
    return _cut(Scene(show(scene.image, view, size), boxes, scene.labels, scene.difficult), size, visible, smallest)


def _cut(scene: Scene, size: int, visible: float, smallest: float) -> Scene:
    cut = np.clip(scene.boxes, -0.5, size - 0.5)
    sides, whole = cut[:, 2:] - cut[:, :2], scene.boxes[:, 2:] - scene.boxes[:, :2]
    inside = (sides > 0.5).all(axis=1)
    left = sides.prod(axis=1) / np.maximum(whole.prod(axis=1), 1e-6)
    difficult = scene.difficult | (left < visible) | (sides < smallest).any(axis=1)
    return Scene(scene.image, cut[inside], scene.labels[inside], difficult[inside])


def mosaic(scenes: list[Scene], size: int, rng: np.random.Generator, **limits: float) -> Scene:
    """Four scenes in the quarters of a canvas that meet at a random point, each at a random zoom.

    Objects appear smaller and beside strangers, which a small training set otherwise never shows.
    """
    middle = rng.uniform(0.35, 0.65, 2) * size
    canvas = np.full((size, size, 3), MARGIN, np.uint8)
    boxes, labels, difficult = [], [], []
    for i, scene in enumerate(scenes):
        row, column = divmod(i, 2)
        lo = (int(middle[0]) * row, int(middle[1]) * column)
        hi = (size if row else int(middle[0]), size if column else int(middle[1]))
        view = random_view(scene.image.shape[:2], max(hi[0] - lo[0], hi[1] - lo[1]), rng, zoom=1.3)
        one = place(scene, view, max(hi[0] - lo[0], hi[1] - lo[1]), **limits)
        high, wide = hi[0] - lo[0], hi[1] - lo[1]
        canvas[lo[0] : hi[0], lo[1] : hi[1]] = one.image[:high, :wide]
        sides = np.array([high, wide, high, wide]) - 0.5
        cut = np.clip(one.boxes, -0.5, sides)
        extent, whole = cut[:, 2:] - cut[:, :2], one.boxes[:, 2:] - one.boxes[:, :2]
        inside = (extent > 0.5).all(axis=1)
        hidden = extent.prod(axis=1) < limits.get("visible", 0.4) * whole.prod(axis=1)
        boxes.append(cut[inside] + np.tile(lo, 2).astype(np.float32))
        labels.append(one.labels[inside])
        difficult.append((one.difficult | hidden)[inside])
    return Scene(canvas, np.concatenate(boxes), np.concatenate(labels), np.concatenate(difficult))


def colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random brightness, contrast, saturation, warmth, gamma, sometimes grey or blurred."""
    from PIL import Image, ImageFilter

    if rng.random() < 0.05:
        image = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))))
    # One table per channel does brightness, contrast, warmth and gamma at once.
    levels = np.arange(256, dtype=np.float32) / 255
    gamma, gain, contrast = (math.exp(rng.uniform(-one, one)) for one in (0.25, 0.25, 0.3))
    warmth = rng.uniform(-0.08, 0.08)
    table = gain * levels**gamma
    table = (table - 0.45) * contrast + 0.45
    tables = [np.clip(255 * table * factor, 0, 255) for factor in (1 + warmth, 1.0, 1 - warmth)]
    out = np.stack([np.take(one, image[..., c]) for c, one in enumerate(tables)], axis=-1)
    saturation = 0.0 if rng.random() < 0.03 else math.exp(rng.uniform(-0.4, 0.4))
    grey = out.mean(axis=-1, keepdims=True)
    return np.clip(grey + saturation * (out - grey), 0, 255).astype(np.uint8)
