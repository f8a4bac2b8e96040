"""Processor, memory, disks, shared memory, GPUs and the clock."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from .finding import FAIL, OK, WARN, Finding, Place

GIB = 2**30
# Free space below which results of the next images may not fit: a catalogue, a picture and the ledger of an image of
# 16384 x 16384 px take some 100 MB.
DISK_WARN, DISK_FAIL = 5 * GIB, GIB // 2
INODES_WARN, INODES_FAIL = 20_000, 1_000
MEMORY_WARN, MEMORY_FAIL = 2 * GIB, GIB // 2
SHARED_WARN = GIB
FILES_WARN = 1024
SKEW_WARN, SKEW_FAIL = 2.0, 30.0


def check_processor(cpuinfo: Path = Path("/proc/cpuinfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> Iterator[Finding]:
    """Instructions that networks gain by, and threads that would wait for each other."""
    flags: set[str] = set()
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    cores = usable_cores(cgroup)
    fast = [name for name in ("avx2", "avx512f", "amx_bf16", "asimd", "sve") if name in flags]
    text = f"{cores:g} of {os.cpu_count()} cores, {', '.join(fast) or 'no vector instructions known'}"
    if flags and not fast:
        yield Finding("processor", WARN, text, "networks run several times slower without AVX2: another machine")
    else:
        yield Finding("processor", OK, text)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > cores:
            yield Finding("threads", WARN, f"{name}={value} on {cores:g} cores", f"unset {name}: threads wait in turn")
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    if policy.lower() == "active":
        yield Finding("threads", WARN, f"OMP_WAIT_POLICY={policy}", "unset it: idle threads take the others' cores")


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that this process may use: of the machine, its affinity and its container's quota the least."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        cores = min(cores, int(quota) / int(period))
    return cores


def check_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> Iterator[Finding]:
    """Memory that is free, of the machine or of the container."""
    available = None
    with suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        available = int(lines["MemAvailable"].split()[0]) * 1024
    with suppress(OSError, ValueError):
        left = int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
        available = left if available is None else min(available, left)
    if available is None:
        yield Finding("memory", OK, "this system does not tell")
        return
    status = FAIL if available < MEMORY_FAIL else WARN if available < MEMORY_WARN else OK
    advice = "" if status == OK else "fewer --workers or a smaller --tile, or more memory (an image takes up to 1 GiB)"
    yield Finding("memory", status, f"{available / GIB:.1f} GiB available", advice)


def check_places(places: Iterable[Place]) -> Iterator[Finding]:
    """Each folder of the service takes files, and has room and inodes for them."""
    for place in places:
        yield _check_place(place)


def _check_place(place: Place) -> Finding:
    name = f"{place.role} folder"
    folder = place.path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    missing = "" if folder == place.path else f" (to be made in {folder})"
    where = f"{place.path}{missing}"
    if not folder.is_dir():
        return Finding(name, FAIL, f"{folder} is no folder", "give another, or move that file away")
    probe = folder / f".skysift_doctor_{os.getpid()}"
    try:
        # By hand, since permission bits do not tell of read-only mounts, quotas and full disks.
        with open(probe, "xb") as file:
            file.write(b"\0" * 65536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        advice = "make room" if error.errno in (28, 122) else f"chown it to uid {os.geteuid()}, or mount it writable"
        return Finding(name, FAIL, f"{where}: cannot write: {error.strerror}", advice)
    finally:
        with suppress(OSError):
            probe.unlink()
    status = os.statvfs(folder)
    free, total, inodes = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize, status.f_favail
    text = f"{where}: {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    # Some file systems count no inodes.
    few = FAIL if status.f_files and inodes < INODES_FAIL else WARN if status.f_files and inodes < INODES_WARN else OK
    if few != OK:
        return Finding(name, few, f"{text}, {inodes} inodes free", "remove small files: skysift clean --older-than 90d")
    if free < DISK_WARN:
        level = FAIL if free < DISK_FAIL else WARN
        return Finding(name, level, text, "make room: skysift clean --older-than 90d")
    mode = folder.stat().st_mode
    if mode & 0o002 and not mode & 0o1000:
        return Finding(name, WARN, f"{text}; anyone may write there", f"chmod o-w {folder}")
    return Finding(name, OK, text)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Loader processes hand batches over in it."""
    if not folder.is_dir():
        yield Finding("shared memory", WARN, f"no {folder}", "train with --set loaders=0")
        return
    size = shutil.disk_usage(folder)
    text = f"{size.free / 2**20:.0f} of {size.total / 2**20:.0f} MiB free"
    if size.free < SHARED_WARN:
        yield Finding("shared memory", WARN, text, "to train: --shm-size 8g for a container, or --set loaders=0")
    else:
        yield Finding("shared memory", OK, text)


def check_limits() -> Iterator[Finding]:
    """Files that a process may hold open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_WARN:
        yield Finding("open files", WARN, f"at most {soft} of {hard}", f"ulimit -n {FILES_WARN}, or LimitNOFILE=")
    else:
        yield Finding("open files", OK, f"at most {soft}")


def check_gpu(devices: Path = Path("/dev")) -> Iterator[Finding]:
    """What the driver tells, and whether torch can use it."""
    from models.engines.trial import torch_cuda
    from pipeline.gpu_use import gpu_table

    rows = gpu_table()
    nodes = sorted(one.name for one in devices.glob("nvidia[0-9]*"))
    if not rows and not nodes:
        yield Finding("GPU", OK, "none: networks run on the processor")
        return
    if not rows:
        text = f"{', '.join(nodes)} in {devices}, but nvidia-smi does not answer"
        yield Finding("GPU", FAIL, text, "install or reload the driver; in a container: --gpus all, compute,utility")
        return
    cards = ", ".join(f"{row[1]} ({float(row[4]) / 1024:.0f} GiB)" for row in rows)
    build, count = torch_cuda()
    if build is None:
        yield Finding("GPU", WARN, f"{cards}; torch is a build for processors", "install torch from a CUDA index")
    elif count < len(rows):
        advice = "install a newer driver, or a torch of an older CUDA"
        yield Finding("GPU", FAIL, f"{cards}; torch (CUDA {build}) sees {count}", advice)
    else:
        yield Finding("GPU", OK, f"{cards}; torch (CUDA {build}) sees {count}")


def check_clock(others: dict[str, float] | None = None) -> Iterator[Finding]:
    """The machine's clock against other clocks.

    Parameters
    ----------
    others : dict, optional
        Seconds by which this machine is ahead, by whom (the database, Prefect's server).
    """
    now = datetime.now(UTC)
    newest = max(one.stat().st_mtime for one in Path(__file__).parent.glob("*.py"))
    text = now.strftime("%Y-%m-%d %H:%M:%S UTC")
    if time.time() < newest - 86400:
        yield Finding("clock", FAIL, f"{text} is before this software was installed", "set the clock: chrony or ntpd")
        return
    for name, ahead in (others or {}).items():
        status = FAIL if abs(ahead) > SKEW_FAIL else WARN if abs(ahead) > SKEW_WARN else OK
        advice = "" if status == OK else "set both by chrony or ntpd: times of arrival and logs will not compare"
        side = "ahead of" if ahead > 0 else "behind"
        yield Finding("clock", status, f"{text}, {abs(ahead):.1f} s {side} {name}", advice)
    if not others:
        yield Finding("clock", OK, text)
