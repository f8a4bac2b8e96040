"""From raw maps to candidates: what is planted comes out, wherever the window lies."""

from __future__ import annotations

import numpy as np
import pytest

from models.detectors.light import PARAMS, QUARTERS, SCALES
from models.yolo.candidates import find_candidates
from models.yolo.head import HeadSpec

LIGHT = HeadSpec((4, 4), QUARTERS, ((1.0, 1.0),) * 4, PARAMS, SCALES)
CUBE = HeadSpec((2, 4, 4), ((0.5, 0.5, 0.5),), ((1.0, 2.0, 2.0),), ("w20",), ("position",))
SPECTRUM = HeadSpec((8,), ((0.25,), (0.75,)), ((1.0,), (1.0,)), ("depth",), ())
STACKED = HeadSpec((4, 4), ((0.5, 0.5), (0.5, 0.5)), ((1.0, 1.0), (3.0, 2.0)), ("log_flux",), ())
BEAM = 3.0


def quiet(spec: HeadSpec, grid: tuple[int, ...]) -> np.ndarray:
    """A raw map that says "nothing" everywhere."""
    raw = np.zeros((spec.channels, *grid), np.float32)
    boxes(raw, spec)[:, spec.slot("presence")] = -9
    return raw


def boxes(raw: np.ndarray, spec: HeadSpec) -> np.ndarray:
    return raw.reshape(spec.boxes, spec.box_channels, *raw.shape[1:])


def plant(raw, spec, box, cell, *, centre, size, logit, params=None, scale=0.0) -> None:
    """Make one box of one cell say what is wanted."""
    anchor = spec.anchor_positions(raw.shape[1:])[(box, *cell)]
    one = np.zeros(spec.box_channels, np.float32)
    one[spec.slot("offset")] = (np.array(centre) - anchor) / np.array(spec.stride)
    one[spec.slot("size")] = np.log(np.array(size) / (np.array(spec.priors[box]) * spec.units(BEAM)))
    one[spec.slot("presence")] = logit
    one[spec.slot("params")] = np.zeros(len(spec.params)) if params is None else params
    one[spec.slot("scales")] = scale
    boxes(raw, spec)[(box, slice(None), *cell)] = one


@pytest.mark.parametrize(
    ("spec", "grid", "box", "cell", "centre", "size"),
    [
        (LIGHT, (9, 12), 2, (3, 7), (14.9, 27.4), (4.0, 3.5)),
        (CUBE, (5, 4, 6), 0, (2, 1, 4), (4.2, 6.0, 18.5), (3.0, 9.0, 8.0)),
        (SPECTRUM, (11,), 1, (6,), (52.6,), (5.5,)),
        (STACKED, (6, 7), 1, (2, 3), (10.0, 13.0), (9.0, 7.0)),
    ],
    ids=["light", "cube", "spectrum", "boxes that share an anchor"],
)
def test_what_is_planted_is_found(spec, grid, box, cell, centre, size) -> None:
    raw = quiet(spec, grid)
    params = np.arange(1, len(spec.params) + 1) / 4
    plant(raw, spec, box, cell, centre=centre, size=size, logit=2.5, params=params, scale=-1.5)
    found = find_candidates(raw, spec, beam_px=BEAM, min_logit=-3)
    assert len(found) == 1
    # A quiet neighbour has a say of 1e-4 of the planted one's.
    np.testing.assert_allclose(found.centre[0], centre, atol=0.01)
    np.testing.assert_allclose(found.size[0], size, rtol=0.01)
    assert found.logit[0] == pytest.approx(2.5)
    for name, value in zip(spec.params, params, strict=True):
        assert found.params[name][0] == pytest.approx(value, abs=0.01)
    for name in spec.scales:
        assert found.params[f"{name}_scale"][0] == pytest.approx(np.exp(-1.5), rel=0.01)
    anchor = spec.anchor_positions(grid)[(box, *cell)]
    assert (abs(found.anchor[0] - anchor) <= 0.5).all() and found.anchor.dtype == np.int64


def test_nothing_found_has_the_columns_of_something_found() -> None:
    none = find_candidates(quiet(LIGHT, (5, 5)), LIGHT, beam_px=BEAM, min_logit=-3)
    raw = quiet(LIGHT, (5, 5))
    plant(raw, LIGHT, 0, (2, 2), centre=(8, 8), size=(3, 3), logit=1)
    some = find_candidates(raw, LIGHT, beam_px=BEAM, min_logit=-3)
    assert len(none) == 0 and none.centre.shape == (0, 2)
    assert list(none.params) == list(some.params)


def test_a_plateau_gives_one_candidate() -> None:
    raw = quiet(LIGHT, (6, 6))
    for box in range(4):
        plant(raw, LIGHT, box, (2, 2), centre=(9.5, 9.5), size=(3, 3), logit=1)
    assert len(find_candidates(raw, LIGHT, beam_px=BEAM, min_logit=-3)) == 1


def test_neighbours_speak_for_the_same_source_by_their_weight() -> None:
    raw = quiet(LIGHT, (6, 6))
    plant(raw, LIGHT, 0, (2, 2), centre=(9.0, 9.0), size=(3, 3), logit=4)
    plant(raw, LIGHT, 1, (2, 2), centre=(9.0, 9.4), size=(3, 3), logit=0)
    found = find_candidates(raw, LIGHT, beam_px=BEAM, min_logit=-3)
    p = 1 / (1 + np.exp(-4.0))
    assert len(found) == 1
    assert found.centre[0, 1] == pytest.approx((p * 9.0 + 0.5 * 9.4) / (p + 0.5), abs=0.01)
    # One that means another place has no say.
    plant(raw, LIGHT, 1, (2, 2), centre=(9.0, 11.5), size=(3, 3), logit=3.9)
    alone = find_candidates(raw, LIGHT, beam_px=BEAM, min_logit=-3)
    assert alone.centre[0, 1] == pytest.approx(9.0, abs=0.01)


def test_sizes_are_averaged_in_pixels_where_priors_differ() -> None:
    spec = HeadSpec((4, 4), QUARTERS, ((1.0, 1.0), (2.0, 2.0), (1.0, 1.0), (3.0, 3.0)), ("a",), ())
    for box in range(4):
        raw = quiet(spec, (6, 6))
        plant(raw, spec, box, (2, 2), centre=(9.5, 9.5), size=(5.0, 4.0), logit=3)
        found = find_candidates(raw, spec, beam_px=BEAM, min_logit=-3)
        np.testing.assert_allclose(found.size[0], [5.0, 4.0], rtol=0.02)


@pytest.mark.parametrize("spec", [LIGHT, STACKED])
def test_two_windows_of_a_map_agree(spec: HeadSpec) -> None:
    rng = np.random.default_rng(3)
    raw = rng.normal(0, 1.5, (spec.channels, 16, 20)).astype(np.float32)
    whole = find_candidates(raw, spec, beam_px=BEAM, min_logit=0)
    window = find_candidates(np.ascontiguousarray(raw[:, 3:13, 4:18]), spec, beam_px=BEAM, min_logit=0)
    window = window.shifted((12, 16))

    def inner(found):
        y, x = found.anchor.T
        return found[(y >= 16) & (y < 48) & (x >= 20) & (x < 68)].sorted()

    a, b = inner(whole), inner(window)
    assert len(a) == len(b) > 20
    np.testing.assert_allclose(a.centre, b.centre, atol=1e-5)
    np.testing.assert_array_equal(a.anchor, b.anchor)
    for name in a.params:
        np.testing.assert_allclose(a.params[name], b.params[name], rtol=1e-5, atol=1e-6)


def test_candidates_are_the_local_maxima_of_the_anchors_grid() -> None:
    rng = np.random.default_rng(4)
    raw = rng.normal(0, 1.5, (LIGHT.channels, 7, 8)).astype(np.float32)
    logits = boxes(raw, LIGHT)[:, LIGHT.slot("presence").start]
    fine = np.zeros((14, 16))
    for box, (fy, fx) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        fine[fy::2, fx::2] = logits[box]
    expected = {
        (2 * y + 1, 2 * x + 1)
        for y, x in np.ndindex(fine.shape)
        if fine[y, x] > 0.5 and fine[y, x] == fine[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max()
    }
    found = find_candidates(raw, LIGHT, beam_px=BEAM, min_logit=0.5)
    assert {tuple(a) for a in found.anchor.tolist()} == expected


def test_classes_come_along_by_name() -> None:
    spec = HeadSpec((4,), ((0.25,), (0.75,)), ((1.0,),) * 2, ("flux",), (), classes=("emission", "absorption"))
    raw = quiet(spec, (9,))
    plant(raw, spec, 1, (4,), centre=(18.2,), size=(6.0,), logit=3)
    boxes(raw, spec)[1, spec.slot("classes"), 4] = (-2.0, 4.0)
    found = find_candidates(raw, spec, beam_px=BEAM, min_logit=-3)
    assert found.params["is_emission"][0] == pytest.approx(1 / (1 + np.exp(2)), abs=0.01)
    assert found.params["is_absorption"][0] == pytest.approx(1 / (1 + np.exp(-4)), abs=0.01)
    assert list(find_candidates(quiet(spec, (5,)), spec, beam_px=BEAM, min_logit=-3).params) == list(found.params)
