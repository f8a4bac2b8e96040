"""``skysift crossmatch`` as a user runs it: the survey, or a second file, beside a catalogue of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table

from flows.cli import main
from pipeline.survey import open_store
from survey_io.catalogue import read_catalogue
from survey_io.columns import make_table


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    return int(left.value.code or 0)


@pytest.fixture
def sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_url: str) -> Path:
    monkeypatch.setenv("SKYSIFT_CATALOGUE", store_url)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    n = 200
    ra, dec = rng.uniform(-0.2, 0.2, n) % 360, rng.uniform(-0.2, 0.2, n)
    with open_store(store_url) as store:
        table = make_table({
            "source_id": np.arange(n), "name": [f"S{k}" for k in range(n)], "ra": ra, "dec": dec,
            "ra_err": np.full(n, 0.3), "dec_err": np.full(n, 0.3), "flux": np.full(n, 1.0), "flux_err": np.full(n, 0.1),
            "snr": np.linspace(5, 25, n), "p_real": np.full(n, 0.9),
        })  # fmt: skip
        store.record({
            "input": {"path": "/data/a.fits", "sha256": "1" * 64, "shape": [9, 9], "beam": {"major": 6, "minor": 6}},
            "model": {"name": "light", "sha256": ""}, "options": {}, "versions": {"skysift": "0.1"},
        }, table)  # fmt: skip
    # Half of them again, half an arcsec off, and one that is nowhere near.
    others = Table({"name": [f"N{k}" for k in range(101)], "RAJ2000": np.append(ra[:100], 90.0) * u.deg,
                    "DEJ2000": np.append(dec[:100] + 0.5 / 3600, 45.0) * u.deg, "z": np.arange(101.0)})  # fmt: skip
    others.write(tmp_path / "others.fits")
    return tmp_path


def test_the_survey_is_matched_with_a_file(sky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("crossmatch", "others.fits", "--radius", "2", "-o", "m.fits") == 0
    text = capsys.readouterr().out
    assert "positions in RAJ2000, DEJ2000" in text and "100 pairs" in text and "1 rows of others.fits without" in text
    found = read_catalogue(sky / "m.fits")
    assert [one[1:] for one in found["name_1"]] == [one[1:] for one in found["name_2"]]
    assert np.allclose(found["distance"], 0.5, atol=1e-3) and found["distance"].unit == "arcsec"
    assert np.allclose(found["normalised"], 0.5 / 0.3, rtol=1e-2) and np.all(found["chance"] < 0.01)
    for join, rows in (("left", 101), ("right", 200), ("outer", 201)):
        assert run("crossmatch", "others.fits", "--radius", "2", "--join", join, "-o", f"{join}.vot") == 0
        assert len(read_catalogue(sky / f"{join}.vot")) == rows
    assert "100 rows of" in capsys.readouterr().out
    assert run("crossmatch", "others.fits", "--sigma", "1") == 0
    assert "0 pairs" in capsys.readouterr().out
    assert run("crossmatch", "others.fits", "--where", "snr > 10", "--columns", "id,snr", "--find", "first") == 0
    text = capsys.readouterr().out
    assert "50 pairs" in text and " snr " in text and "p_real" not in text
    assert run("crossmatch", "others.fits", "--objects", "-o", "o.csv") == 0
    assert "n_observations" in read_catalogue(sky / "o.csv").colnames


def test_two_files_are_matched_without_a_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Table({"ra": ["10:00:00.0", "11:00:00.0"], "dec": ["-30:00:00", "-31:00:00"]}).write("a.csv")
    Table({"lon": [150.0, 9.0], "lat": [-30.0, 9.0]}).write("b.dat", format="ascii.basic")
    assert run("crossmatch", "a.csv", "--with", "b.dat") == 2
    assert "name them with --ra and --dec" in capsys.readouterr().err
    assert run("crossmatch", "b.dat", "--ra", "lon", "--dec", "lat", "--with", "a.csv", "--join", "outer") == 0
    text = capsys.readouterr().out
    assert "1 pair with a.csv" in text and "1 rows of a.csv without" in text and "note: lon has no unit" in text
    assert not (tmp_path / "skysift_survey").exists()


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["nowhere.fits"], "no such file"), (["others.fits", "--radius", "-1"], "--radius"),
        (["others.fits", "--find", "some"], "expected --find"), (["others.fits", "--where", "1;2"], "--where"),
        (["others.fits", "--with", "others.fits", "--objects"], "for the survey"),
        (["others.fits", "-o", "others.fits"], "input of the run"), (["others.fits", "--ra", "z"], "--ra and --dec"),
    ],
)  # fmt: skip
def test_what_cannot_be_matched_is_one_line(
    sky: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    assert run("crossmatch", *arguments) == 2
    said = capsys.readouterr().err
    assert word in said and len(said.splitlines()) == 1
