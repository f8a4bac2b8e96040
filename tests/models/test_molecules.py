"""The network for molecules: its normalisations, its windows on known lines, what it learns in a few steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.classifiers.molecules import BLOCK, REACH, STEP, prepare, window_channels
from models.engines.base import load_engine
from models.molecule_lesson import HELD_OUT, MoleculeExamples, MoleculeLesson
from models.registry import get_model
from models.training import TrainOptions
from survey_io.line_lists import LIGHT_KMS, molecular_lines
from survey_io.simulate.molecules import GRID, MoleculeModel, draw_source, make_spectrum
from survey_io.simulate.receiver import ReceiverModel


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return get_model("molecules").build().eval()


def spectra(count=3, seed=1):
    flux = 3.0 + 0.7 * np.random.default_rng(seed).normal(size=(count, GRID.count))
    return flux.astype(np.float32), np.ones((count, GRID.count))


def test_noise_becomes_unit_noise_whatever_its_unit_and_baseline():
    flux, seen = spectra()
    made = prepare(flux, seen)
    assert made.shape == (3, 4, GRID.count) and made.dtype == np.float32
    assert 5 * made[:, 0].std() == pytest.approx(1.0, abs=0.02)
    assert (made[:, 3] == 1).all()
    channel = np.arange(GRID.count)
    # A slow wave and a slope are taken off, the unit cancels, and the noise may change along the band.
    wavy = 1e-3 * (flux + 2 * np.sin(channel / 800) + channel / 9000)
    change = prepare(wavy, seen) - made
    assert 5 * change[:, 0].std() < 0.05 and 5 * abs(change[:, 0]).max() < 0.5
    louder = (flux - 3) * np.where(channel < 20_000, 1.0, 4.0)
    again = prepare(louder.astype(np.float32), seen)
    away = abs(channel - 20_000) > 10 * BLOCK
    assert 5 * again[:, 0][:, away].std() == pytest.approx(1.0, abs=0.02)


def test_lines_keep_their_signal_to_noise_in_three_normalisations():
    flux, seen = spectra(1)
    flux[0, 5000:5004] += 0.7 * 10
    flux[0, 9000] += 0.7 * 100
    found = prepare(flux, seen)[0]
    assert found[0, 5000:5004].mean() * 5 == pytest.approx(10, abs=2)
    assert found[0, 9000] * 5 == pytest.approx(20.0), "clipped"
    assert np.sinh(3 * found[1, 9000]) == pytest.approx(100, rel=0.1)
    assert found[2, 9000] == 1.0 and found[2, 5001] == pytest.approx(0.1, abs=0.03)


def test_what_is_missing_is_marked_and_zero():
    flux, seen = spectra(2)
    flux[0, 100:7000] = np.nan
    seen[1, 20_000:] = 0.2
    flux[1, 20_000:] = 1e6
    found = prepare(flux, seen)
    for row, gap in ((0, slice(100, 7000)), (1, slice(20_000, None))):
        assert not found[row, :, gap].any()
        kept = np.ones(GRID.count, bool)
        kept[gap] = False
        assert (found[row, 3, kept] == 1).all()
        assert 5 * found[row, 0, kept].std() == pytest.approx(1.0, abs=0.03)
    nothing = prepare(np.full((1, GRID.count), np.nan), np.zeros((1, GRID.count)))
    assert not nothing.any()
    constant = prepare(np.ones((1, GRID.count), np.float32), np.ones((1, GRID.count)))
    assert np.isfinite(constant).all() and not constant[0, 3].any(), "no noise, no S/N"


def test_windows_lie_on_the_lines_at_every_velocity():
    lines = molecular_lines()
    channels = window_channels(lines)
    velocity = np.arange(-REACH, REACH + STEP / 2, STEP)
    assert channels.shape == (len(lines), len(velocity)) and abs(velocity).max() == pytest.approx(REACH)
    for row, column in ((0, 0), (40, 24), (90, 48)):
        expected = lines.frequency[row] * (1 - velocity[column] / LIGHT_KMS)
        assert GRID.centres()[channels[row, column]] == pytest.approx(expected, abs=GRID.step / 2 + 1e-9)
    # No channel is skipped: a line one channel wide is in its window wherever it lies.
    assert (abs(np.diff(channels, axis=1)) <= 1).all()
    still = MoleculeModel(presence=(1, 1), second=0, velocity=0)
    gas = draw_source(still, lines, np.random.default_rng(2)).components[0]
    gas = replace(gas, velocity=np.full_like(gas.velocity, 20.8))
    quiet = ReceiverModel(tuned=0, ripple=0, gapped=0, flagged=0, smoothed=0, spikes=0)
    source = replace(draw_source(MoleculeModel(), lines, np.random.default_rng(3)), components=(gas,), snr=50.0)
    one = make_spectrum(replace(source, unknown=np.zeros((0, 3))), lines, np.random.default_rng(4), receiver=quiet)
    lone = [row for row in range(len(lines)) if np.sum(abs(lines.frequency - lines.frequency[row]) < 0.2) == 1]
    lone = [row for row in lone if one.sky[channels[row]].max() > 1e-3 * one.sky.max()]
    assert len(lone) > 15
    for row in lone:
        assert velocity[one.sky[channels[row]].argmax()] == pytest.approx(20.8, abs=2 * STEP)


def test_the_trunk_has_fourteen_convolutions_of_seven_taps(net):
    convolutions = [layer for layer in net.trunk.modules() if isinstance(layer, torch.nn.Conv1d)]
    assert len(convolutions) == 14
    assert all(layer.kernel_size == (7,) and layer.padding == (3,) for layer in convolutions)
    weights = sum(parameter.numel() for parameter in net.parameters())
    assert weights * 4 < 8e6
    with pytest.raises(ValueError, match="14 convolutions"):
        get_model("molecules").build(widths=(8, 8))


@pytest.mark.parametrize("engine", ["openvino"])
def test_engines_agree_on_more_spectra_than_species(net, engine, tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSIFT_CACHE", str(tmp_path))
    given = np.random.default_rng(5).normal(size=(26, 4, GRID.count)).astype(np.float32)
    expected = load_engine("torch", net)(given)
    came = load_engine(engine, net)(given)
    assert came.shape == (26, len(net.answers.classes))
    assert abs(came - expected).max() < 1e-4 * abs(expected).max()


def test_examples_are_what_the_simulator_says(net):
    examples = MoleculeExamples(net)
    (inputs,), targets = examples.draw(4, np.random.default_rng(6))
    assert inputs.shape == (4, 4, GRID.count)
    assert {name: values.shape for name, values in targets.items()} == dict.fromkeys(
        ("classes", "class_weight", "class_snr"), (4, len(net.answers.classes))
    )
    assert (targets["class_snr"][targets["classes"] > 0] >= 4).all()
    assert (targets["class_weight"][targets["classes"] > 0] == 1).all()
    (first,), _ = examples.first("validation", 2)
    (again,), _ = examples.first("validation", 3)
    (other,), _ = examples.first("test", 2)
    assert np.array_equal(first, again[:2]) and not np.array_equal(first, other)
    assert len({seed for _, seed in HELD_OUT.values()}) == len(HELD_OUT)


def test_a_small_network_learns_in_a_few_steps():
    torch.manual_seed(1)
    net = get_model("molecules").build(widths=(4,) * 14, context=8, features=8, hidden=8)
    lesson = MoleculeLesson(net, TrainOptions(name="molecules", batch=8))
    inputs, targets = next(iter(lesson.batches(seed=3)))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss, _ = lesson.loss(net, (inputs, targets), torch.device("cpu"), "f32")
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.75 * losses[0]


def test_the_trunk_alone_is_the_published_way():
    net = get_model("molecules").build(windows=False)
    assert net(torch.zeros(2, 4, GRID.count)).shape == (2, len(net.answers.classes))
    assert not hasattr(net, "look")
