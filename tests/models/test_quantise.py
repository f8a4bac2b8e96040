"""OpenVINO graphs in 8 bits: made by NNCF of a small network, run on the processor beside torch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.engines import quantise
from models.engines.openvino_engine import compile_graph, import_openvino
from models.engines.quantise import import_nncf, list_products, write_quantised
from models.export_engine import export_engine
from models.fold import fold_batchnorm
from models.registry import get_model
from models.signature import network_inputs, random_input
from models.weights import Card
from survey_io.errors import OptionError

OPTIONS = {"stem": 4, "width": 8, "wide": 8, "dilations": [1]}
LAYERS = [1, 2, 3]


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A small network, its quantised graph and the graph's record."""
    pytest.importorskip("nncf", reason="NNCF is not installed: pip install 'skysift[quantise]'")
    torch.manual_seed(0)
    net = fold_batchnorm(get_model("light").build(**OPTIONS)).float()
    samples = [random_input(net, batch=2, cells=6, seed=seed) for seed in range(2)]
    path = tmp_path_factory.mktemp("int8") / "small.xml"
    return net, path, write_quantised(net, Card(model="light", options=OPTIONS), path, samples, layers=LAYERS)


def test_chosen_products_take_8_bits_and_no_others(quantised):
    _, path, told = quantised
    graph = import_openvino().Core().read_model(str(path))
    products = list_products(graph)
    assert told["layers"] == LAYERS and told["products"] == len(products) > 4
    assert told["calibration"].startswith("2 batches of (2, 1, ") and set(told["versions"]) == {"openvino", "nncf"}
    nodes = {node.get_friendly_name(): node for node in graph.get_ordered_ops()}
    for place, name in enumerate(products):
        given = nodes[name].input_value(0).get_node().get_type_name()
        assert (given == "FakeQuantize") == (place in LAYERS), (place, name, given)
    kept = {
        node.get_element_type().get_type_name() for node in nodes.values() if node.get_type_name() == "Constant"
    }
    assert {"i8", "f32"} <= kept


def test_it_runs_near_torch_on_shapes_never_seen(quantised):
    net, path, _ = quantised
    given = random_input(net, batch=3, cells=3, seed=9)
    with torch.inference_mode():
        expected = net(*map(torch.from_numpy, given)).numpy()
    named = {one.name: array for one, array in zip(network_inputs(net), given, strict=True)}
    came = compile_graph(str(path), precision="int8")(named)[0]
    difference = np.abs(came - expected).max() / np.abs(expected).max()
    # Rounded, therefore not the same.
    assert came.shape == expected.shape and 1e-5 < difference < 0.05


def test_decisions_are_not_shifted_by_the_rounding(tmp_path, monkeypatch):
    """P stays the same on average, and nothing else in the answers changes by the correction."""
    pytest.importorskip("nncf", reason="NNCF is not installed: pip install 'skysift[quantise]'")
    torch.manual_seed(2)
    net = fold_batchnorm(get_model("light").build(**OPTIONS)).float()
    head = net.head
    with torch.no_grad():
        # All cells undecided, by weights with more than noise to round.
        net.out.weight.mul_(20)
        net.out.bias.view(head.boxes, -1)[:, head.slot("presence")] = 0.5
    samples = [random_input(net, batch=4, cells=12, seed=seed) for seed in range(4)]
    given = [np.concatenate(parts) for parts in zip(*samples, strict=True)]
    named = {one.name: array for one, array in zip(network_inputs(net), given, strict=True)}
    with torch.inference_mode():
        expected = net(*map(torch.from_numpy, given)).numpy()
    answers, told = [], []
    for number, least in enumerate((10**9, quantise.LEAST_DECISIONS)):
        monkeypatch.setattr(quantise, "LEAST_DECISIONS", least)
        path = tmp_path / f"{number}.xml"
        told.append(write_quantised(net, Card(model="light", options=OPTIONS), path, samples, layers=LAYERS))
        answers.append(compile_graph(str(path), precision="int8")(named)[0].copy())
    plain, centred = (raw.reshape(len(raw), head.boxes, head.box_channels, -1) for raw in answers)
    slot = head.slot("presence")
    assert told[0]["shift"] == 0 and told[1]["shift"] != 0
    np.testing.assert_allclose((centred - plain)[:, :, slot], told[1]["shift"], atol=2e-5)
    others = [channel for channel in range(head.box_channels) if channel != slot.start]
    np.testing.assert_array_equal(centred[:, :, others], plain[:, :, others])
    exact = expected.reshape(plain.shape)[:, :, slot]
    before, after = (float((raw[:, :, slot] - exact).mean(dtype=float)) for raw in (plain, centred))
    assert abs(before) > 1e-5 and abs(after) < 0.2 * abs(before)


def test_without_nncf_one_line_says_what_to_install(tmp_path: Path, monkeypatch):
    # As Python itself notes a module that is not there.
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(OptionError, match=r"needs the Python package nncf.*pip install skysift\[quantise\]") as caught:
        import_nncf()
    assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="nncf, not installed here"):
        export_engine("light", tmp_path / "out", engine="openvino", precision="int8")
    assert not (tmp_path / "out").exists()
