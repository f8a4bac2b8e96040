"""``skysift train``: a network on simulated sky."""

from __future__ import annotations

import sys
from pathlib import Path

import typer


def train(
    name: str | None = typer.Argument(None, metavar="NAME", help="Model to train; see 'skysift models'."),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for checkpoints, log and pictures [default: training]."
    ),
    steps: int | None = typer.Option(None, help="Optimiser steps [default: 40000]."),
    minutes: float | None = typer.Option(None, help="Bound on the wall time, minutes."),
    batch: int | None = typer.Option(None, help="Fields per step [default: 8]."),
    size: int | None = typer.Option(None, help="Side of a field in pixels [default: 256]."),
    learning_rate: float | None = typer.Option(None, help="Largest learning rate [default: 0.002]."),
    precision: str | None = typer.Option(None, help="bf16 or f32 [default: bf16]."),
    seed: int | None = typer.Option(None, help="Seed of skies and initial weights [default: 1]."),
    device: str | None = typer.Option(None, help="auto, cpu or cuda [default: auto]."),
    threads: int | None = typer.Option(None, help="Processor threads [default: all]."),
    calibration_skies: int | None = typer.Option(
        None, help="Held-out skies that calibrate the weights, 0 for none [default: 24]."
    ),
    resume: bool = typer.Option(False, "--resume", help="Continue from the last checkpoint in the folder."),
    start: Path | None = typer.Option(None, metavar="FILE", help="Weights file to start from."),
    templates: Path | None = typer.Option(
        None, metavar="DIR", help="Real HI galaxies to make cubes of, in the layout of SDC2's atlas."
    ),
    data: Path | None = typer.Option(
        None, metavar="DIR", help="Real data that a recipe trains on, in the layout that it names."
    ),
    config: Path | None = typer.Option(
        None, metavar="FILE.yaml", help="Recipe with these and further options, as in flows/recipes."
    ),
    flow: bool = typer.Option(
        False, "--flow", help="Run as a Prefect flow even without a configured server."
    ),
) -> int:
    """Train a network on simulated sky, on a CPU or a GPU.

    Options may also stand in the file given with --config and in the environment, as
    SKYSIFT_TRAIN_STEPS=1000; the command line wins over the environment, and that over the file.
    """
    from flows.server import configured_api_url, require_server
    from flows.settings import resolve_options
    from models.registry import get_model
    from models.training import TrainOptions
    from survey_io.errors import OptionError

    given = {
        "name": name, "output": output, "steps": steps, "minutes": minutes, "batch": batch, "size": size,
        "learning_rate": learning_rate, "precision": precision, "seed": seed, "device": device,
        "threads": threads, "resume": resume or None, "start": start, "templates": templates,
        "data": data,
        "calibration_skies": calibration_skies,
    }  # fmt: skip
    options = resolve_options(TrainOptions, given, config=config)
    if not get_model(options.name).has_weights:
        raise OptionError(f"model {options.name!r} has no weights to train; see 'skysift models'")
    url = configured_api_url()
    if url:
        require_server(url)
    if flow or url:
        from flows.train import train as run
    else:
        from pipeline.train import train_and_publish as run
    weights = run(options)
    print(weights, file=sys.stdout, flush=True)
    return 0
