"""Does an engine compute here what it should? A network of two layers tells in a moment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.engines.base import load_engine
from models.signature import NetworkInput

if TYPE_CHECKING:
    from torch import nn

_SHAPE = (1, 16, 24)


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes
    ----------
    deviation : float
        Largest difference from a convolution written out in numpy, relative to the largest value.
    seconds : float
        Loading included; the first one in a cache folder also exports the graph.
    """

    deviation: float
    seconds: float


def try_engine(name: str, *, device: str | None = None) -> Trial:
    """Run a small network in an engine and compare with the same sums in numpy.

    Parameters
    ----------
    name : str
        One of `models.engines.base.list_engines`.
    device : str, optional
        "cpu" or "cuda:0" [default: the engine's own].

    Raises
    ------
    OptionError
        As `load_engine`. What a broken library raises comes as it is.
    """
    network = _network()
    given = np.random.default_rng(0).normal(size=(2, *_SHAPE)).astype(np.float32)
    start = time.perf_counter()
    engine = load_engine(name, network, device=device)
    try:
        answer = np.asarray(engine(given))
    finally:
        engine.close()
    seconds = time.perf_counter() - start
    expected = given.astype(float)
    for layer, last in ((network[0], False), (network[2], True)):
        expected = _convolve(expected, layer.weight.detach().numpy(), layer.bias.detach().numpy())
        expected = expected if last else np.maximum(expected, 0)
    if answer.shape != expected.shape or not np.isfinite(answer).all():
        return Trial(np.inf, seconds)
    return Trial(float(np.abs(answer - expected).max() / np.abs(expected).max()), seconds)


def torch_cuda() -> tuple[str | None, int]:
    """CUDA version that torch was built with (None for none), and the number of GPUs that it can use."""
    import torch

    from survey_io.quiet import quiet

    if torch.version.cuda is None:
        return None, 0
    with quiet():
        # Too old a driver makes it warn, and counts as no GPU.
        return torch.version.cuda, torch.cuda.device_count() if torch.cuda.is_available() else 0


def _network() -> nn.Module:
    """Two convolutions with fixed weights: the graph of a former trial is found in the cache."""
    import torch
    from torch import nn

    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(torch.from_numpy(rng.normal(scale=0.3, size=weights.shape).astype(np.float32)))
    network.inputs = (NetworkInput("snr", _SHAPE),)
    return network.eval()


def _convolve(maps: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Correlation with 3 x 3 kernels over zero borders, (B, C, H, W) in double precision."""
    wide = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weight.astype(float)) + bias[:, None, None]
