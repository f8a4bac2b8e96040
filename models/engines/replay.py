"""A network's calls as CUDA graphs: where shapes repeat, one launch in place of hundreds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from survey_io.errors import SkysiftError

# Calls before a capture, in which libraries choose their kernels.
_WARM_UP = 2


@dataclass
class _Captured:
    graph: Any
    given: tuple[Tensor, ...]
    answer: Tensor


class Replay:
    """``forward(*tensors) -> Tensor`` on a CUDA device, captured from a shape's second call on.

    On a processor, and where something in the network cannot be captured, every call runs as it is.

    Parameters
    ----------
    forward : callable
        Without decisions that depend on values.
    device : torch.device
    kept : int
        Shapes that have a graph at the same time; 1 where what ``forward`` holds follows the shape of the last call, so
        that a graph is stale once another shape came.
    """

    def __init__(self, forward: Callable[..., Tensor], device: torch.device, *, kept: int = 3):
        self._forward = forward
        self._device = device
        self._most = kept
        self._able = device.type == "cuda"
        self._seen: set[tuple] = set()
        self._kept: OrderedDict[tuple, _Captured] = OrderedDict()

    def __call__(self, *tensors: Tensor) -> Tensor:
        """The answer, in memory of its own."""
        if not self._able:
            return self._forward(*tensors)
        key = tuple(tuple(one.shape) for one in tensors)
        captured = self._kept.get(key)
        if captured is None:
            if self._most == 1:
                self._kept.clear()
                self._seen &= {key}
            if key not in self._seen:
                # Ragged shapes come once, and a capture costs more than it saves them.
                self._seen.add(key)
                return self._forward(*tensors)
            captured = self._capture(key, tensors)
            if captured is None:
                return self._forward(*tensors)
        self._kept.move_to_end(key)
        for place, one in zip(captured.given, tensors, strict=True):
            place.copy_(one, non_blocking=True)
        captured.graph.replay()
        # The next replay writes into the same memory.
        return captured.answer.clone()

    def _capture(self, key: tuple, tensors: tuple[Tensor, ...]) -> _Captured | None:
        given = tuple(one.clone(memory_format=torch.preserve_format) for one in tensors)
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        try:
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    self._forward(*given)
            torch.cuda.current_stream(self._device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads copy and decode meanwhile: only what this thread does belongs to the graph.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                answer = self._forward(*given)
        except torch.OutOfMemoryError:
            self._kept.clear()
            raise
        except (RuntimeError, SkysiftError):
            self._able = False
            self._kept.clear()
            return None
        while len(self._kept) >= self._most:
            self._kept.popitem(last=False)
        self._kept[key] = _Captured(graph, given, answer)
        return self._kept[key]

    def close(self) -> None:
        """Free the graphs."""
        self._kept.clear()
