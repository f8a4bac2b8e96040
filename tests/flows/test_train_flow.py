"""``skysift train`` and the flow run the same stages; a kill in between is gone on from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """# Two steps of a small network.
name: lines
output: out
steps: 2
batch: 1
channels: 256
precision: f32
loaders: 0
pool: 8
save_every: 1
calibration_skies: 0
model_options: {stem: 8, width: 8, wide: 8, dilations: [[1, 2]]}
retrain: {judge_options: {spectra: 6}, draws: 20, export: false}
"""


def skysift(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    ours = ("SKYSIFT_", "PREFECT_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    paths = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(cwd / ".prefect"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        env=inherited | paths | {"SKYSIFT_MODELS": str(cwd / "store")}, cwd=cwd,
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_recipes_are_listed(tmp_path: Path) -> None:
    done = skysift("train", "--list", cwd=tmp_path)
    assert done.returncode == 0
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["light"].startswith("The light detector of images")


@pytest.mark.slow
def test_the_command_trains_registers_and_promotes(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    done = skysift("train", "tiny.yaml", "--set", "seed=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "out/lines.safetensors"
    assert "tiny@1 is promoted: nothing was in use" in done.stdout
    again = skysift("train", "tiny.yaml", "--set", "seed=3", "--resume", cwd=tmp_path)
    assert again.returncode == 0 and "fit: done before" in again.stdout
    listed = skysift("models", cwd=tmp_path).stdout
    assert "\n* tiny@1 " in listed and "f1 " in listed
    shown = skysift("models", "show", "tiny", cwd=tmp_path).stdout
    assert "command: skysift train tiny.yaml --set seed=3\n" in shown
    export = skysift("export", "tiny@1", "-o", "graph.onnx", cwd=tmp_path)
    assert export.returncode == 0 and (tmp_path / "graph.onnx").is_file()


@pytest.mark.flow
@pytest.mark.slow
def test_the_flow_has_a_task_for_each_stage_and_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    done = skysift("train", "tiny.yaml", "--flow", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "out/lines.safetensors"
    for stage in ("check data", "prepare", "fit", "publish", "evaluate", "compare", "export", "register", "promote"):
        assert f"Task run '{stage}' - Finished in state Completed()" in done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["decision"]["promoted"] and report["registered"]["label"] == "tiny@1"
    failed = skysift("train", "tiny.yaml", "--flow", "--set", "model_options.depth=3", "-o", "other", cwd=tmp_path)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    assert "\nskysift: error: model 'lines' cannot be built with" in failed.stderr
