"""Which engine is taken where: what a machine has decides, and the reason is told in a line."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.engines import base, choose, gain
from models.engines.base import EngineSpec
from models.engines.chain import Way
from models.engines.choose import choose_engine, find_devices
from models.engines.gain import measured_gain
from models.gates import Gate, keep_gate
from models.registry import get_model
from models.weights import Card, save_weights
from survey_io.errors import OptionError

# The other tests are kept from what was measured on this machine.
MEASURED = choose._passed
SMALL = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and torch with CUDA")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SKYSIFT_CACHE", str(folder))
        yield folder


@pytest.fixture
def gates(monkeypatch):
    """What was measured of precisions; by default nothing."""
    known: dict[tuple[str, str], bool] = {}
    monkeypatch.setattr(choose, "_passed", lambda model, engine, precision: known.get((engine, precision)))
    return known


@no_gpu
def test_without_a_gpu_the_fastest_of_the_processor_in_f32_and_then_the_others(gates):
    choice = choose_engine("light")
    assert choice.ways == tuple(Way(name, "f32", "cpu") for name in ("openvino", "onnx", "torch"))
    assert choice.devices == ("cpu",)
    assert choice.line.startswith("engine openvino (f32) on the processor: the fastest of the processor's; ")
    assert "shows no NVIDIA GPU" in choice.why or "for processors" in choice.why
    assert "\n" not in choice.line and len(choice.line) < 200


@no_gpu
def test_lower_precisions_are_for_networks_that_passed_on_processors_that_gain(gates, monkeypatch):
    speeds = {"bf16": 1.9}
    monkeypatch.setattr(gain, "measured_gain", lambda model, engine, precision: speeds[precision])
    gates["openvino", "bf16"] = True
    choice = choose_engine("light", device="cpu")
    assert choice.ways[0] == Way("openvino", "bf16", "cpu") and choice.ways[1] == Way("openvino", "f32", "cpu")
    assert "bf16 keeps the catalogue of light and is 1.9 times as fast as f32" in choice.why
    speeds["bf16"] = 0.8
    choice = choose_engine("light", device="cpu")
    assert choice.ways[0].precision == "f32" and "bf16 is 0.80 times as fast as f32 here" in choice.why
    gates["openvino", "bf16"] = False
    choice = choose_engine("light", device="cpu")
    assert choice.ways[0].precision == "f32" and "bf16 changes the catalogue of light too much" in choice.why


@no_gpu
def test_what_was_measured_of_a_network_decides(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "_passed", MEASURED)
    monkeypatch.setattr(gain, "measured_gain", lambda model, engine, precision: 2.0)
    torch.manual_seed(2)
    path = str(tmp_path / "small.safetensors")
    save_weights(get_model("light").build(**SMALL), Card(model="light", options=SMALL), path)
    assert choose_engine(path).ways[0].precision == "f32"
    same = Gate("openvino", "bf16", rows=1000, lost=1, gained=1, score="f1", score_f32=0.9, score_here=0.9,
                largest_difference=0.01)  # fmt: skip
    keep_gate(path, same)
    assert choose_engine(path).ways[0] == Way("openvino", "bf16", "cpu")
    keep_gate(path, replace(same, lost=20))
    assert choose_engine(path).ways[0].precision == "f32"


def test_what_is_asked_for_is_taken_and_not_replaced(gates):
    choice = choose_engine("light", engine="torch", device="cpu")
    assert choice.ways == (Way("torch", "f32", "cpu"),) and choice.why == "as asked for"
    assert choose_engine("light", engine="onnx", precision="f32", device="cpu").ways == (Way("onnx", "f32", "cpu"),)
    both = choose_engine("light", precision="bf16", device="cpu").ways
    assert both == (Way("openvino", "bf16", "cpu"), Way("torch", "bf16", "cpu"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device 'gpu': expected auto, cpu, cuda"),
        ({"device": "cuda:x"}, "device 'cuda:x': expected auto, cpu, cuda"),
        ({"device": "cuda:0,cpu"}, "expected auto, cpu, cuda"),
        ({"engine": "openvion"}, "unknown engine 'openvion'"),
        ({"precision": "fp16", "device": "cpu"}, "precision 'fp16': no engine here computes in it"),
        ({"engine": "torch", "precision": "fp16", "device": "cpu"}, "computes in f32, bf16, not fp16"),
    ],
)
def test_what_cannot_be_is_said(gates, options, message):
    with pytest.raises(OptionError, match=message):
        choose_engine("light", **options)


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:0,cuda:1"])
def test_a_gpu_that_is_not_there_is_refused(gates, device):
    with pytest.raises(OptionError, match=r"device '.*': (this machine shows no NVIDIA GPU|torch .*processors)"):
        choose_engine("light", device=device)


def test_several_gpus_are_found_and_listed(monkeypatch):
    # The search for cards alone: nothing runs on them here.
    monkeypatch.setattr(choose, "_why_no_gpu", lambda: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert find_devices("auto") == (("cuda:0", "cuda:1", "cuda:2"), "") == find_devices("cuda")
    assert find_devices("cuda:2,cuda:0,cuda:2")[0] == ("cuda:2", "cuda:0")
    assert find_devices("cpu")[0] == ()
    with pytest.raises(OptionError, match="this machine has 3 GPUs"):
        find_devices("cuda:3")


def test_gain_is_measured_once_and_kept(cache, tmp_path, monkeypatch):
    torch.manual_seed(1)
    path = tmp_path / "small.safetensors"
    save_weights(get_model("light").build(**SMALL), Card(model="light", options=SMALL), path)
    first = measured_gain(str(path), "torch", "bf16")
    assert 0.01 < first < 100
    (kept,) = (cache / "gains").glob("*.json")
    told = json.loads(kept.read_text())
    assert told["gain"] == round(first, 3) and "torch" in told["of"] and "bf16" in told["of"]
    monkeypatch.setattr(EngineSpec, "load_alone", lambda self: pytest.fail("measured again"))
    np.testing.assert_allclose(measured_gain(str(path), "torch", "bf16"), first, rtol=1e-2)


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_auto_takes_it_and_the_processor_after_it(gates):
    choice = choose_engine("light")
    assert choice.ways[0].on_gpu and choice.ways[0].engine in ("tensorrt", "torch")
    assert choice.ways[-1].device == "cpu" and choice.devices[0] == "cuda:0"
    assert choice.ways[0].precision == "f32"
    gates["torch", "fp16"] = gates["tensorrt", "fp16"] = True
    assert choose_engine("light").ways[0].precision == "fp16"
    assert base.home_device("torch") == "cpu"
