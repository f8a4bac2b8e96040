"""``skysift export``: a network for other programs, or as an engine for a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from survey_io.errors import OptionError


def export(
    model: str = typer.Argument("light", metavar="[MODEL]", help="Name of weights, or a weights file."),
    output: Path = typer.Option(Path("."), "-o", "--output", help="File to write, or a folder."),
    format: str = typer.Option("onnx", "--format", help="onnx or openvino."),
    engine: str | None = typer.Option(
        None, "--engine", help="tensorrt: build an engine, its ONNX beside it; openvino: for processors."
    ),
    precision: str | None = typer.Option(
        None, "--precision", help="The engine's: f32, bf16, fp16, int8 or fp8 [default: fp16, openvino int8]."
    ),
    target: str | None = typer.Option(None, "--target", help="Its GPUs, as sm89,sm120 [default: the one here]."),
    batch: str | None = typer.Option(None, "--batch", help="The engine's least, likeliest and largest, as 1,8,16."),
    tile: str | None = typer.Option(None, "--tile", help="The same of a tile's sides, as 64,512,2048."),
    sky: float | None = typer.Option(
        None, "--sky", help="Share of the held-out sky to compare catalogues on, 0 for none [default: 1, some minutes]."
    ),
    force: bool = typer.Option(False, "--force", help="Keep an engine whose catalogue is not that of f32."),
    data: Path | None = typer.Option(None, "--data", help="What the network learns from, where that is not simulated."),
) -> int:
    """Write a network as an ONNX or OpenVINO graph, or as an engine.

    A graph is checked against torch; an engine's catalogue is compared with that of f32 on simulated sky.
    """
    if engine is None:
        given = {
            "--precision": precision, "--target": target, "--batch": batch, "--tile": tile, "--sky": sky,
            "--force": force or None, "--data": data,
        }  # fmt: skip
        unused = [option for option, value in given.items() if value is not None]
        if unused:
            raise OptionError(f"{', '.join(unused)}: of engines only, say --engine tensorrt or leave it out")
        from models.export import export as run

        print(run(model, output, format=format))
        return 0
    from pipeline.exports import export_checked

    shapes = {name: _three(name, text) for name, text in (("batch", batch), ("tile", tile)) if text is not None}
    targets = [one.strip().lower() for one in (target or "").split(",") if one.strip()]
    precision = precision or ("int8" if engine == "openvino" else "fp16")
    path = export_checked(
        model, output, engine=engine, precision=precision, targets=targets, sky=1.0 if sky is None else sky,
        force=force, data=data, report=lambda line: print(line, file=sys.stderr), **shapes,
    )  # fmt: skip
    print(path)
    return 0


def _three(option: str, text: str) -> tuple[int, int, int]:
    """Three numbers from text; one stands for all."""
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
        raise OptionError(f"--{option} {text!r}: expected one number, or the least, likeliest and largest as 1,8,16")
    least, likely, largest = (int(part) for part in (parts * 3)[:3])
    return least, likely, largest
