"""Numbers for Prometheus: of one process and of several, with a store, without a GPU, on a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline import gpu_use, metrics
from pipeline.survey import open_store
from survey_io.errors import OutputError

ROOT = Path(__file__).parents[2]
IMAGE = {"input": {"shape": [1000, 2000]}, "counts": {"sources": 30}}
WORK = """
import sys
from pipeline import metrics
metrics.start(sys.argv[1], worker=sys.argv[2])
for _ in range(3):
    metrics.stage_done("detect", 0.5)
    metrics.observation_done({"input": {"shape": [1000, 2000]}, "counts": {"sources": 30}}, 2.0)
metrics.observation_failed("InputError")
metrics.observation_retried()
if len(sys.argv) > 3:
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(metrics, "_meter", None)
    monkeypatch.setattr(gpu_use, "_answer", (float("-inf"), []))
    yield


def values(text: bytes) -> dict[tuple[str, tuple], float]:
    families = text_string_to_metric_families(text.decode())
    return {(one.name, tuple(sorted(one.labels.values()))): one.value for family in families for one in family.samples}


def work(folder: Path, worker: str) -> None:
    subprocess.run([sys.executable, "-c", WORK, str(folder), worker], cwd=ROOT, check=True, timeout=60)


def test_one_process_counts_what_it_did() -> None:
    metrics.observation_done(IMAGE, 2.0)
    assert b"skysift_rows" not in metrics.render()
    metrics.start(worker="w")
    metrics.stage_done("detect", 0.5)
    metrics.observation_done(IMAGE, 2.0)
    metrics.observation_done({"input": {"shape": [8, 100, 100]}, "counts": {"sources": 2}}, 0.5)
    seen = values(metrics.render())
    assert seen["skysift_pixels_total", ("image",)] == 2e6 and seen["skysift_pixels_total", ("cube",)] == 80_000
    assert seen["skysift_rows_total", ("image",)] == 30 and seen["skysift_observation_seconds_sum", ("image",)] == 2.0
    assert seen["skysift_megapixels_per_second", ("image", "w")] == 1.0
    assert seen["skysift_stage_seconds_bucket", ("0.3", "detect")] == 0
    assert seen["skysift_stage_seconds_bucket", ("1.0", "detect")] == 1
    assert seen["skysift_process_resident_bytes", ("w",)] > 1e7
    assert not [name for name, _ in seen if name.endswith("_created")]


def test_the_catalogue_is_asked_for_the_queue(store_url: str) -> None:
    with open_store(store_url) as store:
        for name in "abc":
            store.enqueue(f"{name}.fits", sha256=name)
        store.quarantine(store.claim("worker")["id"], "no header")
        time.sleep(0.01)
        seen = values(metrics.render(store))
    assert seen["skysift_observations", ("arrived",)] == 2 and seen["skysift_observations", ("failed",)] == 0
    assert seen["skysift_observations", ("quarantined",)] == 1 and seen["skysift_queue_length", ()] == 2
    assert 0 < seen["skysift_queue_oldest_seconds", ()] < 60 and seen["skysift_catalogue_sources", ()] == 0


def test_processes_add_up_and_go_on_counting_after_their_end(tmp_path: Path) -> None:
    for worker in ("a", "b", "c"):
        work(tmp_path, worker)
    command, pipe = [sys.executable, "-c", WORK, str(tmp_path), "d", "wait"], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as living:
        assert living.stdout.readline() == b"ready\n"
        # Of the three that had ended, the fourth made one file.
        assert len(list(tmp_path.glob("*_past_*.prom"))) == 1 and len(list(tmp_path.glob("*.prom"))) == 2
        for asked_by_one_of_them in (False, True):
            if asked_by_one_of_them:
                metrics.start(tmp_path, worker="me")
                metrics.observation_done(IMAGE, 1.0)
            seen = values(metrics.render(folder=tmp_path))
            assert seen["skysift_rows_total", ("image",)] == 4 * 90 + 30 * asked_by_one_of_them
            assert seen["skysift_failures_total", ("InputError",)] == 4 == seen["skysift_retries_total", ()]
            assert seen["skysift_stage_seconds_count", ("detect",)] == 12
            workers = {labels for name, labels in seen if name == "skysift_process_resident_bytes"}
            assert workers == {("d",), ("me",)} if asked_by_one_of_them else {("d",)}
        living.stdin.close()
    assert values(metrics.render())["skysift_rows_total", ("image",)] == 4 * 90 + 30


def test_a_forked_child_reports_its_own(tmp_path: Path) -> None:
    metrics.start(tmp_path, worker="parent")
    metrics.observation_done(IMAGE, 1.0)
    code = (
        "import os, sys; from pipeline import metrics; metrics.start(sys.argv[1])\n"
        "metrics.observation_failed('x')\n"
        "child = os.fork()\n"
        "metrics.observation_failed('x') if child == 0 else os.waitpid(child, 0)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    assert values(metrics.render())["skysift_failures_total", ("x",)] == 2


def test_a_textfile_and_damaged_copies(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    work(folder, "a")
    (folder / "host_1_1.prom").write_text("skysift_rows_total{kind= 12\n\x00")
    metrics.write_textfile(tmp_path / "skysift.prom", folder=folder)
    assert values((tmp_path / "skysift.prom").read_bytes())["skysift_rows_total", ("image",)] == 90
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["skysift.prom"]
    with pytest.raises(OutputError, match="cannot write metrics"):
        metrics.write_textfile(tmp_path / "missing" / "skysift.prom")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="expected a folder for metrics"):
        metrics.start(tmp_path / "file")


def test_a_disk_that_takes_no_copy_stops_nothing(tmp_path: Path) -> None:
    metrics.start(tmp_path / "metrics")
    for one in (tmp_path / "metrics").iterdir():
        one.unlink()
    (tmp_path / "metrics").rmdir()
    metrics.observation_done(IMAGE, 1.0)
    assert values(metrics.render())["skysift_rows_total", ("image",)] == 30


def test_gpus_as_the_driver_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert b"gpu" not in metrics.render()
    tool = tmp_path / "nvidia-smi"
    # As the tool of driver 570 prints it; a card in MIG mode does not tell its use.
    tool.write_text(
        "#!/bin/sh\necho '0, NVIDIA H100 80GB HBM3, 37, 1024, 81559, 41'\n"
        "echo '1, NVIDIA H100 80GB HBM3, [N/A], 0, 81559, 40'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setattr(gpu_use, "_answer", (float("-inf"), []))
    seen = values(metrics.render())
    assert seen["skysift_gpu_use_ratio", ("0", "NVIDIA H100 80GB HBM3")] == pytest.approx(0.37)
    assert ("skysift_gpu_use_ratio", ("1", "NVIDIA H100 80GB HBM3")) not in seen
    assert seen["skysift_gpu_memory_used_bytes", ("0", "NVIDIA H100 80GB HBM3")] == 2**30
    tool.write_text("#!/bin/sh\necho 'Failed to initialize NVML'; exit 9\n")
    monkeypatch.setattr(gpu_use, "_answer", (float("-inf"), []))
    assert b"gpu" not in metrics.render()
    assert os.environ["PATH"] == str(tmp_path)
