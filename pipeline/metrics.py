"""Numbers for Prometheus: what the service does, how fast, and what it fails at.

Each process counts in its own memory and leaves a copy in a shared folder after every observation; whoever is asked
adds them up. prometheus_client's own way for several processes maps files into memory, where a full disk ends the
process. What the survey's store knows (observations by state, sources) is asked there.
"""

from __future__ import annotations

import atexit
import fcntl
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.gpu_use import gpu_families
from pipeline.metric_families import Sum, families_text, read_families
from survey_io.errors import OutputError

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds of a stage or an observation: from small images to cubes that take hours.
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
STATES = ("arrived", "running", "done", "failed", "quarantined")
# A copy of another machine's process that is older than this tells of one that has ended.
_FRESH_SECONDS = 600.0


class Meter:
    """Counters of this process.

    Parameters
    ----------
    folder : Path or None
        Shared by all processes of the service; None counts this process alone.
    worker : str, optional
        Name of this process in gauges.
    """

    def __init__(self, folder: Path | None, worker: str | None = None):
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.folder, self.pid, self.worker = folder, os.getpid(), worker or str(os.getpid())
        self._host = socket.gethostname().replace("_", "-") or "host"
        self.registry = CollectorRegistry(auto_describe=True)
        one = {"registry": self.registry, "namespace": "skysift"}
        self.stage = Histogram("stage_seconds", "Wall time of a stage.", ["stage"], buckets=BUCKETS, **one)
        self.seconds = Histogram(
            "observation_seconds", "Wall time of a finished observation.", ["kind"], buckets=BUCKETS, **one
        )
        self.pixels = Counter("pixels", "Pixels, voxels or channels of finished observations.", ["kind"], **one)
        self.rows = Counter("rows", "Catalogue rows written.", ["kind"], **one)
        self.speed = Gauge(
            "megapixels_per_second", "Speed of the last finished observation, all of it.", ["worker", "kind"], **one
        )
        self.failures = Counter("failures", "Observations that failed, each try counted.", ["kind"], **one)
        self.retries = Counter("retries", "Observations that were tried again.", **one)
        self.memory = Gauge("process_resident_bytes", "Memory of a process of the service.", ["worker"], **one)
        self.path = None if folder is None else folder / f"{self._host}_{self.pid}_{time.time_ns()}.prom"

    def measure_memory(self) -> None:
        """Note this process's resident memory, where the system tells it."""
        with suppress(OSError, ValueError, IndexError):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory.labels(self.worker).set(pages * os.sysconf("SC_PAGE_SIZE"))

    def snapshot(self) -> None:
        """Leave a copy for the other processes; a disk that takes none is no reason to stop working."""
        self.measure_memory()
        if self.path is None or self.folder is None:
            return
        with suppress(OSError), _locked(self.folder, fcntl.LOCK_SH):
            _write(self.path, families_text(self.registry.collect()))

    def alive(self, path: Path) -> bool:
        """Whether the process that left this copy is still there, as far as can be told."""
        host, _, rest = path.stem.partition("_")
        if host != self._host:
            return time.time() - path.stat().st_mtime < _FRESH_SECONDS
        pid = rest.partition("_")[0]
        return pid.isdigit() and Path(f"/proc/{pid}").exists()

    def fold(self) -> None:
        """Add the copies of this machine's ended processes up into one file, so that their number stays small."""
        assert self.folder is not None
        with _locked(self.folder, fcntl.LOCK_EX):
            ended = [one for one in self.folder.glob(f"{self._host}_*.prom") if not self.alive(one)]
            if len(ended) > 1:
                total = Sum()
                for path in ended:
                    total.add(read_families(path), gauges=False)
                _write(self.folder / f"{self._host}_past_{time.time_ns()}.prom", families_text(total.collect()))
                for path in ended:
                    path.unlink()


_meter: Meter | None = None


def start(folder: str | Path | None = None, *, worker: str | None = None) -> None:
    """Count from now on in this process; without this call nothing is counted and nothing costs time.

    Parameters
    ----------
    folder : path, optional
        Shared by all processes of the service, such as ``CATALOGUE/metrics``; made when missing.
    worker : str, optional
        Name of this process [default: its number].

    Raises
    ------
    OutputError
        When the folder cannot be written.
    """
    global _meter
    made = Meter(None if folder is None else Path(folder), worker)
    if made.folder is not None:
        try:
            made.folder.mkdir(parents=True, exist_ok=True)
            made.fold()
        except OSError as error:
            raise OutputError(
                f"{folder}: expected a folder for metrics that can be written, got: {error.strerror}; give another"
            ) from None
    if _meter is None:
        atexit.register(snapshot)
    _meter = made


def _mine() -> Meter | None:
    global _meter
    if _meter is not None and _meter.pid != os.getpid():
        # A forked child: what it inherited is the parent's to report.
        _meter = Meter(_meter.folder)
    return _meter


def stage_done(stage: str, seconds: float) -> None:
    """A stage of some observation has ended."""
    if (meter := _mine()) is not None:
        meter.stage.labels(stage).observe(seconds)


def observation_done(manifest: Mapping[str, Any], seconds: float) -> None:
    """An observation is finished.

    Parameters
    ----------
    manifest : mapping
        As in `pipeline.runs.DetectResult`: its shape and its number of rows are counted.
    seconds : float
        Wall time from its start.
    """
    if (meter := _mine()) is None:
        return
    shape = manifest.get("input", {}).get("shape") or ()
    kind = {1: "spectrum", 2: "image", 3: "cube"}.get(len(shape), "other")
    pixels = math.prod(shape) if shape else 0
    counts = manifest.get("counts", {})
    meter.seconds.labels(kind).observe(seconds)
    meter.pixels.labels(kind).inc(pixels)
    meter.rows.labels(kind).inc(counts.get("sources", counts.get("lines", 0)))
    if pixels and seconds > 0:
        meter.speed.labels(meter.worker, kind).set(pixels / seconds / 1e6)
    meter.snapshot()


def observation_failed(kind: str) -> None:
    """An observation failed; ``kind`` is the class of the error, or such as "lost worker" or "timeout"."""
    if (meter := _mine()) is not None:
        meter.failures.labels(kind).inc()
        meter.snapshot()


def observation_retried() -> None:
    """An observation is tried again."""
    if (meter := _mine()) is not None:
        meter.retries.inc()
        meter.snapshot()


def snapshot() -> None:
    """Leave this process's numbers for the others: after each observation that is done, else when it is called."""
    if (meter := _mine()) is not None:
        meter.snapshot()


def render(store: Any = None, *, folder: str | Path | None = None) -> bytes:
    """All numbers in Prometheus' text form (`CONTENT_TYPE`).

    Parameters
    ----------
    store : pipeline.survey store, optional
        Asked for observations by state, runs and sources.
    folder : path, optional
        Folder of the processes' copies [default: the one given to `start`, else $SKYSIFT_METRICS].
    """
    meter, total = _mine(), Sum()
    where = Path(folder) if folder is not None else meter.folder if meter is not None else None
    if where is None and os.environ.get("SKYSIFT_METRICS"):
        where = Path(os.environ["SKYSIFT_METRICS"])
    if meter is not None:
        meter.measure_memory()
        total.add(meter.registry.collect(), gauges=True)
    if where is not None and where.is_dir():
        asking = meter or Meter(where)
        with _locked(where, fcntl.LOCK_SH):
            for path in sorted(where.glob("*.prom")):
                if meter is None or path != meter.path:
                    total.add(read_families(path), gauges=asking.alive(path))
    return families_text([*total.collect(), *_build(), *_store(store), *gpu_families()])


def write_textfile(path: str | Path, store: Any = None, *, folder: str | Path | None = None) -> None:
    """Write `render` to a file in one step, for node_exporter's textfile collector.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    try:
        _write(Path(path), render(store, folder=folder))
    except OSError as error:
        raise OutputError(f"{path}: cannot write metrics: {error.strerror or error}; give another file") from None


def _build() -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    from pipeline.runs import version

    family = GaugeMetricFamily("skysift_build_info", "1; the version is a label.", labels=["version"])
    family.add_metric([version("skysift")], 1)
    yield family


def _store(store: Any) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    if store is None:
        return
    counts = store.counts()
    states = counts["observations"]
    family = GaugeMetricFamily("skysift_observations", "Observations by state.", labels=["state"])
    for state in STATES:
        family.add_metric([state], states.get(state, 0))
    yield family
    yield GaugeMetricFamily("skysift_queue_length", "Observations that wait.", value=states.get("arrived", 0))
    waiting = store.observations(state="arrived", limit=1)
    age = 0.0
    if len(waiting):
        age = max(0.0, time.time() - datetime.fromisoformat(waiting[0]["arrived"]).timestamp())
    yield GaugeMetricFamily("skysift_queue_oldest_seconds", "Age of what has waited longest.", value=age)
    for name in ("runs", "current_runs", "sources", "current_sources"):
        text = f"The catalogue's {name.replace('_', ' ')}."
        yield GaugeMetricFamily(f"skysift_catalogue_{name}", text, value=counts[name])


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    with open(folder / ".lock", "a") as lock:
        fcntl.flock(lock, kind)
        yield


def _write(path: Path, content: bytes) -> None:
    from models.weights import write_whole

    write_whole(path, content)
