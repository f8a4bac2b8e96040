"""How far the design scales: task times of a real run, replayed by a simulation with up to 1024 workers.

    python tests/benchmarks/simulate_scaling.py               records at 4096 px, 3 minutes
    python tests/benchmarks/simulate_scaling.py --size 2048   quicker

Recorded: seconds and result bytes of every piece of a detection on Dask with one and with two workers; processor time
that a task costs the client (submitting, gathering, ledger) and the scheduler, each in its own process. Replayed: a
task waits for the client, the scheduler, a free worker, the shared disk and the client's network, each first come first
served; stages wait for each other as in the program. The replay of the recorded runs is compared with their measured
seconds. Disk and network are assumed (--disk, --network), everything else is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).resolve().parent))
TILE = 1536
WORKERS = (1, 2, 4, 16, 64, 256, 1024)


@dataclass
class Stage:
    """Pieces of one stage: seconds, bytes read, bytes of results; and what the client does alone afterwards."""

    name: str
    seconds: np.ndarray
    read: float
    result: float
    alone: float = 0.0


@dataclass
class Costs:
    """Seconds that one task costs client and scheduler; bytes per second of disk and network."""

    client: float
    scheduler: float
    disk: float
    network: float


class Timed:
    """A piece's function that tells its seconds, and its process's seconds of a processor, along with its arrays."""

    def __init__(self, function: Callable[..., dict]):
        self.function = function

    def __call__(self, *arguments: Any) -> dict[str, np.ndarray]:
        import time

        began, used = time.perf_counter(), time.process_time()
        arrays = self.function(*arguments)
        return {**arrays, "_seconds": np.array([time.perf_counter() - began, time.process_time() - used])}


def record(image: Path, workers: int) -> tuple[list[Stage], list[Stage], float]:
    """Stages of a real run on so many Dask workers by the clock and by processor time, and its measured seconds."""
    from distributed import LocalCluster

    import pipeline.dask_workers as dask_workers
    from pipeline.detect import analyse
    from pipeline.options import DetectOptions
    from pipeline.runs import Clock
    from survey_io import open_image

    traces: list[tuple[str, list[Any], list[int]]] = []
    plain = dask_workers.DaskWorkers.results

    def results(self: Any, function: Callable, shared: tuple, todo: Iterator, **way: Any) -> Iterator:
        trace = (function.__name__, [], [])
        traces.append(trace)
        for piece, answer in plain(self, Timed(function), shared, todo, **way):
            trace[1].append(answer.pop("_seconds"))
            trace[2].append(sum(array.nbytes for array in answer.values()))
            yield piece, answer

    class Used(Clock):
        """Also the client's processor seconds by stage."""

        def __init__(self) -> None:
            super().__init__(None)
            self.used: dict[str, float] = {}

        @contextlib.contextmanager
        def stage(self, name: str, total: int = 1) -> Iterator[Callable[[int], None]]:
            began = time.process_time()
            with super().stage(name, total) as advance:
                yield advance
            self.used[name] = self.used.get(name, 0.0) + time.process_time() - began

    dask_workers.DaskWorkers.results = results
    try:
        with LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50, memory_limit=0
        ) as cluster:
            options = DetectOptions(cluster=cluster.scheduler_address)
            # The first run loads the networks.
            for _ in range(2):
                traces.clear()
                clock, began = Used(), time.perf_counter()
                analyse(open_image(image), options, clock=clock)
                whole = time.perf_counter() - began
    finally:
        dask_workers.DaskWorkers.results = plain
    read = {"background_piece": 4e6, "find_piece": 4.0 * (TILE + 128) ** 2}
    whole_image = 4.0 * np.prod(open_image(image).shape)
    made = []
    for number, alone in enumerate((clock.seconds, clock.used)):
        stages = [
            Stage(name, np.array(seconds)[:, number], read.get(name, whole_image / len(sizes)), float(np.mean(sizes)))
            for name, seconds, sizes in traces
        ]
        stages[-1].alone = sum(alone.get(name, 0.0) for name in ("merge", "catalogue"))
        made.append(stages)
    return *made, whole


def small_piece(size: int, number: int) -> dict[str, np.ndarray]:
    """A piece that costs its worker nothing and gives what a tile gives."""
    return {"values": np.zeros(size, np.uint8)}


def task_costs(result_bytes: int, count: int = 400) -> tuple[float, float]:
    """Processor seconds of a task in the client and in the scheduler, each a process of its own."""
    import pipeline.dask_workers as dask_workers
    from pipeline.ledger import Ledger
    from pipeline.tasks import run_stage

    folder = tempfile.mkdtemp()
    address = Path(folder, "scheduler.json")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_LOGGING__DISTRIBUTED": "error"}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen([*command, "--scheduler-file", str(address)], env=environment)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "2", "--no-nanny", "--no-dashboard"]
    worker = subprocess.Popen([*command, "--scheduler-file", str(address)], env=environment)
    most, dask_workers.MOST_AT_ONCE = dask_workers.MOST_AT_ONCE, 1
    try:
        while not address.exists() or not address.read_text():
            time.sleep(0.05)
        import json

        with dask_workers.remote_workers(json.loads(address.read_text())["address"]) as client:
            ledger = Ledger(Path(folder, "x.ledger"), "")
            pieces = [(number, (number,)) for number in range(count)]
            run_stage("warm", small_piece, pieces[:50], ledger, shared=(result_bytes,), client=client)
            process = psutil.Process(scheduler.pid)
            before = time.process_time(), sum(process.cpu_times()[:2])
            run_stage("tasks", small_piece, pieces, ledger, shared=(result_bytes,), client=client)
            after = time.process_time(), sum(process.cpu_times()[:2])
    finally:
        dask_workers.MOST_AT_ONCE = most
        for one in (worker, scheduler):
            one.terminate()
            one.wait()
    return (after[0] - before[0]) / count, (after[1] - before[1]) / count


class Replay:
    """One stage's tasks on their way through client, scheduler, disk and workers, from a moment on."""

    def __init__(self, stage: Stage, now: float, workers: int, costs: Costs, clients: int, schedulers: int):
        self.stage, self.workers, self.costs = stage, workers, costs
        self.free, self.client, self.scheduler, self.disk = [now] * workers, [now] * clients, [now] * schedulers, now
        self.left, self.arriving, self.number = list(stage.seconds[::-1]), [], 0
        self.typical = float(np.mean(stage.seconds))
        self.busy = dict.fromkeys(("client", "scheduler", "disk", "network", "workers"), 0.0)

    def submit(self, at: float, *, together: bool) -> None:
        """The next task: when it goes out, where it waits, when its result arrives."""
        from pipeline.dask_workers import MOST_AT_ONCE, SHARES, TASK_SECONDS

        most = min(len(self.left) // (SHARES * self.workers), round(TASK_SECONDS / self.typical), MOST_AT_ONCE)
        pieces = [self.left.pop() for _ in range(min(len(self.left), max(1, most if together else 1)))]
        own, its, count = self.number % len(self.client), self.number % len(self.scheduler), len(pieces)
        self.number += 1
        read, moved = count * self.stage.read / self.costs.disk, count * self.stage.result / self.costs.network
        self.client[own] = max(self.client[own], at) + self.costs.client / 2
        self.scheduler[its] = max(self.scheduler[its], self.client[own]) + self.costs.scheduler
        self.disk = max(self.disk, heapq.heappop(self.free), self.scheduler[its]) + read
        done = self.disk + sum(pieces)
        heapq.heappush(self.free, done)
        heapq.heappush(self.arriving, (done + moved, own))
        self.busy["client"] += self.costs.client / len(self.client)
        self.busy["scheduler"] += self.costs.scheduler / len(self.scheduler)
        self.busy["disk"] += read
        self.busy["network"] += moved
        self.busy["workers"] += sum(pieces) / self.workers

    def run(self, now: float, *, together: bool) -> float:
        """When the last result has been taken in."""
        from pipeline.dask_workers import LEAST_WINDOW
        from pipeline.local_workers import WINDOW_PER_WORKER

        while self.left and len(self.arriving) < max(LEAST_WINDOW, WINDOW_PER_WORKER * self.workers):
            self.submit(now, together=together)
        while self.arriving:
            at, own = heapq.heappop(self.arriving)
            self.client[own] = max(self.client[own], at) + self.costs.client / 2
            if self.left:
                self.submit(self.client[own], together=together)
        return max(self.client)


def simulate(
    stages: list[Stage], workers: int, costs: Costs, *, together: bool = True, clients: int = 1, schedulers: int = 1
) -> tuple[float, dict[str, float]]:
    """Seconds of a run, and the share of them that each resource was busy.

    ``together``: short pieces share a task, by the rule of `pipeline.dask_workers`. ``clients``: so many runs, one per
    observation, that share the pieces evenly.
    """
    now, busy = 0.0, dict.fromkeys(("client", "scheduler", "disk", "network", "workers"), 0.0)
    for stage in stages:
        replay = Replay(stage, now, workers, costs, clients, schedulers)
        now = replay.run(now, together=together) + stage.alone / clients
        busy = {name: seconds + replay.busy[name] for name, seconds in busy.items()}
        busy["client"] += stage.alone / clients
    return now, {name: seconds / now for name, seconds in busy.items()}


def enlarge(stages: list[Stage], factor: float, seed: int = 0) -> list[Stage]:
    """The stages of an image of so many times the area: more pieces of the recorded kinds; the negative stays."""
    rng, larger, found = np.random.default_rng(seed), [], 0
    for stage in stages:
        found += stage.name == "find_piece"
        fixed = stage.name == "find_piece" and found == 2
        count = len(stage.seconds) if fixed else max(len(stage.seconds), round(len(stage.seconds) * factor))
        larger.append(
            Stage(stage.name, rng.choice(stage.seconds, count), stage.read, stage.result, stage.alone * factor)
        )
    return larger


def group(seconds: np.ndarray, count: int) -> np.ndarray:
    """Seconds of pieces made of so many of the recorded ones."""
    return np.array([part.sum() for part in np.array_split(seconds, max(1, len(seconds) // count))])


def table(title: str, stages: list[Stage], costs: Costs, **way: Any) -> None:
    """Print speed-up, efficiency and the busiest resource by number of workers."""
    print(f"\n{title}\n\n| workers | seconds | speed-up | efficiency | busiest | client | scheduler | disk |")
    print("|---|---|---|---|---|---|---|---|")
    alone = None
    for workers in WORKERS:
        seconds, busy = simulate(stages, workers, costs, **way)
        alone = alone or seconds
        gain, first = alone / seconds, max(busy, key=busy.get)
        print(
            f"| {workers} | {seconds:.1f} | {gain:.1f} | {gain / workers:.0%} | {first} {busy[first]:.0%} | "
            f"{busy['client']:.0%} | {busy['scheduler']:.0%} | {busy['disk']:.0%} |"
        )


def main() -> None:
    """Record, check, and print the tables."""
    from bench_scaling import make_image

    from flows import environment as environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--disk", type=float, default=5e9, help="bytes per second of the shared file system")
    parser.add_argument("--network", type=float, default=1.25e9, help="bytes per second into the client's machine")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = make_image(Path(folder), arguments.size)
        recorded = {workers: record(image, workers) for workers in (1, 2)}
    # A busy machine stretches seconds by the clock, and not those of a processor.
    stages = recorded[1][1]
    tiles = next(stage for stage in stages if stage.name == "find_piece")
    client, scheduler = task_costs(int(tiles.result))
    costs = Costs(client, scheduler, arguments.disk, arguments.network)
    print(f"a task costs the client {1e3 * client:.2f} ms and the scheduler {1e3 * scheduler:.2f} ms of a processor")
    each, size = tiles.seconds.mean(), tiles.result / 1e3
    print(f"a tile takes {each:.2f} s and gives {size:.0f} kB; load of the machine {os.getloadavg()[0]:.1f}")
    for workers, (trace, _, measured) in recorded.items():
        seconds, _ = simulate(trace, workers, costs)
        print(f"check: {workers} worker(s): measured {measured:.2f} s, replayed {seconds:.2f} s")
    large = enlarge(stages, (65536 / arguments.size) ** 2)
    alone = stages[-1].alone
    print(f"merging and catalogue, which the client does alone: {alone:.2f} s of {arguments.size} px")
    table("One image of 65536 px, a task per piece", large, costs, together=False)
    table("One image of 65536 px, short pieces together (as the program does)", large, costs)
    wide = enlarge(stages, (131072 / arguments.size) ** 2)
    table("One image of 131072 px", wide, costs)
    groups = [
        Stage(one.name, group(one.seconds, 4), 4 * one.read, 4 * one.result, one.alone)
        if one.name == "find_piece" else one for one in wide
    ]  # fmt: skip
    table("One image of 131072 px, tiles of four times the area (--tile 3072)", groups, costs)
    many = enlarge(stages, 200 * (8192 / arguments.size) ** 2)
    table("200 images of 8192 px, 64 at a time, one scheduler", many, costs, clients=64)
    table("200 images of 8192 px, 64 at a time, eight schedulers", many, costs, clients=64, schedulers=8)


if __name__ == "__main__":
    main()
