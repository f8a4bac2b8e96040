"""Layout and decoding of heads with one, two and three axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.yolo.head import LOG_SCALE_RANGE, LOG_SIZE_LIMIT, HeadSpec, decode

SPECS = {
    1: HeadSpec((8,), ((0.5,),), ((2.0,),), ("log_flux",), ("position", "log_flux"), reach=1.5),
    2: HeadSpec(
        (4, 2), ((0.25, 0.5), (0.75, 0.5)), ((1.0, 1.0), (2.0, 3.0)), ("log_flux", "log_major"), ("position",),
        ("fri", "frii", "compact"),
    ),
    3: HeadSpec((2, 4, 4), ((0.5, 0.5, 0.5),) * 3, ((1.0, 2.0, 2.0),) * 3, ("w20",), ()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("ndim", "box", "boxes"), [(1, 4 + 0 + 1 + 2, 1), (2, 6 + 3 + 2 + 1, 2), (3, 8 + 0 + 1 + 0, 3)]
)
def test_number_of_channels(ndim: int, box: int, boxes: int) -> None:
    spec = SPECS[ndim]
    assert (spec.ndim, spec.boxes, spec.box_channels, spec.channels) == (ndim, boxes, box, box * boxes)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_groups_follow_each_other_without_gaps(ndim: int) -> None:
    spec = SPECS[ndim]
    names = ["offset", "size", "presence", "objectness", "classes", "params", "scales"]
    slots = [spec.slot(name) for name in names]
    assert slots[0].start == 0 and slots[-1].stop == spec.box_channels
    assert all(a.stop == b.start for a, b in zip(slots, slots[1:], strict=False))
    lengths = [s.stop - s.start for s in slots]
    assert lengths == [ndim, ndim, 1, 1, len(spec.classes), len(spec.params), len(spec.scales)]


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(KeyError):
        SPECS[2].slot("angle")


def test_anchors_lie_where_pixels_are_counted_from_their_centres() -> None:
    positions = SPECS[2].anchor_positions((3, 5))
    assert positions.shape == (2, 3, 5, 2) and positions.dtype == np.float32
    # A cell of 4 x 2 pixels from pixel 0: a quarter of 4 less the half pixel before the first centre.
    np.testing.assert_allclose(positions[0, 0, 0], [0.5, 0.5])
    np.testing.assert_allclose(positions[1, 0, 0], [2.5, 0.5])
    np.testing.assert_allclose(positions[1, 2, 3], [2.5 + 8, 0.5 + 6])
    np.testing.assert_allclose(SPECS[1].anchor_positions((4,))[0, :, 0], [3.5, 11.5, 19.5, 27.5])
    np.testing.assert_allclose(SPECS[3].anchor_positions((2, 2, 2))[2, 1, 0, 1], [2.5, 1.5, 5.5])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_zero_decodes_to_the_anchor_and_the_prior(ndim: int) -> None:
    spec = SPECS[ndim]
    anchors, prior = np.full((2, ndim), 7.0), np.full(ndim, 3.0)
    out = decode(np.zeros((2, spec.box_channels)), anchors, prior, spec)
    np.testing.assert_allclose(out["centre"], anchors)
    np.testing.assert_allclose(out["size"], 3.0)
    np.testing.assert_allclose(out["presence"], 0.5)
    assert out["params"].shape == (2, len(spec.params)) and out["scales"].shape == (2, len(spec.scales))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_wild_outputs_stay_finite_and_within_reach(ndim: int) -> None:
    spec = SPECS[ndim]
    values = np.random.default_rng(0).choice([-1e6, 1e6], (50, spec.box_channels)).astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        out = decode(values, np.zeros((50, ndim), np.float32), np.ones(ndim, np.float32), spec)
    assert all(np.isfinite(v).all() for v in out.values())
    assert (abs(out["centre"]) <= spec.reach * np.array(spec.stride)).all()
    assert (abs(np.log(out["size"])) <= LOG_SIZE_LIMIT + 1e-5).all()
    assert ((out["scales"] >= LOG_SCALE_RANGE[0]) & (out["scales"] <= LOG_SCALE_RANGE[1])).all()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_arrays_and_tensors_decode_alike(ndim: int) -> None:
    spec, rng = SPECS[ndim], np.random.default_rng(ndim)
    values = rng.normal(0, 3, (30, spec.box_channels)).astype(np.float32)
    anchors = rng.uniform(0, 50, (30, ndim)).astype(np.float32)
    priors = rng.uniform(1, 9, (30, ndim)).astype(np.float32)
    with_numpy = decode(values, anchors, priors, spec)
    with_torch = decode(*(torch.from_numpy(a) for a in (values, anchors, priors)), spec)
    assert list(with_numpy) == list(with_torch)
    for name, value in with_numpy.items():
        np.testing.assert_allclose(value, with_torch[name].numpy(), rtol=2e-5, atol=2e-6, err_msg=name)
