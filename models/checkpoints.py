"""What a run leaves on the disk to go on from, and weights that another run begins with."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.weights import find_weights
from survey_io.errors import InputError


def save_checkpoint(path: Path, **state: Any) -> None:
    """Write a checkpoint so that a crash leaves either the old or the new one whole."""
    temporary = path.with_suffix(".part")
    try:
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            # The name must not come to the disk before the bytes: a machine may lose its power, too.
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_checkpoint(path: Path, target: Path) -> None:
    """Copy a checkpoint, with the same promise as `save_checkpoint`."""
    temporary = target.with_suffix(".part")
    shutil.copyfile(path, temporary)
    temporary.replace(target)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, its tensors on the processor.

    Raises
    ------
    InputError
        For a file that is damaged or no checkpoint of a training.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"model", "average", "optimiser", "step"} - set(state)
    except Exception as error:  # torch raises whatever the pickle's bytes lead to
        raise InputError(f"{path}: not a readable checkpoint of a training ({error})") from error
    if missing:
        raise InputError(f"{path}: not a checkpoint of a training: it has no {', '.join(sorted(missing))}")
    return state


def seed_all(seed: int) -> None:
    """Seed the generators of torch, numpy and Python; examples have generators of their own (`models.streams`)."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  libraries may draw from it
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """Where the generators of torch, numpy and Python are, in types that a checkpoint may hold."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [str(name), keys.tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]],
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators where `random_state` found them."""
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def read_start(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Tensor]]:
    """Tensors to begin with: of shipped weights by name, a weights file, or a checkpoint's moving average."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path) if Path(path).is_file() else find_weights(path)
    if path.suffix == ".pt":
        return path, load_checkpoint(path)["average"]
    try:
        return path, load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file or checkpoint ({error})") from error


def start_from(net: nn.Module, path: str | os.PathLike[str], *, partial: bool = False) -> str:
    """Fill a network with the weights of an earlier training.

    Parameters
    ----------
    net : nn.Module
    path : str or path
        See `read_start`.
    partial : bool
        Take what fits by name and shape and leave the rest as it begins, as for another head.

    Returns
    -------
    str
        One line: how many tensors were taken, and which were not.

    Raises
    ------
    InputError
        For a file that cannot be read, of which nothing fits, or, unless ``partial``, not everything.
    """
    path, came = read_start(path)
    own = net.state_dict()
    taken = {name: came[name] for name, value in own.items() if name in came and came[name].shape == value.shape}
    left = [
        f"{name} (expected {tuple(value.shape)}, came {tuple(came[name].shape) if name in came else 'none'})"
        for name, value in own.items() if name not in taken
    ]  # fmt: skip
    extra = sorted(set(came) - set(own))
    parts = [f"{len(taken)} of {len(own)} tensors fit"]
    parts += [f"do not: {_some(left)}"] if left else []
    parts += [f"unknown to the network: {_some(extra)}"] if extra else []
    said = f"start {path}: {'; '.join(parts)}"
    # Counters of BatchNorm fit every network that has it.
    if not any(value.is_floating_point() for value in taken.values()):
        raise InputError(f"{said}: these are weights of another network")
    if (left or extra) and not partial:
        raise InputError(f"{said}; give start_partial to begin with those that fit")
    net.load_state_dict(taken, strict=False)
    return said


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
