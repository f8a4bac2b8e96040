"""Trained networks as files for other programs: ONNX, or OpenVINO's own format."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.registry import unknown_name
from models.signature import network_inputs, random_input
from survey_io.errors import OptionError, OutputError, SkysiftError

if TYPE_CHECKING:
    from torch import nn

# Of the largest value on the raw maps; float32 engines differ by 1e-6 to 1e-5.
TOLERANCE = 1e-4


def export(
    name_or_file: str | os.PathLike[str], output: str | os.PathLike[str], *, format: str = "onnx"
) -> Path:
    """Write a network with its weights as a graph, after checking that it computes what torch does.

    The graph of a detector has inputs ``snr`` (batch, 1, height, width), with the channels before the height for cubes,
    and ``beam`` (batch, 4), with any batch and sides (multiples of the stride); that of a classifier has ``spectrum``
    (batch, channels, bins of its grid), or ``image`` (batch, colours, height, width) of 0 to 1. The output is ``raw``;
    all are float32. Batch normalisation is folded.

    Parameters
    ----------
    name_or_file : str
        Name of shipped weights, or a safetensors file.
    output : path
        File to write (.onnx or .xml, the latter with a .bin beside it), or a folder, where the file is named
        after the weights. The card goes beside it as ``STEM_card.json``, with the meaning of the channels.
    format : str
        "onnx" or "openvino".

    Returns
    -------
    Path
        The graph's file.

    Raises
    ------
    OptionError
        For an unknown name or format, or an output of another ending.
    InputError
        For weights that cannot be read.
    OutputError
        When a file cannot be written.
    """
    from models.fold import fold_batchnorm
    from models.weights import find_weights, load_weights, write_whole

    if format not in _FORMATS:
        raise OptionError(unknown_name("export format", format, sorted(_FORMATS)))
    suffix, write, run = _FORMATS[format]
    module, card = load_weights(name_or_file)
    module = fold_batchnorm(module).float()
    target = Path(output)
    if target.is_dir() or not target.suffix:
        target = target / f"{find_weights(name_or_file).stem}{suffix}"
    if target.suffix != suffix:
        raise OptionError(f"{target}: format {format!r} is written to a file ending in {suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
            made = Path(scratch) / target.name
            write(module, made)
            difference = disagreement(module, made, run)
            if difference > TOLERANCE:
                raise SkysiftError(
                    f"{target}: the exported graph differs from torch by {difference:.1e} of the largest "
                    f"output, expected less than {TOLERANCE:.0e}: not written; report it with the card"
                )
            for file in sorted(Path(scratch).iterdir(), key=lambda file: file.suffix == suffix):
                os.replace(file, target.parent / file.name)
        described = {
            **asdict(card),
            **describe(module),
            "agreement_with_torch": difference,
        }
        text = json.dumps(described, indent=2, allow_nan=False) + "\n"
        write_whole(target.with_name(f"{target.stem}_card.json"), text.encode())
    except OSError as error:
        raise OutputError(f"{target}: cannot write the export: {error.strerror or error}") from error
    return target


def describe(module: nn.Module) -> dict[str, Any]:
    """What a reader of a network's answers has to know beside its card."""
    if hasattr(module, "head"):
        return {
            "stride": list(module.head.stride), "receptive_field": module.receptive_field, "head": asdict(module.head)
        }  # fmt: skip
    told: dict[str, Any] = {"answers": {**asdict(module.answers), "classes": list(module.answers.classes)}}
    if hasattr(module, "grid"):
        return {**told, "grid": asdict(module.grid)}
    return {**told, "image": {"shape": list(network_inputs(module)[0].shape), "values": "0 to 1"}}


def disagreement(
    module: nn.Module, path: Path, run: Callable[..., np.ndarray], samples: Sequence[tuple[np.ndarray, ...]] = ()
) -> float:
    """Largest difference between graph and torch over the largest output, on shapes never traced with.

    Of random numbers, or of samples where ranges matter.
    """
    import torch

    worst = 0.0
    names = [one.name for one in network_inputs(module)]
    free = sum(isinstance(side, str) for side in network_inputs(module)[0].shape)
    drawn = [
        random_input(module, batch=batch, cells=cells[:free], seed=batch)
        for batch, cells in ((1, (3, 5, 2)), (3, (4, 2, 3)))
    ]
    for given in samples or drawn:
        with torch.inference_mode():
            expected = module(*map(torch.from_numpy, given)).numpy()
        came = run(path, dict(zip(names, given, strict=True)))
        worst = max(worst, float(np.abs(came - expected).max() / np.abs(expected).max()))
    return worst


def _write_onnx(module: nn.Module, path: Path) -> None:
    from models.engines.onnx_engine import write_onnx

    write_onnx(module, path)


def _run_onnx(path: Path, given: dict[str, np.ndarray]) -> np.ndarray:
    from models.engines.onnx_engine import open_runtime

    return open_runtime(str(path)).run(["raw"], given)[0]


def _write_openvino(module: nn.Module, path: Path) -> None:
    from models.engines.openvino_engine import write_openvino

    write_openvino(module, path)


def _run_openvino(path: Path, given: dict[str, np.ndarray]) -> np.ndarray:
    from models.engines.openvino_engine import compile_graph

    return compile_graph(str(path))(given)[0]


_FORMATS = {
    "onnx": (".onnx", _write_onnx, _run_onnx),
    "openvino": (".xml", _write_openvino, _run_openvino),
}
