"""From options to weights that ship: train, calibrate on what was held out, write the card."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from models.registry import get_model
from models.training import TrainOptions, train
from models.weights import Card, save_weights
from pipeline.calibrate import calibrate

# What detectors of so many dimensions read.
_SKY = "background-subtracted data over local rms, blanks 0; beam in px beside it"
SCALING = {1: "continuum-subtracted spectrum over local rms, blanks exactly 0", 2: _SKY, 3: _SKY}


def train_and_publish(options: TrainOptions, *, report: Callable[[str], None] = print) -> Path:
    """Train a network and make weights of its last checkpoint.

    Returns
    -------
    Path
        ``output/NAME.safetensors``; ``skysift detect --model`` takes it.
    """
    return publish(train(options, report=report), options, report=report)


def publish(checkpoint: Path, options: TrainOptions, *, report: Callable[[str], None] = print) -> Path:
    """Turn a checkpoint into weights with a card, calibrated on held-out simulated skies or held-out examples.

    Parameters
    ----------
    checkpoint : Path
        As written by `models.training.train`.
    options : TrainOptions
        Of that run; ``calibration_skies`` 0 leaves the weights uncalibrated.
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
    fields = state["step"] * options.batch
    last = state["history"][-1]
    detector = get_model(state["name"]).kind == "detector"
    if detector:
        examples = None
        seen = f"{fields:,} fields of {trained_on(module.head.ndim, options)}"
    else:
        examples = module.lesson(options).examples
        seen = f"{fields:,} draws of {examples.description}"
    card = Card(
        model=state["name"],
        options=state["model_options"],
        input_scaling=(
            SCALING[module.head.ndim]
            if detector
            else "flux conserved on the network's grid, normalised by its own prepare(); what is missing is marked"
        ),
        trained_on=seen,
        seed=options.seed,
        command=command_line(options),
        cost=f"{state['seconds'] / 60:.0f} minutes on {os.cpu_count()} cores ({platform.machine()}), "
        f"{state['step']:,} steps",
        score={"held_out_loss": round(last["loss"], 4)},
        threshold=0.5,
    )
    save_weights(module, card, path)
    if options.calibration_skies:
        if examples is not None:
            from pipeline.calibrate_classifier import calibrate_classifier

            picture = path.with_name(f"{path.stem}_reliability.png")
            found = {"threshold": 0.5, **calibrate_classifier(module.eval(), examples, report=report, picture=picture)}
        elif module.head.ndim == 1:
            from pipeline.calibrate_lines import SPECTRA_PER_SKY, calibrate_lines

            found = calibrate_lines(str(path), spectra=SPECTRA_PER_SKY * options.calibration_skies, report=report)
        elif module.head.ndim == 3:
            from pipeline.calibrate_cube import calibrate_cube

            found = calibrate_cube(str(path), cubes=options.calibration_skies, report=report)
        else:
            found = calibrate(str(path), skies=options.calibration_skies, report=report)
        card = replace(
            card, threshold=found["threshold"], calibration=found["calibration"], score={**card.score, **found["score"]}
        )
        save_weights(module, card, path)
    report(f"{path}: threshold {card.threshold}, calibration {card.calibration}")
    return path


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


def command_line(options: TrainOptions) -> str:
    """The command that makes the same weights again."""
    plain = TrainOptions(name=options.name).model_dump(mode="json")
    changed = {
        name: value for name, value in options.model_dump(mode="json", exclude={"name", "output", "resume"}).items()
        if value != plain[name]
    }  # fmt: skip
    # Folders are named without the place where they lay.
    changed |= {name: Path(changed[name]).name for name in ("start", "templates", "data") if name in changed}
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changed.items())
    return f"skysift train {options.name} {words}".strip()
