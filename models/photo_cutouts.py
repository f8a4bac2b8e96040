"""Square cut-outs of photographs: things, and places where there is none."""

from __future__ import annotations

import numpy as np

from models.photo_augment import MARGIN, Scene

# Sides of the background's cut-outs over the image's longer side: those of the windows that a detector slides.
BACKGROUND_SIDES = (1.0, 0.5, 0.25)
# Places tried before a smaller side is taken.
TRIES = 10


def square_around(box: np.ndarray, *, grow: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The square with the box's centre and longer side, grown by a factor and moved by shares of its side, (4,)."""
    centre, half = (box[:2] + box[2:]) / 2, grow * (box[2:] - box[:2]).max() / 2
    centre = centre + 2 * half * np.asarray(shift)
    return np.concatenate([centre - half, centre + half])


def cut(image: np.ndarray, square: np.ndarray, side: int, *, flip: bool = False) -> np.ndarray:
    """A square of an image (edges in px, pixel centres at integers) with ``side`` px, grey beyond the image.

    Returns
    -------
    ndarray of uint8, shape (side, side, 3)
    """
    from PIL import Image

    y_lo, x_lo, y_hi, x_hi = (float(one) + 0.5 for one in square)
    height, width = image.shape[:2]
    canvas = Image.new("RGB", (side, side), (MARGIN,) * 3)
    inside = (max(x_lo, 0.0), max(y_lo, 0.0), min(x_hi, float(width)), min(y_hi, float(height)))
    if inside[2] - inside[0] > 0 and inside[3] - inside[1] > 0:
        scale = side / (y_hi - y_lo)
        corner = round((inside[0] - x_lo) * scale), round((inside[1] - y_lo) * scale)
        sides = max(1, round((inside[2] - inside[0]) * scale)), max(1, round((inside[3] - inside[1]) * scale))
        part = Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR, box=inside)
        canvas.paste(part, corner)
    pixels = np.asarray(canvas)
    return np.ascontiguousarray(pixels[:, ::-1]) if flip else pixels


def background_square(scene: Scene, rng: np.random.Generator) -> np.ndarray | None:
    """A random square of an image that overlaps no box, or None where there is no room for one.

    It begins with a random one of `BACKGROUND_SIDES`, and takes the next smaller side after `TRIES` places.
    """
    height, width = scene.image.shape[:2]
    for share in BACKGROUND_SIDES[rng.integers(len(BACKGROUND_SIDES)) :]:
        side = share * max(height, width)
        for _ in range(TRIES):
            # Wholly inside where that is possible, else across the shorter side.
            corner = [rng.uniform(*sorted((0.0, length - side))) - 0.5 for length in (height, width)]
            square = np.array([*corner, corner[0] + side, corner[1] + side])
            shared = np.minimum(square[2:], scene.boxes[:, 2:]) - np.maximum(square[:2], scene.boxes[:, :2])
            if not (shared > 0).all(axis=1).any():
                return square
    return None
