"""Networks in 16 bits answer nearly as in float32, for every registered one, and their costly middle is 16 bits."""

import numpy as np
import pytest
import torch

from models.engines.base import load_engine
from models.engines.lowered import DTYPES, lowered
from models.fold import fold_batchnorm
from models.registry import get_model, list_models
from models.signature import example_input, random_input

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and torch with CUDA")
NETWORKS = [name for name in list_models() if get_model(name).has_weights]
# The largest are the slowest and have the layers of the others.
SLOW = {
    "darknet19", "voc-darknet19", "coco-darknet19", "photographs", "galaxy", "galaxy-votes", "voc-cutouts-background",
}  # fmt: skip
# Of the largest value; float16 keeps 11 bits and bfloat16 8.
TOLERANCES = {"bf16": 0.1, "fp16": 1e-2}


def shifted(name):
    """A network whose weights are not those of the beginning, where many are 0."""
    torch.manual_seed(3)
    net = get_model(name).build()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight += 0.02 * torch.randn_like(weight)
    return net.eval()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in SLOW])
def test_bf16_is_near_f32_on_the_processor(name):
    net = shifted(name)
    given = random_input(net, batch=2, cells=4, seed=1)
    expected = load_engine("torch", net)(*given)
    came = load_engine("torch", net, precision="bf16")(*given)
    assert came.dtype == np.float32 and came.shape == expected.shape
    assert 0 < np.abs(came - expected).max() <= TOLERANCES["bf16"] * np.abs(expected).max()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["f32", "bf16", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_on_a_gpu_is_near_f32_on_the_processor(name, precision):
    net = shifted(name)
    reference = load_engine("torch", net)
    engine = load_engine("torch", net, precision=precision, device="cuda:0")
    # The second and later calls of a shape are replays of a graph; another shape comes between.
    for seed, cells in enumerate((4, 4, 5, 4, 4)):
        given = random_input(net, batch=2, cells=cells, seed=seed)
        expected = reference(*given)
        error = np.abs(engine(*given) - expected).max() / np.abs(expected).max()
        assert error <= {"f32": 1e-4, **TOLERANCES}[precision]


@pytest.mark.parametrize("precision", list(DTYPES))
def test_what_computes_in_which_precision(precision):
    net = lowered(fold_batchnorm(shifted("light")), precision)
    dtype = DTYPES[precision]
    assert net.blocks[0].first.weight.dtype == net.blocks[0].gain.dtype == net.stem.weight.dtype == dtype
    assert net.out.weight.dtype == torch.float32
    seen = {}
    for name in ("stem", "blocks.1.second", "out"):
        net.get_submodule(name).register_forward_hook(
            lambda _, __, answer, name=name: seen.update({name: answer.dtype})
        )
    with torch.inference_mode():
        assert net(*example_input(net)).dtype == torch.float32
    assert seen == {"stem": dtype, "blocks.1.second": dtype, "out": torch.float32}


def test_an_input_beyond_float16_is_compressed_before_it_is_cast():
    net = lowered(fold_batchnorm(shifted("light")), "fp16")
    snr, beam = example_input(net)
    with torch.inference_mode():
        assert torch.isfinite(net(snr + 1e6, beam)).all()
