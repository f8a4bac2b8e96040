"""A run that was killed gives what one that was never killed gives, to the last bit."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.training import TrainOptions, train
from survey_io.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def quiet(line: str) -> None:
    pass


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def assert_the_same(one: Path, other: Path) -> None:
    first, second = load(one / "last.pt"), load(other / "last.pt")
    for state in (first, second):
        for entry in (state, state["cost"]):
            entry.pop("seconds")
        for entry in state["history"]:
            entry.pop("minutes")
    assert first.keys() == second.keys()
    for name in first:
        assert equal(first[name], second[name]), name
    tables = [csv.reader((folder / "log.csv").read_text().splitlines()) for folder in (one, other)]
    # All but the minutes.
    logs = [[row[:1] + row[2:] for row in table] for table in tables]
    assert logs[0] == logs[1] and len(logs[0]) > 10


@pytest.mark.parametrize("loaders", [0, 2])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tiny, tmp_path: Path, loaders: int) -> None:
    # Sums over threads depend on their number, which an earlier test may have changed in this process.
    whole = tiny.tiny_options(tmp_path / "whole", loaders=loaders, accumulate=2, threads=1)
    train(whole, report=quiet)
    killed = whole.model_copy(update={"output": tmp_path / "killed", "lesson_options": {"kill_at": 2 * 12 + 2}})
    (tmp_path / "options.json").write_text(killed.model_dump_json())
    command = [sys.executable, str(ROOT / "tests" / "models" / "tiny_training.py"), str(tmp_path / "options.json")]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    # It had come to step 12, its last checkpoint is that of step 10.
    assert load(tmp_path / "killed" / "last.pt")["step"] == 10
    train(killed.model_copy(update={"resume": True, "lesson_options": {}}), report=quiet)
    assert_the_same(tmp_path / "whole", tmp_path / "killed")


def interrupted(options: TrainOptions, at: int) -> None:
    """Train to the end, but go on from the checkpoint of a step before, as if the run had been killed after it."""
    kept: list[bytes] = []

    def report(line: str) -> None:
        if line.startswith(f"step {at + options.save_every} held-out"):
            kept.append((Path(options.output) / "last.pt").read_bytes())

    train(options, report=report)
    (Path(options.output) / "last.pt").write_bytes(kept[0])
    train(options.model_copy(update={"resume": True}), report=quiet)


@pytest.mark.parametrize("changes", [{"optimiser": "nesterov"}, {"optimiser": "adagrad", "schedule": "exponential"}])
def test_other_optimisers_go_on_exactly(tiny, tmp_path: Path, changes: dict) -> None:
    train(tiny.tiny_options(tmp_path / "whole", **changes), report=quiet)
    interrupted(tiny.tiny_options(tmp_path / "other", **changes), at=10)
    assert load(tmp_path / "other" / "last.pt")["step"] == 20
    assert_the_same(tmp_path / "whole", tmp_path / "other")


def test_a_detector_of_a_pool_of_skies_goes_on_exactly(tmp_path: Path) -> None:
    small = {"stem": 4, "width": 8, "wide": 8, "dilations": [1]}
    common = {
        "steps": 12, "batch": 1, "size": 64, "precision": "f32", "loaders": 1, "pool": 8, "save_every": 4,
        "picture_every": 1000, "device": "cpu", "model_options": small,
    }  # fmt: skip
    train(TrainOptions(output=tmp_path / "whole", **common), report=quiet)
    interrupted(TrainOptions(output=tmp_path / "other", **common), at=4)
    assert_the_same(tmp_path / "whole", tmp_path / "other")


def test_a_run_that_cannot_go_on_exactly_says_so(tiny, tmp_path: Path) -> None:
    lines: list[str] = []
    options = tiny.tiny_options(tmp_path, lesson="tiny-unnumbered", steps=5)
    train(options, report=lines.append)
    train(options.model_copy(update={"resume": True, "steps": 10, "loaders": 2}), report=lines.append)
    assert any("not exactly" in line for line in lines) and any("pools of skies begin anew" in line for line in lines)
    assert load(tmp_path / "last.pt")["step"] == 10


def test_a_checkpoint_that_does_not_fit_is_refused(tiny, tmp_path: Path) -> None:
    options = tiny.tiny_options(tmp_path, steps=5)
    train(options, report=quiet)
    again = options.model_copy(update={"resume": True, "steps": 10})
    with pytest.raises(InputError, match="is of model 'tiny' with .*'outputs': 1.* expected 'tiny' .*'outputs': 2"):
        train(again.model_copy(update={"model_options": {"outputs": 2}}), report=quiet)
    with pytest.raises(InputError, match=r"last\.pt: does not fit this recipe.*resume with the options of"):
        train(again.model_copy(update={"freeze": ["body"]}), report=quiet)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"last\.pt: not a readable checkpoint"):
        train(again, report=quiet)
