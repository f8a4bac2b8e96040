"""Speed and memory from FITS image to FITS table, per stage, beside the classical finders on the same image.

    python tests/benchmarks/bench_speed.py                              4096 and 16384 squares
    python tests/benchmarks/bench_speed.py --sizes 4096 --models light  a shorter one
    python tests/benchmarks/bench_speed.py -- --precision bf16          after --: options of detect

Every run is a process of its own. "command" is timed from its start to its end, with Python's start-up,
imports and the picture; "to table" from opening the FITS image to the finished table. "peak" is the largest
sum, over the processes of a run, of memory that is theirs (PSS: shared pages counted once). The classical
finders run in the environment that peers_setup.sh makes; those that are missing are left out. The sky is
simulated at 4096 pixels; larger ones repeat it, as only the amount of work matters.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from astropy.io import fits

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
SEED = 4096
LARGEST_SIMULATED = 4096
# PyBDSF needs 46 s and 1.4 GB at 4096 and about 20 GB at 16384.
PEERS = {"sep": 1 << 30, "sextractor": 1 << 30, "pybdsf": 4096}
SAMPLE_SECONDS = 0.05


class PeakMemory(threading.Thread):
    """Watch a process and its descendants; ``peak`` is in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.peak = 0
        self.finished = threading.Event()

    def run(self) -> None:
        """Sample until `finished` is set."""
        while not self.finished.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        total = 0
        try:
            family = [self.root, *self.root.children(recursive=True)]
        except psutil.Error:
            return 0
        for process in family:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                # A process that has just ended holds nothing.
                continue
        return total


def timed(command: list[str], *, environment: dict[str, str] | None = None) -> dict:
    """Run a command; return its ``seconds``, ``cpu`` (s), ``peak`` (bytes), ``output`` and ``status``."""
    before, start = os.times(), time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    watch = PeakMemory(process.pid)
    watch.start()
    output, errors = process.communicate()
    seconds, after = time.perf_counter() - start, os.times()
    watch.finished.set()
    watch.join()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "seconds": seconds, "cpu": cpu, "peak": watch.peak, "output": output, "errors": errors,
        "status": process.returncode,
    }  # fmt: skip


def make_image(size: int, folder: Path) -> Path:
    """Write a simulated sky of ``size`` x ``size`` pixels, made of repeats when large; return its path."""
    from survey_io.simulate.continuum import simulate_continuum
    from survey_io.simulate.tables import image_header

    path = folder / f"sky{size}.fits"
    side = min(size, LARGEST_SIMULATED)
    piece = simulate_continuum((side, side), seed=SEED)
    beam = (4.0, 4.0, 0.0)
    header = image_header((size, size), beam, pixel_scale=0.6, frequency=1.4e9, centre=(0.0, -30.0))
    sizes = [("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", size), ("NAXIS2", size)]
    header = fits.Header([*sizes, *header.cards])
    repeats = -(-size // side)
    # Row by row: an image of 16384 squared would not fit in the memory that the runs are allowed.
    with path.open("wb") as stream:
        stream.write(header.tostring().encode("ascii"))
        for row in range(size):
            stream.write(np.tile(piece.image[row % side].astype(">f4"), repeats)[:size].tobytes())
        stream.write(bytes(-stream.tell() % 2880))
    return path


def run_skysift(image: Path, model: str, extra: list[str], folder: Path) -> dict:
    """Time ``skysift detect`` on an image; adds ``rows``, ``stages`` and ``to_table`` (s)."""
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "detect",
        str(image),
        "--model",
        model,
        "-o",
        str(folder),
        "--fresh",
    ]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    measured = timed([*command, *extra], environment={"PYTHONPATH": paths})
    if measured["status"] == 0:
        manifest = json.loads((folder / f"{image.stem}_run.json").read_text(encoding="utf-8"))
        measured["stages"] = manifest.get("timings", {})
        # The picture is drawn after the table is written; the classical finders draw none.
        measured["to_table"] = sum(value for name, value in measured["stages"].items() if name != "picture")
        measured["rows"] = fits.getheader(folder / f"{image.stem}_cat.fits", 1)["NAXIS2"]
    return measured


def run_peer(image: Path, peer: str, python: Path, settings: dict, folder: Path) -> dict:
    """Time a classical finder with the first of its settings; adds ``rows`` and ``to_table`` (s)."""
    choices = settings[peer]
    setting = choices[0] if isinstance(choices, list) else next(iter(choices.values()))
    command = [str(python), str(HERE / "run_peers.py"), str(image), peer, str(folder / f"{peer}.csv")]
    measured = timed([*command, "--setting", json.dumps(setting)])
    if measured["status"] == 0:
        cost = json.loads(measured["output"].strip().splitlines()[-1])
        measured["rows"], measured["to_table"] = cost["rows"], cost["seconds"]
    return measured


def peer_settings(python: Path) -> dict:
    """Ask the peers' environment what it can run."""
    if not python.is_file():
        print(f"no peers: {python} is missing; make it with sh {HERE / 'peers_setup.sh'}", file=sys.stderr)
        return {}
    command = [str(python), str(HERE / "run_peers.py"), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"no peers: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return {}
    return json.loads(done.stdout.strip().splitlines()[-1])


def line(size: int, name: str, measured: dict) -> str:
    """Format one run as a line of the table."""
    if measured["status"]:
        reason = (measured["errors"].strip().splitlines() or ["no message"])[-1]
        return f"{size:6d}  {name:<22} failed: {reason[:100]}"
    speeds = [size * size / measured[what] / 1e6 for what in ("seconds", "to_table")]
    numbers = f"{measured['seconds']:8.1f} {measured['cpu']:8.1f} {measured['peak'] / 2**20:7.0f}"
    numbers += f" {speeds[0]:12.2f} {speeds[1]:9.2f}"
    return f"{size:6d}  {name:<22} {numbers} {measured.get('rows', 0):8d}"


def main() -> None:
    """Run everything that was asked for and print the tables."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    peers = Path(os.environ.get("SKYSIFT_PEERS") or cache / "skysift" / "peers")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--models", nargs="*", default=["light", "sdc1", "threshold"])
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--peers-python", type=Path, default=peers / "bin" / "python")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument(
        "--scratch", type=Path, help="folder for images and results (default: a temporary one)"
    )
    parser.add_argument("extra", nargs="*", help="after --: further options of skysift detect")
    options = parser.parse_args()
    settings = peer_settings(options.peers_python) if options.peers else {}
    results, stages = [], []
    print(f"{os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")
    print("                                                  peak      Mpix/s   Mpix/s")
    print("  size  finder                      s    CPU s     MiB      command  to table     rows")
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        for size in options.sizes:
            image = make_image(size, folder)
            runs = [
                (f"skysift {model}", run_skysift, (image, model, options.extra, folder / model))
                for model in options.models
            ]
            runs += [
                (peer, run_peer, (image, peer, options.peers_python, settings, folder))
                for peer in options.peers
                if peer in settings and size <= PEERS[peer]
            ]
            for label, run, arguments in runs:
                measured = run(*arguments)
                print(line(size, label, measured), flush=True)
                results.append({"size": size, "finder": label, **measured})
                if measured.get("stages"):
                    stages.append((size, label, measured["stages"]))
            image.unlink()
    for size, label, seconds in stages:
        parts = ", ".join(
            f"{stage} {value:.1f} s ({size * size / value / 1e6:.1f})"
            for stage, value in seconds.items()
            if value > 0
        )
        print(f"{size} {label}, seconds (Mpix/s) per stage: {parts}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
