"""Graphs in 16 bits: what is rounded, what is not, and that the numbers stay near."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from models.engines.mixed import OPSET, count_types, mixed_precision, write_graph
from models.engines.onnx_engine import open_runtime
from models.fold import fold_batchnorm
from models.registry import get_model
from survey_io.errors import OptionError


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    return fold_batchnorm(get_model("light").build(stem=4, width=4, wide=8, dilations=[1]))


@pytest.fixture(scope="module")
def graphs(net):
    exact = onnx.load_from_string(write_graph(net, "f32"))
    return {precision: mixed_precision(exact, precision) for precision in ("f32", "fp16", "bf16")}


def run(model, folder, **given):
    path = folder / "graph.onnx"
    onnx.save(model, path)
    return open_runtime(str(path)).run(["raw"], given)[0]


def types(model):
    """Element type of every value of a graph."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*typed.graph.value_info, *typed.graph.input, *typed.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize(("precision", "kind"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_products_but_the_last_are_rounded_and_ends_are_not(graphs, precision, kind):
    model = graphs[precision]
    onnx.checker.check_model(model, full_check=True)
    products = sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)
    assert count_types(model) == {precision: products - 1, "f32": 1}
    found = types(model)
    assert {found[name] for name in ("snr", "beam", "raw")} == {TensorProto.FLOAT}
    for node in model.graph.node:
        if node.op_type == "Div":  # the compression of S/N
            assert found[node.output[0]] == TensorProto.FLOAT
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert [found[node.output[0]] for node in convolutions] == [kind] * (len(convolutions) - 1) + [TensorProto.FLOAT]


def test_float16_is_near_torch_and_bright_sources_stay_finite(net, graphs, tmp_path):
    rng = np.random.default_rng(0)
    snr = rng.normal(scale=4, size=(3, 1, 20, 28)).astype(np.float32)
    snr[0, 0, 7, 9] = 3e6
    beam = rng.normal(size=(3, 4)).astype(np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(snr), torch.from_numpy(beam)).numpy()
    difference = np.abs(run(graphs["fp16"], tmp_path, snr=snr, beam=beam) - expected).max() / np.abs(expected).max()
    assert 1e-7 < difference < 2e-3
    exact = run(graphs["f32"], tmp_path, snr=snr, beam=beam)
    assert np.abs(exact - expected).max() < 1e-5 * np.abs(expected).max()


def test_normalisations_and_means_keep_all_bits(tmp_path):
    class Normed(nn.Module):
        inputs = get_model("digits").build().inputs

        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 6, 3))
            self.out = nn.Linear(6, 3)

        def forward(self, image):
            return self.out(self.body(image).mean((2, 3)))

    model = onnx.load_from_string(write_graph(Normed().eval().requires_grad_(False), "fp16"))
    found = types(model)
    by_kind = {node.op_type: found[node.output[0]] for node in model.graph.node}
    assert by_kind["GroupNormalization"] == by_kind["ReduceMean"] == by_kind["Gemm"] == TensorProto.FLOAT
    assert by_kind["Conv"] == by_kind["Relu"] == TensorProto.FLOAT16


def test_equal_networks_give_equal_bytes_without_paths_of_this_machine(net, graphs):
    again = write_graph(net, "fp16")
    assert again == graphs["fp16"].SerializeToString(deterministic=True)
    assert str(Path(__file__).parents[2]).encode() not in again and b".py" not in again
    assert graphs["fp16"].opset_import[0].version == OPSET


def test_a_constant_of_both_precisions_is_kept_in_both(tmp_path):
    nodes = [
        helper.make_node("Mul", ["given", "weight"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weight"], ["a"]),
        helper.make_node("MatMul", ["a", "weight"], ["raw"]),
    ]
    square = numpy_helper.from_array(np.full((2, 2), 0.1, np.float32), "weight")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("given", "raw")]
    graph = helper.make_graph(nodes, "twice", ports[:1], ports[1:], [square])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    low = mixed_precision(model, "fp16")
    assert count_types(low) == {"fp16": 1, "f32": 1}
    assert {one.name for one in low.graph.initializer} == {"weight", "weight_fp16"}
    given = np.arange(4, dtype=np.float32).reshape(2, 2)
    np.testing.assert_allclose(run(low, tmp_path, given=given), run(model, tmp_path, given=given), rtol=2e-3)
    assert count_types(model) == {"f32": 2}


def test_what_cannot_be_done_is_said(graphs):
    with pytest.raises(OptionError, match="precision 'int3': expected one of f32, fp16, bf16"):
        mixed_precision(graphs["f32"], "int3")
    large = onnx.ModelProto()
    large.CopyFrom(graphs["f32"])
    weights = next(one for one in large.graph.initializer if one.name == "down.weight")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + 7e4, weights.name))
    with pytest.raises(OptionError, match=r"'down.weight' reach 7e\+04, beyond float16's 65504: use bf16 or f32"):
        mixed_precision(large, "fp16")
    assert count_types(mixed_precision(large, "bf16"))["bf16"] > 1
