"""``skysift models show``, ``promote`` and ``rollback``: what is known of weights, and which ones a name stands for."""

from __future__ import annotations

from typing import Any

import typer

_VERSION = "NAME[@VERSION]"


def show(
    name: str = typer.Argument(..., metavar=_VERSION, help="Such as light, light@shipped or light@3."),
) -> int:
    """Show the card of a set of weights, how it was judged, and the history of its name."""
    import json
    from dataclasses import asdict

    import yaml

    from models.in_use import usage
    from models.store import read_record
    from models.weights import checked_card, exact_name, find_weights, is_path

    path = find_weights(name)
    text: dict[str, Any] = {"weights": exact_name(name), "file": str(path), **asdict(checked_card(path))}
    stored = read_record(path.parent)
    if stored is not None:
        stored.verify()
        text["added"] = stored.added
        for file in ("evaluation.json", "comparison.json", "data_report.json"):
            if file in stored.files:
                values = json.loads((stored.folder / file).read_text(encoding="utf-8"))
                # The draws are there for comparisons, not to be read.
                text[file.removesuffix(".json")] = {key: one for key, one in values.items() if key != "draws"}
    if not is_path(name):
        text["history"] = list(usage(name.partition("@")[0]).history)
    shown = {key: value for key, value in text.items() if value not in ({}, [], "", None)}
    print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110), end="")
    return 0


def promote(
    name: str = typer.Argument(..., metavar="NAME@VERSION", help="Such as light@3, or light@shipped."),
    why: str = typer.Option("by hand", help="One line for the history."),
) -> int:
    """Let a name stand for this version from now on."""
    from models.in_use import promote as use
    from models.store import SHIPPED, split_name
    from survey_io.errors import OptionError

    stem, version = split_name(name)
    if version is None:
        raise OptionError(f"promote {name}: expected a version, as {name}@1; see 'skysift models'")
    use(stem, None if isinstance(version, str) else version, why=why)
    print(f"{stem} is {stem}@{SHIPPED if isinstance(version, str) else version} now")
    return 0


def rollback(
    name: str = typer.Argument(..., metavar="NAME", help="Such as light."),
    why: str = typer.Option("by hand", help="One line for the history."),
) -> int:
    """Let a name stand for what it stood for before its last promotion."""
    from models.in_use import rollback as back
    from models.store import SHIPPED
    from models.weights import list_weights

    version = back(name, why=why).version
    if version is None and name not in list_weights():
        print(f"{name}: no version is in use now")
    else:
        print(f"{name} is {name}@{version or SHIPPED} now")
    return 0
