"""Compiled networks, and machines without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.compiling import compile_network
from models.training import train

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_compiler_the_run_goes_on(tmp_path: Path) -> None:
    # In a process of its own: torch remembers a compiler that it found.
    code = (
        "import sys; sys.path.insert(0, 'tests/models'); import tiny_training as t; from pathlib import Path\n"
        f"t.work(t.tiny_options(Path({str(tmp_path)!r}), steps=2, compile=True))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CXX": "/nowhere/c++"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    assert "compile: not compiled, there is no working compiler for cpu here" in ended.stdout
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tiny, tmp_path: Path) -> None:
    lines: list[str] = []
    if not compile_network(tiny.Tiny(), torch.device("cpu"), lines.append):
        pytest.skip(lines[0])
    # A bias before BatchNorm has no gradient but rounding, which Adam makes whole steps of.
    plain = {"steps": 6, "model_options": {"dropout": 0.0, "normed": False}}
    train(tiny.tiny_options(tmp_path / "plain", **plain), report=lines.append)
    train(tiny.tiny_options(tmp_path / "compiled", compile=True, **plain), report=lines.append)
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("plain", "compiled"))
    assert one["model"].keys() == other["model"].keys()
    for name, value in one["model"].items():
        torch.testing.assert_close(other["model"][name], value, rtol=1e-3, atol=1e-4)
