"""Engines agree with torch, from several threads, in any shape; what they cannot do they say."""

import dataclasses
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from models.engines import base, graph_file
from models.engines.base import Engine, EngineSpec, available_engines, load_engine, resolve_engine
from models.engines.openvino_engine import write_openvino
from models.registry import get_model
from models.weights import Card, save_weights
from survey_io.errors import OptionError

SMALL = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SKYSIFT_CACHE", str(folder))
        yield folder / "graphs"


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(5)
    return get_model("light").build(width=16, wide=32).eval()


def batch(net, size, cells, seed):
    rng = np.random.default_rng(seed)
    shape = (size, 1, cells[0] * net.stride, cells[1] * net.stride)
    snr = rng.normal(scale=3.0, size=shape) + 200 * (rng.random(shape) > 0.999)
    return snr.astype(np.float32), rng.normal(size=(size, 4)).astype(np.float32)


def by_torch(net, snr, beam):
    with torch.inference_mode():
        return net(torch.from_numpy(snr), torch.from_numpy(beam)).numpy()


@pytest.mark.parametrize("name", available_engines())
def test_engine_agrees_with_torch_from_several_threads(net, name):
    inputs = [batch(net, 1 + n % 3, (3 + n % 5, 11 - 2 * (n % 4)), n) for n in range(8)]
    engine = load_engine(name, net, threads=2)
    assert isinstance(engine, Engine)
    assert (engine.name, engine.precision, engine.threads) == (name, "f32", 2)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda given: engine(*given), inputs))
    for given, came in zip(inputs, answers, strict=True):
        expected = by_torch(net, *given)
        assert came.dtype == np.float32 and came.shape == expected.shape
        assert np.abs(came - expected).max() <= 1e-4 * np.abs(expected).max()
    engine.close()


def test_any_number_of_shapes_and_beams_shares_a_few_graphs(net):
    engine = load_engine("openvino", net)
    for beam_seed in range(2):
        beam = np.random.default_rng(beam_seed).normal(size=(1, 4)).astype(np.float32)
        for n in [0, 1, 2, 3, 4] * 2 + [4] * 15 + [0]:
            snr, _ = batch(net, 1, (3 + n, 5), n)
            expected = by_torch(net, snr, beam)
            assert np.abs(engine(snr, beam) - expected).max() <= 1e-4 * np.abs(expected).max()
            assert len(engine._compiled) <= 3
    # A shape that stays gets a graph of its own in the end.
    assert ((1, 1, 7 * net.stride, 5 * net.stride), beam.tobytes(), None) in engine._compiled


@pytest.mark.parametrize("name", available_engines())
def test_an_answer_outlives_the_next_call(net, name):
    engine = load_engine(name, net)
    first = engine(*batch(net, 1, (4, 4), 0))
    before = first.copy()
    engine(*batch(net, 1, (4, 4), 1))
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("name", available_engines())
def test_interior_cells_do_not_depend_on_the_tile(net, name):
    halo = -(-net.receptive_field // 2 // net.stride)
    cells = 2 * halo + 6
    snr, beam = batch(net, 1, (cells + 5, cells + 3), 3)
    engine = load_engine(name, net)
    whole = engine(snr, beam)
    tile = engine(snr[:, :, 3 * net.stride :, 2 * net.stride : -net.stride], beam)
    inside = tile[:, :, halo:-halo, halo:-halo]
    core = whole[:, :, 3 + halo : -halo, 2 + halo : -halo - 1]
    assert inside.shape == core.shape and inside.size
    assert np.abs(inside - core).max() <= 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_bf16_is_near_and_is_not_f32(net, name):
    given = batch(net, 2, (9, 7), 2)
    try:
        engine = load_engine(name, net, precision="bf16")
    except OptionError as error:
        pytest.skip(str(error))
    expected = by_torch(net, *given)
    error = np.abs(engine(*given) - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.05
    exact = load_engine(name, net)(*given)
    assert np.abs(exact - expected).max() <= 1e-4 * np.abs(expected).max()


def test_auto_is_the_fastest_installed(monkeypatch):
    assert resolve_engine("auto") == "openvino"
    lacking = dataclasses.replace(base._backends["openvino"], requires=("library_of_nobody",))
    monkeypatch.setitem(base._backends, "openvino", lacking)
    assert resolve_engine("auto") == "onnx"
    assert resolve_engine("auto", precision="bf16") == "torch"
    with pytest.raises(OptionError, match=r"engine 'openvino' needs library_of_nobody, not installed here"):
        resolve_engine("openvino")


def test_module_is_left_as_it_was():
    net = get_model("light").build(**SMALL).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    load_engine("torch", net)
    assert net.training and all(weight.requires_grad for weight in net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("openvion", "f32", "unknown engine 'openvion'.*did you mean 'openvino'"),
        ("onnx", "bf16", "computes in f32, not bf16: use engine openvino or torch"),
        ("torch", "f16", "expected one of f32, bf16, fp16, int8, fp8; did you mean 'fp16'"),
        ("torch", "fp16", "'torch' computes in f32, bf16, not fp16"),
        ("auto", "int3", "expected one of f32, bf16, fp16, int8, fp8$"),
    ],
)
def test_what_cannot_be_done_is_said(net, engine, precision, message):
    with pytest.raises(OptionError, match=message):
        load_engine(engine, net, precision=precision)


def test_no_threads_is_refused(net):
    with pytest.raises(OptionError, match="at least 1 thread"):
        load_engine("torch", net, threads=0)


@pytest.mark.parametrize("name", available_engines())
@pytest.mark.parametrize(
    "shapes", [((1, 64, 64), (1, 4)), ((2, 1, 64, 64), (1, 4)), ((1, 3, 64, 64), (1, 4))]
)
def test_wrong_shapes_are_refused(net, name, shapes):
    engine = load_engine(name, net)
    with pytest.raises(ValueError, match="takes snr"):
        engine(*(np.zeros(shape, np.float32) for shape in shapes))


def test_graph_is_written_once_and_again_for_other_weights(cache):
    torch.manual_seed(0)
    net = get_model("light").build(**SMALL).eval()
    made = []

    def write(module, path):
        made.append(path)
        write_openvino(module, path)

    first = graph_file.cached_graph(net, ".xml", write)
    assert graph_file.cached_graph(net, ".xml", write) == first and len(made) == 1
    assert graph_file.cached_graph(net, ".xml", write, writer="next version") != first and len(made) == 2
    assert first.parent == cache and first.with_suffix(".bin").exists()
    with torch.no_grad():
        net.out.bias[0] += 1
    assert graph_file.cached_graph(net, ".xml", write) != first and len(made) == 3


def test_oldest_graphs_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSIFT_CACHE", str(tmp_path))
    net = torch.nn.Linear(1, 1)
    for number in range(graph_file._KEPT_GRAPHS + 3):
        with torch.no_grad():
            net.bias.fill_(number)
        graph_file.cached_graph(net, ".onnx", lambda _, path: path.write_text("graph"))
    assert len(list((tmp_path / "graphs").iterdir())) == graph_file._KEPT_GRAPHS


def test_cache_that_cannot_be_written_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SKYSIFT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    made = graph_file.cached_graph(torch.nn.Linear(1, 1), ".onnx", lambda _, path: path.write_text("graph"))
    assert made.read_text() == "graph" and made.parent.parent == tmp_path


@pytest.fixture
def spec(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "small.safetensors"
    save_weights(get_model("light").build(**SMALL), Card(model="light", options=SMALL), path)
    return EngineSpec(str(path), "openvino")


def test_spec_loads_once_per_process(spec):
    engine = spec.load()
    again = pickle.loads(pickle.dumps(spec))
    assert again.load() is engine
    assert len(pickle.dumps(spec)) < 500
    spec.close()
    assert again.load() is not engine
    again.close()


def test_spec_loads_in_another_process(spec, tmp_path):
    snr, beam = batch(spec_net := get_model("light").build(**SMALL), 1, (3, 5), 0)
    np.savez(tmp_path / "given.npz", snr=snr, beam=beam)
    (tmp_path / "spec.pickle").write_bytes(pickle.dumps(spec))
    code = (
        "import pickle, numpy as np\n"
        f"spec = pickle.load(open({str(tmp_path / 'spec.pickle')!r}, 'rb'))\n"
        f"given = np.load({str(tmp_path / 'given.npz')!r})\n"
        f"np.save({str(tmp_path / 'raw.npy')!r}, spec.load()(given['snr'], given['beam']))"
    )
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home)},
    )
    # OpenVINO left to itself writes a tracking identifier there and reports its use over the network.
    assert not (home / "intel").exists()
    came = np.load(tmp_path / "raw.npy")
    assert came.shape == (1, spec_net.head.channels, 3, 5)
    np.testing.assert_allclose(came, spec.load()(snr, beam), rtol=0, atol=1e-5 * np.abs(came).max())
    spec.close()
