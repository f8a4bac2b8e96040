"""From a checkpoint to weights that ship: calibrate on what was held out, write the card."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.registry import get_model
from models.train_options import TrainOptions
from models.training import make_lesson
from models.weights import Card, save_weights
from pipeline.judges import find_calibrator

Reporter = Callable[[str], None]

# What detectors of so many dimensions read.
_SKY = "background-subtracted data over local rms, blanks 0; beam in px beside it"
_PLACES = ("start", "templates", "data")
SCALING = {1: "continuum-subtracted spectrum over local rms, blanks exactly 0", 2: _SKY, 3: _SKY}


def publish(checkpoint: Path, options: TrainOptions, *, command: str = "", report: Reporter = print) -> Path:
    """Turn a checkpoint into weights with a card, calibrated on held-out simulated skies or held-out examples.

    Parameters
    ----------
    checkpoint : Path
        As written by `models.training.train`.
    options : TrainOptions
        Of that run; ``calibration_skies`` 0 leaves the weights uncalibrated.
    command : str
        What makes the same weights again; by default as `command_line` has it.
    report : callable

    Returns
    -------
    Path
        The weights file, beside the checkpoint.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    module = get_model(state["name"]).build(**state["model_options"])
    module.load_state_dict(state["average"])
    path = checkpoint.with_name(f"{state['name']}.safetensors")
    # Counted by the training, which knows how many processes torchrun started.
    drawn = state.get("taken", state["step"] * options.accumulate * options.devices) * options.batch
    last = state["history"][-1]
    scaling, seen = _what_it_learnt(module, options)
    card = Card(
        model=state["name"],
        options=state["model_options"],
        input_scaling=scaling,
        trained_on=f"{drawn:,} {seen}",
        seed=options.seed,
        command=command or command_line(options),
        cost=_cost_in_words(state),
        score={"held_out_loss": round(last["loss"], 4)},
        threshold=0.5 if get_model(options.name).reads != "photograph" else None,
    )
    save_weights(module, card, path)
    calibrate = find_calibrator(options) if options.calibration_skies else None
    found = calibrate(path, options, folder=path.parent, report=report) if calibrate else None
    if found is not None:
        card = replace(
            card, threshold=found["threshold"], calibration=found["calibration"], score={**card.score, **found["score"]}
        )
        save_weights(module, card, path)
    report(f"{path}: threshold {card.threshold}, calibration {card.calibration}")
    return path


def checkpoint_facts(checkpoint: Path) -> dict[str, Any]:
    """Of a checkpoint its last check on held-out examples ("last"), and what it cost ("cost")."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return {"last": state["history"][-1], "cost": state.get("cost", {})}


def _cost_in_words(state: dict[str, Any]) -> str:
    """Time, machine, and where the trainer tells, multiplications and energy."""
    words = [f"{state['seconds'] / 60:.0f} minutes on {os.cpu_count()} cores ({platform.machine()})"]
    words.append(f"{state['step']:,} steps")
    cost = state.get("cost", {})
    if cost.get("macs_per_example"):
        words.append(f"{cost['macs_per_example']:.3g} multiply-accumulates per example")
    if cost.get("energy_joules"):
        words.append(f"{cost['energy_joules'] / 3.6e6:.3g} kWh")
    return ", ".join(words)


def _what_it_learnt(module: nn.Module, options: TrainOptions) -> tuple[str, str]:
    """What the network expects as input, and what it was trained on: the lesson's own words, where it has some."""
    entry = get_model(options.name)
    if entry.kind == "detector" and not options.lesson:
        return SCALING[module.head.ndim], f"fields of {trained_on(module.head.ndim, options)}"
    lesson = make_lesson(module, options)
    described = getattr(lesson, "description", "") or getattr(getattr(lesson, "examples", None), "description", "")
    data = f" of {options.data.name}" if options.data else ""
    seen = f"draws of {described or f'the lesson {options.lesson}{data}'}"
    if getattr(lesson, "input_scaling", ""):
        return lesson.input_scaling, seen
    if entry.reads == "photograph":
        return "colours as the network's own prepare() takes them", seen
    if entry.kind == "detector":
        return SCALING[module.head.ndim], seen
    return "flux conserved on the network's grid, normalised by its own prepare(); what is missing is marked", seen


def trained_on(ndim: int, options: TrainOptions) -> str:
    """The sky that a network of so many dimensions is trained on."""
    if ndim == 1:
        return (
            f"{options.channels} channels of simulated spectra (survey_io.simulate.lines by models.line_loader), lines "
            "of 2 to 150 channels in emission and absorption"
        )
    if ndim == 3:
        sides = " x ".join(str(side) for side in options.cube_size)
        real = ", a quarter of the galaxies made of SDC2's real templates but for its held-out ones"
        return (
            f"{sides} voxels of simulated HI cubes (survey_io.simulate.hi by models.cube_loader), beams of 2 "
            f"to 6 px, channels of 15 to 90 kHz{real if options.templates else ''}"
        )
    return (
        f"{options.size} px of simulated radio continuum sky (survey_io.simulate.continuum, SkyModel.random), beams of "
        "2.1 to 8.8 px"
    )


def command_line(options: TrainOptions, recipe: str = "", base: TrainOptions | None = None) -> str:
    """The command that makes the same weights again.

    Parameters
    ----------
    options : TrainOptions
    recipe : str
        Name of the recipe that it starts from; by default the model's.
    base : TrainOptions, optional
        What that recipe says; by default nothing but the model's name.
    """
    base = base or TrainOptions(name=options.name)
    left_out = {"output", "resume", "name"} if base.name == options.name else {"output", "resume"}
    plain = base.model_dump(mode="json")
    words = []
    for name, value in options.model_dump(mode="json", exclude=left_out).items():
        if value == plain[name]:
            continue
        # Folders and files are named without the place where they lay.
        value = Path(value).name if name in _PLACES and value else _without_places(value)
        if name in ("data", "templates"):
            words.append(f"--{name} {shlex.quote(str(value))}")
        else:
            words.append(f"--set {shlex.quote(f'{name}={json.dumps(value)}')}")
    return " ".join(["skysift train", recipe or options.name, *words])


def _without_places(value: Any) -> Any:
    """The same with absolute paths cut down to the name, in options of any depth."""
    if isinstance(value, dict):
        return {name: _without_places(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
