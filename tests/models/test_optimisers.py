"""Optimisers, schedules, frozen layers and rates by layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models.optimisers import fits, freeze_layers, make_optimiser, set_rate
from models.schedules import rate_factor
from models.train_options import TrainOptions
from models.training import train
from survey_io.errors import OptionError

NAMES = ("adamw", "adam", "sgd", "nesterov", "adagrad", "adadelta", "rmsprop")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(4, 1))


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_each_optimiser_learns(tiny, tmp_path: Path, name: str) -> None:
    rate = {"adadelta": 1.0, "sgd": 0.1, "nesterov": 0.1, "adagrad": 0.1}.get(name, 0.01)
    options = tiny.tiny_options(
        tmp_path, optimiser=name, learning_rate=rate, steps=120, save_every=60, ema=0.9, weight_decay=0.0,
        batch=32, model_options={"dropout": 0.0},
    )  # fmt: skip
    state = load(train(options, report=lambda _: None))
    # Guessing 0 gives 0.6.
    assert state["history"][-1]["loss"] < 0.1


def test_optimisers_are_those_that_they_are_called() -> None:
    made = {name: make_optimiser(net(), TrainOptions(optimiser=name, momentum=0.8, betas=(0.7, 0.9))) for name in NAMES}
    kinds = ("AdamW", "Adam", "SGD", "SGD", "Adagrad", "Adadelta", "RMSprop")
    assert tuple(type(one).__name__ for one in made.values()) == kinds
    assert made["adam"].defaults["betas"] == (0.7, 0.9) and made["rmsprop"].defaults["momentum"] == 0.8
    assert [made[name].defaults["nesterov"] for name in ("sgd", "nesterov")] == [False, True]
    assert all(one.defaults["weight_decay"] == 1e-4 for one in made.values())


def rates(steps: int = 100, **changes) -> list[float]:
    options = TrainOptions(**{"warm_up": 0, "final_rate": 0.1, "steps": steps, **changes})
    return [rate_factor(step, step / steps, options) for step in range(steps + 1)]


def test_schedules_fall_as_they_say() -> None:
    assert set(rates(schedule="constant")) == {1.0}
    steps = rates(schedule="step", milestones=[0.5, 0.8], step_factor=0.2)
    assert steps[49] == 1.0 and steps[50] == pytest.approx(0.2) and steps[80] == steps[100] == pytest.approx(0.04)
    decay = rates(schedule="exponential", decay=0.03)
    assert decay[0] == 1.0 and decay[40] == pytest.approx(0.1 + 0.9 * 2.718281828 ** (-1.2))
    whole = rates(schedule="exponential")
    assert whole[100] == pytest.approx(0.1 + 0.9 * 2.718281828**-5)
    assert rates()[50] == pytest.approx(0.55)
    warm = rates(schedule="constant", warm_up=4)
    assert warm[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimiser": "lion"}, {"schedule": "linear"}, {"milestones": [0.8, 0.5]}, {"milestones": [1.5]},
        {"betas": (0.9, 1.0)}, {"layer_rates": {"stem": -1.0}}, {"optimiser": "nesterov", "momentum": 0.0},
    ],
)  # fmt: skip
def test_senseless_options_of_steps_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        TrainOptions(**wrong)


def test_patterns_name_weights_and_layers() -> None:
    assert fits("stem.0.weight", "stem") and fits("stem.0.weight", "stem.*") and fits("stem.0.weight", "*.weight")
    assert not fits("stem2.weight", "stem") and not fits("my.stem.weight", "stem")


def test_frozen_layers_keep_weights_and_statistics(tiny, tmp_path: Path) -> None:
    lines: list[str] = []
    options = tiny.tiny_options(tmp_path / "first", steps=5)
    begun = load(train(options, report=lines.append))["model"]
    more = tiny.tiny_options(
        tmp_path / "second", start=tmp_path / "first" / "last.pt", freeze=["body"], optimiser="adamw", weight_decay=0.5
    )
    start = load(tmp_path / "first" / "last.pt")["average"]
    ended = load(train(more, report=lines.append))["model"]
    assert any("freeze body: 72 weights are kept" in line for line in lines)
    kept = [name for name in start if name.startswith("body")]
    assert len(kept) == 7 and all(torch.equal(start[name], ended[name]) for name in kept)
    assert not torch.equal(start["head.weight"], ended["head.weight"])
    # Without freezing all of them move.
    assert not any(torch.equal(begun[name], start[name]) for name in kept if "tracked" not in name)


def test_a_frozen_batchnorm_stays_in_evaluation() -> None:
    module = net()
    assert freeze_layers(module, ["0"]) == 12 + 4 + 8
    module.train()
    assert not module[0][1].training and module[1].training
    before = module[0][1].running_mean.clone()
    module(torch.randn(8, 3))
    assert torch.equal(module[0][1].running_mean, before)
    # Weights alone may be frozen without their BatchNorm.
    other = net()
    freeze_layers(other, ["0.0.*"])
    assert other.train()[0][1].training


def test_layers_have_rates_of_their_own() -> None:
    module = net()
    optimiser = make_optimiser(module, TrainOptions(layer_rates={"0.1": 0.0, "0": 0.1}, optimiser="sgd"))
    set_rate(optimiser, 2.0)
    rate_of = {id(weight): group["lr"] for group in optimiser.param_groups for weight in group["params"]}
    found = {name: rate_of[id(weight)] for name, weight in module.named_parameters()}
    assert found == {
        "0.0.weight": 0.2, "0.0.bias": 0.2, "0.1.weight": 0.0, "0.1.bias": 0.0, "1.weight": 2.0, "1.bias": 2.0
    }  # fmt: skip


def test_patterns_that_fit_nothing_are_refused() -> None:
    with pytest.raises(OptionError, match=r"freeze: no weight of the network fits 'backbone'; its parts are 0, 1"):
        freeze_layers(net(), ["backbone"])
    with pytest.raises(OptionError, match="layer_rates: no weight"):
        make_optimiser(net(), TrainOptions(layer_rates={"neck.*": 0.1}))
    module = net()
    freeze_layers(module, ["*"])
    with pytest.raises(OptionError, match="no layer of 'light' is left to train"):
        make_optimiser(module, TrainOptions(freeze=["*"]))
