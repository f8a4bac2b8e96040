"""A network's outline is its own, follows weights and code, and spares torch once it is known."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models import outline
from models.engines.base import EngineSpec
from models.outline import known_graph, load_outline
from models.registry import get_model
from models.weights import Card, load_weights, save_weights

ROOT = Path(__file__).parents[2]
SMALL = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSIFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "small.safetensors"
    save_weights(get_model("light").build(**SMALL), Card(model="light", options=SMALL), path)
    return path


def test_outline_is_that_of_the_network_written_and_read(weights):
    module, card = load_weights(weights)
    for _ in range(2):
        made, beside = load_outline(weights)
        assert (made.stride, made.receptive_field, made.head) == (module.stride, module.receptive_field, module.head)
        assert beside == card


def test_other_weights_and_other_code_have_another_outline(weights, monkeypatch):
    _, card = load_outline(weights)
    first = outline._file(card)
    assert first.is_file()
    save_weights(get_model("light").build(**SMALL), Card(model="light", options=SMALL), weights)
    assert outline._file(load_outline(weights)[1]) != first
    monkeypatch.setattr(outline, "_code", lambda: "changed")
    assert not outline._file(card).exists()


def test_a_damaged_outline_is_made_again(weights):
    expected, card = load_outline(weights)
    outline._file(card).write_text('{"stride": 4}')
    assert load_outline(weights)[0] == expected


def test_a_known_graph_is_used_until_it_is_gone(weights):
    assert known_graph(weights) is None
    spec = EngineSpec(str(weights), "openvino")
    engine = spec.load()
    graph = known_graph(weights)
    assert graph == engine.current()[1].graph and graph.is_file()
    spec.close()
    snr = np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)
    beam = np.ones((1, 4), np.float32)
    code = (
        "import sys, numpy as np\n"
        "from models.engines.base import EngineSpec\n"
        f"engine = EngineSpec({str(weights)!r}, 'openvino').load()\n"
        "rng = np.random.default_rng(0)\n"
        "raw = engine(rng.normal(size=(1, 1, 32, 32)).astype(np.float32), np.ones((1, 4), np.float32))\n"
        "print(float(raw.sum()), 'torch' in sys.modules)"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=dict(os.environ)
    )
    total, torch_loaded = made.stdout.split()
    assert torch_loaded == "False"
    assert float(total) == pytest.approx(float(spec.load()(snr, beam).sum()), rel=1e-5)
    spec.close()
    graph.unlink()
    assert known_graph(weights) is None
    assert spec.load().current()[1].graph.is_file()
    spec.close()
