"""What is computed late, for candidates only, is what the whole map says."""

import numpy as np
import pytest
import torch
from torch import nn

from models.engines import openvino_engine
from models.engines.base import EngineSpec, load_engine
from models.engines.chain import ChainEngine
from models.engines.openvino_graph import import_openvino, split_front
from models.registry import get_model
from models.weights import find_weights
from models.yolo.candidates import find_candidates
from models.yolo.maps import LateMaps, WholeMaps, look
from models.yolo.reflect import look_twice

GRIDS = {"light": (9, 12), "light3d": (3, 5, 6), "sdc1": (3, 4)}


def given(spec, grid, batch, seed=0):
    rng = np.random.default_rng(seed)
    sides = tuple(n * s for n, s in zip(grid, spec.stride, strict=True))
    snr = rng.normal(size=(batch, 1, *sides)).astype(np.float32)
    # A source in the middle of each window, so that there is something to find.
    snr[(slice(None), slice(None), *(slice(n // 2 - 2, n // 2 + 2) for n in sides))] += 25
    return snr, np.repeat(rng.normal(size=(1, 4)).astype(np.float32) * 0.2 + [[1, 1, 0, 0]], batch, axis=0).astype("f4")


def every_vector(maps, spec, grid):
    cells = np.stack(np.meshgrid(*(np.arange(n) for n in (spec.boxes, *grid)), indexing="ij"), -1).reshape(
        -1, spec.ndim + 1
    )
    return maps.vectors(cells[:, 0], cells[:, 1:])


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize(("name", "grid"), GRIDS.items())
def test_openvino_leaves_the_head_for_later(name, grid, passes):
    torch.manual_seed(0)
    net = get_model(name).build().eval()
    spec = net.head
    engine = load_engine("openvino", net, threads=1)
    for batch in (2, 1):
        snr, beam = given(spec, grid, batch)
        came = look(engine, snr, beam, spec=spec, passes=passes)
        raw = look_twice(engine, snr, beam, spec=spec) if passes == 2 else engine(snr, beam)
        for maps, whole in zip(came, (WholeMaps(one, spec) for one in raw), strict=True):
            limit = 1e-4 * np.abs(raw).max()
            assert np.abs(maps.presence - whole.presence).max() <= limit
            assert np.abs(every_vector(maps, spec, grid) - every_vector(whole, spec, grid)).max() <= limit
        assert isinstance(engine.look(spec, snr, beam)[0], LateMaps)


@pytest.mark.parametrize(("name", "precision"), [("light", "f32"), ("light", "int8"), ("light3d", "int8")])
def test_shipped_weights_find_the_same_either_way(name, precision):
    path = str(find_weights(name))
    chain = ChainEngine(EngineSpec(path, "openvino", precision))
    from models.outline import load_outline

    spec = load_outline(path)[0].head
    snr, beam = given(spec, tuple(2 * n for n in GRIDS[name]), 2)
    late = look(chain, snr, beam, spec=spec)
    assert isinstance(late[0], LateMaps)
    for maps, raw in zip(late, chain(snr, beam), strict=True):
        one, other = (find_candidates(m, spec, beam_px=4.0, min_logit=-3.0) for m in (maps, raw))
        assert len(one) == len(other) > 0
        np.testing.assert_allclose(one.centre, other.centre, atol=1e-3)
        np.testing.assert_allclose(one.logit, other.logit, atol=1e-3)
        for key, values in other.params.items():
            np.testing.assert_allclose(one.params[key], values, rtol=1e-3, atol=1e-3, err_msg=key)


@pytest.mark.parametrize("voxels", [1, 8 * 20 * 24 * 3, 10**9])
def test_a_cube_goes_through_the_first_layers_in_parts(voxels, monkeypatch):
    """Of one cell of channels, of three, which do not go into seven, and whole: always the same answer."""
    monkeypatch.setattr(openvino_engine, "_FRONT_VOXELS", voxels)
    torch.manual_seed(0)
    net = get_model("light3d").build().eval()
    engine = load_engine("openvino", net, threads=1)
    grid = (7, 5, 6)
    snr, beam = given(net.head, grid, 2)
    came, raw = engine.look(net.head, snr, beam), engine(snr, beam)
    assert [one.front is not None for one in engine._compiled.values()] == [True, False]
    for maps, whole in zip(came, (WholeMaps(one, net.head) for one in raw), strict=True):
        limit = 1e-5 * np.abs(raw).max()
        assert np.abs(maps.presence - whole.presence).max() <= limit
        assert np.abs(every_vector(maps, net.head, grid) - every_vector(whole, net.head, grid)).max() <= limit


@pytest.mark.parametrize("kind", ["kernel", "dilation", "pooling"])
def test_a_network_that_begins_in_another_way_stays_whole(kind):
    first = nn.Conv3d(1, 4, 5 if kind == "kernel" else 4, stride=2, padding=1)
    if kind == "dilation":
        first = nn.Conv3d(1, 4, 3, stride=2, padding=1, dilation=2)
    net = nn.Sequential(nn.MaxPool3d(2) if kind == "pooling" else nn.Identity(), first, nn.ReLU(), nn.Conv3d(4, 2, 1))
    graph = import_openvino().convert_model(net, example_input=torch.zeros(1, 1, 16, 16, 16))
    assert split_front(graph) is None


def test_a_batch_of_several_beams_and_other_engines_are_looked_at_whole():
    torch.manual_seed(0)
    net = get_model("light").build().eval()
    snr, beam = given(net.head, (5, 6), 2)
    beam[1] *= 1.5
    for engine in (load_engine("openvino", net, threads=1), load_engine("torch", net, threads=1)):
        came = look(engine, snr, beam, spec=net.head)
        assert all(isinstance(maps, WholeMaps) for maps in came)
        for maps, raw in zip(came, engine(snr, beam), strict=True):
            np.testing.assert_allclose(maps.presence, WholeMaps(raw, net.head).presence, atol=1e-5)
