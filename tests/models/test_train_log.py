"""The log of a training: rows, pictures, TensorBoard."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from models import train_log
from models.train_log import TrainLog, thinned
from models.training import train

HISTORY = [{"step": 2, "minutes": 0.1, "loss": 3.0, "off": 0.5}, {"step": 4, "minutes": 0.2, "loss": 2.0, "off": 0.4}]


def rows(folder: Path) -> list[list[str]]:
    return list(csv.reader((folder / "log.csv").read_text().splitlines()))


def open_log(folder: Path, *, first: int = 0, tensorboard: bool = False, lines: list | None = None) -> TrainLog:
    return TrainLog(folder, first=first, tensorboard=tensorboard, report=(lines if lines is not None else []).append)


def test_rows_are_written_and_those_behind_a_checkpoint_dropped(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for step in range(1, 6):
        log.row(step, step / 10, 1e-3, {"loss": np.float32(1 / 3) * step, "off": 0.5})
    log.close()
    assert rows(tmp_path)[0] == ["step", "minutes", "rate", "loss", "off"]
    assert np.float32(rows(tmp_path)[1][3]) == np.float32(1 / 3)
    # A killed run leaves half a row.
    with (tmp_path / "log.csv").open("a") as stream:
        stream.write("6,0.6,0.0")
    log = open_log(tmp_path, first=3)
    log.row(4, 0.5, 1e-3, {"loss": 7.0, "new": 1.0})
    log.check(HISTORY, last=True)
    log.close()
    assert [row[0] for row in rows(tmp_path)[1:]] == ["1", "2", "3", "4"]
    # A term that the first row lacks has no column, and one that is missing is left empty.
    assert rows(tmp_path)[4] == ["4", "0.5", "0.001", "7", ""]
    assert json.loads((tmp_path / "history.json").read_text()) == HISTORY
    # A run that begins anew has a log of its own.
    open_log(tmp_path).close()
    assert rows(tmp_path) == []


def test_the_learning_curve_is_drawn_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "learning_curve.png"
    log = open_log(tmp_path)
    log.row(1, 0.1, 1e-3, {"loss": 1.0})
    log.check(HISTORY[:1], last=False)
    first = path.read_bytes()
    log.check(HISTORY, last=False)
    assert path.read_bytes() == first
    log.check(HISTORY, last=True)
    log.close()
    assert path.read_bytes() != first and imread(path).shape[:2] == (640, 720)


def test_many_points_are_thinned_by_their_means() -> None:
    step, value = thinned(np.arange(1000.0), np.arange(1000.0) * 2, most=10)
    assert len(step) == 10 and step[0] == 49.5 and value[9] == 2 * 949.5
    assert len(thinned(np.arange(3.0), np.arange(3.0))[0]) == 3


def test_tensorboard_gets_the_same(tiny, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny.tiny_options(tmp_path, steps=10, tensorboard=True), report=lambda _: None)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    table = rows(tmp_path)
    losses = [event.value for event in found.Scalars("train/loss")]
    assert losses == pytest.approx([float(row[3]) for row in table[1:]], rel=1e-5)
    held_out = [entry["off"] for entry in json.loads((tmp_path / "history.json").read_text())]
    assert [event.value for event in found.Scalars("held_out/off")] == pytest.approx(held_out, rel=1e-5)


def test_a_missing_tensorboard_is_told_and_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_log.importlib.util, "find_spec", lambda name: None)
    lines: list[str] = []
    open_log(tmp_path, tensorboard=True, lines=lines).close()
    assert len(lines) == 1 and "tensorboard is not installed" in lines[0]


def test_rows_may_be_farther_apart(tiny, tmp_path: Path) -> None:
    train(tiny.tiny_options(tmp_path, steps=10, log_every=4), report=lambda _: None)
    assert [row[0] for row in rows(tmp_path)[1:]] == ["4", "8"]
    assert (tmp_path / "learning_curve.png").exists()
