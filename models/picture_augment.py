"""Changes of pictures that keep their labels, for a whole batch at once: turns, flips, scale, shift, light, colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional


@dataclass(frozen=True)
class Changes:
    """How much pictures are changed at random.

    Attributes
    ----------
    turn : float
        Largest angle, degrees.
    flip : str
        "h" mirrors left-right in half of the draws, "v" up-down, "hv" both; "" neither.
    scale : float
        Ln of the largest factor of size.
    shift : float
        Largest shift over the side.
    light : float
        Largest relative change of brightness and of contrast.
    colour : float
        Standard deviation of each colour's relative change.
    noise : float
        Largest standard deviation of noise added, of a full scale of 1.
    """

    turn: float = 0.0
    flip: str = ""
    scale: float = 0.0
    shift: float = 0.0
    light: float = 0.0
    colour: float = 0.0
    noise: float = 0.0


def changed(pixels: np.ndarray, side: int, changes: Changes, rng: np.random.Generator) -> torch.Tensor:
    """Central parts of pictures, changed at random.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (N, S, S, C)
    side : int
        Of the result, at the same scale: not more than S.
    changes : Changes
    rng : Generator

    Returns
    -------
    Tensor of float32, shape (N, C, side, side), 0 to 1
    """
    count, whole = len(pixels), pixels.shape[1]
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255
    angle = np.radians(rng.uniform(-changes.turn, changes.turn, count))
    size = np.exp(rng.uniform(-changes.scale, changes.scale, count))
    hands = [np.where(rng.random(count) < (0.5 if axis in changes.flip else 0.0), -1.0, 1.0) for axis in "hv"]
    # Coordinates of grid_sample run from -1 to 1 over the whole picture, the part is side / whole of that.
    share = side / whole
    affine = np.zeros((count, 2, 3), np.float32)
    affine[:, 0, 0], affine[:, 0, 1] = np.cos(angle) * hands[0], -np.sin(angle) * hands[1]
    affine[:, 1, 0], affine[:, 1, 1] = np.sin(angle) * hands[0], np.cos(angle) * hands[1]
    affine[:, :, :2] *= (share / size)[:, None, None]
    affine[:, :, 2] = rng.uniform(-2 * changes.shift, 2 * changes.shift, (count, 2)) * share
    grid = functional.affine_grid(torch.from_numpy(affine), [count, image.shape[1], side, side], align_corners=False)
    # Corners that a turn brings in repeat the border, as sky goes on.
    part = functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if changes.light or changes.colour:
        gain = np.exp(
            rng.uniform(-changes.light, changes.light, (count, 1))
            + rng.normal(0, changes.colour, (count, image.shape[1]))
        )
        contrast = np.exp(rng.uniform(-changes.light, changes.light, (count, 1, 1, 1)))
        part = part * torch.from_numpy(gain[:, :, None, None].astype(np.float32))
        middle = part.mean(dim=(1, 2, 3), keepdim=True)
        part = middle + (part - middle) * torch.from_numpy(contrast.astype(np.float32))
    if changes.noise:
        level = rng.uniform(0, changes.noise, (count, 1, 1, 1)).astype(np.float32)
        part = part + torch.from_numpy(level * rng.standard_normal(part.shape, dtype=np.float32))
    return part.clamp(0, 1)
