"""TensorRT engines on a card answer as torch does; without a card these tests are skipped."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from models.engines.base import Engine, load_engine
from models.engines.choose import refused_on_gpu
from models.engines.plan_file import SUFFIX
from models.registry import get_model
from models.signature import random_input

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        bool(refused_on_gpu("tensorrt")), reason="needs an NVIDIA GPU, torch with CUDA, and a TensorRT library for it"
    ),
]
TOLERANCES = {"f32": 1e-4, "fp16": 1e-2, "bf16": 1e-1}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SKYSIFT_CACHE", str(folder))
        yield folder / "graphs"


@pytest.mark.parametrize("precision", list(TOLERANCES))
@pytest.mark.parametrize("name", ["light", "sdc1", "light3d", "lines", "stellar", "galaxy"])
def test_engine_agrees_with_torch_from_several_threads(name, precision):
    torch.manual_seed(0)
    net = get_model(name).build()
    reference, engine = load_engine("torch", net), load_engine("tensorrt", net, precision=precision)
    assert isinstance(engine, Engine) and (engine.name, engine.precision) == ("tensorrt", precision)
    given = [random_input(net, batch=1 + n, cells=16 + n, seed=n) for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda arrays: engine(*arrays), given))
    for arrays, came in zip(given, answers, strict=True):
        expected = reference(*arrays)
        assert came.dtype == np.float32 and came.shape == expected.shape
        assert np.abs(came - expected).max() <= TOLERANCES[precision] * np.abs(expected).max()
    engine.close()


def test_shape_beyond_the_profile_is_built_for(cache):
    net = get_model("light").build(stem=4, width=4, wide=8, dilations=[1])
    engine = load_engine("tensorrt", net, precision="fp16")
    before = len(list(cache.glob(f"*{SUFFIX}")))
    given = random_input(net, batch=20, cells=4, seed=1)
    expected = load_engine("torch", net)(*given)
    assert np.abs(engine(*given) - expected).max() <= 1e-2 * np.abs(expected).max()
    assert len(list(cache.glob(f"*{SUFFIX}"))) == before + 1


def test_truncated_engine_is_built_again(cache):
    net = get_model("light").build(stem=4, width=4, wide=12, dilations=[1])
    given = random_input(net, batch=2, cells=20, seed=1)
    first = load_engine("tensorrt", net, precision="fp16")(*given)
    newest = max(cache.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime)
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    np.testing.assert_allclose(load_engine("tensorrt", net, precision="fp16")(*given), first, rtol=0, atol=1e-2)
    assert len(newest.read_bytes()) > len(whole) // 2
