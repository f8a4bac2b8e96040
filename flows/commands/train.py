"""``skysift train``: a recipe, or a network on simulated sky."""

from __future__ import annotations

import sys
from pathlib import Path

import typer


def train(
    recipe: str | None = typer.Argument(
        None, metavar="RECIPE", help="Recipe by name (--list) or as a file, or a model; see 'skysift models'."
    ),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for checkpoints, log, report and pictures [default: the recipe's]."
    ),
    data: Path | None = typer.Option(
        None, metavar="DIR", help="Real data that a recipe trains on, in the layout that it names."
    ),
    sets: list[str] | None = typer.Option(
        None, "--set", metavar="KEY=VALUE", help="Change an option, as learning_rate=1e-3 or lesson_options.size=64."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in the folder, wherever it was killed."),
    devices: int | None = typer.Option(None, help="Processes on this machine, each with a device of its own."),
    show_list: bool = typer.Option(False, "--list", help="List the recipes and leave."),
    steps: int | None = typer.Option(None, help="Optimiser steps."),
    minutes: float | None = typer.Option(None, help="Bound on the wall time, minutes."),
    batch: int | None = typer.Option(None, help="Fields per step."),
    size: int | None = typer.Option(None, help="Side of a field in pixels."),
    learning_rate: float | None = typer.Option(None, help="Largest learning rate."),
    precision: str | None = typer.Option(None, help="bf16, f32 or fp16."),
    seed: int | None = typer.Option(None, help="Seed of examples and initial weights."),
    device: str | None = typer.Option(None, help="auto, cpu or cuda."),
    threads: int | None = typer.Option(None, help="Processor threads [default: all]."),
    calibration_skies: int | None = typer.Option(
        None, help="Held-out skies that calibrate the weights, 0 for none [default: 24]."
    ),
    start: Path | None = typer.Option(None, metavar="WEIGHTS", help="Weights to start from: a file or a name."),
    templates: Path | None = typer.Option(
        None, metavar="DIR", help="Real HI galaxies to make cubes of, in the layout of SDC2's atlas."
    ),
    config: Path | None = typer.Option(
        None, metavar="FILE.yaml", help="Recipe's file, when RECIPE is only the model to train."
    ),
    flow: bool = typer.Option(
        False, "--flow", help="Run as a Prefect flow even without a configured server."
    ),
) -> int:
    """Train a network as a recipe says; judge, register and, where it is better, promote it.

    The data is checked, the network trained and calibrated, judged on data that nothing was chosen on, compared with
    the weights in use, exported, registered as the next version of its name, and promoted if it is better beyond its
    error. The report is report.md in the output folder. Options may also stand in the environment, as
    SKYSIFT_TRAIN_STEPS=1000; the command line wins over the environment, and that over the recipe.
    """
    from flows.recipe_files import list_recipes, resolve_recipe

    if show_list:
        recipes = list_recipes()
        width = max(map(len, recipes))
        for name, text in recipes.items():
            print(f"{name:<{width}}  {text}")
        return 0
    from flows.server import configured_api_url, require_server

    given = {
        "output": output, "steps": steps, "minutes": minutes, "batch": batch, "size": size,
        "learning_rate": learning_rate, "precision": precision, "seed": seed, "device": device, "devices": devices,
        "threads": threads, "resume": resume or None, "start": start, "templates": templates, "data": data,
        "calibration_skies": calibration_skies,
    }  # fmt: skip
    options, retrain = resolve_recipe(recipe, config=config, sets=sets or (), given=given)
    url = configured_api_url()
    if url:
        require_server(url)
    from models.distributed import is_main

    # Of several processes that torchrun started one is the flow; the others help it to train.
    if (flow or url) and is_main():
        from flows.train import run_flow as run
    else:
        from pipeline.retrain import retrain as run
    weights = run(options, retrain)
    if is_main():
        print(weights, file=sys.stdout, flush=True)
    return 0
