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
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
from fault_places import (  # noqa: E402 (the benchmarks' folder comes to the path first)
    EVERYTHING,
    IMAGES,
    OPTIONS,
    PATIENCE,
    NotRunError,
    Place,
    Rows,
    child_of,
    compare,
    dask,
    digests,
    make_files,
    postgres,
    rows_of,
    small_disk,
)

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
        # It may be read twice in one process.
        "whole = infer.__dict__.setdefault('whole_piece', infer.find_piece)\n"
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
    """a clock that jumps by an hour"""
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
    clock.write_text("+3600\n")
    place.under_way(process, done=2)
    clock.write_text("+0\n")
    happened = "an hour on, then back; no observation was taken from its worker"
    if process.wait(PATIENCE):
        # With libfaketime a bare time.sleep(0.2) is refused so, without any jump: it waits until a moment of the steady
        # clock, which the library shifts.
        told = place.said("Invalid argument")
        assert place.again() == 0, place.log()
        return f"{happened}; the service ended with {told!r}", "the same command"
    return happened, "nothing needed"


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


if __name__ == "__main__":
    sys.exit(main())
