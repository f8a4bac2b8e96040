"""The command line: how fast it answers, what it says to bad input, and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def skysift(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess:
    """Run the command in a process of its own, as a user would."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("SKYSIFT_", "PREFECT_"))
    }
    paths = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str((cwd or ROOT) / ".no-prefect")}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        env=inherited | paths | environment, cwd=cwd,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def one_line(done: subprocess.CompletedProcess) -> str:
    """Return the single error line of a failed call."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("skysift: error: ")
    return lines[0]


def test_help_answers_at_once() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = skysift("--help")
        seconds.append(time.perf_counter() - start)
    assert done.returncode == 0
    for command in ("detect", "simulate", "train", "evaluate", "export", "models", "demo"):
        assert f"\n  {command} " in done.stdout
    # 0.11 s on a quiet core; the promise is 0.3 s, and the best of three keeps a busy machine out of it.
    assert min(seconds) < 0.3 or os.getloadavg()[0] > os.cpu_count(), seconds


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "astropy", "torch", "prefect", "distributed", "pydantic")
    code = f"import sys, flows.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["detect"], "Missing argument 'IMAGE...'"),
        (["detect", "a.fits", "--tile", "3"], "option tile: got 3; input should be greater than"),
        (["detect", "a.fits", "--beam", "3,4"], "0 < MIN <= MAJ"),
        (["detect", "a.fits", "--beam", "wide"], "MAJ[,MIN[,PA]]"),
        (["detect", "a.fits", "--format", "fits,xls"], "got 'xls'"),
        (["detect", "a.fits", "--engine", "magic"], "'auto', 'torch', 'onnx', 'openvino' or 'tensorrt'"),
        (["detect", "a.fits", "--config", "missing.yaml"], "missing.yaml: cannot read"),
        (["detect", "a.fits", "--cluster", "nowhere"], "unknown cluster 'nowhere'; known: adaptive, gpu, kub"),
        (["detect", "a.fits", "--cluster", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
        (["detect", "a.fits", "--bogus"], "No such option"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)  # fmt: skip
def test_bad_options_get_one_line_and_status_2(tmp_path: Path, arguments: list[str], expected: str) -> None:
    assert expected in one_line(skysift(*arguments, cwd=tmp_path))
    assert not (tmp_path / "skysift_out").exists()


def test_unreachable_prefect_server_gets_one_line(tmp_path: Path) -> None:
    done = skysift("detect", "a.fits", cwd=tmp_path, PREFECT_API_URL="http://127.0.0.1:1/api")
    assert "no Prefect server answers at http://127.0.0.1:1/api" in one_line(done)


def test_version_is_printed() -> None:
    done = skysift("--version")
    assert done.returncode == 0 and done.stdout.startswith("skysift ")
