"""Clusters by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.gpu_cluster import gpu_cluster, visible_gpus
from flows.runners import (
    cluster_resources,
    dask_client,
    list_clusters,
    read_cluster,
    scheduler_address,
    start_cluster,
)
from survey_io.errors import OptionError


def test_no_cluster_starts_nothing() -> None:
    with scheduler_address(None) as address:
        assert address is None


def test_a_cluster_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("cluster_class: distributed.LocalCluster\n", encoding="utf-8")
    monkeypatch.setenv("SKYSIFT_CLUSTERS", str(tmp_path))
    expected = {
        "cluster_class": "distributed.LocalCluster", "cluster_kwargs": {}, "adapt_kwargs": None, "task_resources": None,
    }  # fmt: skip
    assert read_cluster("mine") == read_cluster(str(tmp_path / "mine.yaml")) == expected
    assert {"mine", "local"} <= set(list_clusters())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "cluster_class is missing"),
        ("cluster_class: a.B\nworkers: 3\n", "unknown key workers; known: cluster_class"),
        ("a: [\n", "cannot read the cluster"),
    ],
)
def test_bad_cluster_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        read_cluster(str(path))


def test_bad_cluster_classes_and_addresses() -> None:
    with pytest.raises(OptionError, match="cannot be imported"):
        start_cluster({"cluster_class": "no_such.Cluster", "cluster_kwargs": {}, "adapt_kwargs": None})
    with pytest.raises(OptionError, match="refuses its cluster_kwargs"):
        start_cluster(
            {"cluster_class": "fractions.Fraction", "cluster_kwargs": {"x": 1}, "adapt_kwargs": None}
        )
    with pytest.raises(OptionError, match="not of the form"), scheduler_address("tcp://host"):
        pass


@pytest.mark.slow
def test_an_adaptive_cluster_computes_and_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(
        "cluster_class: distributed.LocalCluster\n"
        "cluster_kwargs: {n_workers: 0, threads_per_worker: 1, processes: false, dashboard_address: '127.0.0.1:0'}\n"
        "adapt_kwargs: {minimum: 0, maximum: 1}\n",
        encoding="utf-8",
    )
    with dask_client(str(path)) as client:
        assert client.submit(pow, 2, 5, pure=False).result() == 32
    assert client.status == "closed"


def test_what_a_cluster_binds_its_network_to() -> None:
    assert cluster_resources("gpu") == cluster_resources("slurm-gpu") == {"GPU": 1}
    assert cluster_resources("local") is cluster_resources(None) is cluster_resources("tcp://host:8786") is None


def test_a_file_may_name_a_running_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYSIFT_SCHEDULER", "tcp://127.0.0.1:1")
    with pytest.raises(OptionError, match="no Dask scheduler answers at tcp://127.0.0.1:1"), dask_client("running"):
        pass
    monkeypatch.delenv("SKYSIFT_SCHEDULER")
    with pytest.raises(OptionError, match="is not of the form tcp://host:port"), scheduler_address("running"):
        pass


def test_gpus_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-a1")
    assert visible_gpus() == ["2", "GPU-a1"]
    with pytest.raises(OptionError, match="expected 3 GPU, found 2"):
        gpu_cluster(n_gpus=3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(OptionError, match="expected at least one GPU, found 0.*--cluster local"):
        gpu_cluster()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("slurm", ["#SBATCH -n 1", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=15G", "#SBATCH -t 02:00:00"]),
        ("slurm-gpu", ["#SBATCH --gres=gpu:1", "--resources GPU=1", "--nthreads 1", "--cpus-per-task=4"]),
    ],
)
def test_slurm_jobs_ask_for_what_their_workers_need(name: str, lines: list[str]) -> None:
    pytest.importorskip("dask_jobqueue", reason="Slurm clusters need skysift[hpc]")
    description = read_cluster(name)
    # No node here has InfiniBand, and no job is submitted.
    kwargs = description["cluster_kwargs"] | {"interface": None, "n_workers": 0}
    with start_cluster(description | {"cluster_kwargs": kwargs}) as cluster:
        script = cluster.job_script()
    lines = [*lines, "--lifetime 115m", "#SBATCH --requeue", "dask_worker tcp://"]
    assert all(line in script for line in lines), script
    assert "null" not in script and "None" not in script
