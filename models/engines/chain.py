"""An engine that goes on when memory runs out or a GPU fails: with smaller batches, then with the next engine."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.engines.failures import is_device_failure, is_out_of_memory, reason
from models.yolo.maps import RawMaps, look
from survey_io.errors import OptionError, SkysiftError

if TYPE_CHECKING:
    from models.engines.base import Engine, EngineSpec
    from models.yolo.head import HeadSpec

logger = logging.getLogger("skysift.engine")


class Way(NamedTuple):
    """An engine, its precision, and the device that it runs on ("cpu", "cuda:0")."""

    engine: str
    precision: str
    device: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision} on {self.device}"

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device != "cpu"


class EngineMemoryError(SkysiftError, MemoryError):
    """No engine has the memory for one tile: a piece that may be done alone, or be left out."""


class ChainEngine:
    """The first of some engines that works; calls from several Python threads at once are allowed.

    Parameters
    ----------
    spec : EngineSpec
        With what comes after it in ``others``.

    Attributes
    ----------
    notes : list of str
        What happened, in order: each once.
    """

    def __init__(self, spec: EngineSpec):
        self._specs = [replace(spec, others=())]
        self._specs += [replace(spec, engine=e, precision=p, device=d, others=()) for e, p, d in spec.others]
        self.notes: list[str] = []
        self.threads = spec.threads
        self._at = 0
        self._engine: Engine | None = None
        # Items that fit into memory at once, once that was met.
        self._largest: int | None = None
        self._lock = threading.RLock()
        self.current()

    @property
    def way(self) -> Way:
        """The present engine."""
        from models.engines.base import home_device

        spec = self._specs[self._at]
        return Way(spec.engine, spec.precision, spec.device or home_device(spec.engine))

    @property
    def name(self) -> str:
        """The present engine's name."""
        return self.way.engine

    @property
    def precision(self) -> str:
        """The present engine's precision."""
        return self.way.precision

    def current(self) -> tuple[Way, Engine]:
        """The present engine, loaded; one that cannot be loaded gives way to the next."""
        with self._lock:
            while self._engine is None:
                try:
                    self._engine = self._specs[self._at].load_alone()
                except Exception as error:
                    failed = is_out_of_memory(error) or is_device_failure(error) or isinstance(error, OptionError)
                    if not failed or self._at + 1 == len(self._specs):
                        raise
                    self.give_up(self.way, error)
            return self.way, self._engine

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """See `models.engines.base.Engine`."""
        parts = self._run(lambda engine: engine, arrays)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def look(self, spec: HeadSpec, *arrays: np.ndarray) -> list[RawMaps]:
        """A detector's answer for each window of a batch; see `models.yolo.maps`."""
        parts = self._run(lambda engine: partial(look, engine, spec=spec), arrays)
        return [maps for part in parts for maps in part]

    def _run(self, call_of: Callable[[Engine], Callable[..., Any]], arrays: tuple[np.ndarray, ...]) -> list[Any]:
        while True:
            way, engine = self.current()
            try:
                return self._in_parts(call_of(engine), arrays)
            except Exception as error:
                if not (is_out_of_memory(error) or (way.on_gpu and is_device_failure(error))):
                    raise
                self.give_up(way, error)

    def _in_parts(self, call: Callable[..., Any], arrays: tuple[np.ndarray, ...]) -> list[Any]:
        """The answers to a batch, whole or in as many halvings as memory asks for."""
        count = len(arrays[0])
        size = min(self._largest or count, count)
        while True:
            try:
                return [call(*(a[i : i + size] for a in arrays)) for i in range(0, count, size)]
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                cause = reason(error)
            # Outside of the handler, whose traceback holds what the failed call had made.
            free_memory()
            size = self.halve(size, cause)

    def halve(self, size: int, cause: str) -> int:
        """Note that a batch of ``size`` did not fit; what to try instead."""
        with self._lock:
            if self._largest is None or size <= self._largest:
                self._largest = max(size // 2, 1)
                self._note(f"{self.way}: out of memory with a batch of {size}, halved ({cause})")
            return self._largest

    @property
    def largest(self) -> int | None:
        """Items that fit into memory at once, where that was met."""
        return self._largest

    def give_up(self, way: Way, error: BaseException) -> None:
        """Go on with the next engine, unless another thread already does.

        Raises
        ------
        EngineMemoryError, SkysiftError
            When there is none left.
        """
        with self._lock:
            if self.way != way:
                return
            what = "out of memory with one tile" if is_out_of_memory(error) else "failed"
            if self._at + 1 == len(self._specs):
                kind = EngineMemoryError if is_out_of_memory(error) else SkysiftError
                raise kind(
                    f"engine {way}: {what} ({reason(error)}) and no other engine is left to go on with: use a smaller "
                    "--tile, fewer --workers or --engine auto; finished pieces are kept"
                ) from error
            self._at += 1
            # Not closed: other threads may be within a call of it. It goes with the last of them.
            self._engine = self._largest = None
            self._note(f"{way}: {what} ({reason(error)}); going on with {self.way}")
        free_memory()

    def take_notes(self) -> list[str]:
        """Notes that were not taken yet."""
        with self._lock:
            taken, self.notes = self.notes, []
            return taken

    def _note(self, text: str) -> None:
        self.notes.append(text)
        logger.warning("engine %s", text)

    def close(self) -> None:
        """See `models.engines.base.Engine`."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
            self._engine = None


def free_memory() -> None:
    """Give back what failed calls left: the arrays of their tracebacks, and what torch keeps of a GPU's memory."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
