"""The flow and the plain command end with the same catalogues; bad images do not stop the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.options import DetectOptions
from survey_io.catalogue import read_catalogue
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small seeded sky of 200 x 260 pixels; return its image."""
    folder = tmp_path_factory.mktemp("sky")
    simulation = simulate_continuum((200, 260), seed=5, model=SkyModel(density=0.02))
    return write_simulation(simulation, folder)["image"]


def skysift(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    ours = ("SKYSIFT_", "PREFECT_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    paths = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(cwd / ".prefect"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        env=inherited | paths | environment, cwd=cwd,
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def same_rows(first_path: Path, second_path: Path) -> int:
    """Check that two catalogues agree in every column; return their number of rows."""
    first, second = read_catalogue(first_path), read_catalogue(second_path)
    assert len(first) == len(second) > 5
    assert first.colnames == second.colnames
    for column in first.colnames:
        if first[column].dtype.kind == "f":
            one, other = np.asarray(first[column], float), np.asarray(second[column], float)
            # An unresolved source has a deconvolved size of 0 to within rounding.
            scale = np.nanmax(np.abs(one), initial=0.0)
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7 * scale, err_msg=column)
        else:
            assert list(first[column]) == list(second[column])
    return len(first)


@pytest.mark.slow
def test_good_and_bad_images_in_one_call(sky: Path, tmp_path: Path) -> None:
    (tmp_path / "text.fits").write_text("not an image", encoding="utf-8")
    twin = tmp_path / "elsewhere" / sky.name
    twin.parent.mkdir()
    twin.write_bytes(sky.read_bytes())
    cut = tmp_path / "cut.fits"
    cut.write_bytes(sky.read_bytes()[:8000])
    images = ["missing.fits", "text.fits", cut, sky, twin]
    done = skysift("detect", *images, "--model", "threshold", "--workers", "1", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 4, done.stderr
    for wrong, error in zip(["missing.fits", "text.fits", "cut.fits", str(twin)], lines, strict=True):
        assert error.startswith("skysift: error: ") and wrong in error
    assert "would overwrite the results of" in lines[3]
    rows = len(read_catalogue(tmp_path / "out" / f"{sky.stem}_cat.fits"))
    assert rows > 5
    assert f"{rows} sources" in done.stdout
    manifest = json.loads((tmp_path / "out" / f"{sky.stem}_run.json").read_text(encoding="utf-8"))
    assert manifest["options"]["model"] == "threshold"


def test_unknown_model_is_answered_with_the_known_ones(sky: Path, tmp_path: Path) -> None:
    done = skysift("detect", sky, "--model", "threshhold", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    for word in ("threshhold", "light", "sdc1", "threshold"):
        assert word in done.stderr


@pytest.mark.slow
@pytest.mark.flow
def test_flow_and_plain_call_agree(
    sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    import flows.detect
    from flows.images import detect_each, detect_one

    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"")
    common = {"model": "threshold", "workers": 1}
    plain = detect_each([sky], DetectOptions(output=tmp_path / "plain", **common))
    # A flow joins its heartbeat thread for a second at its end.
    with prefect_test_harness(), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        options = DetectOptions(output=tmp_path / "flow", **common)
        monkeypatch.setenv("SKYSIFT_CATALOGUE", str(tmp_path / "survey"))
        outcomes = flows.detect.run_flow([sky, bad], options)
        state = flows.detect.detect([sky], options, return_state=True)
    assert state.is_completed()
    # What the flow has recorded is the run that a plain call would record.
    options = DetectOptions(output=tmp_path / "plain", **common)
    plain.append(detect_one(sky, options, catalogue=str(tmp_path / "survey")))
    assert outcomes[0].run_id == plain[1].run_id == 1
    assert [outcome.error is None for outcome in outcomes] == [True, False]
    assert "bad.fits" in outcomes[1].error
    name = f"{sky.stem}_cat.fits"
    rows = same_rows(tmp_path / "plain" / name, tmp_path / "flow" / name)
    assert rows == len(plain[0].result.table)


@pytest.mark.slow
def test_a_named_cluster_gives_the_same_catalogue(sky: Path, tmp_path: Path) -> None:
    common = ("detect", sky, "--model", "threshold", "--tile", "100")
    assert skysift(*common, "--workers", "1", "-o", "one", cwd=tmp_path).returncode == 0
    done = skysift(*common, "--cluster", "local", "-o", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    name = f"{sky.stem}_cat.fits"
    same_rows(tmp_path / "one" / name, tmp_path / "two" / name)
