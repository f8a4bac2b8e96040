"""Whether a network's catalogue stays what it is in float32 when it computes in another precision: the measured record.

What is measured, and on what sky, is `pipeline.parity`'s; here is where the numbers are kept: of shipped weights in
``gates/NAME.json`` of their folder, and of all others in the cache folder, by the hash of the weights. A record of this
machine comes before the shipped one.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from models.engines.graph_file import cache_folder
from models.weights import WEIGHTS_FOLDER, find_weights, read_card, write_whole

# Largest share of the rows lost and gained, and of the score lost, with which a precision passes.
LIMIT = 0.005
# Fewer rows do not tell half a per cent.
LEAST_ROWS = 1000
EXACT = "f32"


@dataclass(frozen=True)
class Gate:
    """What a precision does to a catalogue on held-out sky, beside float32.

    Attributes
    ----------
    engine, precision : str
    rows, lost, gained : int
        Rows in float32, those without a partner in the precision, and those that only it has. Of classifiers: answers,
        and those whose class changed (lost).
    score : str
        Name of the score: "sdc1", "sdc2", "f1", "accuracy" or "macro_average_precision".
    score_f32, score_here : float
        Its value in float32 and in the precision.
    largest_difference : float
        Largest difference of the raw answers over the largest of them.
    sky : str
        What was looked at.
    graph : str
        Hash of the quantised graph; empty where the weights decide all.
    speed : dict of float
        Of the network alone on the machine that measured: million pixels, voxels, channels or items per second, in
        "f32" and "here", and what "unit" is.
    """

    engine: str
    precision: str
    rows: int
    lost: int
    gained: int
    score: str
    score_f32: float
    score_here: float
    largest_difference: float
    sky: str = ""
    graph: str = ""
    speed: dict[str, Any] = field(default_factory=dict)

    @property
    def changed_rows(self) -> float:
        """Rows lost and gained over rows."""
        return (self.lost + self.gained) / max(self.rows, 1)

    @property
    def score_change(self) -> float:
        """Relative change of the score; negative where the precision is worse."""
        return (self.score_here - self.score_f32) / max(abs(self.score_f32), 1e-12)

    @property
    def passed(self) -> bool:
        """Whether neither rows nor score change by more than `LIMIT`, of as many rows as it takes to tell."""
        return self.rows >= LEAST_ROWS and self.changed_rows <= LIMIT and abs(self.score_change) <= LIMIT

    @property
    def line(self) -> str:
        """The numbers in a line."""
        return (
            f"{self.changed_rows:.2%} of {self.rows} rows ({self.lost} lost, {self.gained} gained) and "
            f"{self.score_change:+.2%} of the {self.score} score"
        )

    @property
    def fault(self) -> str:
        """Why it does not pass and what to do; empty where it does."""
        if self.passed:
            return ""
        if self.rows < LEAST_ROWS:
            return (
                f"was compared on {self.rows} rows only, expected at least {LEAST_ROWS} to tell {LIMIT:.1%} by: not "
                "written; look at more sky (--sky 1 is all)"
            )
        return f"changes {self.line}, expected at most {LIMIT:.1%} of either: not written; take another precision"

    def told(self) -> dict[str, Any]:
        """For a card."""
        return {**asdict(self), "changed_rows": round(self.changed_rows, 5),
                "score_change": round(self.score_change, 5), "passed": self.passed}  # fmt: skip


def gate_passed(model: str, engine: str, precision: str) -> bool | None:
    """Whether some weights may be run in a precision: True or False as measured, None where nobody measured.

    Without any heavy import.

    Parameters
    ----------
    model : str
        As `models.weights.find_weights` takes it.
    engine, precision : str
    """
    if precision == EXACT:
        return True
    gate = read_gate(model, engine, precision)
    return None if gate is None else gate.passed


def read_gate(model: str, engine: str, precision: str) -> Gate | None:
    """The record of a precision of these very weights, and of the quantised graph that would be run; None for none.

    Raises
    ------
    OptionError, InputError
        As `models.weights.read_card`.
    """
    from models.quantised import QUANTISED, graph_hash

    sha256 = read_card(model).sha256
    for path in (_own_path(sha256), _shipped_path(model)):
        told = _read(path, sha256).get(f"{engine} {precision}")
        if told is None:
            continue
        gate = Gate(**{entry.name: told[entry.name] for entry in fields(Gate) if entry.name in told})
        if precision not in QUANTISED or gate.graph == graph_hash(model, engine, precision):
            return gate
    return None


def gate_warning(model: str, engine: str, precision: str) -> str:
    """One line for who asks for a precision whose catalogue was not found to be the same; empty where it was."""
    passed = gate_passed(model, engine, precision)
    if passed:
        return ""
    if passed is None:
        return (
            f"precision {precision} of {model} with {engine} was never compared with f32: "
            f"skysift export {model} --engine {engine} --precision {precision} does"
        )
    gate = read_gate(model, engine, precision)
    return f"precision {precision} of {model} with {engine} is not within {LIMIT:.1%} of f32's catalogue: {gate.line}"


def keep_gate(model: str, gate: Gate, *, shipped: bool = False) -> Path:
    """Write a record down: in the cache folder, or beside the shipped weights."""
    sha256 = read_card(model).sha256
    path = _shipped_path(model) if shipped else _own_path(sha256)
    told = {"weights": sha256, "gates": {**_read(path, sha256), f"{gate.engine} {gate.precision}": gate.told()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(told, indent=2, allow_nan=False) + "\n").encode())
    return path


def _own_path(sha256: str) -> Path:
    return cache_folder().with_name("gates") / f"{sha256[:32]}.json"


def _shipped_path(model: str | os.PathLike[str]) -> Path:
    return WEIGHTS_FOLDER / "gates" / f"{find_weights(model).stem}.json"


def _read(path: Path, sha256: str) -> dict[str, dict[str, Any]]:
    """The records of a file by "ENGINE PRECISION"; none where it is of other weights, or not there."""
    with contextlib.suppress(OSError, ValueError):
        told = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(told, dict) and told.get("weights") == sha256:
            return told.get("gates", {})
    return {}
