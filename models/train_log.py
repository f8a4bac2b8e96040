"""What a run tells of itself: log.csv, history.json, learning_curve.png, and TensorBoard's files."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_FIRST = ("step", "minutes", "rate")
# Points of a learning curve, and the seconds between two of its pictures, each of which takes half of one.
_POINTS, _SECONDS = 400, 15.0


class TrainLog:
    """The log of one run in its folder.

    ``log.csv`` has a row for each logged step: step, minutes, learning rate and the terms of that step's loss (those
    that the first row had, of process 0). A run that goes on drops the rows behind its checkpoint.

    Parameters
    ----------
    folder : Path
    first : int
        Step that the run goes on from; 0: it begins.
    tensorboard : bool
        Write TensorBoard's files to ``folder/tensorboard`` as well, where that package is installed.
    report : callable
        Told in one line when it is not.
    """

    def __init__(self, folder: Path, *, first: int, tensorboard: bool, report: Callable[[str], None]):
        self.folder, self.path = folder, folder / "log.csv"
        self.columns: list[str] = []
        self.rows: list[list[float]] = []
        if first and self.path.exists():
            self._read(first)
        # Rows are not lost when the run is killed just here.
        kept = self.path.with_suffix(".part")
        with kept.open("w", newline="") as stream:
            csv.writer(stream).writerows([self.columns, *map(_digits, self.rows)] if self.columns else [])
        kept.replace(self.path)
        self.stream = self.path.open("a", newline="")
        self.writer = csv.writer(self.stream)
        self._drawn = -math.inf
        self.board: Any = None
        if tensorboard and importlib.util.find_spec("tensorboard") is None:
            report("no TensorBoard log: the package tensorboard is not installed (pip install skysift[tensorboard])")
        elif tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1 if first else None)

    def _read(self, first: int) -> None:
        with self.path.open(newline="") as stream:
            rows = list(csv.reader(stream))
        self.columns = rows[0] if rows else []
        for row in rows[1:]:
            # The last row of a killed run may be half of one.
            if len(row) == len(self.columns) and float(row[0]) <= first:
                self.rows.append([float(value or "nan") for value in row])

    def row(self, step: int, minutes: float, rate: float, terms: dict[str, float]) -> None:
        """Log a step's learning rate and terms."""
        if not self.columns:
            self.columns = [*_FIRST, *terms]
            self.writer.writerow(self.columns)
        self.rows.append([step, minutes, rate, *(terms.get(name, float("nan")) for name in self.columns[3:])])
        self.writer.writerow(_digits(self.rows[-1]))
        if self.board:
            for name, value in {"rate": rate, **terms}.items():
                self.board.add_scalar(f"train/{name}", value, step)

    def check(self, history: list[dict[str, float]], *, last: bool) -> None:
        """Log what held-out examples gave so far, and draw the learning curve unless that was done just before."""
        self.stream.flush()
        (self.folder / "history.json").write_text(json.dumps(history, indent=1))
        if self.board:
            for name, value in history[-1].items():
                if name not in ("step", "minutes"):
                    self.board.add_scalar(f"held_out/{name}", value, int(history[-1]["step"]))
            self.board.flush()
        if last or time.monotonic() - self._drawn > _SECONDS:
            self._drawn = time.monotonic()
            draw_learning_curve(self.columns, self.rows, history, self.folder / "learning_curve.png")

    def close(self) -> None:
        """Write out what is left."""
        self.stream.close()
        if self.board:
            self.board.close()


def _digits(row: list[float]) -> list[str]:
    # Nine digits give a float32 back exactly.
    return [str(int(row[0])), *(f"{value:.9g}" if value == value else "" for value in row[1:])]


def thinned(step: np.ndarray, value: np.ndarray, most: int = _POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal runs of points, so that no more than ``most`` are left."""
    pieces = [piece for piece in np.array_split(np.arange(len(step)), min(most, len(step))) if len(piece)]
    return np.array([step[p].mean() for p in pieces]), np.array([value[p].mean() for p in pieces])


def draw_learning_curve(
    columns: list[str], rows: list[list[float]], history: list[dict[str, float]], path: Path
) -> None:
    """Picture of the loss in training and on held-out examples, of the other held-out terms, and of the rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8))
    loss, terms, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    table = np.array(rows, float).reshape(len(rows), len(columns))
    if len(table):
        loss.plot(*thinned(table[:, 0], table[:, columns.index("loss")]), lw=0.8, label="training")
        rate.plot(*thinned(table[:, 0], table[:, columns.index("rate")]), color="black", lw=0.8)
    steps = [entry["step"] for entry in history]
    loss.plot(steps, [entry["loss"] for entry in history], marker=".", label="held out, moving average")
    for name in history[-1] if history else ():
        if name not in ("step", "minutes", "loss"):
            terms.plot(steps, [entry.get(name, np.nan) for entry in history], marker=".", lw=0.8, label=name)
    for axis, title in ((loss, "loss"), (terms, "held-out terms"), (rate, "learning rate")):
        axis.set_ylabel(title)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    rate.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
