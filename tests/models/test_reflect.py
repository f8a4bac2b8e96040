"""A second look at reflected data tells the same sources at the same places."""

import numpy as np
import pytest
import torch

from models.registry import get_model
from models.yolo.candidates import find_candidates
from models.yolo.head import HeadSpec
from models.yolo.reflect import look_twice, reflected

CASES = [("light", (5, 7)), ("light3d", (3, 4, 5)), ("sdc1", (2, 3)), ("sdc2", (2, 3, 2)), ("lines", (9,))]


@pytest.mark.parametrize(("name", "grid"), CASES)
def test_reflecting_twice_changes_nothing(name, grid):
    spec = get_model(name).build().head
    raw = np.random.default_rng(0).standard_normal((2, spec.channels, *grid)).astype(np.float32)
    once = reflected(raw, spec)
    assert np.abs(once - raw).max() > 0.1
    np.testing.assert_array_equal(reflected(once, spec), raw)


@pytest.mark.parametrize(("name", "grid"), [("light", (5, 7)), ("light3d", (3, 4, 5))])
def test_a_source_is_where_it_was(name, grid):
    spec = get_model(name).build().head
    rng = np.random.default_rng(1)
    raw = np.full((1, spec.channels, *grid), -9.0, np.float32)
    boxes = raw.reshape(spec.boxes, spec.box_channels, *grid)
    box, cell = spec.boxes - 2, tuple(n // 2 for n in grid)
    boxes[(box, slice(None), *cell)] = rng.uniform(-0.4, 0.4, spec.box_channels)
    boxes[(box, spec.slot("presence"), *cell)] = 3.0
    there = find_candidates(raw[0], spec, beam_px=4.0, min_logit=0.0)
    back = find_candidates(reflected(raw, spec)[0], spec, beam_px=4.0, min_logit=0.0)
    sides = np.array(grid) * spec.stride
    assert len(there) == len(back) == 1
    np.testing.assert_allclose(back.centre, sides - 1 - there.centre, atol=1e-4)
    np.testing.assert_allclose(back.size, there.size, rtol=1e-5)
    for key, value in there.params.items():
        np.testing.assert_allclose(back.params[key], value, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", ["light", "light3d"])
def test_two_looks_do_not_depend_on_the_direction_of_the_data(name):
    torch.manual_seed(0)
    net = get_model(name).build().eval()

    def engine(snr, beam):
        with torch.inference_mode():
            return net(torch.from_numpy(snr), torch.from_numpy(beam)).numpy()

    spec, rng = net.head, np.random.default_rng(2)
    snr = rng.standard_normal((1, 1, *(4 * side for side in spec.stride))).astype(np.float32)
    beam = rng.standard_normal((1, 4)).astype(np.float32)
    turned = np.ascontiguousarray(snr[(slice(None), slice(None), *(slice(None, None, -1),) * spec.ndim)])
    one = look_twice(engine, snr, beam, spec=spec)
    other = reflected(look_twice(engine, turned, beam, spec=spec), spec)
    np.testing.assert_allclose(other, one, atol=2e-6)
    assert np.abs(engine(snr, beam) - one).max() > 1e-3


def test_heads_that_are_not_symmetric_are_refused():
    spec = HeadSpec((4, 4), ((0.25, 0.25),), ((1.0, 1.0),), (), ())
    with pytest.raises(ValueError, match="not symmetric"):
        reflected(np.zeros((1, spec.channels, 2, 2), np.float32), spec)
