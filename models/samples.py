"""Inputs like those that a network meets, for the ranges of quantised numbers: sky that nothing was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

# No training, calibration of probabilities or comparison draws from this seed.
SEED = 3_141_592
# Batches, and the side of a field; of the first skies of a pool all fields of a batch are.
_BATCHES = 16
_FIELDS = {
    1: {"batch": 16, "channels": 1536},
    2: {"batch": 2, "size": 448},
    3: {"batch": 2, "cube_size": (128, 64, 64)},
}


def sample_inputs(
    module: nn.Module, *, batches: int | None = None, seed: int = SEED, data: Path | None = None
) -> list[tuple[np.ndarray, ...]]:
    """Batches of what a network reads, drawn as its lesson draws what it learns from, float32.

    Parameters
    ----------
    module : nn.Module
        A registered network.
    batches : int or None
        None: enough for ranges that hold.
    seed : int
    data : Path, optional
        Of `sample_lesson`.

    Raises
    ------
    OptionError
        For a network whose lesson needs data that are not simulated.
    """
    from models.signature import network_inputs

    source = iter(sample_lesson(module, data).batches(seed=seed))
    found = []
    for _ in range(batches or _BATCHES):
        first, *others = next(source)
        # Classifiers' batches hold their inputs in a tuple, detectors' begin with them.
        inputs = first if isinstance(first, tuple) else (first, *others)[: len(network_inputs(module))]
        found.append(tuple(np.ascontiguousarray(one.numpy(), np.float32) for one in inputs))
    return found


def sample_lesson(module: nn.Module, data: Path | None = None) -> Any:
    """The lesson of a network, with fields as large as tiles are and few skies at a time.

    Parameters
    ----------
    module : nn.Module
    data : Path, optional
        Real data, where the lesson is of those.

    Raises
    ------
    OptionError
        For a network whose lesson needs data that are not simulated, or is named by its recipe only.
    """
    from models.registry import get_model
    from models.train_options import TrainOptions
    from models.training import make_lesson

    head = getattr(module, "head", None)
    if not hasattr(module, "lesson") and (head is None or get_model(module.name).reads == "photograph"):
        raise OptionError(f"model {module.name!r} learns from photographs: nothing like them is simulated here")
    fields = {"batch": 32} if head is None else _FIELDS[head.ndim]
    return make_lesson(module, TrainOptions(name=module.name, pool=8, data=data, **fields))
