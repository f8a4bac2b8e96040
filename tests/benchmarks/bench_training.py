"""Examples per second of our trainer beside a plain torch loop, on the same network, batches and device.

    python tests/benchmarks/bench_training.py                   the three networks below, a minute or two
    python tests/benchmarks/bench_training.py --device cuda --precision fp16 --steps 200
    python tests/benchmarks/bench_training.py --models light

The plain loop is what one would write by hand: forward pass and loss, backward pass, AdamW, nothing else. The trainer
adds the moving average of the weights, the bound on the gradient's norm, the averaging of terms and a guard against
losses that are no numbers. Both take batches that were made before, so that only the loops are compared, and they take
turns every few steps, so that a busy machine slows both. The overhead is the median over the turns, on a processor of
the time that it computed and not of the clock. The last column is the trainer with the batches made as in a real run,
by one loader process.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from models.classifier_lesson import ClassifierLesson, Examples  # noqa: E402
from models.distributed import Processes  # noqa: E402
from models.lessons import get_lesson, register_lesson  # noqa: E402
from models.registry import get_model  # noqa: E402
from models.streams import NumberedBatches  # noqa: E402
from models.training import Training, TrainOptions, make_lesson  # noqa: E402

# Model: batch. The photographs' network is that of the YOLO-CIANNA course at 288 px.
MODELS = {"light": 8, "stellar": 32, "voc-yolo-light": 8}
MADE = 4


class NoiseSpectra(Examples):
    """Spectra of noise: what is in them does not matter to the speed."""

    def __init__(self, net: nn.Module):
        self.net = net

    def draw(self, count: int, rng: np.random.Generator) -> tuple:
        """See `Examples`."""
        answers = self.net.answers
        inputs = rng.normal(size=(count, *self.net.inputs[0].shape)).astype(np.float32)
        classes = np.eye(len(answers.classes))[rng.integers(0, len(answers.classes), count)]
        values = np.zeros((count, len(answers.values)))
        return (inputs,), {"classes": classes, "values": values, "value_weight": values + 1}


def photographs(lesson: Any, batch: int) -> Callable[[int, np.random.Generator], Any]:
    """Batches of photographs of noise with three things each."""
    from models.lessons.boxes import make_batch
    from models.photo_augment import Scene

    def make(number: int, rng: np.random.Generator) -> Any:
        scenes = []
        for _ in range(batch):
            low, sides = rng.uniform(0, 180, (3, 2)), rng.uniform(20, 100, (3, 2))
            boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
            image = rng.integers(0, 256, (lesson.size, lesson.size, 3), dtype=np.uint8)
            scenes.append(Scene(image, boxes, rng.integers(0, 20, 3), np.zeros(3, bool)))
        return make_batch(scenes, lesson.head)

    return make


def real_lesson(net: nn.Module, options: TrainOptions) -> tuple[Any, Callable[..., Iterator[Any]]]:
    """A network's lesson, and its batches as a real run makes them (noise where that would need data)."""
    if options.name == "stellar":
        lesson = ClassifierLesson(NoiseSpectra(net), net.answers, batch=options.batch)
        return lesson, lesson.batches
    if options.name.startswith("voc"):
        lesson = get_lesson("boxes")(net, options.model_copy(update={"data": Path("."), "lesson_options": {}}))
        return lesson, lambda **where: NumberedBatches(photographs(lesson, options.batch), **where)
    lesson = make_lesson(net, options.model_copy(update={"lesson": ""}))
    return lesson, lesson.batches


class Served:
    """A lesson whose batches were made before, or, with loader processes, are made while it trains."""

    def __init__(self, net: nn.Module, options: TrainOptions):
        lesson, make = real_lesson(net, options)
        self.loss = lesson.loss
        self.made = list(itertools.islice(make(seed=2), MADE))
        self.make = make if options.loaders else None

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> Any:
        """See `models.training.Lesson`."""
        if self.make:
            return self.make(seed=seed, first=first, every=every)
        return NumberedBatches(lambda number, rng: self.made[number % MADE], seed=seed, first=first, every=every)

    def held_out(self) -> list[Any]:
        """See `models.training.Lesson`."""
        return self.made[:1]

    def draw(self, net: nn.Module, batch: Any, path: Path) -> None:
        """See `models.training.Lesson`; there is nothing to see."""


register_lesson("bench")(Served)


def plain_loop(training: Training) -> Callable[[], None]:
    """One step of a loop without anything, on a network and an optimiser of its own."""
    options, lesson, device = training.options, training.lesson, training.device
    net = get_model(options.name).build(**options.model_options)
    form = torch.channels_last if get_model(options.name).ndim == 2 else torch.contiguous_format
    net = net.to(device, memory_format=form).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
    batches = itertools.cycle(lesson.made)

    def step() -> None:
        optimiser.zero_grad()
        loss, _ = lesson.loss(net, next(batches), device, options.precision)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()

    return step


def seconds(step: Callable[[], Any], count: int, device: torch.device) -> tuple[float, float]:
    """Time of so many steps: by the clock, and what the loop cost (on a processor, what it computed)."""
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.synchronize()
    began, busy = time.perf_counter(), time.process_time()
    for _ in range(count):
        step()
    if gpu:
        torch.cuda.synchronize()
    clock = time.perf_counter() - began
    return clock, clock if gpu else time.process_time() - busy


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> tuple[float, float, float, float]:
    """Examples per second of the plain loop, of the trainer, and of the trainer with a loader; overhead in per cent."""
    batch = MODELS[name]
    options = TrainOptions(
        name=name, lesson="bench", output=folder, batch=batch, precision=arguments.precision, loaders=0,
        learning_rate=1e-4, device=arguments.device, steps=10**6, pool=8,
    )  # fmt: skip
    processes = Processes(0, 1, torch.device(arguments.device))
    training = Training(options, processes, lambda line: None)
    plain, ours, turn = plain_loop(training), training.one_step, max(arguments.steps // 8, 1)
    for step in (plain, ours):
        seconds(step, 2, training.device)
    clocks, costs = [], []
    for number in range(8):
        # Each goes first every other time.
        order = (plain, ours) if number % 2 else (ours, plain)
        pair = {step: seconds(step, turn, training.device) for step in order}
        clock, cost = zip(pair[plain], pair[ours], strict=True)
        clocks.append(clock)
        costs.append(cost)
    loaded = Training(options.model_copy(update={"loaders": 1}), processes, lambda line: None)
    seconds(loaded.one_step, 2, training.device)
    whole, _ = seconds(loaded.one_step, arguments.steps // 2, training.device)
    rates = [turn * batch / statistics.median(column) for column in zip(*clocks, strict=True)]
    overhead = 100 * (statistics.median(mine / theirs for theirs, mine in costs) - 1)
    return rates[0], rates[1], overhead, arguments.steps // 2 * batch / whole


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=32, help="steps of each loop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16", "fp16"])
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    where = platform.machine() if arguments.device == "cpu" else torch.cuda.get_device_name()
    print(f"{where}, {torch.get_num_threads()} threads, {arguments.precision}, torch {torch.__version__}")
    print(f"{'network':<16}{'batch':>6}{'plain /s':>11}{'trainer /s':>12}{'overhead':>10}{'with a loader /s':>18}")
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            plain, ours, overhead, loaded = measure(name, arguments, Path(folder))
        print(f"{name:<16}{MODELS[name]:>6}{plain:>11.1f}{ours:>12.1f}{overhead:>9.1f}%{loaded:>18.1f}", flush=True)


if __name__ == "__main__":
    main()
