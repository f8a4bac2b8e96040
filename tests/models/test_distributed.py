"""Several processes train one network: as one process does with as many examples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from models.distributed import choose_device, is_main, launch, launched
from models.training import train
from survey_io.errors import OptionError


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_two_processes_give_the_weights_of_one_with_their_examples(tiny, tmp_path: Path) -> None:
    plain = {"model_options": {"normed": False, "dropout": 0.0}, "steps": 10}
    train(tiny.tiny_options(tmp_path / "one", lesson_options={"merge": 2}, **plain), report=lambda _: None)
    lines: list[str] = []
    options = tiny.tiny_options(tmp_path / "two", devices=2, threads=1, **plain)
    assert launch(tiny.work, options, lines.append) == tmp_path / "two" / "last.pt"
    one, two = (load(tmp_path / name / "last.pt") for name in ("one", "two"))
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-5)
    # Each process judged a part of what is held out, and process 0 wrote all.
    for before, after in zip(one["history"], two["history"], strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-3)
    assert two["cost"]["examples"] == one["cost"]["examples"] * 2 == 80 and len(two["random"]) == 2
    assert [line.split()[1] for line in lines if "held-out" in line] == ["5", "10"]


def test_two_processes_go_on_exactly_and_errors_of_theirs_are_ours(tiny, tmp_path: Path) -> None:
    options = tiny.tiny_options(tmp_path / "x", devices=2, threads=1, steps=10)
    launch(tiny.work_in_parts, options, lambda _: None)
    whole, parts = load(tmp_path / "x" / "last.pt"), load(tmp_path / "x" / "parts" / "last.pt")
    for name in ("model", "average"):
        assert all(torch.equal(value, parts[name][key]) for key, value in whole[name].items())
    with pytest.raises(OptionError, match="watch 'accuracy': the held-out terms of this lesson are loss, off"):
        launch(tiny.work, options.model_copy(update={"watch": "accuracy", "patience": 1}), lambda _: None)


def test_what_processes_tell_each_other(tiny, tmp_path: Path) -> None:
    lines: list[str] = []
    options = tiny.tiny_options(tmp_path, devices=2, threads=1)
    assert launch(tiny.averages, options, lines.append) == Path("rank0")
    assert sorted(lines) == ["process 0 of 2", "process 1 of 2"]
    assert not launched() and is_main() and not dist.is_initialized()


def test_devices_are_chosen_by_name_and_place() -> None:
    assert choose_device("cpu", 3) == torch.device("cpu")
    assert choose_device("cuda", 3) == torch.device("cuda", 3)
