"""What the driver tells of the GPUs, by nvidia-smi: nothing where there is none."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric

QUERY = ("index", "name", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu")
# Family, its text, column of the query, factor to its unit.
FAMILIES = (
    ("skysift_gpu_use_ratio", "Share of time in which a kernel ran.", 2, 0.01),
    ("skysift_gpu_memory_used_bytes", "Memory in use.", 3, 2**20),
    ("skysift_gpu_memory_total_bytes", "Memory.", 4, 2**20),
    ("skysift_gpu_temperature_celsius", "Temperature.", 5, 1.0),
)
_SECONDS = 5.0

_answer: tuple[float, list[list[str]]] = (-math.inf, [])


def gpu_table() -> list[list[str]]:
    """What nvidia-smi tells of each GPU by `QUERY`; empty without it, asked at most every 5 s."""
    global _answer
    if time.monotonic() - _answer[0] > _SECONDS:
        rows: list[list[str]] = []
        command = shutil.which("nvidia-smi")
        if command is not None:
            with suppress(OSError, subprocess.SubprocessError):
                done = subprocess.run(
                    [command, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"],
                    capture_output=True, text=True, timeout=4, check=True,
                )  # fmt: skip
                rows = [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
        _answer = (time.monotonic(), [row for row in rows if len(row) == len(QUERY)])
    return _answer[1]


def gpu_families() -> Iterator[Metric]:
    """Use, memory and temperature of the GPUs; none where the driver tells none."""
    from prometheus_client.core import GaugeMetricFamily

    rows = gpu_table()
    for name, text, column, factor in FAMILIES if rows else ():
        family = GaugeMetricFamily(name, text, labels=["gpu", "name"])
        for row in rows:
            # "[N/A]" where a card does not tell.
            with suppress(ValueError):
                family.add_metric([row[0], row[1]], float(row[column]) * factor)
        yield family
