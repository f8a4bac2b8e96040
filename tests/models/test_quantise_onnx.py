"""Graphs of 8 bits for TensorRT: one network of each dimension, run on the processor and built for two cards."""

import importlib.util
import re
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from models import samples
from models.engines.openvino_engine import compile_graph
from models.engines.plan_file import PlanKey, hash_network, read_plan, write_plan
from models.engines.profile import make_profile
from models.engines.quantise_onnx import list_graph_products, write_quantised_graph
from models.engines.tensorrt_build import build, import_library, make_logger
from models.export_engine import export_engine
from models.fold import fold_batchnorm
from models.layer_choice import BUDGETS, allowed_change, choose_layers
from models.registry import get_model
from models.signature import network_inputs, random_input
from models.weights import Card, save_weights
from survey_io.errors import OptionError

NETWORKS = {
    "light": {"stem": 4, "width": 8, "wide": 8, "dilations": [1]},
    "light3d": {"stem": 4, "width": 8, "wide": 8, "dilations": [1]},
    "lines": {"stem": 8, "width": 8, "wide": 8, "dilations": [[1, 2]]},
}
KINDS = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
# Of the largest output, with random weights: 3 bits of mantissa against 7 of a number.
NEAR = {"int8": 0.03, "fp8": 0.1}
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (Linux on x86-64)"
)


def make(name):
    torch.manual_seed(0)
    net = fold_batchnorm(get_model(name).build(**NETWORKS[name])).float()
    return net, [random_input(net, batch=2, cells=4, seed=seed) for seed in range(2)]


@pytest.fixture(scope="module", params=NETWORKS)
def graphs(request):
    """A network, its samples, and its graph and record by precision."""
    net, samples = make(request.param)
    card = Card(model=request.param)
    # All that may be: two layers of random weights change too much to be chosen.
    made = {kind: write_quantised_graph(net, card, kind, samples, layers=[1, 2, 3]) for kind in KINDS}
    return net, samples, made


@pytest.mark.parametrize("kind", KINDS)
def test_scales_are_symmetric_per_channel_and_weights_are_of_8_bits(graphs, kind):
    net, _, made = graphs
    graph, told = made[kind]
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    assert told["layers"] == [1, 2, 3] and told["products"] == len(list_graph_products(model)) > 4
    found = Counter(node.op_type for node in model.graph.node)
    assert found["QuantizeLinear"] >= 2 and found["DequantizeLinear"] == found["QuantizeLinear"] + 3
    constants = {one.name: one for one in model.graph.initializer}
    channels = 0
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = (onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:])
        assert scale.dtype in (np.float16, np.float32) and (scale > 0).all()
        assert constants[node.input[2]].data_type == KINDS[kind]
        assert not np.any(zero.astype(np.float32))
        if node.input[0] in constants:
            weights = constants[node.input[0]]
            assert weights.data_type == KINDS[kind] and scale.shape == (weights.dims[0],)
            channels += 1
    assert channels == 3
    # Biases keep their digits, and so does what is added around a block.
    assert not any(name.endswith("bias_quantized") for name in constants)
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    takers = {node.op_type for node in model.graph.node if rounded.intersection(node.input)}
    assert takers == {"Conv"}
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("kind", KINDS)
def test_the_very_graph_runs_on_the_processor_near_torch(graphs, kind, tmp_path):
    net, _, made = graphs
    given = random_input(net, batch=3, cells=3, seed=9)
    with torch.inference_mode():
        expected = net(*map(torch.from_numpy, given)).numpy()
    path = tmp_path / "graph.onnx"
    path.write_bytes(made[kind][0])
    named = {one.name: array for one, array in zip(network_inputs(net), given, strict=True)}
    came = compile_graph(str(path), low=False)(named)[0]
    difference = np.abs(came - expected).max() / np.abs(expected).max()
    assert 1e-5 < difference < NEAR[kind]


@needs_rtx
@pytest.mark.parametrize("kind", KINDS)
def test_it_builds_for_two_cards(graphs, kind):
    net, _, made = graphs
    trt = import_library("tensorrt_rtx")
    profile = make_profile(net, batch=(1, 2, 4), sides=(32, 64, 128))
    plan = build(trt, made[kind][0], [profile], targets=("sm89", "sm120"))
    assert [(one["name"], one["type"]) for one in plan.inputs] == [(one.name, "float32") for one in network_inputs(net)]
    assert [(one["name"], one["type"]) for one in plan.outputs] == [("raw", "float32")]
    assert plan.outputs[0]["shape"] == [-1, net.head.channels, *[-1] * net.head.ndim]
    log = make_logger(trt)
    assert trt.Runtime(log).deserialize_cuda_engine(plan.data[: len(plan.data) // 2]) is None and log.errors


def test_8_bit_floats_reach_as_far_as_bright_sources_do():
    net, _ = make("light")
    given = [random_input(net, batch=1, cells=24)]
    # Sky as it is: noise, and something far beyond its spread.
    given[0][0][0, 0, 30, 20:22] = 1e4
    graph, _ = write_quantised_graph(net, Card(model="light"), "fp8", given, layers=[1, 2, 3], rest="f32")
    model = onnx.load_from_string(graph)
    rounded = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    pairs = [
        (node.input[0], rounded[node.output[0]]) for node in model.graph.node if node.op_type == "QuantizeLinear"
    ]
    assert len(pairs) == 3
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for pair in pairs for name in pair)
    run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    _, *values = run.run(None, dict(zip(("snr", "beam"), given[0], strict=True)))
    for exact, came in zip(values[::2], values[1::2], strict=True):
        bright = exact > 0.1 * exact.max()
        assert exact.max() > 6 * exact.std()
        # Half of the last of 4 digits.
        assert (np.abs(came - exact)[bright] <= exact[bright] / 16 * 1.001).all()


def test_equal_arguments_give_equal_bytes_and_other_samples_another_key(tmp_path):
    net, given = make("light")
    card = Card(model="light")
    first, again = (write_quantised_graph(net, card, "int8", given, layers=[2])[0] for _ in range(2))
    assert first == again
    wider = [tuple(3 * one for one in batch) for batch in given]
    assert write_quantised_graph(net, card, "int8", wider, layers=[2])[0] != first
    profile = make_profile(net, batch=(1, 2, 4), sides=(32, 64, 128))
    keys = [PlanKey(hash_network(net, text), "int8", (profile,), "rtx", "1", "sm89") for text in ("a", "b", "")]
    assert len({key.digest for key in keys}) == 3
    from models.engines.tensorrt_build import Plan

    write_plan(tmp_path / "plan.engine", Plan(b"plan", [], []), keys[0])
    assert read_plan(tmp_path / "plan.engine", keys[0]) == b"plan"
    assert read_plan(tmp_path / "plan.engine", keys[1]) is None


def test_layers_are_taken_by_their_work_as_long_as_decisions_stay():
    net = get_model("light").build(**NETWORKS["light"])
    head, rng = net.head, np.random.default_rng(0)
    raw = rng.normal(size=(2, head.boxes, head.box_channels, 24, 24)).astype(np.float32)
    presence = head.slot("presence").start
    card = Card(model="light", threshold=0.5)
    budget = allowed_change(net, card, [raw.reshape(2, -1, 24, 24)])
    assert BUDGETS[0] <= budget <= BUDGETS[1]
    # What each product does to P, by the budget; the first and the last are not tried.
    shifts = {1: 5.0, 2: 0.8, 3: 0.5, 4: 0.5, 5: 0.1}
    tried = []

    def answers(places):
        tried.extend(places)
        made = raw.copy()
        made[:, :, presence] += budget * sum(shifts[place] for place in places)
        return [made.reshape(2, -1, 24, 24)]

    costs = [1.0, 90.0, 1.0, 30.0, 30.0, 0.01, 1.0]
    layers, alone = choose_layers(costs, answers, net, card)
    assert tried == [1, 2, 3, 4, 5]
    assert [alone[place] for place in tried] == pytest.approx([budget * shifts[place] for place in tried], rel=1e-3)
    # The second has no room beside the third and the fourth, which do more of the work.
    assert layers == [3, 4, 5]
    with pytest.raises(OptionError, match="no layer of this network keeps its decisions in 8 bits: one alone changes"):
        choose_layers(costs[:3], answers, net, card)


def test_other_precisions_are_refused():
    net, given = make("light")
    with pytest.raises(OptionError, match="precision 'int4': expected int8 or fp8"):
        write_quantised_graph(net, Card(model="light"), "int4", given)


@needs_rtx
@pytest.mark.parametrize(
    ("targets", "message"),
    [(("sm86",), "fp8 is of cards from sm89 on, got target sm86"), ((), "got no target.*give --target sm89")],
)
def test_cards_without_fp8_are_refused(tmp_path, targets, message):
    with pytest.raises(OptionError, match=message):
        export_engine("light", tmp_path / "new", precision="fp8", targets=targets)
    assert not (tmp_path / "new").exists()


@needs_rtx
def test_export_tells_how_it_was_quantised(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "_BATCHES", 2)
    options = NETWORKS["light"]
    torch.manual_seed(0)
    weights = tmp_path / "small.safetensors"
    save_weights(get_model("light").build(**options), Card(model="light", options=options), weights)
    made = export_engine(
        weights, tmp_path / "out", precision="int8", targets=["sm120", "sm89"], layers=[1, 2], batch=(1, 2, 4),
        tile=(64, 64, 128),
    )  # fmt: skip
    assert made.path.name == "small_int8_sm89-sm120.engine" and made.graph.name == "small_int8.onnx"
    assert made.told["layers"] == [1, 2] and re.match(r"2 batches of \(2, 1, 448, 448\) and", made.told["calibration"])
    assert made.path.with_suffix(".json").is_file() and '"quantised"' in made.card.read_text()
