"""``skysift evaluate``: a catalogue against the truth."""

from __future__ import annotations

from pathlib import Path

import typer


def evaluate(
    catalogue: Path = typer.Argument(
        ..., metavar="CATALOGUE", help="Catalogue that skysift reads.", show_default=False
    ),
    truth: Path = typer.Argument(..., metavar="TRUTH", help="Truth table, SDC1 columns.", show_default=False),
    scorer: str = typer.Option(
        "match", help="match (completeness, reliability, errors) or sdc1 (challenge score)."
    ),
) -> int:
    """Score a catalogue against a truth table."""
    from pipeline.evaluate import evaluate as run

    print(run(catalogue, truth, scorer=scorer))
    return 0
