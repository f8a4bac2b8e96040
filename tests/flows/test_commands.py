"""The commands besides detect, run as a user would run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def environment(cwd: Path) -> dict[str, str]:
    ours = ("SKYSIFT_", "PREFECT_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return inherited | {
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(cwd / ".prefect"),
        "OMP_NUM_THREADS": "1",
    }


def skysift(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    return subprocess.run(
        command, env=environment(cwd), cwd=cwd, capture_output=True, text=True, timeout=280, check=False
    )


def test_models_lists_every_model(tmp_path: Path) -> None:
    done = skysift("models", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("light", "sdc1", "threshold"):
        assert f"\n  {name} " in done.stdout


def test_what_cannot_be_trained_or_exported_is_said(tmp_path: Path) -> None:
    for command, word in (("train", "has no weights to train"), ("export", "no weights")):
        done = skysift(command, "threshold", cwd=tmp_path)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1 and word in done.stderr


@pytest.mark.slow
def test_simulate_detect_evaluate(tmp_path: Path) -> None:
    made = skysift("simulate", "continuum", "--size", "256", "--density", "0.02", "-o", "sky", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    again = skysift("simulate", "continuum", "--size", "256", "--density", "0.02", "-o", "twin", cwd=tmp_path)
    assert again.returncode == 0
    assert (tmp_path / "sky" / "sky.fits").read_bytes() == (tmp_path / "twin" / "sky.fits").read_bytes()
    found = skysift("detect", "sky/sky.fits", "--model", "threshold", "-o", "out", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    truth = "sky/sky_truth.ecsv"
    scored = skysift(
        "evaluate", "out/sky_cat.fits", truth, "-o", "scores.json", "--scorer", "sdc1", cwd=tmp_path
    )
    assert scored.returncode == 0, scored.stderr
    assert "reliability" in scored.stdout
    values = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert values["completeness_10"] > 0.9 and values["reliability"] > 0.8
    assert values["sdc1"]["exact"]
    swapped = skysift("evaluate", truth, "out/sky_cat.fits", cwd=tmp_path)
    assert swapped.returncode == 2 and "swapped?" in swapped.stderr


@pytest.mark.slow
def test_demo_scores_its_sky_and_names_the_picture(tmp_path: Path) -> None:
    done = skysift("demo", "--model", "threshold", "--size", "300", "-o", "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    picture = tmp_path / "demo" / "sky_quicklook.png"
    assert str(picture) in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "completeness" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_an_interrupted_run_continues_to_the_same_catalogue(tmp_path: Path, number: int, status: int) -> None:
    assert skysift("simulate", "continuum", "--size", "1200", "-o", "sky", cwd=tmp_path).returncode == 0
    arguments = ["detect", "sky/sky.fits", "--model", "threshold", "--tile", "100", "--workers", "1"]
    assert skysift(*arguments, "-o", "whole", cwd=tmp_path).returncode == 0
    ledger = tmp_path / "cut" / ".sky_skysift.ledger-wal"
    command = [sys.executable, "-m", "flows.cli", *arguments, "-o", "cut"]
    # A shell's background jobs ignore Ctrl-C, and so would what they start.
    with subprocess.Popen(
        command, env=environment(tmp_path), cwd=tmp_path, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        # Some tiles are in the ledger, most are not: 144 of them need about 300 kB.
        while not (ledger.exists() and ledger.stat().st_size > 50_000):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == status
    assert not (tmp_path / "cut" / "sky_cat.fits").exists()
    assert "Traceback" not in errors
    assert skysift(*arguments, "-o", "cut", cwd=tmp_path).returncode == 0
    name = "sky.reg"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not ledger.exists()
