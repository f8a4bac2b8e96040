"""Whole runs on NVIDIA GPUs: the catalogue of the processor, also when the card has little memory; skipped without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.engines.base import EngineSpec, load_engine
from models.engines.chain import ChainEngine
from models.engines.choose import refused_on_gpu
from models.engines.replay import Replay
from models.registry import get_model
from models.signature import network_inputs
from pipeline.bench import BenchOptions, run_bench
from pipeline.detect import analyse
from pipeline.detect_cube import analyse_cube
from pipeline.options import DetectOptions
from survey_io import open_image
from survey_io.cube import open_cube
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.hi import HiModel, simulate_hi, write_hi
from survey_io.simulate.tables import write_simulation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and torch with CUDA"),
]
ENGINES = [name for name in ("torch", "tensorrt") if not refused_on_gpu(name)]


@pytest.fixture(scope="module")
def observation(tmp_path_factory):
    sim = simulate_continuum((900, 760), beam_pixels=(3.4, 2.6, 0.6), seed=5, model=SkyModel(density=0.012))
    sim.image[:21] = np.nan
    return open_image(write_simulation(sim, tmp_path_factory.mktemp("sky"))["image"])


@pytest.fixture(scope="module")
def reference(observation):
    return analyse(observation, DetectOptions(engine="torch", device="cpu", threshold=0.3)).table


def assert_same(table, reference, rtol) -> None:
    assert len(table) == len(reference) > 100
    for name in ("ra", "dec", "flux", "p_real"):
        np.testing.assert_allclose(table[name], reference[name], rtol=rtol, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", [{}, {"tile": 128, "batch": 4, "workers": 4}, {"tile": 200, "workers": 1}])
def test_the_catalogue_is_that_of_the_processor(observation, reference, engine, way):
    came = analyse(observation, DetectOptions(engine=engine, precision="f32", threshold=0.3, **way))
    assert_same(came.table, reference, 1e-3)
    assert list(came.manifest["model"]["pieces_by_engine"]) == [f"{engine} f32 on cuda:0"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_sixteen_bits_keep_nearly_all_rows(observation, reference, engine, precision):
    came = analyse(observation, DetectOptions(engine=engine, precision=precision, threshold=0.3)).table
    assert abs(len(came) - len(reference)) <= 0.03 * len(reference)


def test_auto_takes_the_gpu_and_says_so(observation, reference):
    told = analyse(observation, DetectOptions(threshold=0.3)).manifest["model"]
    assert told["engine"] in ENGINES and " on cuda:0" in told["why"] and "the fastest that runs here" in told["why"]


def test_a_cube_on_a_gpu_has_the_rows_of_the_processor(tmp_path):
    model = HiModel(shape=(96, 72, 64), density=60.0)
    cube = open_cube(write_hi(model, *simulate_hi(model, seed=3), tmp_path)["cube"])
    expected = analyse_cube(cube, DetectOptions(engine="torch", device="cpu")).table
    came = analyse_cube(cube, DetectOptions(engine="torch", device="cuda:0", precision="f32")).table
    assert len(came) == len(expected)
    np.testing.assert_allclose(came["ra"], expected["ra"], rtol=1e-6)


def test_a_graphs_answers_are_the_networks_and_outlive_the_next(observation):
    torch.manual_seed(0)
    net = get_model("light").build(width=16, wide=32).eval().cuda()
    replay = Replay(net, torch.device("cuda:0"))
    beam = torch.randn(2, 4, device="cuda")
    given = [torch.randn(2, 1, 64, 48, device="cuda") for _ in range(5)]
    with torch.inference_mode():
        answers = [replay(one, beam) for one in given]
        for one, answer in zip(given, answers, strict=True):
            torch.testing.assert_close(answer, net(one, beam), rtol=1e-3, atol=1e-4)
    assert len(replay._kept) == 1


def test_a_card_with_little_memory_gets_smaller_batches():
    torch.manual_seed(0)
    engine = ChainEngine(EngineSpec("light", "torch", device="cuda:0", others=(("torch", "f32", "cpu"),)))
    snr = np.random.default_rng(0).normal(size=(16, 1, 1024, 1024)).astype(np.float32)
    beam = np.ones((16, 4), np.float32)
    expected = np.concatenate([engine(snr[i : i + 1], beam[i : i + 1]) for i in range(16)])
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # A batch of 16 wants 1 GB for its widest layer alone.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(0) + 1.2e9) / total, 0)
    try:
        came = engine(snr, beam)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    assert engine.way.device == "cuda:0" and engine.largest < 16 and "out of memory" in engine.notes[0]
    np.testing.assert_allclose(came, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_copies_and_decoding_overlap_with_the_network(tmp_path):
    options = BenchOptions(model="light", engine="torch", precision="f32", device="cuda:0", size=2048, seconds=1,
                           trace=tmp_path / "trace.json")  # fmt: skip
    lanes = run_bench(options)["lanes"]
    # One after the other they could not sum up to more than the time.
    assert lanes["network"] > 0.3 and sum(lanes.values()) > 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_share_the_pieces(observation, reference):
    came = analyse(
        observation,
        DetectOptions(engine="torch", precision="f32", device="cuda", tile=128, workers=4, threshold=0.3),
    )
    assert_same(came.table, reference, 1e-3)
    assert len(came.manifest["model"]["pieces_by_engine"]) == torch.cuda.device_count()


def test_every_engine_of_the_gpu_agrees_with_the_processor():
    net = get_model("sdc1").build()
    rng = np.random.default_rng(0)
    given = rng.normal(size=(2, 1, 256, 192)).astype(np.float32), rng.normal(size=(2, 4)).astype(np.float32)
    given = given[: len(network_inputs(net))]
    expected = load_engine("torch", net)(*given)
    for name in ENGINES:
        came = load_engine(name, net, device="cuda:0")(*given)
        assert np.abs(came - expected).max() <= 1e-3 * np.abs(expected).max()
