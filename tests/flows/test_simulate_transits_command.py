"""``skysift simulate transits``: what is asked for is in the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from flows.cli import main
from survey_io.spectra import open_spectra


def run(*arguments: str) -> int:
    """Exit status of the command."""
    try:
        return main(["simulate", "transits", *arguments]) or 0
    except SystemExit as stop:
        return int(stop.code or 0)


def test_options_reach_the_files(tmp_path: Path, capsys):
    asked = (
        "--count", "5", "--transit", "1", "--binary", "0", "--period", "2,3", "--snr", "30,40", "--bright", "0",
        "--noise", "1e-4,2e-4", "--shape", "box", "--quiet", "--start", "100", "--seed", "3",
    )  # fmt: skip
    assert run(*asked, "-o", str(tmp_path), "--name", "sector") == 0
    assert "5 light curves: 0 none, 5 transit, 0 eclipsing binary" in capsys.readouterr().out
    truth = Table.read(tmp_path / "sector_truth.fits")
    for name, low, high in (("period", 2, 3), ("snr", 30, 40), ("noise", 1e-4, 2e-4), ("epoch", 100, 103)):
        assert (truth[name] >= low).all() and (truth[name] <= high).all()
    assert set(truth["shape"].astype(str)) == {"box"}
    curves = open_spectra(tmp_path / "sector.fits").spectra
    assert len(curves) == 5 and all(one.axis[0] == 100 for one in curves)
    # White noise alone outside the dips.
    assert np.nanstd(np.diff(curves[0].flux)) == pytest.approx(np.sqrt(2) * truth["noise"][0], rel=0.1)
    assert run(*asked, "-o", str(tmp_path / "again"), "--name", "sector") == 0
    again = open_spectra(tmp_path / "again" / "sector.fits").spectra
    assert all(np.array_equal(one.flux, other.flux, equal_nan=True) for one, other in zip(curves, again, strict=True))


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--period", "1,20", "two events in a window"), ("--shape", "round", "shape"), ("--transit", "0.9", "add to 1")],
)
def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path, capsys, option, value, said):
    assert run("-o", str(tmp_path), option, value) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1 and not list(tmp_path.iterdir())
