"""The survey's store on SQLite and on a real PostgreSQL server: recording, superseding, reading back, provenance."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from astropy.table import Table

from pipeline.survey import StoreError, SurveyStore, open_store, run_key
from survey_io.columns import IMAGE_COLUMNS, make_table
from survey_io.errors import InputError, OptionError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(store_url: str) -> SurveyStore:
    with open_store(store_url) as store:
        yield store


def image_table(count: int, *, seed: int = 1, centre: tuple[float, float] = (53.0, -27.8)) -> Table:
    """A catalogue with all columns of an image's, some of its values NaN."""
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {}
    for column in IMAGE_COLUMNS:
        if column.dtype.startswith("U"):
            values[column.name] = np.array([f"SKY J{seed:02d}{one:06d}" for one in range(count)])
        elif column.dtype.startswith("int"):
            values[column.name] = rng.integers(0, 400, count)
        else:
            values[column.name] = rng.normal(1.0, 0.3, count)
    values["ra"], values["dec"] = centre[0] + rng.normal(0, 0.1, count), centre[1] + rng.normal(0, 0.1, count)
    values["pa_deconv"][::3] = np.nan
    values["flux"][1::5] = np.nan
    return make_table(values)


def manifest(sha256: str = "a" * 64, *, weights: str = "1" * 64, path: str = "/data/sky.fits", **options: Any) -> dict:
    """A run's manifest as `skysift detect` writes it, with what matters here."""
    return {
        "input": {"path": path, "shape": [150, 210], "sha256": sha256, "notes": []},
        "model": {"name": "light", "engine": "onnx", "precision": "int8", "sha256": weights, "threshold": 0.5},
        "options": {"model": "light", "threshold": None, "tile": 1536, "output": "/data/out", **options},
        "versions": {"skysift": "0.1.0", "numpy": "2.4"},
        "total_seconds": 3.25, "finished": "2026-03-01T10:00:00Z", "files": {"fits": "sky_cat.fits"},
    }  # fmt: skip


def same(one: Table, other: Table) -> None:
    assert one.colnames == other.colnames
    for name in one.colnames:
        left, right = one[name], other[name]
        assert (left.dtype, left.unit, left.description, dict(left.meta)) == (
            right.dtype, right.unit, right.description, dict(right.meta),
        ), name  # fmt: skip
        assert np.array_equal(np.ma.getmaskarray(left), np.ma.getmaskarray(right)), name
        assert np.ma.allequal(np.ma.asarray(left), np.ma.asarray(right)) or left.dtype.kind == "f", name
        if left.dtype.kind == "f":
            assert np.array_equal(np.ma.filled(left, 0), np.ma.filled(right, 0), equal_nan=True), name


def test_a_catalogue_comes_back_as_it_was(store: SurveyStore) -> None:
    table = image_table(40)
    run = store.record(manifest(), table)
    same(table, store.sources(run))
    assert store.runs()[0]["rows"] == 40
    assert store.runs()[0]["flux_unit"] == "Jy"
    assert store.run(run)["manifest"] == manifest()
    assert (store.run(run)["started"], store.run(run)["finished"]) == (
        "2026-03-01T09:59:56.750Z", "2026-03-01T10:00:00.000Z",
    )  # fmt: skip
    assert store.check()["problems"] == []


def test_an_empty_catalogue_is_a_run(store: SurveyStore) -> None:
    table = image_table(0)
    run = store.record(manifest(), table)
    same(table, store.sources(run))
    assert len(store.cone(53, -27.8, 180)) == 0
    assert store.counts()["runs"] == 1


def test_a_run_recorded_twice_is_the_run_that_is_there(store: SurveyStore) -> None:
    table = image_table(7)
    first = store.record(manifest(), table)
    # Where results go is not what they are.
    assert store.record(manifest(output="/elsewhere", workers=7), table) == first
    counts = store.counts()
    assert (counts["runs"], counts["sources"], counts["observations"]["done"]) == (1, 7, 1)
    key = run_key("a" * 64, "1" * 64, manifest()["options"], "0.1.0")
    assert store.find_run(key) == first
    assert store.find_run("other") is None


def test_reprocessing_supersedes_and_keeps(store: SurveyStore) -> None:
    old = store.record(manifest(), image_table(5))
    new = store.record(manifest(weights="2" * 64), image_table(8, seed=2))
    elsewhere = store.record(manifest("b" * 64, path="/data/other.fits"), image_table(3, seed=3))
    assert [(one["id"], one["current"]) for one in store.runs(observation_id=1)] == [(old, False), (new, True)]
    assert [one["id"] for one in store.runs(current=True, newest=True)] == [elsewhere, new]
    assert len(store.cone(53, -27.8, 5)) == 11
    assert len(store.cone(53, -27.8, 5, current=False)) == 16
    same(image_table(5), store.sources(old))
    assert [(one["weights_sha256"][0], one["runs"], one["current"], one["sources"]) for one in store.weights()] == [
        ("1", 2, 1, 3), ("2", 1, 1, 8),
    ]  # fmt: skip
    assert [one["id"] for one in store.runs(weights="2222")] == [new]
    # Weights that turn out worse: the older run counts again.
    assert store.make_current(old) == 5
    assert len(store.cone(53, -27.8, 5)) == 8
    assert store.check()["problems"] == []
    with pytest.raises(InputError, match="id of a run, there is none with 99"):
        store.make_current(99)


def test_a_complete_run_supersedes_one_that_lacks_pieces_and_never_the_other_way(store: SurveyStore) -> None:
    lost = {"stage": "detect", "piece": 3, "reason": "out of memory", "pixels": [{"y": [0, 64], "x": [64, 128]}]}
    short = manifest() | {"complete": False, "missing": [lost]}
    first = store.record(short, image_table(5))
    (observation,) = store.observations()
    assert observation["state"] == "failed" and "detect y 0:64, x 64:128 (out of memory)" in observation["error"]
    assert store.run(first)["state"] == "incomplete" and store.counts()["current_sources"] == 5
    assert store.record(short, image_table(5)) == first
    whole = store.record(manifest() | {"complete": True, "missing": []}, image_table(9))
    assert whole != first and store.run(whole)["state"] == "done" and store.counts()["current_sources"] == 9
    assert store.observations()[0]["state"] == "done" and store.observations()[0]["error"] is None
    assert store.record(short, image_table(5)) == whole
    assert store.observations()[0]["state"] == "done" and store.counts()["current_sources"] == 9


def test_provenance_leads_back_to_file_weights_options_and_run(store: SurveyStore) -> None:
    old = store.record(manifest(threshold=0.7), image_table(2), output="/data/out")
    row = int(store.cone(53, -27.8, 5)["id"][0])
    found = store.provenance(row)
    assert (found["file"], found["sha256"], found["weights_sha256"]) == ("/data/sky.fits", "a" * 64, "1" * 64)
    assert (found["options"]["threshold"], found["versions"]["numpy"], found["engine"]) == (0.7, "2.4", "onnx")
    assert found["precision"] == "int8"
    assert (found["run"]["id"], found["run"]["output"], found["files"]) == (old, "/data/out", {"fits": "sky_cat.fits"})
    assert found["superseded_by"] is None
    new = store.record(manifest(), image_table(2))
    assert store.provenance(row)["superseded_by"] == new
    with pytest.raises(InputError, match="id of a source"):
        store.provenance(10**6)


NASTY = [
    "'; DROP TABLE source; --.fits", 'a"b\\c%s%(x)s:name.fits', "<script>alert(1)</script>", "$(reboot) `id` ;|&.fits",
    "sp ace\nline\ttab.fits", "ünïcode-星.fits", os.fsdecode(b"not-utf8-\xff\xfe.fits"), "n" * 200 + "/" + "d" * 4000,
    "file-bytes:x.fits", "-- /* {} ? $1",
]  # fmt: skip


def test_nasty_names_are_only_names(store: SurveyStore) -> None:
    table = image_table(len(NASTY))
    table["name"] = [name.encode("utf-8", "replace").decode()[:60] for name in NASTY]
    table["comment"] = NASTY
    for number, name in enumerate(NASTY):
        values = manifest(f"{number:064d}", path=f"/data/{name}")
        values["input"]["notes"] = [name]
        run = store.record(values, table)
        assert store.run(run)["manifest"]["input"]["notes"] == [name]
        seen = store.observation(store.run(run)["observation_id"])
        assert seen["path"] == f"/data/{name}"
        seen, new = store.enqueue(f"/inbox/{name}", sha256=name.encode("utf-8", "replace").hex())
        assert new
        assert store.claim(name)["path"] == f"/inbox/{name}"
        assert store.fail(seen, name, name + "\0", retry=False)
        assert store.observation(seen)["error"].startswith(name[:6])
        store.runs(weights=name)
        store.observations(name)
        store.find_run(name)
    same(table, store.sources(1))
    assert store.counts()["observations"] == {
        "arrived": 0, "running": 0, "done": len(NASTY), "failed": len(NASTY), "quarantined": 0,
    }  # fmt: skip


def test_old_and_poor_manifests(store: SurveyStore, tmp_path: Path) -> None:
    file = tmp_path / "old.fits"
    file.write_bytes(b"pixels")
    table = image_table(2)
    run = store.record({"input": {"path": str(file)}}, table)
    assert store.observation(1)["sha256"] == hashlib.sha256(b"pixels").hexdigest()
    assert store.observation(1)["bytes"] == 6
    same(table, store.sources(run))
    for values, words in (
        ({"input": {}}, "sha256 or the path of the input"),
        ({}, "entry 'input'"),
        ({"input": {"path": str(tmp_path / "gone")}}, "cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            store.record(values, table)
    with pytest.raises(OptionError, match="catalogue as table"):
        store.record(manifest())
    assert store.counts()["runs"] == 1


def test_forget_deletes_what_was_superseded_before_a_date(store: SurveyStore) -> None:
    store.record(manifest(), image_table(5))
    new = store.record(manifest(weights="2" * 64), image_table(8, seed=2))
    assert store.forget(before="2020-01-01") == {"runs": 0, "sources": 0}
    assert store.forget(before="2100-01-01", dry_run=True) == {"runs": 1, "sources": 5}
    assert store.counts()["runs"] == 2
    assert store.forget(before="2100-01-01") == {"runs": 1, "sources": 5}
    assert [one["id"] for one in store.runs()] == [new]
    assert store.check()["problems"] == []
    # The number of a run that is gone is not given to another.
    assert store.record(manifest(weights="3" * 64), image_table(1)) == new + 1
    assert store.forget(before="2100-01-01", keep_current=False) == {"runs": 2, "sources": 9}
    assert store.counts()["observations"]["done"] == 1
    with pytest.raises(OptionError, match="expected a date"):
        store.forget(before="yesterday")


def test_a_store_travels_by_its_address(store: SurveyStore) -> None:
    store.record(manifest(), image_table(3))
    with pickle.loads(pickle.dumps(store)) as again:
        assert again.counts()["sources"] == 3
    code = "import sys; from pipeline.survey import open_store; print(open_store(sys.argv[1]).counts()['sources'])"
    told = subprocess.run([sys.executable, "-c", code, store.url], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "3"


RECORDER = """
import os, signal, sys, threading
sys.path.insert(0, 'tests/pipeline')
from test_survey_store import image_table, manifest
from pipeline.survey import open_store, store as module
store = open_store(sys.argv[1])
real = module.insert
def dies(*arguments):
    real(*arguments)
    if sys.argv[2] == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
module.insert = dies
print(store.record(manifest(weights=sys.argv[3] * 64), image_table(500, seed=int(sys.argv[3]))), flush=True)
"""


def recorder(url: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RECORDER, url, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_kill_in_the_middle_of_recording_leaves_nothing_half(store: SurveyStore) -> None:
    store.record(manifest(), image_table(5))
    # After the former run was superseded and the new rows were sent, before the end of the transaction.
    process = recorder(store.url, "die", "2")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    counts = store.counts()
    assert (counts["runs"], counts["sources"], counts["current_sources"]) == (1, 5, 5)
    assert store.check()["problems"] == []
    process = recorder(store.url, "live", "2")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert store.counts()["current_sources"] == 500


def test_processes_that_record_one_observation_at_once(store: SurveyStore) -> None:
    processes = [recorder(store.url, "live", number) for number in ("2", "3", "2")]
    runs = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert runs[0] == runs[2] != runs[1]
    counts = store.counts()
    assert (counts["runs"], counts["current_runs"], counts["sources"]) == (2, 1, 1000)
    assert len(store.cone(53, -27.8, 30)) == 500
    assert store.check()["problems"] == []


def test_threads_share_a_store(store: SurveyStore) -> None:
    def work(number: int) -> None:
        store.record(manifest(f"{number:064d}"), image_table(4, seed=number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.counts()["current_sources"] == 24


def test_a_run_is_kept_when_its_sources_cannot_be_joined(
    store: SurveyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(connection: sa.Connection, observation_id: int) -> None:
        connection.exec_driver_sql("UPDATE source SET flags = -1")
        raise ValueError("no sense in it")

    with monkeypatch.context() as patch:
        # Other tests leave handlers of commands and of Prefect, which decides what goes on to the root.
        patch.setattr(logging.getLogger("skysift"), "handlers", [caplog.handler])
        patch.delenv("SKYSIFT_DEBUG", raising=False)
        patch.setattr("pipeline.survey.store.associate", fails)
        run = store.record(manifest(), image_table(5))
    assert "not joined with others yet (ValueError: no sense in it)" in caplog.text
    # What it had done so far is undone, the run is there, and the command that upgrades joins its sources.
    same(image_table(5), store.sources(run))
    assert store.cone(53, -27.8, 5)["object_id"].mask.all()
    assert store.check()["problems"] == ["observation 1: its sources are not joined with those of others"]
    store.migrate()
    assert store.check()["problems"] == []
    assert not store.cone(53, -27.8, 5)["object_id"].mask.any()


def test_check_says_what_is_wrong(store: SurveyStore) -> None:
    run = store.record(manifest(), image_table(5))
    store.write(lambda connection: connection.exec_driver_sql("DELETE FROM source WHERE id = 2"))
    store.write(lambda connection: connection.exec_driver_sql("UPDATE source SET current = (1 = 0) WHERE id = 1"))
    assert store.check()["problems"] == [
        f"run {run}: 5 sources were recorded, 4 are there", f"run {run}: 3 of 4 sources count, the run itself does",
        "observation 1: its sources are not joined with those of others",
    ]  # fmt: skip


def test_reading_cannot_write(store: SurveyStore) -> None:
    with pytest.raises(StoreError, match="read-only"):
        store.read(lambda connection: connection.exec_driver_sql("DELETE FROM run"))

