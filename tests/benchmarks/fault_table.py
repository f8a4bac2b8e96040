"""What breaks in the middle of the work, what becomes of it, and what is lost: every fault for real.

    python tests/benchmarks/fault_table.py                    the table, 5 minutes of processor time
    python tests/benchmarks/fault_table.py "full disk" clock  the faults whose names hold one of these

Several files (images, a cube, a spectrum) are processed by `skysift serve`, into a survey's catalogue; a fault strikes
while some are done, some under way and some wait; then everything is made good again and, where the service had to end,
started again by the same command. The catalogue's rows are compared with those of an undisturbed run, value by value.
Faults that need the rights of root, PostgreSQL or libfaketime (Debian: postgresql, faketime) are named as not run
where these are missing. The exit status is 0 only when nothing was lost or doubled.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
IMAGES = ("sky0.fits", "sky1.fits", "sky2.fits")
EVERYTHING = (*IMAGES, "cube.fits", "lines.txt")
# Longer than anything takes on a busy machine.
PATIENCE = 300.0
OPTIONS = "tile: 128\ncube_tile: [64, 40]\nengine: onnx\n"


class NotRunError(Exception):
    """A fault that this machine cannot have, with the reason."""


@dataclass
class Place:
    """Inbox, catalogue and results of one run, and the processes that work there."""

    folder: Path
    files: Path
    url: str = ""
    options: str = OPTIONS
    names: tuple[str, ...] = EVERYTHING
    started: list[subprocess.Popen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inbox, self.home = self.folder / "in", self.folder / "survey"
        self.inbox.mkdir(parents=True)
        self.url = self.url or str(self.home)

    def fill(self) -> None:
        """Put all files into the inbox."""
        for name in self.names:
            shutil.copy(self.files / name, self.inbox / name)

    def start(self, command: list[str], *, log: str = "log", **environment: str) -> subprocess.Popen:
        """Start a process whose output goes to a file."""
        with open(self.folder / log, "ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=self.folder, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(self.folder), **environment},
            )  # fmt: skip
        self.started.append(process)
        return process

    def serve(
        self, *arguments: str, once: bool = True, wrap: tuple[str, ...] = (), **environment: str
    ) -> subprocess.Popen:
        """Start the service on the inbox."""
        (self.folder / "detect.yaml").write_text(self.options)
        command = [
            *wrap, sys.executable, "-m", "flows.cli", "serve", "--inbox", str(self.inbox), "--catalogue", self.url,
            "--output", str(self.home), "--looks", "2", "--interval", "0.2", "--grace", "5",
            "--detect", str(self.folder / "detect.yaml"), *(["--once"] if once else []), *arguments,
        ]  # fmt: skip
        return self.start(command, **environment)

    def again(self, *arguments: str) -> int:
        """Run the same command once more to its end."""
        return self.serve(*arguments).wait(PATIENCE)

    def under_way(self, process: subprocess.Popen, *, done: int = 1) -> None:
        """Wait until some files are done and pieces of another one are."""
        self.until(lambda: len(self.results()) >= done and self.pieces() > 2, process)

    def until(self, condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
        """Wait for something; an error when the process ends before it, or it does not come."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if process is not None and process.poll() is not None:
                raise RuntimeError(f"ended before the fault could strike:\n{self.log()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited in vain:\n{self.log()}")
            time.sleep(0.01)

    def results(self) -> list[Path]:
        """Folders of observations that are done."""
        return [path for path in (self.home / "results").glob("*") if not path.name.startswith(".")]

    def pieces(self) -> int:
        """Finished pieces of the files under way."""
        import sqlite3

        count = 0
        for path in (self.home / "results").glob(".*.work/.*.ledger"):
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger,
            ):
                count += ledger.execute("SELECT count(*) FROM piece").fetchone()[0]
        return count

    def log(self, name: str = "log") -> str:
        """The last that the service said."""
        path = self.folder / name
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def said(self, *words: str) -> str:
        """The first line of the log with all words, without its time; a fault must be told."""
        for line in (self.folder / "log").read_text(errors="replace").splitlines():
            if all(word in line for word in words):
                return line.split("] ", 1)[-1].split("Z error ", 1)[-1].strip()
        raise AssertionError(f"the service does not say {' '.join(words)}:\n{self.log()}")

    def end(self) -> None:
        """End what was started here, and only that."""
        for process in reversed(self.started):
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
                process.kill()
            process.wait()


def child_of(process: subprocess.Popen, word: str) -> psutil.Process:
    """A descendant whose command holds a word."""
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if word in " ".join(child.cmdline()):
                return child
    raise RuntimeError(f"no process with {word!r}")


@contextlib.contextmanager
def dask(place: Place, *, preload: str = "") -> Iterator[Callable[[], list[subprocess.Popen]]]:
    """A scheduler and two workers as separate processes; gives what starts them (again) at the same address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place.options = f"{OPTIONS}cluster: tcp://127.0.0.1:{port}\n"

    def start(*more: str) -> list[subprocess.Popen]:
        head = [sys.executable, "-m"]
        quiet = {"DASK_LOGGING__DISTRIBUTED": "error", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
        scheduler = place.start(
            [*head, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
            log="dask", **quiet,
        )  # fmt: skip
        worker = [
            *head, "distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-dashboard",
            "--local-directory", str(place.folder), *more,
        ]  # fmt: skip
        workers = [place.start(worker, log="dask", **quiet) for _ in range(2)]
        place.until(lambda: listens(port))
        return [scheduler, *workers]

    yield start


def listens(port: int) -> bool:
    """Whether somebody answers at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- the faults: each says what happened and what recovered it ---------------------------------------------------


def worker_killed(place: Place) -> tuple[str, str]:
    """kill -9 of a worker of the service"""
    process = place.serve("--workers", "2")
    place.under_way(process)
    child_of(process, "service.helper").kill()
    assert process.wait(PATIENCE) == 0, place.log()
    return place.said("the process that worked on it died"), "the service, by itself"


def dask_worker_killed(place: Place) -> tuple[str, str]:
    """kill -9 of a Dask worker"""
    with dask(place) as start:
        _, first, _ = start()
        process = place.serve()
        place.under_way(process)
        child_of(first, "spawn").kill()
        assert process.wait(PATIENCE) == 0, place.log()
    return "its pieces went to the other worker, its nanny started another", "Dask, by itself"


def dask_scheduler_killed(place: Place) -> tuple[str, str]:
    """kill -9 of the Dask scheduler"""
    with dask(place) as start:
        running = start()
        process = place.serve()
        place.under_way(process)
        for one in running:
            one.kill()
        start()
        assert process.wait(PATIENCE) == 0, place.log()
    return "the run waited for a scheduler at the same address, then went on", "the run, once it was restarted"


def piece_kills_workers(place: Place) -> tuple[str, str]:
    """a tile that kills its worker each time"""
    poison = place.folder / "poison.py"
    poison.write_text(
        "import os, signal, pipeline.infer as infer\n"
        "whole = infer.find_piece\n"
        "def find_piece(pixels, background, finder, tiles, negative=False):\n"
        "    if not negative and pixels.path.name.startswith('sky1') and tiles[0].core[0].start == 0 "
        "and tiles[0].core[1].start == 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return whole(pixels, background, finder, tiles, negative)\n"
        "find_piece.__module__, find_piece.__qualname__ = 'pipeline.infer', 'find_piece'\n"
        "infer.find_piece = find_piece\n"
    )
    with dask(place) as start:
        running = start("--preload", str(poison))
        assert place.serve("--attempts", "1").wait(PATIENCE) == 2, place.log()
        told = place.said("incomplete, 1 piece could not be done", "y 0:")
        for one in running[1:]:
            one.terminate()
            one.wait()
        running[0].kill()
        start()
        assert place.again("--retry") == 0, place.log()
    return told.split("survey: ")[-1], "the same command with --retry"


def service_killed(place: Place) -> tuple[str, str]:
    """kill -9 of the service"""
    process = place.serve("--workers", "2")
    place.under_way(process)
    process.kill()
    process.wait()
    assert place.again() == 0, place.log()
    return "its workers ended with it", "the same command"


def flow_killed(place: Place) -> tuple[str, str]:
    """kill -9 of a Prefect flow"""
    images = [str(place.inbox / name) for name in place.names]
    (place.folder / "detect.yaml").write_text(OPTIONS)
    output = place.home / "results" / ".flow.work"
    command = [
        sys.executable, "-m", "flows.cli", "detect", *images, "--config", str(place.folder / "detect.yaml"), "-o",
        str(output), "--catalogue", place.url,
    ]  # fmt: skip
    process = place.start([*command, "--flow"], PREFECT_HOME=str(place.folder / "prefect"))
    place.until(lambda: len(list(output.glob("*_run.json"))) >= 1 and place.pieces() > 2, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in family:
        # Prefect's temporary server stays behind.
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    assert place.start(command).wait(PATIENCE) == 0, place.log()
    return "the run stays Running in Prefect, its pieces in the ledger", "the same command"


def database_killed(place: Place) -> tuple[str, str]:
    """kill -9 of PostgreSQL"""
    with postgres() as server:
        place.url = server.database()
        process = place.serve()
        place.under_way(process)
        server.stop(kill=True)
        time.sleep(3)
        server.start()
        assert process.wait(PATIENCE) == 0, place.log()
        compare(place)
    return "the work went on, what needed the database waited for it", "the service, once it was restarted"


def disk_full(place: Place) -> tuple[str, str]:
    """a full disk"""
    with small_disk(place.home) as resize:
        process = place.serve()
        place.under_way(process)
        filler = place.home / "filler"
        with contextlib.suppress(OSError), open(filler, "wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        status = process.wait(PATIENCE)
        assert status not in (0, -9), place.log()
        told = place.said("error", "space")
        filler.unlink()
        resize()
        assert place.again() == 0, place.log()
        compare(place)
    return told, "the same command, once there was room"


def read_only(place: Place) -> tuple[str, str]:
    """an output that becomes read-only"""
    wrap = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    process = place.serve(wrap=wrap)
    place.under_way(process)
    folders = [place.home / "results", *(path for path in (place.home / "results").rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        status = process.wait(PATIENCE)
    finally:
        for folder in folders:
            if folder.exists():
                folder.chmod(0o755)
    assert status not in (0, -9), place.log()
    told = place.said("error", "ermission")
    assert place.again() == 0, place.log()
    return told, "the same command, once it could be written"


def out_of_memory(place: Place) -> tuple[str, str]:
    """a worker without memory"""
    process = place.serve("--attempts", "1")
    place.under_way(process)
    worker = child_of(process, "service.helper")
    limit = worker.memory_info().vms
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (limit, limit))
    assert process.wait(PATIENCE) == 2, place.log()
    told = place.said("failed:")
    assert place.again("--retry") == 0, place.log()
    return told, "the same command with --retry"


def truncated_upload(place: Place) -> tuple[str, str]:
    """an upload cut short and completed later"""
    late = place.inbox / place.names[0]
    whole = late.read_bytes()
    late.write_bytes(whole[: len(whole) // 2])
    process = place.serve(once=False)
    place.until(lambda: len(place.results()) == len(place.names) - 1, process)
    with open(late, "ab") as file:
        file.write(whole[len(whole) // 2 :])
    place.until(lambda: len(place.results()) == len(place.names), process)
    place.until(lambda: place.log().count(" rows in ") + place.log().count(" sources in ") >= len(place.names), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0, place.log()
    return "it waited while the other files were done", "the service, when the rest had come"


def clock_jumps(place: Place) -> tuple[str, str]:
    """a clock that jumps by days"""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    if library is None:
        raise NotRunError("Debian's package faketime is not installed")
    clock = place.folder / "clock"
    clock.write_text("+0\n")
    process = place.serve(
        "--workers", "2", LD_PRELOAD=str(library), FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1",
    )  # fmt: skip
    place.under_way(process)
    clock.write_text("+2d\n")
    place.under_way(process, done=2)
    clock.write_text("-3d\n")
    assert process.wait(PATIENCE) == 0, place.log()
    return "two days on, then five back; no observation was taken from its worker", "nothing needed"


def terminated(place: Place) -> tuple[str, str]:
    """SIGTERM"""
    process = place.serve()
    place.under_way(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0, place.log()
    told = place.said("stopping")
    assert place.again() == 0, place.log()
    return told, "the same command"


# Fault, and the files that it is tried on: those of a cluster cost its workers' start beside the service's.
FAULTS: list[tuple[Callable[[Place], tuple[str, str]], tuple[str, ...]]] = [
    (worker_killed, EVERYTHING), (dask_worker_killed, EVERYTHING), (dask_scheduler_killed, IMAGES),
    (piece_kills_workers, IMAGES), (service_killed, EVERYTHING), (flow_killed, IMAGES), (database_killed, EVERYTHING),
    (disk_full, EVERYTHING), (read_only, EVERYTHING), (out_of_memory, EVERYTHING), (truncated_upload, EVERYTHING),
    (clock_jumps, EVERYTHING), (terminated, EVERYTHING),
]  # fmt: skip


@contextlib.contextmanager
def postgres() -> Iterator[Any]:
    """The tests' own PostgreSQL server."""
    spec = importlib.util.spec_from_file_location("postgres", ROOT / "tests" / "postgres.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.find_programs() is None:
        raise NotRunError("Debian's package postgresql is not installed")
    with module.serve_postgres() as server:
        yield server


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A file system of a few megabytes at a folder; gives what makes it larger."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        raise NotRunError("a small file system needs the right to mount one")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


Rows = dict[str, Counter]


def rows_of(url: str) -> tuple[Rows, int]:
    """Rows that count, value by value, by the content of their file; and how many the catalogue says there are."""
    from pipeline.survey import open_store

    found: Rows = {}
    with open_store(url, create=False) as store:
        for run in store.runs(current=True):
            sha256 = store.observation(run["observation_id"])["sha256"]
            table = store.sources(run["id"])
            rows = Counter(tuple(repr(value) for value in row) for row in table.as_array().tolist())
            found.setdefault(sha256, Counter()).update(rows)
        return found, store.counts()["current_sources"]


@dataclass
class Loss:
    """What differs from the undisturbed run."""

    lost: int
    doubled: int
    observations: int


def compare(place: Place, reference: Rows | None = None) -> Loss:
    """Compare a catalogue with the undisturbed one; kept with the place, as some go with their server or disk."""
    if not hasattr(place, "found"):
        place.found = rows_of(place.url)
    if reference is None:
        return Loss(0, 0, 0)
    found, count = place.found
    lost = sum((reference[key] - found.get(key, Counter())).total() for key in reference)
    doubled = sum((found[key] - reference.get(key, Counter())).total() for key in found)
    # Rows of runs that should not count any more are not in any current run, but in the count.
    doubled += max(0, count - sum(rows.total() for rows in found.values()))
    return Loss(lost, doubled, len(set(reference) - set(found)))


def make_files(folder: Path) -> None:
    """Three images, a cube and a spectrum, small, seeded."""
    from survey_io.simulate.continuum import SkyModel, simulate_continuum
    from survey_io.simulate.hi import HiModel, simulate_hi, write_hi
    from survey_io.simulate.tables import write_simulation

    folder.mkdir(parents=True)
    for number, shape in enumerate(((520, 440), (440, 520), (480, 480))):
        sky = simulate_continuum(
            shape, beam_pixels=4.0, seed=40 + number, model=SkyModel(density=0.01), centre=(150.0 + number, 2.0)
        )
        write_simulation(sky, folder, stem=f"sky{number}")
    model = HiModel(shape=(170, 72, 90), density=14, rms=4e-6, first_frequency=1.02e9)
    write_hi(model, *simulate_hi(model, seed=12), folder)
    channel = np.arange(3000)
    lines = sum(9 * np.exp(-0.5 * ((channel - c) / 4) ** 2) for c in (150, 420, 560, 700, 800, 1500, 2400))
    flux = np.random.default_rng(4).normal(0, 1, 3000) + lines
    np.savetxt(folder / "lines.txt", np.c_[1400.0 + 0.01 * channel, flux], header="frequency(MHz) flux(Jy)")


def strike(fault: Callable[[Place], tuple[str, str]], place: Place, reference: Rows) -> tuple[str, bool]:
    """One row of the table, and whether it is as it should be."""
    name, began = (fault.__doc__ or "").strip(), time.monotonic()
    place.fill()
    try:
        happened, recovered = fault(place)
        loss = compare(place, reference)
    except NotRunError as reason:
        return f"| {name} | not run: {reason} | | | | | |", True
    finally:
        place.end()
    seconds = time.monotonic() - began
    happened = " ".join(happened.replace("|", "/").replace(str(place.folder), "...").split())
    row = f"| {name} | {happened[:200]} | {recovered} | {loss.lost} | {loss.doubled} | {loss.observations} "
    return f"{row}| {seconds:.0f} |", not (loss.lost or loss.doubled or loss.observations)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", help="words of the faults' names; all by default")
    parser.add_argument("--keep", type=Path, help="folder that keeps everything, for looking into it")
    arguments = parser.parse_args()
    chosen = [
        (fault, names) for fault, names in FAULTS
        if not arguments.faults or any(word in (fault.__doc__ or "") for word in arguments.faults)
    ]  # fmt: skip
    good = True
    with contextlib.ExitStack() as stack:
        # A socket's path is short, and so is this one.
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults")))
        make_files(folder / "files")
        calm = Place(folder / "calm", folder / "files")
        calm.fill()
        assert calm.again() == 0, calm.log()
        whole, count = rows_of(calm.url)
        print(f"undisturbed: {len(whole)} observations, {count} rows\n", flush=True)
        print("| fault | what happened | recovered by | rows lost | rows doubled | observations lost | seconds |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for fault, names in chosen:
            place = Place(folder / fault.__name__, folder / "files", names=names)
            reference = {key: rows for key, rows in whole.items() if key in digests(folder / "files", names)}
            row, fine = strike(fault, place, reference)
            good &= fine
            print(row, flush=True)
    times = os.times()
    print(f"\nprocessor time: {times.user + times.system + times.children_user + times.children_system:.0f} s")
    return 0 if good else 1


def digests(folder: Path, names: tuple[str, ...]) -> set[str]:
    """Content hashes of files."""
    from pipeline.runs import file_hash

    return {file_hash(folder / name) for name in names}


if __name__ == "__main__":
    sys.exit(main())
