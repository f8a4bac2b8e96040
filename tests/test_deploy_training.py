"""The Slurm scripts train for real: Slurm's commands are stood in for, nothing else."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SLURM = ROOT / "deploy" / "slurm"
BIN = Path(sys.executable).parent
# A task for each node, here; signals go on to the tasks, as those of Slurm's do.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
tasks=()
trap 'kill -TERM "${tasks[@]}"' TERM
for ((node = 0; node < SLURM_NNODES; node++)); do
    SLURM_NODEID=$node "$@" &
    tasks+=($!)
done
worst=0
for task in "${tasks[@]}"; do
    status=0
    wait "$task" || status=$?
    while kill -0 "$task" 2>/dev/null; do status=0; wait "$task" || status=$?; done
    if ((status > worst)); then worst=$status; fi
done
exit "$worst"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >>scontrol.log; fi
"""


def settings(folder: Path) -> dict[str, str]:
    ours = ("SKYSIFT_", "PREFECT_", "SLURM_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return inherited | {
        "PATH": f"{folder / 'bin'}:{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(folder / ".prefect"),
        "SKYSIFT_MODELS": str(folder / "models"),
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def cluster(tmp_path: Path, tiny_recipe: str) -> Path:
    """A folder with Slurm's commands, ours of this checkout, and a recipe."""
    commands = {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "skysift": f'#!/bin/sh\nexec "{sys.executable}" -m flows.cli "$@"\n',
        "torchrun": f'#!/bin/sh\nexec "{sys.executable}" -m torch.distributed.run "$@"\n',
    }
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        (tmp_path / "bin" / name).write_text(text, encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "tiny.yaml").write_text(tiny_recipe, encoding="utf-8")
    return tmp_path


def start(script: str, folder: Path, *options: str, nodes: int = 1) -> subprocess.Popen:
    slurm = {
        "SLURM_JOB_ID": "4711", "SLURM_NNODES": str(nodes), "SLURM_GPUS_ON_NODE": "1", "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_NODELIST": "here", "SLURM_SUBMIT_DIR": str(folder), "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    return subprocess.Popen(
        ["bash", str(SLURM / script), "tiny.yaml", *options], cwd=folder, env=settings(folder) | slurm,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_slurm_two_nodes_train_one_network(cluster: Path) -> None:
    """Two gloo processes that torchrun joins; the first alone judges, registers and reports."""
    with start("train-nodes.sbatch", cluster, nodes=2) as job:
        said = job.communicate(timeout=280)[0]
    assert job.returncode == 0, said
    output = cluster / "training" / "tiny-4711"
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert report["registered"]["label"] == "tiny@1"
    assert said.count("tiny@1 is promoted") == said.count(f"{output / 'report.md'}: tiny@1 is promoted") + 1
    import torch

    state = torch.load(output / "last.pt", weights_only=True)
    assert state["step"] == 2 and state["taken"] == 4, "two processes take two examples in a step"
    card = json.loads((output / "lines.json").read_text(encoding="utf-8"))
    assert card["trained_on"].startswith("4 fields")
    assert not (cluster / "scontrol.log").exists()


@pytest.mark.slow
def test_slurm_stops_before_its_time_is_up_and_goes_on(cluster: Path) -> None:
    options = ("--set", "steps=60", "--set", "save_every=10", "--set", "retrain.evaluate=false")
    output = cluster / "training" / "tiny-4711"
    with start("train.sbatch", cluster, *options) as job:
        deadline = time.monotonic() + 200
        while not (output / "last.pt").exists():
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        job.send_signal(signal.SIGUSR1)
        said = job.communicate(timeout=100)[0]
    assert job.returncode == 0, said
    assert (cluster / "scontrol.log").read_text(encoding="utf-8") == "requeue 4711\n"
    assert "goes on when job 4711 starts again" in said and not (output / "report.md").exists()
    with start("train.sbatch", cluster, *options) as job:
        said = job.communicate(timeout=280)[0]
    assert job.returncode == 0, said
    assert "check: done before" in said and (output / "report.md").exists()
    with (output / "log.csv").open(encoding="utf-8") as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == [str(step) for step in range(1, 61)]


@pytest.mark.slow
def test_slurm_does_not_repeat_what_cannot_succeed(cluster: Path) -> None:
    with start("train.sbatch", cluster, "--set", "stepps=3") as job:
        said = job.communicate(timeout=100)[0]
    assert job.returncode == 2 and "stepps" in said
    with start("train.sbatch", cluster, "--set", "save_every=100000", "--set", "steps=100000") as job:
        while "start 1" not in (line := job.stdout.readline()):
            assert line
        # The work has begun, and has left nothing.
        time.sleep(1)
        job.send_signal(signal.SIGUSR1)
        said = job.communicate(timeout=100)[0]
    assert job.returncode == 1 and "stopped before its first checkpoint" in said
    assert not (cluster / "scontrol.log").exists()
