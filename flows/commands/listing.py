"""``skysift models``: what can be asked for with ``--model``."""

from __future__ import annotations


def models() -> int:
    """List the models that --model and train know."""
    from models.registry import get_model, list_models

    names = list_models()
    width = max((len(name) for name in names), default=0)
    for name in names:
        entry = get_model(name)
        print(f"{name:<{width}}  {entry.kind}, {entry.ndim}D  {entry.summary}")
    return 0
