"""The streams of a device on which copies, the network and decoding overlap, and the pinned memory between them.

On a processor the same calls run one after the other, each thread at its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from models.device.timeline import Timeline

# Lanes that all threads share; of the others each thread has its own.
_SHARED = ("copy", "network")


class Lanes:
    """Named streams of one device.

    Attributes
    ----------
    device : torch.device
    timeline : Timeline or None
        Where spans are noted, if they are.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.timeline: Timeline | None = None
        self._streams: dict[str, Any] = {}
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._free: list[Tensor] = []

    @contextmanager
    def lane(self, name: str, *, after: Any = None) -> Iterator[dict[str, Any]]:
        """What is inside is enqueued on a lane, behind an event of another; ``["event"]`` of what it yields ends it."""
        mark: dict[str, Any] = {"event": None}
        timed = self.timeline
        if self.device.type != "cuda" or name == "read":
            begin = time.perf_counter()
            yield mark
            if timed is not None:
                timed.add(name, name, begin, time.perf_counter())
            return
        stream = self.stream(name)
        with torch.cuda.device(self.device), torch.cuda.stream(stream):
            if after is not None:
                stream.wait_event(after)
            begin = torch.cuda.Event(enable_timing=True) if timed is not None else None
            if begin is not None:
                begin.record(stream)
            yield mark
            mark["event"] = torch.cuda.Event(enable_timing=timed is not None)
            mark["event"].record(stream)
            if timed is not None:
                timed.add_events(name, name, begin, mark["event"])

    def stream(self, name: str) -> Any:
        """The lane's CUDA stream."""
        store = self._streams if name in _SHARED else self._mine.__dict__
        with self._lock:
            if name not in store:
                store[name] = torch.cuda.Stream(self.device)
            return store[name]

    def hand_over(self, tensor: Tensor, name: str) -> Tensor:
        """A tensor made on one lane for use on another: its memory is not given away before that is done."""
        if self.device.type == "cuda":
            tensor.record_stream(self.stream(name))
        return tensor

    @contextmanager
    def buffer(self, size: int) -> Iterator[Tensor]:
        """So many bytes of host memory, pinned for a GPU: copies from it need no copy before, and do not wait."""
        with self._lock:
            fitting = [at for at, held in enumerate(self._free) if len(held) >= size]
            held = self._free.pop(fitting[0]) if fitting else None
            if held is None and self._free:
                # Too small a one makes room.
                self._free.pop()
        if held is None:
            held = torch.empty(max(size, 1), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        try:
            yield held[:size]
        finally:
            with self._lock:
                self._free.append(held)

    def close(self) -> None:
        """Free the pinned memory."""
        with self._lock:
            self._free.clear()
            self._streams.clear()
