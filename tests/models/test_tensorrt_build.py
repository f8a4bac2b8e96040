"""Real engines of every registered network, built here without a GPU; what cannot be built is said in one line."""

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from models.engines.base import available_engines, resolve_engine
from models.engines.mixed import OPSET, mixed_precision, write_graph
from models.engines.onnx_engine import open_runtime
from models.engines.profile import Profile, make_profile
from models.engines.tensorrt_build import (
    build,
    check_targets,
    import_library,
    installed_libraries,
    make_logger,
    supported_targets,
)
from models.engines.tensorrt_engine import has_gpu
from models.fold import fold_batchnorm
from models.registry import get_model, list_models
from models.signature import network_inputs, random_input
from survey_io.errors import OptionError, SkysiftError

ROOT = Path(__file__).parents[2]
NETWORKS = [name for name in list_models() if get_model(name).has_weights]
TARGETS = ("sm89", "sm120")
# Shapes decide nothing about what an engine takes, and small ones are built faster.
BATCH, SIDES = (1, 2, 4), (32, 64, 128)


@pytest.fixture(scope="module")
def trt():
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed (Linux on x86-64: pip install skysift[tensorrt-rtx])")
    return import_library("tensorrt_rtx")


@pytest.fixture(scope="module")
def light():
    torch.manual_seed(0)
    return fold_batchnorm(get_model("light").build(stem=4, width=4, wide=8, dilations=[1]))


@pytest.fixture(scope="module")
def graph(light):
    return write_graph(light, "bf16")


@pytest.fixture
def profile(light):
    return make_profile(light, batch=BATCH, sides=SIDES)


def build_network(name):
    """A registered network; one with a factor of its filters takes a quarter of them: the same layers, faster."""
    net = get_model(name).build()
    return fold_batchnorm(get_model(name).build(widths=0.25) if net.options.get("widths") == 1.0 else net)


def output_shape(net):
    if hasattr(net, "head"):
        return [-1, net.head.channels, *[-1] * net.head.ndim]
    return [-1, net.answers.outputs]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_builds_in_16_bits_for_two_cards(trt, name, tmp_path):
    torch.manual_seed(0)
    net = build_network(name)
    exact = onnx.load_from_string(write_graph(net, "f32"))
    profile = make_profile(net, batch=BATCH, sides=SIDES)
    given = random_input(net, batch=2, cells=2)
    with torch.inference_mode():
        expected = net(*map(torch.from_numpy, given)).numpy()
    for precision in ("fp16", "bf16"):
        lowered = mixed_precision(exact, precision).SerializeToString(deterministic=True)
        if precision == "fp16":
            # The very graph on the processor; its runtime does not convolve bfloat16.
            (tmp_path / "graph.onnx").write_bytes(lowered)
            named = {one.name: array for one, array in zip(network_inputs(net), given, strict=True)}
            came = open_runtime(str(tmp_path / "graph.onnx")).run(["raw"], named)[0]
            assert np.abs(came - expected).max() < 5e-3 * np.abs(expected).max()
        plan = build(trt, lowered, [profile], targets=TARGETS)
        assert len(plan.data) > 1e5
        assert plan.inputs == [
            {"name": one.name, "type": "float32", "shape": [-1, *(-1 if isinstance(n, str) else n for n in one.shape)]}
            for one in network_inputs(net)
        ]
        assert plan.outputs == [{"name": "raw", "type": "float32", "shape": output_shape(net)}]


def test_f32_one_card_and_two_profiles_build(trt, light, graph, profile):
    large = make_profile(light, batch=(8, 8, 8), sides=(256, 256, 512))
    assert build(trt, write_graph(light, "f32"), [profile], targets=["sm86"]).data
    two, one = (build(trt, graph, profiles, targets=["sm89"]) for profiles in ([profile, large], [profile]))
    assert two.inputs == one.inputs and two.timing == b"" and two.data != one.data
    # Without a target: every card that the library knows, or nearly.
    assert build(trt, graph, [profile]).data


def test_equal_arguments_give_equal_plans(trt, light, graph, profile):
    def content(graph, order=TARGETS):
        # The library numbers its variables over the life of a process, in no fixed order: the rest is compared.
        data = re.sub(rb"\d+", b"", build(trt, graph, [profile], targets=order).data)
        return Counter(re.findall(rb"[^\x00]{12,}", data))

    first, second = content(graph), content(graph, TARGETS[::-1])
    torch.manual_seed(1)
    other = content(write_graph(fold_batchnorm(get_model("light").build(**light.options)), "bf16"))
    assert (first - second).total() < 0.1 * first.total() < 0.2 * first.total() < (first - other).total()


def test_profile_follows_the_network(light):
    profile = make_profile(light, batch=(1, 2, 3), sides=(30, 61, 100))
    assert profile.shapes == (
        ("snr", (1, 1, 32, 32), (2, 1, 64, 64), (3, 1, 100, 100)),
        ("beam", (1, 4), (2, 4), (3, 4)),
    )
    assert profile.holds({"snr": (3, 1, 32, 100), "beam": (3, 4)})
    wide = {"snr": (1, 1, 16, 400), "beam": (1, 4)}
    assert not profile.holds(wide)
    assert profile.grown(wide).holds(wide) and profile.grown(wide).holds({"snr": (3, 1, 100, 100), "beam": (3, 4)})
    assert make_profile(get_model("light3d").build()).shapes[0][2] == (2, 1, 64, 64, 64)
    assert make_profile(get_model("stellar").build()).shapes == (
        ("spectrum", (1, 2, 3753), (64, 2, 3753), (256, 2, 3753)),
    )


def test_bad_profiles_are_refused(trt, light, graph, profile):
    with pytest.raises(OptionError, match="profile of input 'snr': .*grow.* got 8x1x32x32 2x1x64x64"):
        make_profile(light, batch=(8, 2, 4), sides=SIDES)
    with pytest.raises(OptionError, match="at least 1"):
        make_profile(light, batch=(0, 2, 4), sides=SIDES)
    with pytest.raises(OptionError, match="at least one profile"):
        build(trt, graph, [])
    for wrong in (profile.shapes[:1], (("snr", *[(1, 3, 32, 32)] * 3), profile.shapes[1])):
        with pytest.raises(OptionError, match="do not fit the graph's inputs"):
            build(trt, graph, [Profile(wrong)])
    # Not a multiple of the stride: the maps of two layers do not meet.
    assert make_profile(light, sides=(33, 33, 33)).shapes[0][1] == (1, 1, 36, 36)


def test_targets_that_are_not_built_for_are_refused(trt, graph, profile):
    assert {"sm89", "sm120"} <= set(supported_targets(trt))
    assert check_targets(trt, ["sm120", "sm89", "sm120"]) == ("sm89", "sm120")
    with pytest.raises(OptionError, match=r"target 'sm90': tensorrt_rtx .* builds for .*sm89.*; build for data-centre"):
        build(trt, graph, [profile], targets=["sm89", "sm90"])
    with pytest.raises(OptionError, match="target 'ada': tensorrt_rtx"):
        build(trt, graph, [profile], targets=["ada"])
    with pytest.raises(SkysiftError, match="could not build the plan: .*sm75.*b16") as caught:
        build(trt, graph, [profile], targets=["sm75"])
    assert "\n" not in str(caught.value)


def test_graphs_that_are_not_taken_are_refused(trt, graph, profile):
    with pytest.raises(SkysiftError, match="does not take the graph: .*[Pp]arse"):
        build(trt, graph[: len(graph) // 2], [profile])
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("given", "raw")]
    node = helper.make_node("Bernoulli", ["given"], ["raw"], name="throw")
    made = helper.make_model(
        helper.make_graph([node], "dice", ports[:1], ports[1:]), opset_imports=[helper.make_opsetid("", OPSET)]
    )
    with pytest.raises(SkysiftError, match=r"does not take the graph: operator Bernoulli \(throw\)") as caught:
        build(trt, made.SerializeToString(), [profile])
    assert "\n" not in str(caught.value)


def test_truncated_plan_is_not_loaded(trt, graph, profile):
    plan = build(trt, graph, [profile], targets=TARGETS).data
    log = make_logger(trt)
    runtime = trt.Runtime(log)
    assert runtime.deserialize_cuda_engine(plan[: len(plan) // 2]) is None
    assert runtime.deserialize_cuda_engine(b"") is None
    assert log.worst() != "it gave no reason"


@pytest.mark.skipif("tensorrt" in installed_libraries(), reason="tensorrt is installed here")
def test_missing_package_is_one_line_that_says_what_to_install():
    with pytest.raises(OptionError, match=r"need the Python package tensorrt, .*pip install skysift\[tensorrt\], or"):
        import_library("tensorrt")
    with pytest.raises(OptionError, match="TensorRT library 'trt': expected one of tensorrt, tensorrt_rtx"):
        import_library("trt")


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_engine_is_not_offered_without_a_gpu():
    assert "tensorrt" not in available_engines()
    wanted = "needs an NVIDIA GPU, and this machine shows none, or use" if installed_libraries() else "pip install"
    with pytest.raises(OptionError, match=f"engine 'tensorrt' .*{wanted}"):
        resolve_engine("tensorrt", precision="fp16")
    with pytest.raises(OptionError, match="precision 'fp16': no engine here computes in it; processors compute in f32"):
        resolve_engine("auto", precision="fp16")


def test_engines_are_listed_without_their_libraries():
    code = (
        "import sys; from models.engines.base import available_engines; available_engines()\n"
        "heavy = {'torch', 'tensorrt', 'tensorrt_rtx', 'onnx', 'openvino'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
