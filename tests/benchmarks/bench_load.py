"""The load table: many small images dropped into the inbox at once, against the plain command on the same files.

    PYTHONPATH=. python tests/benchmarks/bench_load.py --files 200 --side 256

Prints files per minute, memory and overhead of both, their ratio, and whether each file was processed once, in order of
arrival and with the catalogue of the plain command. Its exit status is 1 where one of these is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from pipeline.journal import read_journal
from pipeline.survey import open_store
from survey_io.catalogue import read_catalogue
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation

COMMAND = [sys.executable, "-m", "flows.cli"]


@contextmanager
def peak_memory(pid: int) -> Iterator[list[float]]:
    """MiB that a process and its children hold together at most; one number, when the block has ended."""
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            try:
                process = psutil.Process(pid)
                held = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
                peak[0] = max(peak[0], held / 2**20)
            except psutil.Error:
                continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def make_images(folder: Path, files: int, side: int) -> list[Path]:
    """Seeded skies, each another."""
    made = []
    for seed in range(files):
        sky = simulate_continuum((side, side), seed=seed, model=SkyModel(density=0.004))
        made.append(write_simulation(sky, folder / "made", stem=f"sky{seed:04d}")["image"])
    return made


def run_plain(images: list[Path], output: Path) -> tuple[float, float]:
    """Wall seconds and MiB of ``skysift detect`` on all files."""
    began = time.perf_counter()
    process = subprocess.Popen([*COMMAND, "detect", *map(str, images), "-o", str(output)], stdout=subprocess.DEVNULL)
    with peak_memory(process.pid) as peak:
        status = process.wait()
    if status:
        raise SystemExit(f"the plain command failed with status {status}")
    return time.perf_counter() - began, peak[0]


def run_service(images: list[Path], place: Path, workers: int) -> tuple[float, float, list[Path]]:
    """Wall seconds from the drop to the last result, MiB, and the files in the order of the drop."""
    inbox, ready = place / "inbox", place / "ready"
    inbox.mkdir()
    ready.mkdir()
    order = [images[number] for number in np.random.default_rng(0).permutation(len(images))]
    for path in order:
        shutil.copyfile(path, ready / path.name)
    command = [*COMMAND, "serve", "--inbox", str(inbox), "--catalogue", str(place / "survey")]
    with open(place / "serve.log", "w") as log:
        process = subprocess.Popen([*command, "--workers", str(workers)], stdout=log, stderr=log)
    try:
        with peak_memory(process.pid) as peak, open_store(place / "survey") as store:
            # A service that runs: its start is not part of the load.
            time.sleep(10)
            began = time.perf_counter()
            for path in order:
                (ready / path.name).rename(inbox / path.name)
                # Two within a tick of the file system's clock would have come at the same time.
                time.sleep(0.006)
            while store.counts()["observations"]["done"] < len(images):
                if process.poll() is not None or time.perf_counter() - began > 60 + 20 * len(images):
                    raise SystemExit((place / "serve.log").read_text()[-3000:])
                time.sleep(0.2)
            seconds = time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    if status:
        raise SystemExit(f"the service ended with status {status}")
    return seconds, peak[0], order


def same_rows(one: Path, other: Path) -> bool:
    """Whether two catalogues hold the same numbers."""
    first, second = read_catalogue(one), read_catalogue(other)
    return first.colnames == second.colnames and all(
        np.array_equal(np.asarray(first[name]), np.asarray(second[name]), equal_nan=first[name].dtype.kind == "f")
        for name in first.colnames
    )


def check(images: list[Path], order: list[Path], place: Path, plain: Path) -> tuple[dict[str, object], list[float]]:
    """What must hold, and each observation's seconds beside those of its detection."""
    with open_store(place / "survey") as store:
        observations = store.observations()
        runs = sorted(store.runs(), key=lambda run: run["id"])
    folders = {Path(run["output"]).name.rsplit("-", 1)[0]: Path(run["output"]) for run in runs}
    names = [one["name"] for one in observations]
    different = [
        path.stem for path in images
        if not same_rows(plain / f"{path.stem}_cat.fits", folders[path.stem] / f"{path.stem}_cat.fits")
    ]  # fmt: skip
    lines = {one["observation"]: one for one in read_journal(place / "survey" / "logs") if "rows" in one}
    beside = []
    for run in runs:
        manifest = json.loads(next(Path(run["output"]).glob("*_run.json")).read_text())
        beside.append(lines[run["observation_id"]]["seconds"] - manifest["total_seconds"])
    facts = {
        "observations": len(observations),
        "runs": len(runs),
        "arrived out of order": sum(a != b.name for a, b in zip(names, order, strict=True)),
        "finished out of order": int(np.count_nonzero(np.diff([run["observation_id"] for run in runs]) < 0)),
        "catalogues that differ": len(different),
    }
    return facts, beside


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="skysift-load-") as folder:
        place = Path(folder)
        images = make_images(place, given.files, given.side)
        plain, plain_memory = run_plain(images, place / "plain")
        served, memory, order = run_service(images, place, given.workers)
        facts, beside = check(images, order, place, place / "plain")
    print(f"| {given.files} images of {given.side} px | plain command | service, {given.workers} worker |")
    print("|---|---|---|")
    print(f"| seconds | {plain:.1f} | {served:.1f} |")
    print(f"| files per minute | {60 * given.files / plain:.0f} | {60 * given.files / served:.0f} |")
    print(f"| seconds per image | {plain / given.files:.3f} | {served / given.files:.3f} |")
    print(f"| beside the detection itself, median and most | | {np.median(beside):.3f} s, {max(beside):.2f} s |")
    print(f"| memory at most (MiB) | {plain_memory:.0f} | {memory:.0f} |")
    print(f"| time of the plain command | 1 | {served / plain:.3f} |")
    for name, value in facts.items():
        print(f"| {name} | | {value} |")
    wanted = {"observations": given.files, "runs": given.files}
    held = all(value == wanted.get(name, 0) for name, value in facts.items() if given.workers == 1 or "out" not in name)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
