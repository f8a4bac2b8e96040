"""One readable training loop for all networks: mixed precision, moving average, warm-up and cosine, resume.

Runs on CPU and GPU. A run is bounded by steps or by minutes, whichever comes first, and its learning rate
follows the fraction that is done, so that a run of any length ends annealed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from models.detector_lesson import DetectorLesson
from models.lessons import get_lesson
from models.precision import memory_format
from models.registry import get_model
from models.train_options import TrainOptions
from survey_io.memory import keep_freed_memory


class Lesson(Protocol):
    """What a network learns from and how it is judged; a network with a method ``lesson(options)`` brings its own."""

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> IterableDataset:
        """Endless batches to train on: the numbers first, first + every, ..., each of which depends on the seed only.

        `models.streams.NumberedBatches` is the way to make them. A lesson may leave out ``first`` and ``every``: its
        runs cannot be resumed exactly then, and go on with another seed instead.
        """
        ...

    def held_out(self) -> list[Any]:
        """Batches that are never trained on, the same at every call."""
        ...

    def loss(
        self, net: nn.Module, batch: Any, device: torch.device, precision: str
    ) -> tuple[Tensor, dict[str, float]]:
        """Forward pass and loss of one batch on a device, with its terms by name."""
        ...

    def draw(self, net: nn.Module, batch: Any, path: Path) -> None:
        """Picture of what the network answers for a batch."""
        ...


def make_lesson(net: nn.Module, options: TrainOptions) -> Lesson:
    """The lesson that the recipe names, else the network's own, else that of detectors."""
    if options.lesson:
        return get_lesson(options.lesson)(net, options)
    own = getattr(net, "lesson", None)
    return DetectorLesson(net.head, options) if own is None else own(options)


def choose_device(name: str) -> torch.device:
    """The device to train on; "auto" takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def rate_factor(step: int, done: float, options: TrainOptions) -> float:
    """Learning rate over its maximum: linear warm-up by steps, then a cosine over ``done`` (0..1)."""
    warm = min(1.0, (step + 1) / max(options.warm_up, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
    return warm * (options.final_rate + (1 - options.final_rate) * cosine)


class MovingAverage:
    """Exponential moving average of a module's parameters and buffers."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module; the decay is shorter at the start so that early averages are not stale."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.values[name].lerp_(value.detach(), 1 - decay)
            else:
                self.values[name].copy_(value)


@torch.no_grad()
def validate(net: nn.Module, lesson: Lesson, batches: list, device: torch.device) -> dict[str, float]:
    """Mean loss terms over fixed batches, in full precision."""
    net.eval()
    sums: dict[str, float] = {}
    for batch in batches:
        loss, parts = lesson.loss(net, batch, device, "f32")
        for name, value in {"loss": float(loss), **parts}.items():
            sums[name] = sums.get(name, 0.0) + value / len(batches)
    net.train()
    return sums


def save_checkpoint(path: Path, **state: Any) -> None:
    """Write a checkpoint so that a crash leaves either the old or the new one whole."""
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


def train(options: TrainOptions, *, report: Callable[[str], None] = print) -> Path:
    """Train a network, on simulated sky or on what its lesson holds.

    Parameters
    ----------
    options : TrainOptions
    report : callable
        Receives one line of text every 100 steps.

    Returns
    -------
    Path
        ``output/last.pt``: model, moving average, optimiser, step and history. `models.weights.publish` turns
        it into a weights file with a card.
    """
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device = choose_device(options.device)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    net = get_model(options.name).build(**options.model_options)
    if options.start:
        from safetensors.torch import load_file

        net.load_state_dict(load_file(options.start))
    lesson = make_lesson(net, options)
    net = net.to(device, memory_format=memory_format(get_model(options.name).ndim))
    average = MovingAverage(net, options.ema)
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, betas=(0.9, 0.98)
    )
    first, spent, history = 0, 0.0, []
    checkpoint = folder / "last.pt"
    if options.resume and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average.values = state["average"]
        first, spent, history = state["step"], state["seconds"], state["history"]
    # A resumed run must not see the first run's fields again: the seed moves with the step.
    fields = lesson.batches(seed=options.seed + 1000 * first)
    workers = {"num_workers": options.loaders, "prefetch_factor": 4} if options.loaders else {}
    loader = iter(DataLoader(fields, batch_size=None, **workers))
    held_out = lesson.held_out()
    (folder / "options.json").write_text(options.model_dump_json(indent=1))
    began = time.monotonic()
    running: dict[str, float] = {}
    step, done = first, 0.0
    while step < options.steps and done < 1.0:
        seconds = spent + time.monotonic() - began
        done = max(step / options.steps, seconds / (60 * options.minutes) if options.minutes else 0.0)
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * rate_factor(step, done, options)
        loss, parts = lesson.loss(net, next(loader), device, options.precision)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), options.clip)
        if torch.isfinite(norm):
            optimiser.step()
        step += 1
        average.update(net, step)
        for name, value in {"loss": float(loss.detach()), **parts}.items():
            running[name] = 0.98 * running.get(name, value) + 0.02 * value
        if step % 100 == 0:
            terms = " ".join(f"{name} {value:.3f}" for name, value in running.items())
            report(f"step {step} {100 * done:.1f}% {seconds / 60:.1f} min norm {float(norm):.2f} {terms}")
        last = step == options.steps or done >= 1.0
        if step % options.save_every == 0 or last:
            current = {name: value.clone() for name, value in net.state_dict().items()}
            net.load_state_dict(average.values)
            score = validate(net, lesson, held_out, device)
            if step % options.picture_every == 0 or last:
                lesson.draw(net, held_out[0], folder / f"step_{step:06d}.png")
            net.load_state_dict(current)
            history.append({"step": step, "minutes": seconds / 60, **score})
            (folder / "history.json").write_text(json.dumps(history, indent=1))
            terms = " ".join(f"{name} {value:.4f}" for name, value in score.items())
            report(f"step {step} held-out {terms}")
            save_checkpoint(
                checkpoint, model=net.state_dict(), average=average.values, optimiser=optimiser.state_dict(),
                step=step, seconds=seconds, history=history, name=options.name, model_options=net.options,
            )  # fmt: skip
    return checkpoint
