"""Clusters by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.runners import dask_client, list_clusters, read_cluster, scheduler_address, start_cluster
from survey_io.errors import OptionError


def test_no_cluster_starts_nothing() -> None:
    with scheduler_address(None) as address:
        assert address is None


def test_a_cluster_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("cluster_class: distributed.LocalCluster\n", encoding="utf-8")
    monkeypatch.setenv("SKYSIFT_CLUSTERS", str(tmp_path))
    expected = {"cluster_class": "distributed.LocalCluster", "cluster_kwargs": {}, "adapt_kwargs": None}
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
        "cluster_kwargs: {n_workers: 0, threads_per_worker: 1, processes: false, dashboard_address: null}\n"
        "adapt_kwargs: {minimum: 0, maximum: 1}\n",
        encoding="utf-8",
    )
    with dask_client(str(path)) as client:
        assert client.submit(pow, 2, 5, pure=False).result() == 32
    assert client.status == "closed"
