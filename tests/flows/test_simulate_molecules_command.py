"""``skysift simulate molecules``: what is asked for is in the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from flows.cli import main


def run(*arguments: str) -> int:
    """Exit status of the command."""
    try:
        return main(["simulate", "molecules", *arguments]) or 0
    except SystemExit as stop:
        return int(stop.code or 0)


def test_options_reach_the_files(tmp_path: Path, capsys):
    asked = ("--count", "6", "--snr", "30,40", "--gapped", "0", "--ripple", "0", "--unknown", "0", "--seed", "3")
    assert run(*asked, "-o", str(tmp_path), "--name", "cores") == 0
    assert "6 spectra of 24 species" in capsys.readouterr().out
    flux, truth = fits.getdata(tmp_path / "cores.fits"), Table.read(tmp_path / "cores_truth.fits")
    assert flux.shape == (6, 35_000)
    # Without windows nothing is missing but single flagged channels.
    assert np.isnan(flux).mean() < 0.06
    brightest = [truth["snr"][truth["spectrum"] == row].max() for row in range(6)]
    assert np.median(brightest) == pytest.approx(35, rel=0.25)
    assert run(*asked, "-o", str(tmp_path / "again"), "--name", "cores") == 0
    assert np.array_equal(fits.getdata(tmp_path / "again" / "cores.fits"), flux, equal_nan=True)


def test_lines_of_the_users_own(tmp_path: Path, capsys):
    (tmp_path / "c028503.cat").write_text(
        "   90000.0000  0.0005 -4.0105 2    0.0000  3  28503 101 1           0          \n"
    )
    assert run("--count", "2", "--lines", str(tmp_path / "c028503.cat"), "-o", str(tmp_path / "made")) == 0
    assert "of 1 species" in capsys.readouterr().out
    assert set(Table.read(tmp_path / "made" / "molecules_truth.fits")["species"].astype(str)) == {"c028503"}


def test_lines_elsewhere_are_refused(tmp_path: Path, capsys):
    text = "  230538.0000  0.0005 -4.1197 2    3.8450  5 -28503 101 2           1          \n"
    (tmp_path / "c028503.cat").write_text(text)
    assert run("--lines", str(tmp_path), "-o", str(tmp_path / "made")) == 2
    assert "expected lines between 80 and 115 GHz" in capsys.readouterr().err


def test_limits_must_ascend(capsys):
    assert run("--snr", "9,3") == 2
    assert "give LOW,HIGH" in capsys.readouterr().err
