"""The commands of the registry, run as a user would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from models.detectors.light import LightDetector
from models.in_use import usage
from models.store import add_version
from models.weights import Card, save_weights

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}


def skysift(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with two versions of "light" and one of "mine"."""
    monkeypatch.setenv("SKYSIFT_MODELS", str(tmp_path / "store"))
    for seed, name in ((1, "light"), (2, "light"), (3, "mine")):
        torch.manual_seed(seed)
        path = tmp_path / f"{seed}.safetensors"
        save_weights(LightDetector(**OPTIONS), Card(model="light", options=OPTIONS, trained_on=f"sky {seed}"), path)
        judged = b'{"metric": "score", "value": 0.5, "error": 0.01, "draws": [0.1, 0.2]}'
        add_version(name, path, {"evaluation.json": judged})
    return tmp_path / "store"


def test_list_promote_and_roll_back(stored: Path) -> None:
    lines = skysift("models").stdout.splitlines()
    assert any(line.startswith("* light@shipped ") for line in lines)
    listed = next(line for line in lines if line.startswith("  light@2 "))
    assert "score 0.5 +- 0.01: sky 2" in listed and any(line.startswith("  mine@1 ") for line in lines)
    assert any(line.startswith("* stellar ") for line in lines) and lines[-1] == f"registered in {stored}"

    done = skysift("models", "promote", "light@2", "--why", "a test")
    assert (done.returncode, done.stdout) == (0, "light is light@2 now\n")
    assert any(line.startswith("* light@2 ") for line in skysift("models").stdout.splitlines())
    shown = yaml.safe_load(skysift("models", "show", "light").stdout)
    assert shown["weights"] == "light@2" and shown["trained_on"] == "sky 2"
    assert shown["evaluation"] == {"metric": "score", "value": 0.5, "error": 0.01}
    assert [entry["why"] for entry in shown["history"]] == ["a test"]

    assert skysift("models", "rollback", "light").stdout == "light is light@shipped now\n"
    assert usage("light").version is None
    skysift("models", "promote", "mine@1")
    assert skysift("models", "rollback", "mine").stdout == "mine: no version is in use now\n"


def test_what_cannot_be_done_is_said_in_a_line(stored: Path) -> None:
    damaged = stored / "light" / "1" / "light.safetensors"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    for arguments, words in (
        (("promote", "light"), "expected a version, as light@1"),
        (("promote", "light@9"), "it has versions 1, 2"),
        (("promote", "light@1"), "the file is damaged"),
        (("show", "light@1"), "the file is damaged"),
        (("rollback", "light"), "nothing to go back to"),
        (("rollback", "lihgt"), "no version of it was registered"),
    ):
        done = skysift("models", *arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert words in done.stderr and len(done.stderr.splitlines()) == 1
