"""The detector of lines in spectra: what it sees, what it learns, and that blanks are blanks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.line_lesson import LineLesson
from models.registry import get_model
from models.signature import network_inputs
from models.training import TrainOptions, train
from models.yolo.candidates import find_candidates


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    return get_model("lines").build().eval()


def test_it_is_small(net):
    work = sum(
        layer.weight.numel() / (2 if name == "stem" else 4)
        for name, layer in net.named_modules()
        if isinstance(layer, torch.nn.Conv1d)
    )
    assert work < 10_000
    assert 4 * sum(p.numel() for p in net.parameters()) < 300_000
    assert [one.name for one in network_inputs(net)] == ["snr"]


def test_a_cell_sees_the_same_in_any_window(net):
    snr = 3 * torch.randn(1, 1, 1600)
    half = net.receptive_field // 2
    with torch.inference_mode():
        whole, part = net(snr), net(snr[:, :, 400:1400])
    inner = -(-half // 4)
    torch.testing.assert_close(whole[:, :, 100 + inner : 350 - inner], part[:, :, inner : 250 - inner])


def test_a_blank_channel_is_not_one_without_excess(net):
    snr = torch.randn(1, 1, 800)
    blank, level = snr.clone(), snr.clone()
    blank[..., 380:420], level[..., 380:420] = 0.0, 1e-7
    with torch.inference_mode():
        apart = (net(blank) - net(level)).abs().amax(dim=1)[0]
    assert apart[80:120].max() > 1e-4


def test_answers_are_bounded_for_spikes(net):
    snr = torch.randn(1, 1, 800)
    snr[..., 400] = 1e9
    with torch.inference_mode():
        raw = net(snr)
    assert torch.isfinite(raw).all() and raw.abs().max() < 1e3


def test_candidates_have_classes(net):
    with torch.inference_mode():
        raw = net(5 * torch.randn(1, 1, 800))[0].numpy()
    found = find_candidates(raw, net.head, beam_px=1.0, min_logit=-9)
    assert len(found) > 3
    for name in ("is_emission", "is_absorption"):
        assert ((found.params[name] > 0) & (found.params[name] < 1)).all()
    assert {"log_flux", "log_width", "position_scale"} <= set(found.params)


def test_it_learns(tmp_path):
    """A small one, a few steps: the loss of held-out fields falls, a picture and a checkpoint are left."""
    said: list[str] = []
    options = TrainOptions(
        name="lines", output=tmp_path, steps=40, batch=8, channels=256, loaders=0, pool=16, precision="f32", warm_up=5,
        save_every=20, picture_every=40, ema=0.8, threads=1, model_options={"stem": 8, "width": 12, "wide": 16},
    )  # fmt: skip
    path = train(options, report=said.append)
    state = torch.load(path, weights_only=True)
    assert state["history"][-1]["loss"] < state["history"][0]["loss"]
    assert {"classes", "position", "log_flux", "log_width"} <= set(state["history"][-1])
    assert (tmp_path / "step_000040.png").stat().st_size > 5000


def test_classes_are_the_signs_of_the_lines(net):
    fields = LineLesson(net.head, TrainOptions(name="lines", batch=24, channels=512)).batches(seed=2)
    snr, _, assigned, targets = next(iter(fields))
    agree = []
    for field in range(24):
        for row in assigned[field][assigned[field] >= 0].unique().tolist():
            centre, half = float(targets["centre"][row, 0]), 0.5 * float(targets["size"][row, 0])
            low, high = max(round(centre - half), 0), round(centre + half) + 1
            agree.append((float(snr[field, 0, low:high].sum()) > 0) == bool(targets["classes"][row, 0] > 0))
    assert len(agree) > 20 and np.mean(agree) > 0.85
