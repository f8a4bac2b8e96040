"""Exports and the catalogue gate: what is refused, what is kept by force, and what the card says of it."""

from __future__ import annotations

import json

import pytest
import torch

from models import gates, samples
from models.engines.tensorrt_build import installed_libraries
from models.gates import gate_passed, read_gate
from models.quantised import find_graph, graph_hash
from models.registry import get_model
from models.weights import Card, save_weights
from pipeline import parity
from pipeline.exports import export_checked
from survey_io.errors import OptionError, OutputError, SkysiftError

needs_rtx = pytest.mark.skipif(
    "tensorrt_rtx" not in installed_libraries(), reason="tensorrt_rtx is not installed (Linux on x86-64)"
)
# Every residual block of light but the last, of ranges from four small fields: more than its catalogue bears.
INT8 = {
    "engine": "tensorrt", "precision": "int8", "targets": ["sm89"], "layers": range(1, 6), "batch": (1, 1, 1),
    "tile": (64, 64, 64),
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_sky(tmp_path, monkeypatch):
    """Some 180 rows, which are enough here, and records of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SKYSIFT_CACHE", raising=False)
    for name, value in {"SEED": 2_718_281, "SKIES": 1, "SKY_SIDE": 256, "SPEED_SECONDS": 0.05}.items():
        monkeypatch.setattr(parity, name, value)
    monkeypatch.setattr(samples, "_BATCHES", 2)
    monkeypatch.setitem(samples._FIELDS, 2, {"batch": 2, "size": 128})
    monkeypatch.setattr(gates, "LEAST_ROWS", 100)


@needs_rtx
def test_another_catalogue_is_refused(tmp_path):
    folder, lines = tmp_path / "out", []
    folder.mkdir()
    (folder / "light_int8_sm89.engine").write_bytes(b"an earlier one")
    with pytest.raises(SkysiftError, match=r"light in int8 changes .*: not written; take another precision, or --for"):
        export_checked("light", folder, **INT8, report=lines.append)
    assert [file.name for file in folder.iterdir()] == ["light_int8_sm89.engine"]
    assert (folder / "light_int8_sm89.engine").read_bytes() == b"an earlier one"
    assert find_graph("light", "tensorrt", "int8") is None and gate_passed("light", "tensorrt", "int8") is None
    assert lines[-1].startswith("light, tensorrt int8:")


@needs_rtx
def test_what_did_not_pass_is_kept_by_force_and_the_card_says_so(tmp_path):
    torch.manual_seed(0)
    options, lines = {"stem": 4, "width": 8, "wide": 8, "dilations": [1]}, []
    weights = str(tmp_path / "small.safetensors")
    save_weights(get_model("light").build(**options), Card(model="light", options=options, threshold=0.45), weights)
    path = export_checked(weights, tmp_path, **{**INT8, "layers": [1, 2]}, force=True, report=lines.append)
    assert path.name == "small_int8_sm89.engine" and path.stat().st_size > 10_000
    told = json.loads((tmp_path / "small_int8_card.json").read_text())["catalogue"]
    assert told["compared"] and told["forced"] and not told["passed"]
    rows = f"{told['rows']} rows ({told['lost']} lost, {told['gained']} gained)"
    assert lines[-1].startswith("kept by --force, though ") and rows in lines[-1]
    # A processor's speed says nothing about the engine.
    assert (told["engine"], told["precision"], told["speed"]) == ("tensorrt", "int8", {})
    gate = read_gate(weights, "tensorrt", "int8")
    assert gate is not None and not gate.passed and (gate.rows, gate.lost) == (told["rows"], told["lost"])
    assert gate.graph == graph_hash(weights, "tensorrt", "int8") == told["graph"] != ""


@needs_rtx
def test_what_cannot_be_compared_is_written_and_says_so(tmp_path):
    weights, lines = tmp_path / "digits.safetensors", []
    save_weights(get_model("digits").build(), Card(model="digits"), weights)
    export_checked(str(weights), tmp_path, targets=["sm89"], batch=(1, 1, 1), report=lines.append)
    assert len(lines) == 1 and lines[0].startswith("not compared with f32's catalogue: lesson 'images'")
    told = json.loads((tmp_path / "digits_fp16_card.json").read_text())["catalogue"]
    assert told == {"compared": False, "reason": lines[0].partition(": ")[2]}


def test_options_and_folder_are_checked_first(tmp_path):
    with pytest.raises(OptionError, match="sky: expected a share from 0 to 1 of the held-out sky, got 3"):
        export_checked("light", tmp_path, sky=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the export: File exists: .*file"):
        export_checked("light", tmp_path / "file")
