"""What an engine does when memory runs out or its device is lost: no answer is lost, and what happened is told."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from models.engines import base, chain
from models.engines.base import EngineSpec, load_engine
from models.engines.chain import ChainEngine, Way
from models.engines.failures import is_device_failure, is_out_of_memory
from models.engines.torch_engine import TorchEngine
from models.registry import get_model
from models.weights import Card, save_weights
from survey_io.errors import OptionError, SkysiftError

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(get_model("light").build(**SMALL), Card(model="light", options=SMALL), path)
    return str(path)


def given(batch: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, 1, 32, 24)).astype(np.float32), rng.normal(size=(batch, 4)).astype(np.float32)


def assert_near(came: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the order of sums, which depends on the batch's size."""
    np.testing.assert_allclose(came, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.fixture
def troubled(monkeypatch):
    """Registers engines that compute with torch until they fail; their calls' batches by name."""
    calls: dict[str, list[int]] = {}

    def register(name: str, fail) -> list[int]:
        calls[name] = []

        class Troubled(TorchEngine):
            def __call__(self, *arrays):
                calls[name].append(len(arrays[0]))
                fail(calls[name])
                return super().__call__(*arrays)

        def build(module, *, precision, threads, device):
            # "cuda:0" by name only: what fails is real, what computes is the processor.
            return Troubled(module, precision=precision, threads=threads)

        backend = base._Backend(name, (), ("f32",), str, build, ("f32", "fp16"))
        monkeypatch.setitem(base._backends, name, backend)
        return calls[name]

    return register


def out_of_memory_above(count: int):
    def fail(batches: list[int]) -> None:
        if batches[-1] > count:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return fail


def test_a_batch_that_does_not_fit_is_halved_and_the_size_remembered(weights, troubled):
    calls = troubled("tight", out_of_memory_above(2))
    engine = ChainEngine(EngineSpec(weights, "tight"))
    expected = EngineSpec(weights, "torch").load()(*given(7))
    assert_near(engine(*given(7)), expected)
    assert calls == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    calls.clear()
    assert_near(engine(*given(7)), expected)
    assert calls == [1] * 7
    assert len(engine.notes) == 2 and "tight f32 on cpu: out of memory with a batch of 7, halved" in engine.notes[0]


def test_when_one_tile_does_not_fit_the_next_engine_goes_on(weights, troubled):
    first = troubled("tight", out_of_memory_above(0))
    spec = EngineSpec(weights, "tight", device="cuda:0", precision="fp16", others=(("torch", "f32", "cpu"),))
    engine = ChainEngine(spec)
    assert engine.way == Way("tight", "fp16", "cuda:0") and engine.way.on_gpu
    assert_near(engine(*given(4)), EngineSpec(weights, "torch").load()(*given(4)))
    assert first == [4, 2, 1] and engine.way == Way("torch", "f32", "cpu")
    assert "out of memory with one tile" in engine.notes[-1] and "going on with torch f32 on cpu" in engine.notes[-1]


def test_a_lost_gpu_gives_way_in_all_threads_at_once(weights, troubled):
    def fail(batches: list[int]) -> None:
        if len(batches) > 5:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    calls = troubled("lost", fail)
    engine = ChainEngine(EngineSpec(weights, "lost", device="cuda:0", others=(("torch", "f32", "cpu"),)))
    reference = EngineSpec(weights, "torch").load()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda seed: engine(*given(2, seed)), range(24)))
    for seed, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, reference(*given(2, seed)))
    assert 6 <= len(calls) <= 9
    assert len(engine.notes) == 1 and "illegal memory access" in engine.notes[0]


def test_an_engine_that_cannot_be_loaded_gives_way(weights, monkeypatch):
    def build(module, *, precision, threads, device):
        raise OptionError("engine 'absent' does not load its plan")

    monkeypatch.setitem(base._backends, "absent", base._Backend("absent", (), (), str, build, ("f32",)))
    engine = ChainEngine(EngineSpec(weights, "absent", device="cuda:0", others=(("torch", "f32", "cpu"),)))
    assert engine.name == "torch" and "does not load its plan" in engine.notes[0]
    with pytest.raises(OptionError, match="does not load its plan"):
        ChainEngine(EngineSpec(weights, "absent", device="cuda:0"))


def test_the_last_engine_says_what_to_do(weights, troubled):
    troubled("tight", out_of_memory_above(0))
    with pytest.raises(SkysiftError, match=r"tight f32 on cpu: out of memory with one tile .*use a smaller --tile"):
        ChainEngine(EngineSpec(weights, "tight"))(*given(2))


def test_a_wrong_call_is_an_error_at_once(weights, troubled):
    calls = troubled("well", lambda _: None)
    engine = ChainEngine(EngineSpec(weights, "well", device="cuda:0", others=(("torch", "f32", "cpu"),)))
    with pytest.raises(ValueError, match="takes snr"):
        engine(np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, 4), np.float32))
    assert calls == [2] and engine.name == "well"


@pytest.mark.parametrize(
    ("error", "memory", "device"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True, True),
        (MemoryError(), True, False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True, False),
        (RuntimeError("Exception from src/plugins: std::bad_alloc"), True, False),
        (RuntimeError("could not create a primitive"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (SkysiftError("TensorRT could not run a batch of shape (1, 2)"), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (ValueError("out of memory"), False, False),
    ],
)
def test_kinds_of_failure(error, memory, device):
    assert (is_out_of_memory(error), is_device_failure(error)) == (memory, device)


LIMITED = """
import resource, sys
import numpy as np
from models.engines.base import EngineSpec
from models.engines.chain import ChainEngine

weights = sys.argv[1]
chain = ChainEngine(EngineSpec(weights, "torch"))
rng = np.random.default_rng(0)
snr, beam = rng.normal(size=(32, 1, 128, 128)).astype(np.float32), np.ones((32, 4), np.float32)
expected = np.concatenate([chain(snr[i : i + 1], beam[i : i + 1]) for i in range(32)])
assert not chain.notes
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20, resource.RLIM_INFINITY))
came = chain(snr, beam)
assert np.abs(came - expected).max() <= 1e-5 * np.abs(expected).max()
print(len(chain.notes), chain.largest, chain.way, chain.notes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit of memory that allocations meet is Linux's")
def test_a_real_limit_of_memory_is_met_by_smaller_batches(tmp_path):
    # 160 channels at half the resolution: 84 MB of a batch of 32, whose answers take 8 MB.
    options, weights = {**SMALL, "stem": 160}, str(tmp_path / "wide.safetensors")
    save_weights(get_model("light").build(**options), Card(model="light", options=options), weights)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, weights], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    notes, largest, way, _ = done.stdout.split(" ", 3)
    assert int(notes) >= 1 and 1 <= int(largest) < 32 and way == "torch", done.stdout
    assert "out of memory with a batch of 32, halved" in done.stdout


def test_loaded_spec_makes_do_with_less(weights):
    spec = EngineSpec(weights, "torch")
    assert isinstance(spec.load(), chain.ChainEngine)
    assert isinstance(spec.load(), base.Engine)
    np.testing.assert_array_equal(spec.load()(*given(2)), load_engine("torch", _module(weights))(*given(2)))
    spec.close()


def _module(weights):
    from models.weights import load_weights

    return load_weights(weights)[0]
