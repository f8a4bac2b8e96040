"""``skysift models``: what can be asked for with ``--model``."""

from __future__ import annotations


def models() -> int:
    """List the models that --model and train know, and the weights that are shipped."""
    from models.registry import get_model, list_models
    from models.weights import find_weights, list_weights, read_card

    rows = [(name, get_model(name)) for name in list_models()]
    shipped = list_weights()
    width = max(len(name) for name in [*shipped, *(name for name, _ in rows)])
    print("models:")
    for name, entry in rows:
        print(f"  {name:<{width}}  {entry.kind}, {entry.ndim}D: {entry.summary}")
    print("weights:" if shipped else "weights: none are shipped")
    for name in shipped:
        card, size = read_card(name), find_weights(name).stat().st_size
        print(f"  {name:<{width}}  {card.model}, {size / 1e6:.1f} MB: {card.trained_on}")
    return 0
