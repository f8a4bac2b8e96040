"""Options of a training run: what a recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainOptions(BaseModel):
    """Options of one training run; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What is trained, on what, and where it goes.
    name: str = Field("light", description="registered network to train")
    output: Path = Field(Path("training"), description="folder of checkpoints, log and pictures")
    model_options: dict[str, Any] = Field(default_factory=dict)
    lesson: str = Field("", description="what to learn from, by name (models.lessons); empty: the network's own")
    lesson_options: dict[str, Any] = Field(default_factory=dict, description="options of the lesson")
    data: Path | None = Field(None, description="folder or file of the real data that a recipe trains on")
    templates: Path | None = Field(None, description="folder of real HI galaxies that cubes are made of, as SDC2's")
    start: Path | None = Field(None, description="weights to start from: a file, or the name of shipped ones")
    start_partial: bool = Field(
        False, description="take only those tensors of start that fit, as for another head; the others begin anew"
    )
    freeze: list[str] = Field(
        default_factory=list, description="patterns (stem.*) of layers that keep their weights and BatchNorm statistics"
    )
    eight_bits: list[str] = Field(
        default_factory=list,
        description="patterns of layers whose inputs and weights are rounded as a graph of 8 bits will round them",
    )
    layer_rates: dict[str, float] = Field(
        default_factory=dict, description="pattern of layers: factor of their learning rate; the first that fits counts"
    )

    # How long.
    steps: int = Field(40_000, ge=1, description="optimiser steps")
    minutes: float | None = Field(None, gt=0, description="bound on the wall time, minutes: not repeatable")
    patience: int | None = Field(None, ge=1, description="stop after so many checks without a better held-out term")
    watch: str = Field("loss", description="held-out term that patience and keep go by")
    watch_best: Literal["lowest", "highest"] = Field("lowest", description="which value of that term is the best")
    keep: Literal["last", "best"] = Field("last", description="the checkpoint that is the result: last.pt or best.pt")

    # The examples of a step.
    batch: int = Field(8, ge=1, description="fields per batch, in each process")
    accumulate: int = Field(1, ge=1, description="batches per step, whose gradients are averaged")
    size: int = Field(256, ge=64, description="side of a field, px")
    channels: int = Field(1024, ge=256, description="channels of a spectrum's field, for detectors of lines")
    cube_size: tuple[int, int, int] = Field((128, 48, 48), description="sides of a cube's field, (channels, y, x)")
    pool: int = Field(64, ge=8, description="skies kept by a loader process")
    loaders: int = Field(1, ge=0, description="loader processes")

    # The steps.
    optimiser: Literal["adamw", "adam", "sgd", "nesterov", "adagrad", "adadelta", "rmsprop"] = "adamw"
    betas: tuple[float, float] = Field((0.9, 0.98), description="decays of Adam's moments")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd, nesterov and rmsprop")
    learning_rate: float = Field(2e-3, gt=0)
    schedule: Literal["cosine", "step", "constant", "exponential"] = "cosine"
    final_rate: float = Field(0.01, ge=0, le=1, description="last learning rate over the first")
    milestones: list[float] = Field(
        default_factory=lambda: [0.6, 0.85], description="shares of the run after which schedule step goes down"
    )
    step_factor: float = Field(0.1, gt=0, lt=1, description="factor of schedule step at each milestone")
    decay: float | None = Field(
        None, gt=0, description="schedule exponential, per step: final + (1 - final) exp(-decay step); none: 5 in all"
    )
    warm_up: int = Field(300, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(1e-4, ge=0)
    clip: float = Field(5.0, ge=0, description="largest gradient norm; 0: any")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the moving average of the weights")

    # The machine.
    device: str = Field("auto", description="auto, cpu or cuda")
    devices: int = Field(1, ge=1, description="processes on this machine, each with a device of its own")
    threads: int | None = Field(None, ge=1, description="CPU threads of torch, in each process")
    precision: Literal["bf16", "f32", "fp16"] = Field("bf16", description="bf16, f32 or (CUDA only) fp16")
    channels_last: bool = Field(True, description="layout of images and cubes that convolutions are fastest in")
    compile: bool = Field(False, description="compile the network with torch.compile where there is a compiler")
    seed: int = Field(1, ge=0, description="seed of examples and initial weights")
    deterministic: bool = Field(False, description="only algorithms that repeat bit for bit on a GPU too; slower")

    # What is written.
    save_every: int = Field(500, ge=1, description="steps between checkpoints, each after a check on held-out examples")
    picture_every: int = Field(2000, ge=1, description="steps between pictures of predictions")
    log_every: int = Field(1, ge=1, description="steps between rows of log.csv")
    tensorboard: bool = Field(False, description="write a TensorBoard log too, where that package is installed")
    resume: bool = Field(False, description="continue from the last checkpoint in output")
    calibration_skies: int = Field(24, ge=0, description="held-out skies that calibrate the weights; 0: none")

    @model_validator(mode="after")
    def _fitting(self) -> TrainOptions:
        if any(not 0 < one < 1 for one in self.milestones) or sorted(self.milestones) != self.milestones:
            raise ValueError(f"milestones: expected rising shares of the run between 0 and 1, got {self.milestones}")
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two decays from 0 to below 1, got {self.betas}")
        if self.optimiser == "nesterov" and not self.momentum:
            raise ValueError("momentum: optimiser nesterov expects one above 0, got 0: take sgd instead")
        if wrong := {name: one for name, one in self.layer_rates.items() if one < 0}:
            raise ValueError(f"layer_rates: expected factors of 0 or more, got {wrong}")
        return self
