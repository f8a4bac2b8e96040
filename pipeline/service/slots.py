"""How many workers a machine has room for, and what each of them may use."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

from pipeline.options import DetectOptions

logger = logging.getLogger("skysift")


def worker_environments(workers: int, engine: str, device: str = "auto") -> list[dict[str, str]]:
    """Variables for each worker's process; with a GPU's engine there is one worker a GPU, and no more.

    Parameters
    ----------
    workers : int
        As asked for.
    engine, device : str
        As `DetectOptions`; "auto" is answered as the workers will.

    Returns
    -------
    list of dict
        One for each worker that there is room for.
    """
    from models.engines.choose import may_use_gpu

    if workers == 0 or not may_use_gpu(engine, device):
        return [{} for _ in range(workers)]
    gpus = visible_gpus()
    if workers > len(gpus):
        logger.warning(
            "%d workers were asked for, and %d GPU%s to be seen: one worker a GPU",
            workers, len(gpus), " is" if len(gpus) == 1 else "s are",
        )  # fmt: skip
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:workers]]


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES would name this process's GPUs, without loading a driver here."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one.strip() for one in given.split(",") if one.strip() and one.strip() != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
        return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
    except (OSError, subprocess.SubprocessError):
        return [str(number) for number, _ in enumerate(sorted(Path("/dev").glob("nvidia[0-9]*")))]


def shared_cores(detect: DetectOptions, workers: int) -> DetectOptions:
    """The options with the machine's cores shared out among the workers, where none were asked for."""
    if detect.workers is not None or workers < 2:
        return detect
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return detect.with_changes(workers=max(1, cores // workers))
