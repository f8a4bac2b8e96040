"""One readable training loop for all networks: mixed precision, moving average, schedules, exact resume, many devices.

Runs on CPU and GPU. A run is bounded by steps or by minutes, whichever comes first, and its learning rate
follows the fraction that is done, so that a run of any length ends annealed.

A run that is killed and resumed gives the weights that it would have given, bit for bit on a processor: batches are
made by their numbers (`models.streams`), and a checkpoint holds all else that a step depends on. It is not so for a run
that is bounded in minutes, for lessons whose batches have no numbers, and, where pools of skies are kept, for a run
that goes on with another number of loader or training processes.
"""

from __future__ import annotations

import inspect
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from models.checkpoints import (
    copy_checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    seed_all,
    start_from,
)
from models.compiling import compile_network
from models.cost import EnergyMeter, macs_per_example
from models.detector_lesson import DetectorLesson
from models.distributed import Processes, choose_device, joined, launch, launched
from models.lessons.base import Lesson, make_lesson
from models.moving_average import MovingAverage
from models.optimisers import freeze_layers, make_optimiser, set_rate
from models.precision import check_precision, make_scaler, memory_format
from models.registry import get_model
from models.rounding import Rounding
from models.schedules import rate_factor
from models.streams import make_loader
from models.train_log import TrainLog
from models.train_options import TrainOptions
from survey_io.errors import InputError, OptionError, SkysiftError
from survey_io.memory import keep_freed_memory

__all__ = [
    "Lesson", "MovingAverage", "TrainOptions", "Training", "choose_device", "make_lesson", "rate_factor",
    "save_checkpoint", "train", "validate",
]  # fmt: skip

# Steps in a row without a finite gradient after which a run gives up; scaled losses of fp16 begin with a few.
_MOST_SKIPPED = 50


@torch.no_grad()
def validate(net: nn.Module, lesson: Lesson, batches: list, processes: Processes) -> dict[str, float]:
    """Mean loss terms over fixed batches, in full precision; several processes share them."""
    net.eval()
    sums: dict[str, float] = {}
    for batch in batches[processes.rank :: processes.count]:
        loss, parts = lesson.loss(net, batch, processes.device, "f32")
        for name, value in {"loss": float(loss), **parts}.items():
            sums[name] = sums.get(name, 0.0) + value / len(batches)
    net.train()
    every = processes.gather(sums)
    return {name: sum(one.get(name, 0.0) for one in every) for name in every[0]}


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let torch take only algorithms that repeat bit for bit, where wanted."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def train(options: TrainOptions, *, report: Callable[[str], None] = print) -> Path:
    """Train a network, on simulated sky or on what its lesson holds.

    With ``devices`` of more than 1 it is trained in so many processes of this machine; processes that torchrun started
    each call this function and train together (`models.distributed`).

    Parameters
    ----------
    options : TrainOptions
    report : callable
        Receives one line of text every 100 steps.

    Returns
    -------
    Path
        ``output/last.pt`` (``best.pt`` for ``keep="best"``): model, moving average, optimiser, step, history, cost and
        all that a later run goes on from. `models.weights.save_weights` turns it into a weights file with a card.

    Raises
    ------
    OptionError
        For options that do not fit the network, the lesson or the machine.
    InputError
        For a checkpoint or weights to begin with that cannot be used.
    SkysiftError
        When the loss stops being a number.
    """
    if options.devices > 1 and not launched():
        return launch(train, options, report)
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    with deterministic(options.deterministic), joined(options) as processes:
        return Training(options, processes, report if processes.main else lambda _: None).run()


class Training:
    """One run: what is trained, by what, and how far it is."""

    def __init__(self, options: TrainOptions, processes: Processes, report: Callable[[str], None]):
        self.options, self.processes, self.report = options, processes, report
        self.device = processes.device
        check_precision(self.device, options.precision)
        self.folder = Path(options.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.folder / "last.pt"
        seed_all(options.seed)
        entry = get_model(options.name)
        net = entry.build(**options.model_options)
        if options.start:
            report(start_from(net, options.start, partial=options.start_partial))
        if options.freeze:
            report(f"freeze {', '.join(options.freeze)}: {freeze_layers(net, options.freeze):,} weights are kept")
        self.lesson = make_lesson(net, options)
        self.rounding = Rounding(net, options.eight_bits) if options.eight_bits else None
        if self.rounding and isinstance(self.lesson, DetectorLesson):
            self.lesson.rounding = self.rounding
        form = memory_format(entry.ndim, channels_last=options.channels_last)
        self.net = net.to(self.device, memory_format=form)
        processes.share(self.net)
        self.average = MovingAverage(self.net, options.ema)
        self.optimiser = make_optimiser(self.net, options)
        self.scaler = make_scaler(self.device, options.precision)
        self.step, self.taken, self.skipped, self.seconds = 0, 0, 0, 0.0
        self.history: list[dict[str, float]] = []
        self.running: dict[str, float] = {}
        self.cost: dict[str, float] = {}
        state = load_checkpoint(self.checkpoint) if options.resume and self.checkpoint.exists() else {}
        if state:
            self._go_on(state)
        if processes.rank:
            # What a network drops out shall differ between processes.
            torch.manual_seed(options.seed + processes.rank)
        self.batches = iter(self._loader())
        self.held_out = self.lesson.held_out()
        if "macs_per_example" not in self.cost and processes.main:
            macs = macs_per_example(self.net, lambda: self.lesson.loss(self.net, self.held_out[0], self.device, "f32"))
            self.cost |= {} if macs is None else {"macs_per_example": macs}
        if options.compile:
            compile_network(self.net, self.device, report)
        if len(state.get("random", ())) == processes.count:
            restore_random_state(state["random"][processes.rank])

    def _go_on(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        # Lists of a recipe's file and tuples of its code are the same option.
        same = json.dumps(state["model_options"], sort_keys=True) == json.dumps(self.net.options, sort_keys=True)
        if state["name"] != self.options.name or not same:
            raise InputError(
                f"{self.checkpoint}: is of model {state['name']!r} with {state['model_options']}, expected "
                f"{self.options.name!r} with {self.net.options}: choose another output, or train without resume"
            )
        try:
            self.net.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.checkpoint}: does not fit this recipe, which has another optimiser or other frozen layers: "
                f"resume with the options of {self.folder / 'options.json'} ({error})"
            ) from error
        for name, value in self.average.values.items():
            value.copy_(state["average"][name])
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self.taken = state.get("taken", self.step)
        before, now = state.get("makers"), self._makers()
        if before not in (None, now):
            self.report(f"resumed with {now} processes that make batches, was {before}: pools of skies begin anew")
        self.running, self.cost = state.get("running", {}), state.get("cost", {})
        if self.rounding:
            self.rounding.ranges = state.get("ranges", {})
        if "scaler" in state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def _makers(self) -> int:
        """How many processes make batches."""
        return self.processes.count * max(self.options.loaders, 1)

    def _loader(self) -> DataLoader:
        """The batches of this process, from where the run is."""
        options, processes = self.options, self.processes
        if {"first", "every"} <= set(inspect.signature(self.lesson.batches).parameters):
            every = processes.count
            fields = self.lesson.batches(seed=options.seed, first=self.taken + processes.rank, every=every)
        else:
            # A resumed run must not see the first run's fields again: the seed moves with the step.
            fields = self.lesson.batches(seed=options.seed + 1000 * self.step + 100_003 * processes.rank)
            if self.step:
                self.report("resumed, though not exactly: the batches of this lesson have no numbers")
        return make_loader(fields, options.loaders, pin_memory=self.device.type == "cuda")

    def run(self) -> Path:
        """Train to the end; see `train`."""
        options = self.options
        if self.processes.main:
            (self.folder / "options.json").write_text(options.model_dump_json(indent=1))
        with self._log() as log:
            self._loop(log)
        best = self.folder / "best.pt"
        return best if options.keep == "best" and best.exists() else self.checkpoint

    def _loop(self, log: TrainLog | None) -> None:
        options = self.options
        gpu = (self.device.index or 0) if self.device.type == "cuda" else None
        meter = EnergyMeter(gpu=gpu) if self.processes.main else EnergyMeter(gpu=gpu, powercap=None)
        spent, burnt, began = self.seconds, self.cost.get("energy_joules", 0.0), time.monotonic()
        done, stopped = 0.0, self._waited_enough()
        while self.step < options.steps and done < 1.0 and not stopped:
            self.seconds = spent + time.monotonic() - began
            done = self._done()
            rate = options.learning_rate * rate_factor(self.step, done, options)
            set_rate(self.optimiser, rate)
            terms, norm = self.one_step()
            for name, value in terms.items():
                self.running[name] = 0.98 * self.running.get(name, value) + 0.02 * value
            if log and self.step % options.log_every == 0:
                log.row(self.step, self.seconds / 60, rate, terms)
            if self.step % 100 == 0:
                text = " ".join(f"{name} {value:.3f}" for name, value in self.running.items())
                self.report(f"step {self.step} {100 * done:.1f}% {self.seconds / 60:.1f} min norm {norm:.2f} {text}")
            last = self.step == options.steps or done >= 1.0
            if self.step % options.save_every == 0 or last:
                energy = [one for one in self.processes.gather(meter.joules()) if one is not None]
                if energy:
                    self.cost["energy_joules"] = burnt + sum(energy)
                stopped = self.check(log, last=last)

    @contextmanager
    def _log(self) -> Iterator[TrainLog | None]:
        """The log of the process that writes."""
        if not self.processes.main:
            yield None
            return
        log = TrainLog(self.folder, first=self.step, tensorboard=self.options.tensorboard, report=self.report)
        try:
            yield log
        finally:
            log.close()

    def _done(self) -> float:
        """Share of the run that is done, 0 to 1 or more."""
        options = self.options
        if not options.minutes:
            return self.step / options.steps
        return self.processes.agree(max(self.step / options.steps, self.seconds / (60 * options.minutes)))

    def one_step(self) -> tuple[dict[str, float], float]:
        """One step of the optimiser: terms of its loss, and the norm of its gradient."""
        options = self.options
        self.optimiser.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        for _ in range(options.accumulate):
            loss, parts = self.lesson.loss(self.net, next(self.batches), self.device, options.precision)
            self.scaler.scale(loss / options.accumulate).backward()
            for name, value in {"loss": float(loss.detach()), **parts}.items():
                terms[name] = terms.get(name, 0.0) + value / options.accumulate
        self.processes.average(self.net)
        self.scaler.unscale_(self.optimiser)
        norm = float(nn.utils.clip_grad_norm_(self.net.parameters(), options.clip or math.inf))
        if self.scaler.is_enabled():
            self.scaler.step(self.optimiser)
            self.scaler.update()
        elif math.isfinite(norm):
            self.optimiser.step()
        self.skipped = 0 if math.isfinite(norm) else self.skipped + 1
        if self.skipped == _MOST_SKIPPED:
            raise SkysiftError(
                f"no finite gradient in {_MOST_SKIPPED} steps to step {self.step}, loss {terms['loss']}: train again "
                f"with a learning_rate below {options.learning_rate}, or with precision f32"
            )
        self.step += 1
        self.taken += options.accumulate * self.processes.count
        self.average.update(self.net, self.step)
        return terms, norm

    def check(self, log: TrainLog | None, *, last: bool) -> bool:
        """Judge the moving average on held-out examples and write a checkpoint; whether the run shall stop early."""
        options, net = self.options, self.net
        current = {name: value.clone() for name, value in net.state_dict().items()}
        net.load_state_dict(self.average.values)
        score = validate(net, self.lesson, self.held_out, self.processes)
        self.history.append({"step": self.step, "minutes": self.seconds / 60, **score})
        stopped = self._waited_enough()
        if self.processes.main and (self.step % options.picture_every == 0 or last or stopped):
            self.lesson.draw(net, self.held_out[0], self.folder / f"step_{self.step:06d}.png")
        net.load_state_dict(current)
        if log:
            log.check(self.history, last=last or stopped)
        self.report(f"step {self.step} held-out " + " ".join(f"{name} {value:.4f}" for name, value in score.items()))
        if stopped and not last:
            self.report(f"step {self.step}: stopped, {options.watch} was best {options.patience} checks ago")
        self.save()
        return stopped

    def save(self) -> None:
        """Write ``last.pt``, and ``best.pt`` where that is asked for and this check was the best."""
        randoms = self.processes.gather(random_state())
        self.cost |= {"seconds": self.seconds, "steps": self.step, "examples": self.taken * self.options.batch}
        if not self.processes.main:
            return
        state = {
            "model": self.net.state_dict(), "average": self.average.values, "optimiser": self.optimiser.state_dict(),
            "step": self.step, "seconds": self.seconds, "history": self.history, "name": self.options.name,
            "model_options": self.net.options, "taken": self.taken, "running": self.running, "cost": self.cost,
            "random": randoms, "makers": self._makers(),
        }  # fmt: skip
        if self.rounding:
            state["ranges"] = self.rounding.ranges
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        best = self.folder / "best.pt"
        if self.options.keep == "best" and (self._best() == len(self.history) - 1 or not best.exists()):
            # The best one first: a run killed in between comes to the same check again.
            save_checkpoint(best, **state)
            copy_checkpoint(best, self.checkpoint)
        else:
            save_checkpoint(self.checkpoint, **state)

    def _best(self) -> int:
        """Which check was the best by the watched term, counted from 0."""
        watch, sign = self.options.watch, 1 if self.options.watch_best == "highest" else -1
        known = [name for name in self.history[-1] if name not in ("step", "minutes")]
        if watch not in known:
            raise OptionError(f"watch {watch!r}: the held-out terms of this lesson are {', '.join(known)}")
        values = [sign * entry.get(watch, math.nan) for entry in self.history]
        return max(range(len(values)), key=lambda one: -math.inf if math.isnan(values[one]) else values[one])

    def _waited_enough(self) -> bool:
        patience = self.options.patience
        return bool(patience and self.history) and len(self.history) - 1 - self._best() >= patience
