"""``skysift demo``: the whole path on a small simulated sky."""

from __future__ import annotations

from pathlib import Path

import typer


def demo(
    output: Path = typer.Option(
        Path("skysift_demo"), "-o", "--output", help="Folder for everything it makes."
    ),
    model: str = typer.Option("light", help="Model to detect with."),
    size: int = typer.Option(1024, min=256, max=8192, help="Side of the sky in pixels."),
    seed: int = typer.Option(11, min=0, help="Seed of the sky."),
) -> int:
    """Simulate a small sky, detect its sources, score the catalogue, and say where the picture is."""
    from pipeline.demo import run_demo

    report = run_demo(output, model=model, size=size, seed=seed)
    print(report.text)
    return 0
