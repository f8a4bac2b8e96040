"""The training loop: it runs, stops where it was told, and goes on from where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models.training import MovingAverage, TrainOptions, choose_device, rate_factor, save_checkpoint, train

SMALL = {"stem": 4, "width": 8, "wide": 8, "dilations": [1]}


def options(output: Path, **changes) -> TrainOptions:
    values = {
        "output": output, "steps": 6, "batch": 1, "size": 64, "precision": "f32", "loaders": 0, "pool": 8,
        "save_every": 3, "picture_every": 1000, "warm_up": 2, "device": "cpu", "model_options": SMALL,
    }  # fmt: skip
    return TrainOptions(**{**values, **changes})


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_a_run_and_its_continuation(tmp_path: Path) -> None:
    lines: list[str] = []
    path = train(options(tmp_path), report=lines.append)
    assert path == tmp_path / "last.pt"
    first = load(path)
    assert first["step"] == 6 and [h["step"] for h in first["history"]] == [3, 6]
    assert first["name"] == "light" and first["model_options"] == SMALL
    assert json.loads((tmp_path / "history.json").read_text()) == first["history"]
    assert json.loads((tmp_path / "options.json").read_text())["steps"] == 6
    assert (tmp_path / "step_000006.png").stat().st_size > 1000
    assert any("held-out" in line for line in lines)
    # The checkpoint goes on with the net itself, and keeps its average beside it.
    assert any(not torch.equal(first["model"][k], first["average"][k]) for k in first["model"])

    second = load(train(options(tmp_path, steps=9, resume=True), report=lines.append))
    assert second["step"] == 9 and [h["step"] for h in second["history"]] == [3, 6, 9]
    assert second["history"][:2] == first["history"] and second["seconds"] > first["seconds"]
    assert any(not torch.equal(second["model"][k], first["model"][k]) for k in first["model"])
    assert second["optimiser"]["state"][0]["step"] == 9

    # Nothing is left to do: the checkpoint stays as it is.
    before = path.read_bytes()
    train(options(tmp_path, steps=9, resume=True), report=lines.append)
    assert path.read_bytes() == before


def test_a_network_for_cubes_is_trained_by_the_same_loop(tmp_path: Path) -> None:
    cubes = {"name": "light3d", "cube_size": (32, 24, 24), "steps": 4, "save_every": 4}
    state = load(train(options(tmp_path, **cubes), report=lambda _: None))
    assert state["name"] == "light3d" and state["step"] == 4
    held_out = state["history"][-1]
    assert {"log_flux", "log_size", "log_w20", "inclination", "angle", "presence"} <= set(held_out)
    assert all(value == value for value in held_out.values())
    assert (tmp_path / "step_000004.png").stat().st_size > 1000


def test_a_bound_in_minutes_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    state = load(train(options(tmp_path, steps=1000, minutes=1e-9), report=lambda _: None))
    assert state["step"] < 5 and state["history"][-1]["step"] == state["step"]


@pytest.mark.parametrize("wrong", [{"step": 3}, {"steps": 0}, {"precision": "f16"}, {"ema": 1.0}, {"size": 32}])
def test_senseless_options_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        TrainOptions(**wrong)


def test_the_rate_warms_up_and_ends_low() -> None:
    chosen = options(Path("x"), warm_up=10, final_rate=0.1)
    rates = [rate_factor(step, step / 100, chosen) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01) and rates[-1] == pytest.approx(0.1)
    assert max(rates) == rates[9] > 0.95 and all(a > b for a, b in zip(rates[9:], rates[10:], strict=False))
    assert rate_factor(500, 1.7, chosen) == pytest.approx(0.1)


def test_the_moving_average_follows_the_weights() -> None:
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    with torch.no_grad():
        net[0].weight.fill_(0.0)
    average = MovingAverage(net, 0.9)
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    net[1].num_batches_tracked += 7
    average.update(net, 10_000)
    torch.testing.assert_close(average.values["0.weight"], torch.full((1, 2), 0.1))
    assert average.values["1.num_batches_tracked"] == 7
    # At the start the decay is (1 + step) / (10 + step), so that the first weights are soon forgotten.
    average.update(net, 2)
    torch.testing.assert_close(average.values["0.weight"], torch.full((1, 2), 1 - 0.9 * 3 / 12))


def test_a_moving_average_is_no_view_of_the_weights() -> None:
    net = nn.Linear(2, 2)
    average = MovingAverage(net, 0.9)
    before = average.values["weight"].clone()
    with torch.no_grad():
        net.weight.add_(1.0)
    assert torch.equal(average.values["weight"], before)


def test_a_checkpoint_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, step=1)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, step=lambda: None)
    assert load(path) == {"step": 1}
    save_checkpoint(path, step=2)
    assert load(path) == {"step": 2} and [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_devices_are_chosen_by_name() -> None:
    assert choose_device("cpu").type == "cpu" and choose_device("cuda").type == "cuda"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
