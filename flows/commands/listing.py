"""``skysift models``: what can be asked for with ``--model``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from models.weights import Card

# Of a card's scores the first of these is shown, wherever it stands.
MAIN_SCORES = (
    "mAP50", "accuracy", "macro_average_precision", "rmse", "sdc1_score", "sdc2_score", "f1", "held_out_loss",
)  # fmt: skip


def models(context: typer.Context) -> int:
    """List the models that --model and train know, and the weights that are shipped or were registered."""
    if context.invoked_subcommand:
        return 0
    from models.in_use import usage
    from models.roster import read_roster
    from models.store import list_stored, store_folder
    from models.weights import list_weights

    roster, shipped, stored = read_roster(), list_weights(), list_stored()
    width = max(len(name) for name in [*shipped, *(one.name for one in roster)])
    print("models:")
    for one in roster:
        print(f"  {one.name:<{width}}  {one.kind}, {one.ndim}D: {one.summary}")
    rows = []
    for name in sorted({*shipped, *stored}):
        used = usage(name).version
        if name in shipped:
            rows.append((name if name not in stored else f"{name}@shipped", used is None))
        rows += [(f"{name}@{version}", used == version) for version in stored.get(name, ())]
    width = max((len(label) for label, _ in rows), default=0)
    print("weights (* in use):" if rows else "weights: none")
    for label, used in rows:
        print(f"{'*' if used else ' '} {label:<{width}}  {_line(label)}")
    if stored:
        print(f"registered in {store_folder()}")
    return 0


def _line(label: str) -> str:
    """What is to be said of one set of weights in a list."""
    from models.store import get_version, split_name
    from models.weights import find_weights, read_card
    from survey_io.errors import SkysiftError

    name, version = split_name(label)
    try:
        card, size = read_card(label), find_weights(label).stat().st_size
        parts = [card.model, f"{size / 1e6:.1f} MB"]
        score = main_score(card)
        if isinstance(version, int):
            record = get_version(name, version)
            parts.append(record.added[:10])
            score = stored_score(record.folder) or score
    except SkysiftError as error:
        return error.message
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ", ".join([*parts, *([score] if score else [])]) + f": {card.trained_on.split(';')[0]}"


def main_score(card: Card) -> str:
    """The score of a card that tells most, as "name value"; empty for none."""
    flat = _flat(card.score)
    name = next((name for name in MAIN_SCORES if name in flat), None)
    return "" if name is None else f"{name} {flat[name]:.4g}"


def stored_score(folder: Any) -> str:
    """The metric that a version was judged by, with its error; empty where it was not judged."""
    import json

    try:
        values = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        return f"{values['metric']} {values['value']:.4g} +- {values['error']:.2g}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _flat(values: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found = {**_flat(value), **found}
        elif isinstance(value, (int, float)):
            found[name] = value
    return found
