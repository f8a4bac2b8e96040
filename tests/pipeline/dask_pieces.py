"""Pieces of work for Dask's workers: they import this file, and nothing that takes long."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Network:
    """Stands for what is dear to load: leaves a mark for each time."""

    folder: str

    def warm_up(self) -> None:
        with open(Path(self.folder) / "loads", "a") as file:
            file.write(f"{os.getpid()}\n")


def square(network: Network, x: float) -> Arrays:
    """Slow enough that both workers get some; says in which process it was done."""
    time.sleep(0.02)
    return {"value": np.array([x * x]), "process": np.array([os.getpid()])}


def die_at_three(network: Network, x: float) -> Arrays:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(network, x)


def die_once(network: Network, processes: int, x: float) -> Arrays:
    """The eighth kills its worker the first time; all others wait until that was replaced."""
    mark, loads = Path(network.folder) / "died", Path(network.folder) / "loads"
    if x == 7 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    while x > 12 and len(loads.read_text().split()) <= processes:
        time.sleep(0.02)
    return square(network, x)


class Stubborn(Exception):
    """An exception that cannot be made again from what it is pickled as."""

    def __init__(self, one: int, other: int):
        super().__init__(f"{one} and {other}")


def fail(network: Network, how: str) -> Arrays:
    """End in an exception that does not reach another process."""
    if how == "endless":
        return fail(network, how)
    raise Stubborn(1, 2)
