"""Speed-up of one large image from one worker to two, beside what the processor itself gives a second process.

    python tests/benchmarks/bench_scaling.py                          8192 squared, 3 rounds: 20 minutes on 2 cores
    python tests/benchmarks/bench_scaling.py --size 4096 --rounds 2   a shorter one

Ways: "threads" is `skysift detect --workers N`, "dask" a LocalCluster of N processes with one thread each. A round runs
every way once, in an order that turns from round to round, so that what else the machine does falls on all alike; a
row is the median over rounds. "bound" is what the hardware allows: the same serial detection of a quarter of the image
in one process, and in two at once that share nothing but the machine; 2 T(1) / T(2). "serial" is what only the client
does (merging, catalogue): the part that Amdahl's law is about. "loop" is a loop of plain Python in one and two
processes. The sky is simulated at 2048 pixels and repeated, as only the amount of work matters.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
SEED_SIDE = 2048
# Stages that only the client works on.
SERIAL = ("open", "merge", "catalogue")

ALONE = """
import sys, time
sys.path.insert(0, {root!r})
from pipeline.detect import analyse
from pipeline.options import DetectOptions
from survey_io import open_image
image = open_image({path!r})
options = DetectOptions(workers=1)
analyse(image, options)
print("ready", flush=True)
sys.stdin.readline()
began = time.perf_counter()
analyse(image, options)
print(time.perf_counter() - began, flush=True)
"""

LOOP = """
import sys, time
print("ready", flush=True)
sys.stdin.readline()
began, total = time.perf_counter(), 0
for i in range(20_000_000):
    total += i * i & 7
print(time.perf_counter() - began, flush=True)
"""


def make_image(folder: Path, side: int) -> Path:
    """A FITS image of so many pixels a side: the simulated one, repeated or cut."""
    from survey_io.simulate.continuum import simulate_continuum

    path = folder / f"sky{side}.fits"
    sky = simulate_continuum((SEED_SIDE, SEED_SIDE), beam_pixels=4.0, seed=SEED_SIDE)
    times = -(-side // SEED_SIDE)
    fits.writeto(path, np.tile(sky.image, (times, times))[:side, :side], sky.header)
    return path


def at_once(code: str, count: int) -> float:
    """Seconds until the last of so many equal processes is done, which begin together."""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    seconds = max(float(process.stdout.readline()) for process in processes)
    for process in processes:
        process.communicate()
    return seconds


class Ways:
    """Every way to do the image, by name; clusters stay up over all rounds, as a survey's do."""

    def __init__(self, image: Path, quarter: Path, workers: tuple[int, ...]):
        from distributed import LocalCluster

        self.image = image
        self.code = ALONE.format(root=str(ROOT), path=str(quarter))
        self.clusters = {
            n: LocalCluster(
                n_workers=n, threads_per_worker=1, dashboard_address=":0", silence_logs=50, memory_limit=0
            )
            for n in workers
        }
        self.names = [f"{way} {n}" for way in ("threads", "dask", "bound", "loop") for n in workers]

    def run(self, name: str) -> dict[str, Any]:
        """Seconds of one way, with those of its stages."""
        from pipeline.detect import analyse
        from pipeline.options import DetectOptions
        from pipeline.runs import Clock
        from survey_io import open_image

        way, count = name.split()[0], int(name.split()[1])
        if way in ("bound", "loop"):
            return {"seconds": at_once(self.code if way == "bound" else LOOP, count), "stages": {}}
        where = {"workers": count} if way == "threads" else {"cluster": self.clusters[count].scheduler_address}
        clock, began = Clock(None), time.perf_counter()
        with clock.stage("open"):
            observation = open_image(self.image)
        table = analyse(observation, DetectOptions(**where), clock=clock).table
        return {"seconds": time.perf_counter() - began, "stages": clock.seconds, "rows": len(table)}

    def close(self) -> None:
        """End the clusters."""
        for cluster in self.clusters.values():
            cluster.close()


def main() -> None:
    """Run all rounds and print the tables."""
    from flows import environment as environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="names of ways, comma list, such as 'threads,bound'")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    arguments = parser.parse_args()
    workers = (1, 2)
    with tempfile.TemporaryDirectory() as folder:
        image = make_image(Path(folder), arguments.size)
        quarter = make_image(Path(folder), arguments.size // 2)
        ways = Ways(image, quarter, workers)
        names = [name for name in ways.names if not arguments.only or name.split()[0] in arguments.only.split(",")]
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        try:
            for number in range(arguments.rounds + 1):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    if number == 0 and name.split()[0] in ("bound", "loop"):
                        continue
                    one = ways.run(name) | {"load": os.getloadavg()[0]}
                    # The first round loads networks and fills the file cache.
                    if number:
                        results[name].append(one)
                        print(f"round {number}: {name}: {one['seconds']:.2f} s (load {one['load']:.1f})", flush=True)
        finally:
            ways.close()
    report(results, workers)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def report(results: dict[str, list[dict[str, Any]]], workers: tuple[int, ...]) -> None:
    """Print medians, speed-ups and the part that is the client's alone."""
    middle = {name: statistics.median(one["seconds"] for one in runs) for name, runs in results.items() if runs}
    print("\n| way | 1 worker (s) | 2 workers (s) | speed-up | of the bound | serial (s) | Amdahl's limit |")
    print("|---|---|---|---|---|---|---|")
    bound = 2 * middle["bound 1"] / middle["bound 2"] if "bound 2" in middle else float("nan")
    for way in ("threads", "dask", "bound", "loop"):
        if f"{way} 2" not in middle:
            continue
        one, two = middle[f"{way} 1"], middle[f"{way} 2"]
        if way in ("bound", "loop"):
            print(f"| {way} | {one:.2f} | {two:.2f} | {2 * one / two:.2f} | | | |")
            continue
        serial = statistics.median(sum(r["stages"].get(s, 0) for s in SERIAL) for r in results[f"{way} 2"])
        limit = one / (serial + (one - serial) / 2)
        gain = one / two
        print(f"| {way} | {one:.2f} | {two:.2f} | {gain:.2f} | {gain / bound:.2f} | {serial:.2f} | {limit:.2f} |")
    print("\nseconds by stage (medians):")
    for name, runs in results.items():
        if runs and runs[0]["stages"]:
            stages = {s: statistics.median(r["stages"][s] for r in runs) for s in runs[0]["stages"]}
            print(f"  {name}: {', '.join(f'{stage} {seconds:.2f}' for stage, seconds in stages.items())}")


if __name__ == "__main__":
    main()
