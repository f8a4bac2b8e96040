"""The engine of a run: chosen where the work is done, one GPU for each worker, and what became of it told."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np

from models.engines.base import Engine, EngineSpec
from models.engines.chain import ChainEngine
from models.engines.choose import Choice, choose_engine

Arrays = dict[str, np.ndarray]
PROCESSOR = ("cpu",)
# Of its own level: a note for who runs it, not a warning.
logger = logging.getLogger("skysift.engine")
logger.setLevel(logging.INFO)
_numbers = itertools.count()
_mine = threading.local()


def pick_engine(model: str, *, engine: str, precision: str, device: str, client: Any = None) -> Choice:
    """Choose the engine, on a worker if the pieces go to a cluster; says which and why once in this process.

    Parameters
    ----------
    model, engine, precision, device : str
        As `models.engines.choose.choose_engine`.
    client : DaskWorkers, Threads, Processes or None
        Where the pieces go.

    Raises
    ------
    OptionError
        As `choose_engine`.
    """
    asked = {"engine": engine, "precision": precision, "device": device}
    cluster = getattr(client, "client", None)
    if cluster is None:
        choice = choose_engine(model, **asked)
    else:
        # This process may have a GPU where the workers have none, or the other way round.
        client.require()
        choice = cluster.submit(choose_engine, model, **asked, resources=client.resources or None, pure=False).result()
    _say(choice.line)
    return choice


@lru_cache(maxsize=16)
def _say(line: str) -> None:
    logger.info("%s", line)


def own_device(devices: tuple[str, ...]) -> str:
    """The device of this thread: each thread that asks gets the next one, and keeps it."""
    if len(devices) == 1:
        return devices[0]
    if not hasattr(_mine, "number"):
        _mine.number = next(_numbers)
    return devices[_mine.number % len(devices)]


def load_chain(spec: Any, device: str) -> ChainEngine:
    """The engine of a finder's spec, with those that go on after it, on a device."""
    others = tuple((name, precision, where if where == "cpu" else device) for name, precision, where in spec.others)
    return EngineSpec(spec.model, spec.engine, spec.precision, spec.threads, device, others).load()


def load_choice(model: str, choice: Choice, threads: int) -> ChainEngine:
    """The engine of a choice, with those that go on after it, on this thread's device."""
    device = own_device(choice.devices)
    (engine, precision, _), *others = ((*way[:2], way.device if way.device == "cpu" else device) for way in choice.ways)
    return EngineSpec(model, engine, precision, threads, device, tuple(others)).load()


def told(engine: Engine | None) -> Arrays:
    """For a piece's arrays: what computed it, and what happened since the last that was told."""
    if not isinstance(engine, ChainEngine):
        return {}
    notes = engine.take_notes()
    return {"engine": np.array(str(engine.way))} | ({"notes": np.array(notes)} if notes else {})


class EngineLog:
    """What the pieces of a run tell of their engines, for the manifest."""

    def __init__(self) -> None:
        self._pieces: Counter[str] = Counter()
        self._notes: dict[str, None] = {}

    def see(self, arrays: Arrays) -> Arrays:
        """Note what a piece tells; gives its other arrays."""
        rest = dict(arrays)
        engine, notes = rest.pop("engine", None), rest.pop("notes", ())
        if engine is not None:
            self._pieces[str(engine)] += 1
        self._notes |= dict.fromkeys(str(note) for note in notes)
        return rest

    def summary(self, spec: Any) -> dict[str, Any]:
        """``why`` the engine was chosen, pieces by engine, and notes of what failed, in order."""
        return {"why": spec.why, "pieces_by_engine": dict(self._pieces), "engine_notes": list(self._notes)}
