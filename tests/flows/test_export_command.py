"""``skysift export``: the options of engines, and the files that they lead to."""

import json
from pathlib import Path

import onnx
import pytest
import torch

from flows.cli import main
from flows.commands.export import export as command
from models.detectors.light import LightDetector
from models.engines.tensorrt_build import installed_libraries
from models.weights import Card, save_weights
from pipeline import parity
from survey_io.errors import OptionError

OPTIONS = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}


def run_command(model, output, **options):
    """The command's function; what is not given is as on the command line."""
    unset = dict.fromkeys(("engine", "precision", "target", "batch", "tile", "sky", "data"))
    return command(str(model), output, "onnx", **{**unset, "force": False, **options})


@pytest.mark.skipif("tensorrt_rtx" not in installed_libraries(), reason="tensorrt_rtx is not installed")
def test_engine_its_graph_and_its_card(tmp_path, capsys):
    torch.manual_seed(0)
    weights = tmp_path / "small.safetensors"
    save_weights(LightDetector(**OPTIONS), Card(model="light", options=OPTIONS, threshold=0.3), weights)
    folder = tmp_path / "for_cards"
    run_command(weights, folder, engine="tensorrt", target="sm120,SM89", batch="1,2,4", tile="64", sky=0)
    path = folder / "small_fp16_sm89-sm120.engine"
    assert capsys.readouterr().out.strip() == str(path)
    names = ["small_fp16.onnx", "small_fp16_card.json", path.name, "small_fp16_sm89-sm120.json"]
    assert sorted(file.name for file in folder.iterdir()) == sorted(names)
    onnx.checker.check_model(onnx.load(folder / "small_fp16.onnx"))
    card = json.loads((folder / "small_fp16_card.json").read_text())
    assert card["model"] == "light" and card["threshold"] == 0.3 and "log_flux" in card["head"]["params"]
    assert 1e-7 < card["agreement_with_torch"] < 2e-3
    assert card["catalogue"] == {"compared": False, "reason": "not asked for (--sky 0)"}
    assert card["engine"]["file"] == path.name and card["engine"]["target"] == "sm89,sm120"
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["bytes"] == path.stat().st_size and told["profiles"][0]["shapes"][1][1:] == [[1, 4], [2, 4], [4, 4]]
    assert [one["name"] for one in told["inputs"]] == ["snr", "beam"]


@pytest.mark.skipif("tensorrt_rtx" not in installed_libraries(), reason="tensorrt_rtx is not installed")
def test_refusal_is_one_line_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parity, "SKY_SIDE", 256)
    monkeypatch.setattr(parity, "SPEED_SECONDS", 0.05)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    weights, folder = tmp_path / "small.safetensors", tmp_path / "out"
    save_weights(LightDetector(**OPTIONS), Card(model="light", options=OPTIONS, threshold=0.9), weights)
    with pytest.raises(SystemExit) as left:
        main(["export", str(weights), "--engine", "tensorrt", "--target", "sm89", "--sky", "0.1", "-o", str(folder)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skysift: error")]
    assert left.value.code == 2 and not folder.exists() and len(lines) == 1
    assert lines[0] == (
        f"skysift: error: {weights} in fp16 was compared on 0 rows only, expected at least 1000 to tell 0.5% by: not "
        "written; look at more sky (--sky 1 is all), or --force"
    )


def test_options_are_checked():
    with pytest.raises(OptionError, match="--precision, --target: of engines only, say --engine tensorrt or leave"):
        run_command("light", Path("."), precision="fp16", target="sm89")
    for text in ("1,2", "many", "1,2,3,4", "-1"):
        with pytest.raises(OptionError, match=f"--tile '{text}': expected one number, or"):
            run_command("light", Path("."), engine="tensorrt", tile=text)
