"""Where a fault strikes: inbox, catalogue and service of one run, clusters, servers and disks, and what was lost."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
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


def digests(folder: Path, names: tuple[str, ...]) -> set[str]:
    """Content hashes of files."""
    from pipeline.runs import file_hash

    return {file_hash(folder / name) for name in names}
