"""What models there are, read from the source of their files: listing them must not wait for torch."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.registry import PACKAGES, get_model, list_models, register_model

_DEFAULTS = {
    name: parameter.default for name, parameter in inspect.signature(register_model).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """What a listing says of a model; see `models.registry.ModelEntry`."""

    name: str
    kind: str
    ndim: int
    has_weights: bool
    summary: str


def read_roster() -> list[Listed]:
    """All models by name, without importing their files where these can be read as they stand."""
    found = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for file in importlib.import_module(package).MODULES if spec and spec.origin else ():
            try:
                found += _read(Path(spec.origin).with_name(f"{file}.py"))
            except (OSError, SyntaxError, ValueError):
                # A file that is no source, or names its models by expressions: only Python itself can tell.
                return [_loaded(name) for name in list_models()]
    return sorted(found, key=lambda one: one.name)


def _read(path: Path) -> list[Listed]:
    """The models that a file registers by decorators; ValueError where it does so in another way."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in tree.body:
        for call in filter(_registers, getattr(node, "decorator_list", ())):
            given: dict[str, Any] = {word.arg or "": ast.literal_eval(word.value) for word in call.keywords}
            given = {**_DEFAULTS, **given}
            summary = (ast.get_docstring(node) or "").partition("\n")[0]  # type: ignore[arg-type]
            name = ast.literal_eval(call.args[0])
            found.append(Listed(name, given["kind"], given["ndim"], given["has_weights"], summary))
    if len(found) != sum(map(_registers, ast.walk(tree))):
        raise ValueError(f"{path}: registers models otherwise than by decorators")
    return found


def _registers(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "register_model"


def _loaded(name: str) -> Listed:
    entry = get_model(name)
    return Listed(name, entry.kind, entry.ndim, entry.has_weights, entry.summary)
