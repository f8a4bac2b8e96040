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

import numpy as np

from models.engines.base import Engine, EngineSpec
from models.engines.graph_file import cache_folder
from models.outline import load_outline
from models.signature import NetworkInput
from models.weights import write_whole

# Rounds, in which both take their turn: the best of each counts, since what disturbs only slows.
ROUNDS = 4
# Sides of what is looked at, by the number of axes: a tenth of a second or less for the light networks.
_SIDES = {1: (8192,), 2: (256, 256), 3: (64, 64, 64)}


def measured_gain(model: str, engine: str, precision: str) -> float:
    """Speed of a detector's engine in a precision over that in f32, on one core of this processor.

    Parameters
    ----------
    model : str
        Name of weights, or a file of them.
    engine, precision : str
    """
    outline, card = load_outline(model)
    told = f"{card.sha256} {engine} {version(engine)} {precision} {processor_name()} {os.cpu_count()}"
    path = cache_folder().with_name("gains") / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return float(json.loads(path.read_text(encoding="utf-8"))["gain"])
    given = _example(len(outline.head.stride), outline.head.stride)
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
    begin = time.perf_counter()
    engine(*given[: _inputs(engine)])
    return time.perf_counter() - begin


def _inputs(engine: Engine) -> int:
    known: tuple[NetworkInput, ...] = engine._inputs
    return len(known)


def _example(ndim: int, stride: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    sides = [-(-side // step) * step for side, step in zip(_SIDES[ndim], stride, strict=True)]
    snr = np.random.default_rng(0).normal(size=(1, 1, *sides)).astype(np.float32)
    return snr, np.array([[1.2, 1.1, 0.05, 0.02]], np.float32)


def processor_name() -> str:
    """The processor's name as its maker gives it, or its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
