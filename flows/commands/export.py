"""``skysift export``: a network for other programs."""

from __future__ import annotations

from pathlib import Path

import typer


def export(
    model: str = typer.Argument("light", metavar="[MODEL]", help="Name of weights, or a weights file."),
    output: Path = typer.Option(Path("."), "-o", "--output", help="File to write, or a folder."),
    format: str = typer.Option("onnx", "--format", help="onnx or openvino."),
) -> int:
    """Write a network as an ONNX or OpenVINO graph, checked against torch."""
    from models.export import export as run

    print(run(model, output, format=format))
    return 0
