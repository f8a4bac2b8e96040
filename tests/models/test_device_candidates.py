"""Candidates as tensors are those of the processor, for every registered head; so is the second look."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.device import candidates as on_device
from models.registry import get_model, list_models
from models.yolo.candidates import find_candidates
from models.yolo.reflect import look_twice

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and torch with CUDA")
DEVICES = ["cpu", pytest.param("cuda:0", marks=[pytest.mark.gpu, needs_gpu])]
DETECTORS = [
    name for name in list_models(kind="detector")
    if get_model(name).has_weights and get_model(name).reads != "photograph"
]  # fmt: skip


def head_of(name):
    return get_model(name).build().head


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DETECTORS)
def test_the_same_candidates(name, device):
    head = head_of(name)
    grid = {1: (40,), 2: (12, 9), 3: (6, 5, 4)}[head.ndim]
    raw = np.random.default_rng(1).normal(scale=2.0, size=(3, head.channels, *grid)).astype(np.float32)
    # An empty window between two others.
    raw[1].reshape(head.boxes, head.box_channels, *grid)[:, head.slot("presence")] = -20
    found = on_device.find_candidates(torch.from_numpy(raw).to(device), head, beam_px=3.1, min_logit=1.0)
    item, rows = found.fetch(head)
    assert set(item) == {0, 2}
    for number, maps in enumerate(raw):
        expected = find_candidates(maps, head, beam_px=3.1, min_logit=1.0)
        came = rows[item == number]
        assert len(came) == len(expected) and np.array_equal(came.anchor, expected.anchor)
        np.testing.assert_allclose(came.centre, expected.centre, rtol=0, atol=1e-4)
        np.testing.assert_allclose(came.size, expected.size, rtol=1e-4)
        np.testing.assert_array_equal(came.logit, expected.logit)
        assert came.params.keys() == expected.params.keys()
        for key, value in expected.params.items():
            np.testing.assert_allclose(came.params[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["light", "light3d"])
def test_the_same_second_look(name, device):
    torch.manual_seed(0)
    net = get_model(name).build().eval()
    sides = [4 * int(stride) for stride in net.head.stride]
    rng = np.random.default_rng(2)
    snr = rng.normal(size=(2, 1, *sides)).astype(np.float32)
    beam = rng.normal(size=(2, 4)).astype(np.float32)

    def engine(*arrays):
        return net(*map(torch.from_numpy, arrays)).numpy()

    with torch.inference_mode():
        expected = look_twice(engine, snr, beam, spec=net.head)
        net.to(device)
        given = (torch.from_numpy(snr).to(device), torch.from_numpy(beam).to(device))
        came = on_device.look_twice(net, *given, spec=net.head).cpu().numpy()
    np.testing.assert_allclose(came, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
