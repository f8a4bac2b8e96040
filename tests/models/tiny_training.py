"""A network and a lesson that train in milliseconds, for tests of the trainer; as a script it trains on its own.

Run as ``python tiny_training.py OPTIONS.json`` by tests that kill a training or train in several processes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import models.lessons
import models.registry
from models.distributed import is_main, joined, launched
from models.precision import autocast
from models.streams import NumberedBatches
from models.training import TrainOptions, train

TRUTH = np.array([0.5, -1.0, 2.0, 0.0, 1.0, -0.3])


class Tiny(nn.Module):
    name = "tiny"

    def __init__(self, normed: bool = True, dropout: float = 0.2, outputs: int = 1):
        super().__init__()
        self.options = {"normed": normed, "dropout": dropout, "outputs": outputs}
        norm = nn.BatchNorm1d(8) if normed else nn.Identity()
        self.body = nn.Sequential(nn.Linear(6, 8), norm, nn.Tanh(), nn.Dropout(dropout))
        self.head = nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class TinyLesson:
    """Options: ``merge`` batches of consecutive numbers into one, ``kill_at`` this training batch."""

    def __init__(self, net: nn.Module, options: TrainOptions):
        self.batch, self.options, self.seen = options.batch, options.lesson_options, 0

    def make(self, number: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        x = rng.normal(size=(self.batch, 6))
        y = np.tanh(x @ TRUTH)[:, None] + 0.01 * rng.normal(size=(self.batch, 1))
        return torch.from_numpy(x).float(), torch.from_numpy(y).float()

    def merged(self, number: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        many = self.options.get("merge", 1)
        if many == 1:
            return self.make(number, rng)
        parts = [self.make(one, np.random.default_rng([1, one])) for one in range(number * many, (number + 1) * many)]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> NumberedBatches:
        return NumberedBatches(self.merged, seed=seed, first=first, every=every)

    def held_out(self) -> list[tuple[Tensor, Tensor]]:
        return [self.make(number, np.random.default_rng([99, number])) for number in range(4)]

    def loss(self, net: nn.Module, batch: tuple, device: torch.device, precision: str) -> tuple[Tensor, dict]:
        if net.training:
            self.seen += 1
            if self.seen == self.options.get("kill_at"):
                os.kill(os.getpid(), signal.SIGKILL)
        x, y = (one.to(device) for one in batch)
        with autocast(device, precision):
            off = net(x) - y
        loss = (off.float() ** 2).mean() * self.options.get("factor", 1.0)
        return loss, {"off": float(off.detach().abs().mean())}

    def draw(self, net: nn.Module, batch: tuple, path: Path) -> None:
        path.write_bytes(b"picture")


class UnnumberedLesson(TinyLesson):
    def batches(self, *, seed: int) -> NumberedBatches:
        return NumberedBatches(self.merged, seed=seed)


def register(put: Callable[[dict, str, object], None]) -> None:
    """Make both known by name; ``put(dictionary, key, value)`` may undo it later."""
    entry = models.registry.ModelEntry("tiny", "classifier", 1, True, Tiny)
    put(models.registry._entries, "tiny", entry)
    put(models.lessons._lessons, "tiny", TinyLesson)
    put(models.lessons._lessons, "tiny-unnumbered", UnnumberedLesson)


def tiny_options(output: Path, **changes) -> TrainOptions:
    values = {
        "name": "tiny", "lesson": "tiny", "output": output, "steps": 20, "batch": 4, "precision": "f32", "loaders": 0,
        "save_every": 5, "picture_every": 1000, "warm_up": 3, "device": "cpu", "learning_rate": 0.02,
    }  # fmt: skip
    return TrainOptions(**{**values, **changes})


def work(options: TrainOptions, *, report: Callable[[str], None] = print) -> Path:
    """Train in a process that knows nothing yet."""
    register(dict.__setitem__)
    return train(options, report=report)


def work_in_parts(options: TrainOptions, *, report: Callable[[str], None] = print) -> Path:
    """Train to the end, and once more in two parts in a folder within."""
    options = options.model_copy(update={"schedule": "constant"})
    parts = options.model_copy(update={"output": options.output / "parts", "resume": True})
    with joined(options):
        path = work(options, report=report)
        train(parts.model_copy(update={"steps": options.steps // 2}), report=report)
        train(parts, report=report)
    return path


def averages(options: TrainOptions, *, report: Callable[[str], None]) -> Path:
    """What two processes tell each other, checked in each of them."""
    with joined(options) as processes:
        assert launched() and is_main() == processes.main == (os.environ["RANK"] == "0")
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1), nn.BatchNorm1d(1))
        torch.manual_seed(processes.rank)
        with torch.no_grad():
            net[0].weight.copy_(torch.full((2, 2), 1.0 + processes.rank))
        processes.share(net)
        assert torch.equal(net[0].weight, torch.ones(2, 2))
        net[3].eval()
        for layer in (net[1], net[3]):
            layer.running_mean.fill_(float(processes.rank))
        net[0].weight.grad = torch.full((2, 2), 1.0 + 2 * processes.rank)
        if processes.rank:
            net[0].bias.grad = torch.ones(2)
        processes.average(net)
        assert torch.equal(net[0].weight.grad, torch.full((2, 2), 2.0))
        # A gradient of one process only counts as 0 in the other; one of none stays none.
        assert torch.equal(net[0].bias.grad, torch.full((2,), 0.5)) and net[2].weight.grad is None
        assert torch.equal(net[1].running_mean, torch.full((2,), 0.5))
        # Statistics that are held are left alone.
        assert torch.equal(net[3].running_mean, torch.full((1,), float(processes.rank)))
        assert processes.agree(10.0 + processes.rank) == 10.0
        assert processes.gather({"rank": processes.rank}) == [{"rank": 0}, {"rank": 1}]
        report(f"process {processes.rank} of {processes.count}")
        return Path(f"rank{processes.rank}")


if __name__ == "__main__":
    work(TrainOptions(**json.loads(Path(sys.argv[1]).read_text())))
