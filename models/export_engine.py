"""Trained networks as TensorRT engines, built ahead of time: for RTX cards on a machine without any GPU."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.engines.base import PRECISIONS
from models.engines.profile import make_profile
from models.engines.tensorrt_build import build, check_targets, import_library, installed_libraries
from models.engines.tensorrt_engine import has_gpu, this_target
from models.export import TOLERANCE, describe, disagreement
from models.registry import unknown_name
from survey_io.errors import OptionError, OutputError, SkysiftError

if TYPE_CHECKING:
    from models.engines.plan_file import PlanKey

# Of the largest value on the raw maps. With random weights the registered networks differ by up to 3e-4 and 3e-2.
TOLERANCES = {"f32": TOLERANCE, "fp16": 1e-2, "bf16": 1e-1}
ENGINES = ("tensorrt",)


def export_engine(
    name_or_file: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    engine: str = "tensorrt",
    precision: str = "fp16",
    targets: Sequence[str] = (),
    batch: tuple[int, int, int] | None = None,
    tile: tuple[int, int, int] | None = None,
) -> Path:
    """Write a network with its weights as a TensorRT engine, with the ONNX it was built from and a card.

    The files are ``STEM_fp16.onnx``, checked against torch on the processor; ``STEM_fp16_sm89-sm120.engine``, with what
    it was built from and for in the ``.json`` beside it; and ``STEM_fp16_card.json``. Inputs and output are float32,
    named as by `models.export.export`.

    Parameters
    ----------
    name_or_file : str
        Name of shipped weights, or a safetensors file.
    output : path
        A folder, made where it is missing.
    engine : str
        One of `ENGINES`.
    precision : str
        "f32", "bf16" or "fp16": as fast as bf16, with values rounded to 11 bits instead of 8.
    targets : sequence of str
        Compute capabilities of RTX cards ("sm89", "sm120"), all served by the one engine; empty: the GPU at hand, or
        where there is none every RTX card from sm80 on.
    batch, tile : tuple of int or None
        Least, most likely and largest: see `models.engines.profile.make_profile`.

    Returns
    -------
    Path
        The engine.

    Raises
    ------
    OptionError
        For an unknown name, engine, precision or target, shapes that do not grow, or when TensorRT is not installed.
    InputError
        For weights that cannot be read.
    SkysiftError
        When TensorRT does not take the network, or the graph differs too much from torch.
    OutputError
        When a file cannot be written.
    """
    from models.engines.mixed import write_graph
    from models.engines.plan_file import SUFFIX, PlanKey, hash_network, write_plan
    from models.fold import fold_batchnorm
    from models.weights import find_weights, load_weights, write_whole

    if engine not in ENGINES:
        raise OptionError(unknown_name("engine to export", engine, list(ENGINES)))
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    # Before the weights are read: what is missing is the likeliest error.
    library = _library(targets)
    trt = import_library(library)
    targets = check_targets(trt, targets)
    module, card = load_weights(name_or_file)
    module = fold_batchnorm(module).float()
    profile = make_profile(module, batch=batch, sides=tile)
    target = ",".join(targets) or ("portable" if library == "tensorrt_rtx" else this_target(trt))
    stem = f"{find_weights(name_or_file).stem}_{precision}"
    folder = Path(output)
    path = folder / f"{stem}_{target.replace(',', '-').replace(' ', '-')}{SUFFIX}"
    graph = write_graph(module, precision)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
            made = Path(scratch) / f"{stem}.onnx"
            made.write_bytes(graph)
            difference = disagreement(module, made, _run)
            if difference > TOLERANCES[precision]:
                raise SkysiftError(
                    f"{path}: in {precision} the graph differs from torch by {difference:.1e} of the largest output, "
                    f"expected less than {TOLERANCES[precision]:.0e}: not written; take another precision"
                )
            plan = build(trt, graph, [profile], targets=targets)
            key = PlanKey(hash_network(module), precision, (profile,), library, trt.__version__, target)
            os.replace(made, folder / made.name)
        write_plan(path, plan, key)
        told = {**asdict(card), **describe(module), "agreement_with_torch": difference, "engine": _told(key, path)}
        text = json.dumps(told, indent=2, allow_nan=False) + "\n"
        write_whole(folder / f"{stem}_card.json", text.encode())
    except OSError as error:
        raise OutputError(f"{path}: cannot write the export: {error.strerror or error}") from error
    return path


def _library(targets: Sequence[str]) -> str:
    """The library to build with: tensorrt on its GPU, tensorrt_rtx ahead of time."""
    if targets or not has_gpu():
        return "tensorrt_rtx"
    return (*installed_libraries(), "tensorrt")[0]


def _told(key: PlanKey, path: Path) -> dict[str, str]:
    return {
        "file": path.name, "precision": key.precision, "library": key.library, "version": key.version,
        "target": key.target,
    }  # fmt: skip


def _run(path: Path, given: dict[str, np.ndarray]) -> np.ndarray:
    """A graph's answer on the processor, every number in the precision that the graph gives it."""
    from models.engines.openvino_engine import compile_graph

    return compile_graph(str(path))(given)["raw"]
