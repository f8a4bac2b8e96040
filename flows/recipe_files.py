"""Training recipes: YAML files by name, and what the command line changes in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.options import check_keys, parse_options, read_mapping
from survey_io.errors import OptionError

from .settings import resolve_options

if TYPE_CHECKING:
    from models.train_options import TrainOptions
    from pipeline.retrain_options import RetrainOptions

FOLDER = Path(__file__).with_name("recipes")
# A recipe's section of `pipeline.retrain_options.RetrainOptions`.
SECTION = "retrain"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def list_recipes() -> dict[str, str]:
    """The recipes by name, each with its first line of comment."""
    return {path.stem: _first_comment(path) for path in sorted(FOLDER.glob("*.yaml"))}


def find_recipe(name: str) -> Path | None:
    """The file of a recipe: a path that ends in .yaml, or a name of `list_recipes`; None for any other name.

    Raises
    ------
    OptionError
        For a path that does not exist.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise OptionError(f"{name}: no such recipe; those by name are {', '.join(list_recipes())}")
        return path
    path = FOLDER / f"{name}.yaml"
    return path if path.is_file() else None


def resolve_recipe(
    name: str | None,
    *,
    config: Path | None = None,
    sets: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[TrainOptions, RetrainOptions]:
    """Merge a recipe with what changes it: the command line over the environment over the file.

    Parameters
    ----------
    name : str or None
        A recipe by name or path, or a model to train as the options' defaults have it; None: the default model.
    config : Path, optional
        A recipe's file, when ``name`` is only the model.
    sets : sequence of str
        ``key=value`` with values in YAML; a dotted key reaches into a section: ``lesson_options.size=64``.
    given : mapping, optional
        Options of their own on the command line; ``None`` means "not given".
    environment : mapping, optional
        See `flows.settings.resolve_options`.

    Raises
    ------
    OptionError
        For a name that is neither a recipe's nor a model's, a key that there is not (with the known ones and the
        nearest), or a value out of range.
    """
    from models.registry import unknown_name
    from models.roster import read_roster
    from models.train_options import TrainOptions
    from pipeline.retrain_options import RetrainOptions
    from pipeline.train import command_line

    given = dict(given or {})
    file = config if config is not None else find_recipe(name) if name else None
    if name and file is None and name not in (models := [one.name for one in read_roster()]):
        raise OptionError(unknown_name("recipe or model", name, sorted({*list_recipes(), *models})))
    if name and (file is None or config is not None):
        given.setdefault("name", name)
    values = read_mapping(file) if file else {}
    recipe = file.stem if file else ""
    section = _section(values.pop(SECTION, {}), SECTION, source=str(file))
    check_keys(TrainOptions, values, source=str(file))
    if recipe and config is None:
        values.setdefault("output", f"training/{recipe}")
    plain = parse_options(TrainOptions, values, source=str(file)) if file else None
    changes = parse_sets(sets)
    changed = _section(changes.pop(SECTION, {}), SECTION, source="--set")
    check_keys(RetrainOptions, section, source=f"{file}: {SECTION}")
    check_keys(RetrainOptions, changed, source=f"--set {SECTION}")
    section = _merged(section, changed)
    check_keys(TrainOptions, changes, source="--set")
    changes = _merged({key: values[key] for key in changes if key in values}, changes)
    # An option of its own and --set of the same key: the option is the plainer word.
    given = {**changes, **{key: value for key, value in given.items() if value is not None}}
    options = resolve_options(TrainOptions, given, config=file, values=values, environment=environment)
    section.setdefault("recipe", recipe)
    retrain = parse_options(RetrainOptions, section, source=dict.fromkeys(section, SECTION))
    if not retrain.command:
        shown = file.name if file and find_recipe(recipe) != file else recipe
        retrain = retrain.with_changes(command=command_line(options, shown, plain))
    return options, retrain


def parse_sets(sets: Sequence[str]) -> dict[str, Any]:
    """``["a=1", "b.c=[2, 3]"]`` as nested values.

    Raises
    ------
    OptionError
        For text without "=", a value that is no YAML, and a key that is both a value and a section.
    """
    found: dict[str, Any] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise OptionError(f"--set {text}: expected key=value, as learning_rate=1e-3 or lesson_options.size=64")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise OptionError(f"--set {text}: {value!r} is not valid YAML") from None
        # YAML takes 1e-3 for text.
        if isinstance(parsed, str) and _NUMBER.fullmatch(parsed):
            parsed = float(parsed)
        place = found
        for part in parts[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise OptionError(f"--set {text}: {part!r} was given a value before, it cannot have keys too")
        place[parts[-1]] = parsed
    return found


def _section(values: Any, name: str, *, source: str) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise OptionError(f"{source}: {name}: expected keys with values, got {values!r}")
    return dict(values)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values of both, section by section; the changes win."""
    found = dict(base)
    for key, value in changes.items():
        old = found.get(key)
        found[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
