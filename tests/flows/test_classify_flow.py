"""``skysift classify``, plain and as a flow: the same table; what is bad is told and does not stop the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

ROOT = Path(__file__).resolve().parents[2]


def skysift(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    ours = ("SKYSIFT_", "PREFECT_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    paths = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(cwd / ".prefect"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        env=inherited | paths, cwd=cwd, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a hot star (Balmer lines) and a file that is none; return their folder."""
    folder = tmp_path_factory.mktemp("spectra")
    wave = np.arange(3600.0, 9300.0, 1.2)
    flux = np.ones_like(wave)
    for line, depth in ((6564.6, 0.6), (4862.7, 0.6), (4341.7, 0.6), (4102.9, 0.6), (3971.2, 0.55), (3890.2, 0.5)):
        flux -= depth / (1 + ((wave - line) / 12) ** 2)
    flux += 0.01 * np.random.default_rng(0).standard_normal(len(wave))
    np.savetxt(folder / "vega.txt", np.c_[wave, flux], header="wavelength flux")
    (folder / "words.txt").write_text("not a spectrum\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_plain_and_flow_give_the_same_table(spectra: Path, tmp_path: Path) -> None:
    plain = skysift("classify", spectra, "-o", "plain", "--pictures", "all", cwd=tmp_path)
    assert plain.returncode == 2, plain.stderr
    note, error = plain.stderr.splitlines()
    assert note.startswith("skysift: info: engine ") and "words.txt" in error
    assert plain.stdout.startswith("1 spectrum in ")
    flow = skysift("classify", spectra, "-o", "flow", "--flow", cwd=tmp_path)
    assert flow.returncode == 2, flow.stderr
    assert "words.txt" in flow.stderr
    first, second = (Table.read(tmp_path / name / "stellar_classes.fits") for name in ("plain", "flow"))
    assert list(first["class"]) == ["A"] == list(second["class"])
    assert first.colnames == second.colnames and first["p_A"][0] == second["p_A"][0]
    assert list((tmp_path / "plain" / "stellar_pictures").glob("*.png"))


def test_nothing_usable_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = skysift("classify", "absent.fits", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("skysift: error: absent.fits: expected a spectrum") and done.stderr.count("\n") == 1
    done = skysift("classify", "absent.fits", "--model", "light", cwd=tmp_path)
    assert done.returncode == 2 and "detects, it does not classify" in done.stderr
