"""Training for 8 bits: what is rounded and how, what the loss sees of it, and that a run with it goes on exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.registry import get_model
from models.rounding import Rounding, decision_change, round_inputs, round_weights
from models.train_options import TrainOptions
from models.training import train
from survey_io.errors import OptionError

SMALL = {"stem": 4, "width": 8, "wide": 8, "dilations": [1]}


def run(output: Path, **changes) -> dict:
    values = {
        "output": output, "steps": 6, "batch": 1, "size": 64, "precision": "f32", "loaders": 0, "pool": 8,
        "save_every": 3, "picture_every": 1000, "warm_up": 2, "device": "cpu", "model_options": SMALL,
        "eight_bits": ["blocks.*"],
    }  # fmt: skip
    lines: list[str] = []
    path = train(TrainOptions(**{**values, **changes}), report=lines.append)
    return torch.load(path, weights_only=True) | {"lines": lines}


def test_inputs_have_256_values_and_weights_255_for_each_output():
    torch.manual_seed(0)
    x = (20 * torch.rand(4000)).requires_grad_()
    rounded = round_inputs(x, torch.tensor(10.0))
    assert len(rounded.detach().unique()) == 256 and rounded.min() == 0 and rounded.max() == 10
    inside = x.detach() < 10
    assert (rounded - x)[inside].abs().max() <= 10 / 255 / 2 + 1e-6
    rounded.sum().backward()
    assert torch.equal(x.grad[inside], torch.ones(int(inside.sum()))) and not x.grad[x.detach() > 10].any()

    weight = (torch.randn(3, 500) * torch.tensor([[1.0], [100.0], [0.0]])).requires_grad_()
    rounded = round_weights(weight)
    for row, exact in zip(rounded.detach(), weight.detach(), strict=True):
        # Each output has steps of its own, and its largest weight is kept.
        assert len(row.unique()) <= 255 and row.abs().max() == pytest.approx(float(exact.abs().max()))
        assert (row - exact).abs().max() <= float(exact.abs().max()) / 127 / 2 * 1.001
    rounded.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_only_the_chosen_layers_are_rounded_and_ranges_follow_the_largest_inputs():
    torch.manual_seed(1)
    net = get_model("light").build(**SMALL)
    names = set(net.state_dict())
    snr, beam = torch.randn(2, 1, 64, 64), torch.zeros(2, 4)
    exact = net(snr, beam)
    rounding = Rounding(net, ["blocks.*"])
    assert set(net.state_dict()) == names
    came = net(snr, beam)
    assert set(rounding.ranges) == {"blocks.0.first", "blocks.0.second"}
    assert 0 < (came - exact).abs().max() < 0.05 * exact.abs().max()
    with rounding.off():
        assert torch.equal(net(snr, beam), exact)
    before = dict(rounding.ranges)
    net.eval()
    net(100 * snr, beam)
    assert rounding.ranges == before
    net.train()
    net(100 * snr, beam)
    assert rounding.ranges["blocks.0.first"] > before["blocks.0.first"]


def test_the_change_counts_where_a_row_is_undecided():
    head = get_model("light").build(**SMALL).head
    exact = torch.full((1, head.channels, 2, 2), -9.0)
    rows = exact.view(1, head.boxes, head.box_channels, 2, 2)[:, :, head.slot("presence").start]
    rows[0, 0, 0, 0], rows[0, 1, 1, 1], rows[0, 2, 0, 1] = 0.5, -1.0, 8.0
    rounded = exact + 0.0
    assert decision_change(exact, rounded, head) == 0
    moved = rounded.view(1, head.boxes, head.box_channels, 2, 2)[:, :, head.slot("presence").start]
    moved[0, 0, 0, 0], moved[0, 2, 0, 1], moved[0, 3, 0, 0] = 0.7, 9.0, -8.0
    assert float(decision_change(exact, rounded, head)) == pytest.approx(0.2**2 / 2, rel=1e-5)
    assert float(decision_change(torch.full_like(exact, -9), rounded, head)) == 0


def test_a_run_that_stopped_goes_on_to_the_same_weights(tmp_path):
    whole = run(tmp_path / "whole")
    assert set(whole["ranges"]) == {"blocks.0.first", "blocks.0.second"}
    assert all("rounding" in entry for entry in whole["history"])
    run(tmp_path / "parts", steps=3, schedule="constant")
    other = run(tmp_path / "one", schedule="constant")
    parts = run(tmp_path / "parts", steps=6, schedule="constant", resume=True)
    for name, value in other["model"].items():
        assert torch.equal(parts["model"][name], value), name
    assert all(torch.equal(parts["ranges"][name], value) for name, value in other["ranges"].items())


def test_a_pattern_that_fits_nothing_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"eight_bits: .* got 'block'; it has stem, down, blocks.0.first"):
        run(tmp_path, eight_bits=["block"])
