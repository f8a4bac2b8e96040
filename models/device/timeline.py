"""When each lane of a device was at work: as shares of the time, and as a trace that browsers show."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import torch


class Timeline:
    """Spans of work on the lanes of one device; a GPU's are measured by its own events.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._lock = threading.Lock()
        self._host: list[tuple[str, str, float, float]] = []
        self._events: list[tuple[str, str, Any, Any]] = []
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            self._origin = torch.cuda.Event(enable_timing=True)
            self._origin.record(torch.cuda.current_stream(device))
            torch.cuda.synchronize(device)
        self._begin = time.perf_counter()

    def add(self, lane: str, what: str, begin: float, end: float) -> None:
        """A span on the host, by its perf_counter."""
        with self._lock:
            self._host.append((lane, what, begin - self._begin, end - self._begin))

    def add_events(self, lane: str, what: str, begin: Any, end: Any) -> None:
        """A span between two events of the GPU."""
        with self._lock:
            self._events.append((lane, what, begin, end))

    def spans(self) -> list[tuple[str, str, float, float]]:
        """(lane, what, begin, end) in seconds from the timeline's beginning; waits for the GPU."""
        found = list(self._host)
        if self._events:
            torch.cuda.synchronize(self.device)
            for lane, what, begin, end in self._events:
                found.append((lane, what, *(self._origin.elapsed_time(event) * 1e-3 for event in (begin, end))))
        return sorted(found, key=lambda span: span[2])

    def busy(self) -> dict[str, float]:
        """Share of the time, from the first span's begin to the last one's end, that each lane was at work."""
        spans = self.spans()
        if not spans:
            return {}
        first, last = min(span[2] for span in spans), max(span[3] for span in spans)
        shares: dict[str, float] = {}
        for lane in dict.fromkeys(span[0] for span in spans):
            covered, until = 0.0, first
            for _, _, begin, end in (span for span in spans if span[0] == lane):
                covered += max(end - max(begin, until), 0.0)
                until = max(until, end)
            shares[lane] = covered / max(last - first, 1e-12)
        return shares

    def write(self, path: Path) -> None:
        """Write the spans as a trace in Chrome's format, for chrome://tracing or ui.perfetto.dev."""
        spans = self.spans()
        lanes = {lane: number for number, lane in enumerate(dict.fromkeys(span[0] for span in spans))}
        events: list[dict[str, Any]] = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": number, "args": {"name": lane}}
            for lane, number in lanes.items()
        ]
        events += [
            {"name": what, "ph": "X", "pid": 0, "tid": lanes[lane], "ts": begin * 1e6, "dur": (end - begin) * 1e6}
            for lane, what, begin, end in spans
        ]
        path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}), encoding="utf-8")
