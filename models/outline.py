"""What a finder has to know of a network, kept beside its exported graph.

Building a network to learn its stride takes torch, which takes longer to load than a small image takes to search:
after the first run with some weights neither their network nor torch is needed where another engine runs the graph.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.engines.graph_file import cache_folder, forget_oldest
from models.weights import Card, checked_card, find_weights, load_weights, write_whole
from models.yolo.head import HeadSpec

_SUFFIX = ".outline"


@dataclass(frozen=True)
class Outline:
    """A network without its layers.

    Attributes
    ----------
    stride, receptive_field : int, tuple of int, or None
        As the network has them; None of classifiers.
    head : HeadSpec or None
    graph : str
        Name of its OpenVINO graph in the cache folder; empty where it was not exported yet.
    """

    stride: int | tuple[int, ...] | None
    receptive_field: int | tuple[int, ...] | None
    head: HeadSpec | None
    graph: str = ""


def load_outline(name_or_path: str | os.PathLike[str]) -> tuple[Outline, Card]:
    """Outline and card of some weights; the network is built only where these weights or the code are new.

    Raises
    ------
    OptionError, InputError
        As `models.weights.load_weights`.
    """
    card = checked_card(find_weights(name_or_path))
    file = _file(card)
    try:
        values = _tuples(json.loads(file.read_text(encoding="utf-8")))
        head = None if values["head"] is None else HeadSpec(**values["head"])
        return Outline(**{**values, "head": head}), card
    except (OSError, ValueError, TypeError, KeyError):
        module, card = load_weights(name_or_path)
    outline = Outline(*(getattr(module, name, None) for name in ("stride", "receptive_field", "head")))
    _write(outline, file)
    return outline, card


def known_graph(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The OpenVINO graph that some weights were exported to, if it is still there."""
    outline, _ = load_outline(name_or_path)
    path = cache_folder() / outline.graph
    if not outline.graph or not path.is_file():
        return None
    os.utime(path)
    return path


def remember_graph(name_or_path: str | os.PathLike[str], graph: Path) -> None:
    """Note the OpenVINO graph that some weights were exported to."""
    outline, card = load_outline(name_or_path)
    _write(replace(outline, graph=graph.name), _file(card))


def _write(outline: Outline, file: Path) -> None:
    write_whole(file, json.dumps(asdict(outline)).encode())
    forget_oldest(file.parent, _SUFFIX)


def _file(card: Card) -> Path:
    return cache_folder() / f"{hashlib.sha256(f'{card.sha256} {_code()}'.encode()).hexdigest()[:32]}{_SUFFIX}"


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of everything but the weights that decides an outline and its graph."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in ("torch", "openvino"):
        try:
            digest.update(f"{name} {version(name)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"no {name}\n".encode())
    own = ("outline.py", "fold.py", "layers.py", "yolo/head.py")
    parts = (*own, "engines/graph_file.py", "engines/openvino_engine.py")
    for path in [*(here / part for part in parts), *sorted((here / "detectors").glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {name: _tuples(entry) for name, entry in value.items()}
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
