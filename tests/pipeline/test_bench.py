"""The benchmark times what it says, beside peaks of the same minutes; the same command on processors and GPUs."""

from __future__ import annotations

import json

import pytest
import torch

from models.engines.chain import Way
from models.registry import get_model
from models.speed import make_work
from models.weights import Card, save_weights
from pipeline import bench
from pipeline.bench import BenchOptions, choose_ways, run_bench
from survey_io.errors import OptionError

SMALL = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and torch with CUDA")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(get_model("light").build(**SMALL), Card(model="light", options=SMALL), path)
    return str(path)


def test_network_and_whole_way_are_timed_beside_the_peak(weights, tmp_path):
    options = BenchOptions(
        model=(weights,), engine="torch,openvino", precision="f32", device="cpu", size=64, threads=1, seconds=0.2,
        trace=tmp_path / "trace.json",
    )  # fmt: skip
    said: list[str] = []
    result = run_bench(options, say=said.append)
    assert [(row["engine"], row["precision"], row["device"]) for row in result["rows"]] == [
        ("torch", "f32", "cpu"), ("openvino", "f32", "cpu"),
    ]  # fmt: skip
    peak = result["peaks"]["cpu"]
    net = get_model("light").build(**SMALL)
    # A convolution of 6 x 6 on a grid of half the resolution, and so on, counted by hand for the first.
    work = make_work(net, get_model("light"), batch=1, side=64)
    assert work.macs > 3 * 4 * 36 * 32 * 32 and work.amount == pytest.approx(64 * 64 / 1e6)
    for row in result["rows"]:
        assert row["unit"] == "Mpix/s" and row["macs_per_item"] == pytest.approx(work.macs / 64**2)
        assert row["flops"] == pytest.approx(2 * row["macs_per_item"] * row["rate"] * 1e6)
        assert row["peak_share"] == pytest.approx(row["flops"] / peak["flops"]["f32"])
        assert row["copy_share"] == pytest.approx(row["bytes_per_second"] / peak["copy"])
        assert 0 < row["latency_ms"] <= row["latency_95_ms"] and row["calls"] >= 3
        assert row["rate"] >= row["rate_median"] > 0 and row["whole_rate"] > 0
    assert len({row["detections"] for row in result["rows"]}) == 1
    assert set(result["lanes"]) == {"read", "copy", "network", "decode"}
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {"processor", "cores", "memory_gib", "gpus", "load"} <= set(result["machine"])
    assert result["versions"]["torch"] == torch.__version__ and any("torch f32 on cpu" in line for line in said)
    for row in result["rows"]:
        # Told as soon as the model is done, in digits enough to compare.
        told = f"{row['rate']:.4g} Mpix/s alone, {row['whole_rate']:.4g} from the file to detections"
        assert sum(told in line and row["engine"] in line for line in said) == 1
    json.dumps(result, allow_nan=False)


def test_energy_is_that_of_a_call_where_a_counter_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ENERGY_SECONDS", 0.05)
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "max_energy_range_uj").write_text("1000000000")
    (zone / "energy_uj").write_text("5000000")
    monkeypatch.setattr(bench, "POWERCAP", tmp_path)
    used = [5_000_000]

    def call() -> None:
        used[0] += 250_000
        (zone / "energy_uj").write_text(str(used[0]))

    assert bench._joules_per_call(call, Way("torch", "f32", "cpu")) == pytest.approx(0.25)
    monkeypatch.setattr(bench, "POWERCAP", tmp_path / "nothing")
    assert bench._joules_per_call(call, Way("torch", "f32", "cpu")) is None


def test_cubes_spectra_and_classifiers_have_their_units(tmp_path):
    options = BenchOptions(
        model="light3d,lines,stellar", engine="torch,openvino", precision="f32", device="cpu", size=64, threads=1,
        seconds=0.1, batch=1,
    )  # fmt: skip
    rows = run_bench(options)["rows"]
    assert [row["unit"] for row in rows[::2]] == ["Mvoxel/s", "Mchannel/s", "spectra/s"] and len(rows) == 6
    assert all(row["whole_rate"] > 0 and row["macs_per_item"] > 100 for row in rows)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "torhc"}, "unknown engine 'torhc'.*did you mean 'torch'"),
        ({"engine": "onnx", "precision": "bf16"}, "computes in f32, not bf16"),
        ({"precision": "fp16", "device": "cpu"}, "no engine here computes in it"),
        ({"device": "gpu0"}, "device 'gpu0': expected auto, cpu"),
    ],
)
def test_what_cannot_be_timed_is_said(given, message):
    with pytest.raises(OptionError, match=message):
        choose_ways(BenchOptions(**given))


def test_a_model_without_a_network_is_refused():
    with pytest.raises(OptionError, match="has no network to time"):
        run_bench(BenchOptions(model="threshold", engine="torch", precision="f32", device="cpu", threads=1))


def test_ways_are_all_engines_and_precisions_of_the_device():
    ways = choose_ways(BenchOptions(device="cpu"))
    assert {Way("openvino", "f32", "cpu"), Way("onnx", "f32", "cpu"), Way("torch", "bf16", "cpu")} <= set(ways)
    assert all(way.device == "cpu" for way in ways)
    compiled = set(choose_ways(BenchOptions(device="cpu", compiled=True))) - set(ways)
    assert compiled == {Way("torch compiled", "f32", "cpu"), Way("torch compiled", "bf16", "cpu")}


@pytest.mark.gpu
@needs_gpu
def test_the_same_on_a_gpu(weights, tmp_path):
    options = BenchOptions(model=(weights,), device="cuda:0", size=512, seconds=2, trace=tmp_path / "trace.json")
    result = run_bench(options)
    assert {row["device"] for row in result["rows"]} == {"cuda:0"} and not any("refused" in r for r in result["rows"])
    peaks = result["peaks"]["cuda:0"]
    assert peaks["flops"]["fp16"] > 1e12 and peaks["copy"] > 1e10
    assert 0 < result["lanes"]["network"] <= 1
