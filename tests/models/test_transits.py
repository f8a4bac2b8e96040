"""Transits: what the network is told of a light curve is in it, and what it learns from keeps its truth."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import models.transit_lesson as lesson_module
from models.box_search import STEP_DAYS, trial_periods
from models.classifiers.transits import ANSWERS, GRID, prepare
from models.light_curves import flatten
from models.registry import get_model
from models.training import TrainOptions, train
from models.transit_lesson import TransitExamples, held_out_curves
from models.transit_views import (
    CANDIDATES,
    EVENT,
    EVENTS,
    LOCAL,
    LOCALS,
    PACK,
    SCALARS,
    WHOLE,
    candidate_packs,
    limit_events,
    mirror,
    search,
)
from survey_io.simulate.transits import CLASSES, TransitModel, draw_light_curve, simulate_transits

LENGTH = GRID.count
TIME = GRID.centres()


def star(*dips, noise=5e-4, seed=0):
    """Flux with boxes (period, epoch, duration, depth) in white noise."""
    flux = 1 + noise * np.random.default_rng(seed).standard_normal(LENGTH)
    for period, epoch, duration, depth in dips:
        flux -= depth * (np.abs((TIME - epoch + period / 2) % period - period / 2) < duration / 2)
    return flux


def told(flux):
    """Views and numbers of the first candidate."""
    curves = flatten(flux[None])
    pack = candidate_packs(curves, search(curves))[0, 0]
    ends = np.cumsum([0, 2 * WHOLE, 2 * LOCALS * LOCAL, EVENTS * EVENT, len(SCALARS)])
    parts = [pack[first:last] for first, last in zip(ends, ends[1:], strict=False)]
    shapes = (2, WHOLE), (LOCALS, 2, LOCAL), (EVENTS, EVENT)
    views = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=False)]
    return *views, dict(zip(SCALARS, parts[3].tolist(), strict=True))


def decoded(scalars, name):
    value = next(one for one in ANSWERS.values if one.name == name)
    return value.decode(np.array(scalars[name]), np.array(0.0))[0]


def test_a_transit_is_folded_at_its_period_in_the_middle_of_its_views():
    whole, local, events, scalars = told(star((3.3, 1.1, 0.12, 0.002)))
    assert decoded(scalars, "period") == pytest.approx(3.3, rel=1e-3)
    assert decoded(scalars, "depth") == pytest.approx(0.002, rel=0.1)
    assert decoded(scalars, "duration") == pytest.approx(24 * 0.12, rel=0.2)
    # In units of the depth: 1 lost in the middle, nothing far from it, in all, odd and even events alike.
    for view in local[:3, 0]:
        assert view[LOCAL // 2 - 4 : LOCAL // 2 + 4].mean() == pytest.approx(-1, abs=0.15)
        assert np.abs(view[:15].mean()) < 0.1 > np.abs(view[-15:].mean())
    assert whole[0, WHOLE // 2] == pytest.approx(-1, abs=0.3) and np.abs(whole[0, :100].mean()) < 0.05
    # Nine events, each of them a row.
    middle = events[:, EVENT // 2 - 5 : EVENT // 2 + 5].mean(axis=1)
    assert (middle[:8] < -0.5).all() and (events[9:] == 0).all()
    assert scalars["odd-even share"] < 0.15 and scalars["second share"] < 0.3 and scalars["largest event"] < 0.25


def test_a_binary_shows_its_other_eclipse():
    _, local, _, half = told(star((4.0, 1.0, 0.15, 0.02), (4.0, 3.0, 0.15, 0.012)))
    if decoded(half, "period") < 3:
        assert half["odd-even share"] == pytest.approx(0.5, abs=0.15)
        odd, even = (view[LOCAL // 2 - 4 : LOCAL // 2 + 4].mean() for view in local[1:3, 0])
        assert max(odd, even) / min(odd, even) == pytest.approx(0.6, abs=0.1)
    else:
        assert half["second share"] == pytest.approx(0.6, abs=0.1)
    _, local, _, whole = told(star((4.0, 1.0, 0.15, 0.02), (4.0, 2.6, 0.15, 0.004)))
    assert decoded(whole, "period") == pytest.approx(4.0, rel=2e-3)
    assert whole["second share"] == pytest.approx(0.2, abs=0.08)
    assert whole["second phase"] == pytest.approx(2 * 1.6 / 4.0, abs=0.1)
    assert local[3, 0, LOCAL // 2 - 3 : LOCAL // 2 + 3].mean() == pytest.approx(-0.2, abs=0.08)


def test_one_deep_dip_does_not_hide_many_shallow_ones():
    lone = np.where(np.abs(TIME - 9.3) < 0.2, 0.02, 0.0)
    curves = flatten((star((2.7, 0.4, 0.1, 0.0005)) - lone)[None])
    calm = limit_events(curves.flat, curves.weight)
    inside = np.abs(TIME - 9.3) < 0.15
    before, after = (one[0, inside].sum() / np.sqrt(inside.sum()) for one in (curves.flat, calm))
    assert before < -50 and -8 < after < -3
    # What is shallow stays as it is.
    away = np.abs(TIME - 9.3) > 1.0
    assert (np.abs(calm - np.minimum(curves.flat, 3.0))[0, away] > 1e-9).mean() < 0.02
    found = search(curves)
    assert found.found[0][0][1].period == pytest.approx(2.7, rel=2e-3)
    assert trial_periods()[found.power[0].argmax()] == pytest.approx(2.7, rel=2e-3)


def test_candidates_are_of_different_periods():
    curves = flatten(star((3.3, 1.1, 0.12, 0.003), (5.9, 2.2, 0.15, 0.002))[None])
    first, second = (box.period for _, box in search(curves).found[0])
    assert first == pytest.approx(3.3, rel=2e-3) and second == pytest.approx(5.9, rel=3e-3)


def test_units_do_not_reach_the_network_and_gaps_are_marked():
    flux = star((3.3, 1.1, 0.12, 0.003))
    flux[1800:2000] = np.nan
    both = np.stack([flux, 8.4e5 * flux])
    given = prepare(both, np.isfinite(both) * 1.0)
    assert given.shape == (2, 4, LENGTH) and given.dtype == np.float32
    np.testing.assert_allclose(given[0], given[1], atol=1e-3)
    assert (given[:, :2, 1800:2000] == 0).all() and given[0, 1].sum() == LENGTH - 200


def test_curves_of_a_batch_do_not_mix_and_hardly_any_data_give_numbers():
    flux = np.stack([star((3.3, 1.1, 0.12, 0.003)), np.full(LENGTH, np.nan), star(seed=3), np.ones(LENGTH)])
    flux[2, 5:] = np.nan
    given = prepare(flux, np.isfinite(flux) * 1.0)
    assert np.isfinite(given).all()
    np.testing.assert_allclose(given[0], prepare(flux[:1], np.ones((1, LENGTH)))[0], atol=2e-3)
    assert given[1].any() == given[1, 3].any()


def test_mirrors_reverse_time_and_swap_events():
    curves = list(simulate_transits(3, seed=1))
    flux = np.stack([one.flux for one in curves])
    given = prepare(flux, np.isfinite(flux) * 1.0)
    back = mirror(given, backwards=True, swapped=False)
    np.testing.assert_array_equal(back[:, :2], given[:, :2, ::-1])
    np.testing.assert_array_equal(back[:, 2], given[:, 2])
    for one in (dict(backwards=True, swapped=True), dict(backwards=False, swapped=True)):
        changed = mirror(given, **one)
        assert not np.array_equal(changed, given)
        np.testing.assert_array_equal(mirror(changed, **one), given)
    packs, mirrored = (one[:, 3].reshape(3, CANDIDATES, PACK) for one in (given, back))
    np.testing.assert_array_equal(mirrored[:, :, :WHOLE], packs[:, :, WHOLE - 1 :: -1])
    scalars = slice(2 * WHOLE + 2 * LOCALS * LOCAL + EVENTS * EVENT, None)
    np.testing.assert_array_equal(mirrored[:, :, scalars], packs[:, :, scalars])


def test_values_begin_from_a_candidates():
    net = get_model("transits").build().eval()
    torch.nn.init.zeros_(net.answer[-1].weight)
    torch.nn.init.zeros_(net.answer[-1].bias)
    flux = star((3.3, 1.1, 0.12, 0.003))[None]
    given = prepare(flux, np.ones((1, LENGTH)))
    with torch.inference_mode():
        raw = net(torch.from_numpy(given)).numpy()
    start = 2 * WHOLE + 2 * LOCALS * LOCAL + EVENTS * EVENT
    first, second = (pack[start + SCALARS.index("period")] for pack in given[0, 3].reshape(CANDIDATES, PACK))
    assert min(first, second) < raw[0, len(CLASSES)] < max(first, second)


def test_examples_keep_their_truth(monkeypatch):
    net = get_model("transits").build()
    examples = TransitExamples(net)
    curves = held_out_curves("test", 6)
    (inputs,), targets = examples.encode_all(curves)
    for row, one in enumerate(curves):
        assert targets["classes"][row, one.label] == 1 and targets["snr"][row] == pytest.approx(one.snr)
        assert (targets["value_weight"][row] == (one.label > 0)).all()
        if one.label:
            values = [value.decode(targets["values"][row, i], 0.0)[0] for i, value in enumerate(ANSWERS.values)]
            assert values == pytest.approx([one.period, one.depth, 24 * one.duration], rel=1e-5)
    # Parts are drawn from other seeds, and a part is the same each time.
    few = {name: (2, seed) for name, (_, seed) in lesson_module.HELD_OUT.items()}
    monkeypatch.setattr(lesson_module, "HELD_OUT", few)
    np.testing.assert_array_equal(examples.fixed("test")[0][0], inputs[:2])
    assert not np.array_equal(examples.fixed("validation")[0][0], inputs[:2])


def test_drawn_batches_mix_new_curves_with_kept_ones():
    examples = TransitExamples(get_model("transits").build())

    def batches(count, first=0):
        return list(itertools.islice(examples.numbered(6, seed=4, first=first, every=1), count))

    whole, later = batches(4), batches(2, first=2)
    for ((inputs,), targets), ((same,), same_targets) in zip(whole[2:], later, strict=True):
        # Encoded in other company than before, and yet equal to the last bit.
        np.testing.assert_array_equal(same, inputs)
        np.testing.assert_array_equal(same_targets["classes"], targets["classes"])
        assert inputs.shape == (6, 4, LENGTH) and inputs.dtype == np.float32
    # One curve of each batch after the first is new: 24 draws are out of nine.
    seen = np.concatenate([targets["snr"] for _, targets in whole])
    assert 1 < len(np.unique(seen)) <= 9


@pytest.fixture
def one_thread():
    """Small layers on busy processors: threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_short_training_learns(tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr(lesson_module, "HELD_OUT", {"validation": (24, 5), "test": (24, 6)})
    plain = TransitModel(transit=0.5, binary=0.0, snr=(30, 50), bright=0.0, noise=(1e-4, 1e-3))
    model = replace(plain, star=type(plain.star).quiet())
    monkeypatch.setattr(lesson_module, "TransitModel", lambda: model)
    options = TrainOptions(
        name="transits", output=tmp_path, steps=40, warm_up=5, batch=16, loaders=0, precision="f32", ema=0.9,
        learning_rate=5e-3, save_every=20, picture_every=40,
        model_options={"width": 4, "dense": 16, "dropout": 0.0},
    )  # fmt: skip
    lines = []
    train(options, report=lines.append)
    losses = [float(line.split("classes ")[1].split()[0]) for line in lines if "held-out" in line]
    assert losses[-1] < 0.4 and losses[-1] < losses[0]
    assert (tmp_path / "step_000040.png").is_file()


def test_the_grid_is_that_of_the_simulation_and_of_the_search():
    assert GRID.step == pytest.approx(STEP_DAYS) and GRID.unit == "d"
    one = draw_light_curve(TransitModel(), np.random.default_rng(1))
    assert len(one.flux) == GRID.count == get_model("transits").build().inputs[0].shape[1]
