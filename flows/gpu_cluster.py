"""One Dask worker process for each GPU of a machine, with its own card."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from survey_io.errors import OptionError

from . import environment as environment  # Dask reads its settings from the environment at import.


def visible_gpus() -> list[str]:
    """Indices or names of the GPUs that this process may use: ``CUDA_VISIBLE_DEVICES``, else all of ``nvidia-smi``."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() and part.strip() != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def worker_specs(gpus: list[str], *, light_workers: int = 1, threads: int = 1) -> dict[str, dict[str, Any]]:
    """Specification of one nanny per GPU, and of workers beside them that have none, for `distributed.SpecCluster`.

    Parameters
    ----------
    gpus : list of str
        What ``CUDA_VISIBLE_DEVICES`` of each worker says.
    light_workers : int
        Workers for what needs no network; they see no GPU.
    threads : int
        Pieces that one GPU's worker works on at the same time: 2 reads one tile while another is on the card.
    """
    from distributed import Nanny

    def worker(device: str, threads: int, resources: dict[str, float]) -> dict[str, Any]:
        options = {
            "nthreads": threads, "resources": resources, "env": {"CUDA_VISIBLE_DEVICES": device}, "silence_logs": 40,
            "dashboard": False,
        }  # fmt: skip
        return {"cls": Nanny, "options": options}

    # A worker offers its GPU to as many pieces as it has threads, so that they fill it.
    specs = {f"gpu{i}": worker(device, threads, {"GPU": threads}) for i, device in enumerate(gpus)}
    return specs | {f"light{i}": worker("", 1, {}) for i in range(light_workers)}


def gpu_cluster(*, n_gpus: int | None = None, light_workers: int = 1, threads: int = 1) -> Any:
    """Start a cluster with one worker per GPU of this machine.

    Parameters
    ----------
    n_gpus : int, optional
        The first so many; by default all.
    light_workers, threads : int
        As `worker_specs`.

    Raises
    ------
    OptionError
        When the machine has fewer GPUs.
    """
    from distributed import Scheduler, SpecCluster

    gpus = visible_gpus()
    if not gpus or len(gpus) < (n_gpus or 1):
        raise OptionError(
            f"cluster gpu: expected {n_gpus or 'at least one'} GPU, found {len(gpus)} (nvidia-smi -L, "
            "CUDA_VISIBLE_DEVICES): use --cluster local, or set n_gpus in a file of your own"
        )
    specs = worker_specs(gpus[:n_gpus], light_workers=light_workers, threads=threads)
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0", "port": 0, "host": "127.0.0.1"}}
    return SpecCluster(workers=specs, scheduler=scheduler, silence_logs=40)
