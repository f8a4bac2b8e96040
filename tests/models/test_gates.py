"""What a precision does to a catalogue: the record is kept by weights, and says no when it is of others."""

import json
from dataclasses import replace

import pytest
import torch

from models import gates
from models.gates import Gate, gate_passed, gate_warning, keep_gate, read_gate
from models.quantised import find_graph, keep_graph, require_graph, tried_graph
from models.registry import get_model
from models.weights import Card, save_weights
from survey_io.errors import OptionError

SMALL = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}
GOOD = Gate("openvino", "bf16", 4000, 6, 8, "sdc1", 1000.0, 999.0, 0.01)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSIFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "small.safetensors"
    torch.manual_seed(0)
    save_weights(get_model("light").build(**SMALL), Card(model="light", options=SMALL), path)
    return str(path)


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "made.xml"
    path.write_text("<net/>")
    path.with_suffix(".bin").write_bytes(b"weights")
    return path


def test_rows_and_score_decide_together():
    assert GOOD.passed and GOOD.changed_rows == pytest.approx(0.0035) and GOOD.score_change == pytest.approx(-0.001)
    assert not replace(GOOD, lost=13).passed
    assert not replace(GOOD, score_here=994.0).passed and not replace(GOOD, score_here=1006.0).passed
    few = replace(GOOD, rows=900, lost=0, gained=0)
    assert not few.passed and "compared on 900 rows only, expected at least 1000" in few.fault
    assert GOOD.fault == "" and "changes 0.53% of 4000 rows (13 lost" in replace(GOOD, lost=13).fault
    assert "0.35% of 4000 rows (6 lost, 8 gained) and -0.10% of the sdc1 score" in GOOD.line


def test_record_is_of_these_weights(weights, tmp_path):
    assert gate_passed(weights, "openvino", "f32") is True
    assert gate_passed(weights, "openvino", "bf16") is None
    assert "never compared with f32: skysift export" in gate_warning(weights, "openvino", "bf16")
    keep_gate(weights, GOOD)
    keep_gate(weights, replace(GOOD, engine="torch", lost=60))
    assert read_gate(weights, "openvino", "bf16") == GOOD
    assert gate_passed(weights, "openvino", "bf16") is True and gate_warning(weights, "openvino", "bf16") == ""
    assert gate_passed(weights, "torch", "bf16") is False
    assert "bf16 of " in (line := gate_warning(weights, "torch", "bf16")) and "1.70% of 4000 rows" in line
    torch.manual_seed(1)
    save_weights(get_model("light").build(**SMALL), Card(model="light", options=SMALL), weights)
    assert gate_passed(weights, "openvino", "bf16") is None


def test_record_of_this_machine_comes_before_the_shipped(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(gates, "WEIGHTS_FOLDER", tmp_path / "shipped")
    path = keep_gate(weights, replace(GOOD, lost=60), shipped=True)
    assert path == tmp_path / "shipped" / "gates" / "small.json" and json.loads(path.read_text())["weights"]
    assert gate_passed(weights, "openvino", "bf16") is False
    keep_gate(weights, GOOD)
    assert gate_passed(weights, "openvino", "bf16") is True


def test_gate_of_a_quantised_graph_is_of_that_graph(weights, graph, tmp_path):
    with pytest.raises(OptionError, match="'skysift export .*small.safetensors --engine openvino --precision int8'"):
        require_graph(weights, "openvino", "int8")
    path = keep_graph(weights, "openvino", "int8", graph, {"layers": [1]})
    assert path.read_text() == "<net/>" and require_graph(weights, "openvino", "int8") == path
    from models.quantised import graph_hash

    keep_gate(weights, replace(GOOD, precision="int8", graph=graph_hash(weights, "openvino", "int8")))
    assert gate_passed(weights, "openvino", "int8") is True
    graph.write_text("<other/>")
    with tried_graph(weights, "openvino", "int8", graph):
        assert find_graph(weights, "openvino", "int8") == graph and gate_passed(weights, "openvino", "int8") is None
    keep_graph(weights, "openvino", "int8", graph, {"layers": [2]})
    assert gate_passed(weights, "openvino", "int8") is None
    path.with_suffix(".bin").unlink()
    assert find_graph(weights, "openvino", "int8") is None


def test_graph_of_other_weights_is_not_found(weights, graph):
    path = keep_graph(weights, "openvino", "int8", graph, {})
    told = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**told, "weights": "0" * 64}))
    assert find_graph(weights, "openvino", "int8") is None
