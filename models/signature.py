"""What a network reads: the names and shapes of its inputs, for engines and exporters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

_SIDES = ("depth", "height", "width")


@dataclass(frozen=True)
class NetworkInput:
    """One input of a network.

    Attributes
    ----------
    name : str
    shape : tuple
        Of one item of a batch: a number, or a name for a side that may have any length (a multiple of the stride).
    """

    name: str
    shape: tuple[int | str, ...]


def network_inputs(module: nn.Module) -> tuple[NetworkInput, ...]:
    """The inputs of a network: what it says in ``inputs``, else those of a detector with its head's dimensions."""
    own = getattr(module, "inputs", None)
    if own is not None:
        return own
    sides = _SIDES[-module.head.ndim :] if module.head.ndim > 1 else ("length",)
    return NetworkInput("snr", (1, *sides)), NetworkInput("beam", (4,))


def example_input(module: nn.Module) -> tuple[torch.Tensor, ...]:
    """A small input to trace with. The batch is 2, since exporters take 1 for a constant."""
    import torch

    return tuple(torch.zeros(2, *one.shape) for one in _sized(module, cells=4))


def random_input(module: nn.Module, *, batch: int = 2, cells: int | tuple[int, ...] = 4, seed: int = 0) -> tuple:
    """Random float32 arrays with the shapes that a network takes, for comparing ways to run it.

    Parameters
    ----------
    module : nn.Module
    batch : int
    cells : int or tuple of int
        Sides of free length, in strides, one per axis.
    seed : int
    """
    rng = np.random.default_rng(seed)
    # Brighter than noise for what is looked at (S/N), of order 1 for the beam.
    return tuple(
        rng.normal(scale=1.0 if one.name == "beam" else 4.0, size=(batch, *one.shape)).astype(np.float32)
        for one in _sized(module, cells=cells)
    )


def _sized(module: nn.Module, *, cells: int | tuple[int, ...]) -> list[NetworkInput]:
    """The inputs with numbers in place of names."""
    found = []
    for one in network_inputs(module):
        free = [axis for axis, side in enumerate(one.shape) if isinstance(side, str)]
        shape = list(one.shape)
        if free:
            strides = np.broadcast_to(module.head.stride, len(free))
            for axis, stride, count in zip(free, strides, np.broadcast_to(cells, len(free)), strict=True):
                shape[axis] = int(stride * count)
        found.append(NetworkInput(one.name, tuple(shape)))
    return found
