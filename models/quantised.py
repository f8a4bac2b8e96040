"""Graphs in 8 bits: where those of some weights are, shipped beside them or made on this machine.

A quantised graph belongs to the very weights that it was made from. The shipped ones are ``int8/NAME.xml`` and ``.bin``
in the folder of the weights, those made here are in the cache folder, and come first; the ``.json`` beside each says
what it was made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.engines.graph_file import cache_folder
from models.weights import WEIGHTS_FOLDER, find_weights, read_card
from survey_io.errors import OptionError

QUANTISED = ("int8", "fp8")
# How the graph of an engine is written: its main file, and what lies beside it.
SUFFIXES = {"openvino": (".xml", ".bin"), "tensorrt": (".onnx",)}


def find_graph(model: str | os.PathLike[str], engine: str, precision: str) -> Path | None:
    """The quantised graph of these very weights for an engine; None where there is none."""
    if engine not in SUFFIXES or precision not in QUANTISED:
        return None
    key = (os.fspath(model), engine, precision)
    if key in _tried:
        return _tried[key]
    sha256 = read_card(model).sha256
    for path in _places(model, sha256, engine, precision):
        if _record(path).get("weights") == sha256 and all(one.is_file() for one in _files(path)):
            return path
    return None


def require_graph(model: str, engine: str, precision: str) -> Path:
    """The quantised graph of some weights.

    Raises
    ------
    OptionError
        When it was not made, with the command that makes it.
    """
    path = find_graph(model, engine, precision) if model else None
    if path is None:
        raise OptionError(
            f"precision {precision!r} of {model or 'a network without a name'} with engine {engine!r}: expected a "
            f"quantised graph, and none was made of these weights: run 'skysift export {model or 'MODEL'} --engine "
            f"{engine} --precision {precision}' once, or take bf16 or f32"
        )
    return path


def graph_hash(model: str | os.PathLike[str], engine: str, precision: str) -> str:
    """Hash of the quantised graph that would be run; empty for none."""
    path = find_graph(model, engine, precision)
    return "" if path is None else hash_graph(path)


def hash_graph(path: Path) -> str:
    """SHA-256 over the files of a graph."""
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def tried_graph(model: str | os.PathLike[str], engine: str, precision: str, path: Path) -> Iterator[None]:
    """Within, and in this process, this graph is the one that is found: for what was not found good yet."""
    key = (os.fspath(model), engine, precision)
    _tried[key] = path
    try:
        yield
    finally:
        del _tried[key]


_tried: dict[tuple[str, str, str], Path] = {}


def read_graph_record(path: Path) -> dict[str, Any]:
    """What a quantised graph was made from: "weights" (their hash), "layers", "calibration", "versions"."""
    return _record(path)


def keep_graph(
    model: str | os.PathLike[str], engine: str, precision: str, made: Path, told: dict[str, Any], *,
    shipped: bool = False,
) -> Path:  # fmt: skip
    """Move a graph, with what lies beside it, to where it is looked for, and write its record last.

    Parameters
    ----------
    model : str
    engine, precision : str
    made : Path
        Main file of the graph.
    told : dict
        For the record.
    shipped : bool
        Beside the shipped weights instead of in the cache folder.
    """
    sha256 = read_card(model).sha256
    own, beside = _places(model, sha256, engine, precision)
    path = beside if shipped else own
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="new-") as scratch:
        copies = [
            (shutil.copyfile(source, Path(scratch) / target.name), target)
            for source, target in zip(_files(made), _files(path), strict=True)
        ]
        note = Path(scratch) / "note"
        record = {"weights": sha256, **told}
        note.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        path.with_suffix(".json").unlink(missing_ok=True)
        for copy, target in copies:
            os.replace(copy, target)
        os.replace(note, path.with_suffix(".json"))
    return path


def _places(model: str | os.PathLike[str], sha256: str, engine: str, precision: str) -> tuple[Path, Path]:
    """Where a graph may be: of this machine, and beside the shipped weights."""
    suffix = SUFFIXES[engine][0]
    own = cache_folder().with_name("quantised") / f"{sha256[:32]}_{precision}{suffix}"
    return own, WEIGHTS_FOLDER / precision / f"{find_weights(model).stem}{suffix}"


def _files(path: Path) -> list[Path]:
    """A graph's main file and what lies beside it, by its ending: OpenVINO also tries the ONNX of other engines."""
    suffixes = next(suffixes for suffixes in SUFFIXES.values() if suffixes[0] == path.suffix)
    return [path.with_suffix(suffix) for suffix in suffixes]


def _record(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if isinstance(told, dict):
            return told
    return {}
