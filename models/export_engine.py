"""Trained networks as engines: TensorRT's, for RTX cards built on a machine without any GPU, and OpenVINO's."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.engines.base import PRECISIONS
from models.engines.profile import make_profile
from models.engines.tensorrt_build import build, check_targets, import_library, installed_libraries
from models.engines.tensorrt_engine import has_gpu, this_target
from models.export import TOLERANCE, describe, disagreement
from models.layer_choice import Inputs
from models.registry import unknown_name
from survey_io.errors import OptionError, OutputError, SkysiftError

if TYPE_CHECKING:
    from torch import nn

    from models.weights import Card

# Of the largest value on the raw maps. With random weights the registered networks differ by up to 3e-4 (fp16) and 3e-2
# (bf16); whether 8 bits are enough is for their catalogue to say.
TOLERANCES = {"f32": TOLERANCE, "fp16": 1e-2, "bf16": 1e-1, "int8": 0.1, "fp8": 0.3}
ENGINES = ("tensorrt", "openvino")
# The first cards that multiply such numbers.
_FIRST_TARGETS = {"fp8": "sm89"}


@dataclass(frozen=True)
class Exported:
    """An exported engine.

    Attributes
    ----------
    path : Path
        What is to be run: the TensorRT engine, or OpenVINO's .xml.
    graph : Path
        What OpenVINO runs on a processor to show the numbers: for TensorRT the ONNX that the engine was built from.
    card : Path
        To which more may be added.
    told : dict
        The record of a quantised graph; empty for others.
    """

    path: Path
    graph: Path
    card: Path
    told: dict[str, Any]


def export_engine(
    name_or_file: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    engine: str = "tensorrt",
    precision: str = "fp16",
    targets: Sequence[str] = (),
    batch: tuple[int, int, int] | None = None,
    tile: tuple[int, int, int] | None = None,
    layers: Sequence[int] | None = None,
    data: Path | None = None,
) -> Exported:
    """Write a network with its weights as an engine, with the graph it was built from and a card.

    The files of TensorRT are ``STEM_fp16.onnx``, checked against torch on the processor;
    ``STEM_fp16_sm89-sm120.engine``, with what it was built from and for in the ``.json`` beside it; and
    ``STEM_fp16_card.json``. Those of OpenVINO are ``STEM_int8.xml`` and ``.bin``, and the card. Inputs and output are
    float32, named as by `models.export.export`.

    Parameters
    ----------
    name_or_file : str
        Name of shipped weights, or a safetensors file.
    output : path
        A folder, made where it is missing.
    engine : str
        One of `ENGINES`.
    precision : str
        Of TensorRT "f32", "bf16", "fp16" (as fast as bf16, with values rounded to 11 bits instead of 8), "int8" or
        "fp8"; of OpenVINO "f32", "bf16" or "int8".
    targets : sequence of str
        Compute capabilities of RTX cards ("sm89", "sm120"), all served by the one engine; empty: the GPU at hand, or
        where there is none every RTX card from sm80 on. fp8 takes sm89 or later.
    batch, tile : tuple of int or None
        Least, most likely and largest: see `models.engines.profile.make_profile`.
    layers : sequence of int or None
        Of int8 and fp8, the products to quantise; None: as measured, see `models.layer_choice`.
    data : Path, optional
        Of int8 and fp8, what the network's lesson needs when it is not simulated.

    Returns
    -------
    Exported

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
    if engine not in ENGINES:
        raise OptionError(unknown_name("engine to export", engine, list(ENGINES)))
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    folder = Path(output)
    options = {"layers": layers, "data": data}
    try:
        if engine == "openvino":
            if targets or batch or tile:
                raise OptionError("target, batch and tile are TensorRT's: OpenVINO runs any shape on any processor")
            return _export_openvino(name_or_file, folder, precision, **options)
        return _export_tensorrt(name_or_file, folder, precision, targets, batch, tile, **options)
    except OSError as error:
        raise OutputError(f"{folder}: cannot write the export: {error.strerror or error}") from error


def _export_tensorrt(
    name_or_file: str | os.PathLike[str], folder: Path, precision: str, targets: Sequence[str],
    batch: tuple[int, int, int] | None, tile: tuple[int, int, int] | None, **options: Any,
) -> Exported:  # fmt: skip
    from models.engines.plan_file import SUFFIX, PlanKey, hash_network, write_plan
    from models.quantised import QUANTISED
    from models.weights import find_weights

    # Before the weights are read: what is missing is the likeliest error.
    library = _library(targets)
    trt = import_library(library)
    targets = check_targets(trt, targets)
    _check_first_target(precision, targets, library)
    module, card = _load(name_or_file)
    profile = make_profile(module, batch=batch, sides=tile)
    target = ",".join(targets) or ("portable" if library == "tensorrt_rtx" else this_target(trt))
    stem = f"{find_weights(name_or_file).stem}_{precision}"
    path = folder / f"{stem}_{target.replace(',', '-').replace(' ', '-')}{SUFFIX}"
    samples = _samples(module, precision, options["data"])
    graph, told = _graph(module, card, precision, samples, options["layers"])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        made = Path(scratch) / f"{stem}.onnx"
        made.write_bytes(graph)
        difference = _checked(module, made, precision, path, samples)
        plan = build(trt, graph, [profile], targets=targets)
        digest = hashlib.sha256(graph).hexdigest() if precision in QUANTISED else ""
        key = PlanKey(hash_network(module, digest), precision, (profile,), library, trt.__version__, target)
        os.replace(made, folder / made.name)
    write_plan(path, plan, key)
    card_path = _write_card(
        folder / f"{stem}_card.json", card, module, difference, told,
        {"file": path.name, "precision": key.precision, "library": key.library, "version": key.version,
         "target": key.target},
    )  # fmt: skip
    return Exported(path, folder / f"{stem}.onnx", card_path, told)


def _export_openvino(name_or_file: str | os.PathLike[str], folder: Path, precision: str, **options: Any) -> Exported:
    from models.engines.openvino_engine import import_openvino, write_openvino
    from models.weights import find_weights

    if precision not in ("f32", "bf16", "int8"):
        raise OptionError(f"engine 'openvino' computes in f32, bf16 or int8, not {precision}")
    if precision == "int8":
        from models.engines.quantise import import_nncf, write_quantised

        import_nncf()
    module, card = _load(name_or_file)
    stem = f"{find_weights(name_or_file).stem}_{precision}"
    path = folder / f"{stem}.xml"
    told: dict[str, Any] = {}
    samples = _samples(module, precision, options["data"])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        made = Path(scratch) / path.name
        if samples:
            told = write_quantised(module, card, made, samples, layers=options["layers"])
        else:
            write_openvino(module, made)
        difference = _checked(module, made, precision, path, samples)
        for file in (made.with_suffix(".bin"), made):
            os.replace(file, folder / file.name)
    version = import_openvino().__version__
    engine = {"file": path.name, "precision": precision, "library": "openvino", "version": version}
    return Exported(path, path, _write_card(folder / f"{stem}_card.json", card, module, difference, told, engine), told)


def _load(name_or_file: str | os.PathLike[str]) -> tuple[nn.Module, Card]:
    from models.fold import fold_batchnorm
    from models.weights import load_weights

    module, card = load_weights(name_or_file)
    return fold_batchnorm(module).float(), card


def _check_first_target(precision: str, targets: Sequence[str], library: str) -> None:
    first = _FIRST_TARGETS.get(precision)
    if first is None or library != "tensorrt_rtx":
        return
    early = [target for target in targets if int(target[2:]) < int(first[2:])]
    if early or not targets:
        came = f"target {', '.join(early)}" if early else "no target, which stands for every card from sm80 on"
        raise OptionError(f"precision {precision} is of cards from {first} on, got {came}; give --target {first}")


def _samples(module: nn.Module, precision: str, data: Path | None) -> list[tuple[np.ndarray, ...]]:
    """What the ranges of 8 bits are set by; nothing for other precisions."""
    from models.quantised import QUANTISED
    from models.samples import sample_inputs

    return sample_inputs(module, data=data) if precision in QUANTISED else []


def _graph(
    module: nn.Module, card: Card, precision: str, samples: Inputs, layers: Sequence[int] | None
) -> tuple[bytes, dict[str, Any]]:
    """The ONNX to build from, and the record of a quantised one."""
    from models.engines.mixed import write_graph

    if not samples:
        return write_graph(module, precision), {}
    from models.engines.quantise_onnx import write_quantised_graph

    return write_quantised_graph(module, card, precision, samples, layers=layers)


def _checked(module: nn.Module, made: Path, precision: str, path: Path, samples: Inputs) -> float:
    """Largest difference of a graph from torch, which must be within the precision's tolerance."""
    difference = disagreement(module, made, lambda file, given: _run(file, given, precision), samples[-2:])
    if not difference <= TOLERANCES[precision]:
        raise SkysiftError(
            f"{path.name}: in {precision} the graph differs from torch by {difference:.1e} of the largest output, "
            f"expected less than {TOLERANCES[precision]:.0e}: not written; take another precision"
        )
    return difference


def _write_card(
    path: Path, card: Card, module: nn.Module, difference: float, told: dict[str, Any], engine: dict[str, Any]
) -> Path:
    from models.weights import write_whole

    quantised = {"quantised": told} if told else {}
    values = {**asdict(card), **describe(module), "agreement_with_torch": difference, **quantised, "engine": engine}
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
    return path


def _library(targets: Sequence[str]) -> str:
    """The library to build with: tensorrt on its GPU, tensorrt_rtx ahead of time."""
    if targets or not has_gpu():
        return "tensorrt_rtx"
    return (*installed_libraries(), "tensorrt")[0]


def _run(path: Path, given: dict[str, np.ndarray], precision: str) -> np.ndarray:
    """A graph's answer on the processor, every number in the precision that the graph gives it."""
    from models.engines.openvino_engine import compile_graph

    onnx = path.suffix == ".onnx"
    run = compile_graph(str(path), precision="bf16" if precision == "bf16" and not onnx else "f32", low=not onnx)
    return run(given)["raw"]
