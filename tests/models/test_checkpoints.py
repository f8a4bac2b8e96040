"""Warm starts, early stopping, the best checkpoint, seeds, and runs that come to nothing."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoints import random_state, restore_random_state, seed_all, start_from
from models.training import train
from models.weights import Card, save_weights
from survey_io.errors import InputError, OptionError, SkysiftError


def quiet(line: str) -> None:
    pass


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_a_start_tells_what_fits(tiny, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = tiny.Tiny()
    path = tmp_path / "tiny.safetensors"
    save_weights(trained, Card(model="tiny"), path)
    fresh = tiny.Tiny()
    assert start_from(fresh, path) == f"start {path}: 9 of 9 tensors fit"
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in trained.state_dict().items())

    other = tiny.Tiny(outputs=3)
    head = other.head.weight.clone()
    misfit = r"7 of 9 tensors fit; do not: head.weight \(expected \(3, 8\), came \(1, 8\)\), head.bias .*; give start_"
    with pytest.raises(InputError, match=misfit):
        start_from(other, path)
    said = start_from(other, path, partial=True)
    assert "7 of 9 tensors fit; do not: head.weight" in said and "start_partial" not in said
    assert torch.equal(other.body[0].weight, trained.body[0].weight) and torch.equal(other.head.weight, head)

    # A network with fewer layers: what it does not know is named as well.
    assert "unknown to the network: body.1.bias, " in start_from(tiny.Tiny(normed=False), path, partial=True)
    with pytest.raises(InputError, match="0 of 1 tensors fit.* weights of another network"):
        start_from(nn.Linear(2, 1, bias=False), path, partial=True)


def test_a_start_that_is_no_weights_file_is_refused(tiny, tmp_path: Path) -> None:
    for name in ("x.safetensors", "x.pt"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(InputError, match=f"{name}: not a readable"):
            start_from(tiny.Tiny(), tmp_path / name)
    with pytest.raises(InputError, match="no such weights file"):
        start_from(tiny.Tiny(), tmp_path / "none.safetensors")
    torch.save({"weights": 1}, tmp_path / "y.pt")
    with pytest.raises(InputError, match="not a checkpoint of a training"):
        start_from(tiny.Tiny(), tmp_path / "y.pt")
    # Names of shipped weights will do.
    with pytest.raises(InputError, match="another network"):
        start_from(tiny.Tiny(), "light", partial=True)


def test_a_run_without_progress_stops_and_keeps_the_best(tiny, tmp_path: Path) -> None:
    lines: list[str] = []
    # So large a rate spoils the network after a good beginning.
    options = tiny.tiny_options(
        tmp_path, steps=200, patience=2, keep="best", optimiser="sgd", momentum=0.0, learning_rate=0.05, ema=0.0,
        schedule="constant", warm_up=0, lesson_options={"factor": 1.0}, model_options={"dropout": 0.0},
    )  # fmt: skip
    path = train(options, report=lines.append)
    last, best = load(tmp_path / "last.pt"), load(path)
    assert path == tmp_path / "best.pt" and last["step"] < 200
    losses = [entry["loss"] for entry in last["history"]]
    assert best["history"] == last["history"][: int(np.argmin(losses)) + 1]
    assert len(losses) - 1 - int(np.argmin(losses)) == 2 and last["step"] == best["step"] + 2 * 5
    assert any("stopped, loss was best 2 checks ago" in line for line in lines)
    assert (tmp_path / f"step_{last['step']:06d}.png").exists()
    # Going on with it does nothing: it is over.
    before = (tmp_path / "last.pt").read_bytes()
    assert train(options.model_copy(update={"resume": True}), report=quiet) == path
    assert (tmp_path / "last.pt").read_bytes() == before


def test_another_term_may_decide(tiny, tmp_path: Path) -> None:
    options = tiny.tiny_options(tmp_path, watch="off", watch_best="highest", keep="best")
    best, last = load(train(options, report=quiet)), load(tmp_path / "last.pt")
    highest = max(last["history"], key=lambda entry: entry["off"])
    assert best["step"] == highest["step"] < 20
    with pytest.raises(OptionError, match="watch 'accuracy': the held-out terms of this lesson are loss, off"):
        train(options.model_copy(update={"watch": "accuracy"}), report=quiet)


def test_a_loss_that_is_no_number_ends_a_run(tiny, tmp_path: Path) -> None:
    options = tiny.tiny_options(tmp_path, steps=100, save_every=1000, lesson_options={"factor": float("inf")})
    with pytest.raises(SkysiftError, match="no finite gradient in 50 steps to step 49, loss inf"):
        train(options, report=quiet)


def test_fp16_is_refused_on_a_processor(tiny, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="precision fp16 needs a CUDA device"):
        train(tiny.tiny_options(tmp_path, precision="fp16"), report=quiet)


def test_gradients_of_batches_are_averaged(tiny, tmp_path: Path) -> None:
    plain = {"model_options": {"normed": False, "dropout": 0.0}, "steps": 10}
    train(tiny.tiny_options(tmp_path / "parts", accumulate=2, **plain), report=quiet)
    train(tiny.tiny_options(tmp_path / "whole", lesson_options={"merge": 2}, **plain), report=quiet)
    parts, whole = (load(tmp_path / name / "last.pt") for name in ("parts", "whole"))
    for name, value in whole["model"].items():
        torch.testing.assert_close(parts["model"][name], value, rtol=1e-4, atol=1e-5)
    assert parts["cost"]["examples"] == 80 and parts["taken"] == 20


def test_a_layout_changes_nothing_but_the_speed(tmp_path: Path) -> None:
    from models.detectors.light import LightDetector
    from models.precision import as_layout, memory_format

    torch.manual_seed(0)
    net = LightDetector(stem=4, width=8, wide=8, dilations=[1])
    data, beam = torch.randn(1, 1, 32, 32), torch.zeros(1, 4)
    plain = net(as_layout(data, net), beam)
    net.to(memory_format=memory_format(2))
    torch.testing.assert_close(net(as_layout(data, net), beam), plain, rtol=1e-4, atol=1e-5)


def test_all_generators_are_seeded_and_put_back(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002

    before = random_state()
    try:
        seed_all(5)
        one = draw()
        seed_all(5)
        assert draw() == one
        torch.save(random_state(), tmp_path / "state.pt")
        two = draw()
        restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
        assert draw() == two != one
    finally:
        restore_random_state(before)
