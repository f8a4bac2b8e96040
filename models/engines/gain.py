"""Whether this processor is faster in a lower precision: measured once for each network, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.engines.base import Engine, EngineSpec
from models.engines.graph_file import cache_folder
from models.signature import random_input
from models.weights import checked_card, find_weights, load_weights, write_whole

if TYPE_CHECKING:
    from torch import nn

# Rounds, in which both take their turn: the best of each counts, since what disturbs only slows.
ROUNDS = 4
# Sides of what is looked at, by the number of axes: a tenth of a second or less for the light networks.
_SIDES = {1: (8192,), 2: (256, 256), 3: (64, 64, 64)}


def measured_gain(model: str, engine: str, precision: str) -> float:
    """Speed of a network's engine in a precision over that in f32, on one core of this processor.

    Parameters
    ----------
    model : str
        Name of weights, or a file of them.
    engine, precision : str
    """
    card = checked_card(find_weights(model))
    told = f"{card.sha256} {engine} {version(engine)} {precision} {processor_name()} {os.cpu_count()}"
    path = cache_folder().with_name("gains") / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return float(json.loads(path.read_text(encoding="utf-8"))["gain"])
    given = _example(load_weights(model)[0])
    engines = {name: EngineSpec(model, engine, name, 1).load_alone() for name in ("f32", precision)}
    best = dict.fromkeys(engines, np.inf)
    for _ in range(ROUNDS):
        for name, one in engines.items():
            best[name] = min(best[name], _seconds(one, given))
    for one in engines.values():
        one.close()
    gain = best["f32"] / best[precision]
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"gain": round(gain, 3), "of": told}).encode())
    return gain


def _seconds(engine: Engine, given: tuple[np.ndarray, ...]) -> float:
    # The processor's time: that of the wall sways with what else the machine does.
    begin = time.process_time()
    engine(*given)
    return time.process_time() - begin


def _example(module: nn.Module) -> tuple[np.ndarray, ...]:
    """A window of a detector, or one item of a classifier."""
    head = getattr(module, "head", None)
    if head is None:
        return random_input(module, batch=1)
    cells = tuple(-(-side // step) for side, step in zip(_SIDES[head.ndim], head.stride, strict=True))
    return random_input(module, batch=1, cells=cells)


def card_name(device: str) -> str:
    """What a GPU calls itself; "cuda:0" is the first."""
    import torch

    return torch.cuda.get_device_name(device)


def processor_name() -> str:
    """The processor's name as its maker gives it, or its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
