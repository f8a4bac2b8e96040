"""The SDC2 scorer against golden vectors of the challenge's own, its sane variant, and lists on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from pipeline.evaluate import evaluate
from pipeline.scorers.sdc2 import score_sdc2
from survey_io.cube_columns import CUBE_COLUMNS, make_cube_table
from survey_io.errors import InputError
from survey_io.sdc2 import SDC2_COLUMNS, read_sdc2, write_sdc2

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "sdc2_golden.json").read_text())
NAMES = {"flux": "line_flux_integral"}


def table(rows) -> Table:
    return Table(np.array(rows), names=GOLDEN["sdc2_columns"])


@pytest.mark.parametrize("case", GOLDEN["sdc2"])
def test_golden(case):
    expected = case["result"]
    result = score_sdc2(table(case["sub"]), table(case["truth"]))
    assert result.score == pytest.approx(expected["value"], abs=1e-10)
    assert (result.n_det, result.n_match, result.n_false) == tuple(expected[k] for k in ("n_det", "n_match", "n_false"))
    for name, value in expected.get("means", {}).items():
        assert result.subscores[NAMES.get(name, name)] == pytest.approx(value, abs=1e-10), name


def test_perfect_half_turned_and_doubled():
    truth = table(GOLDEN["sdc2"][0]["truth"])
    assert score_sdc2(truth, truth).score == pytest.approx(len(truth))
    turned = truth.copy()
    turned["pa"] = (turned["pa"] + 180) % 360
    assert score_sdc2(turned, truth).mean == pytest.approx((6 + 10 / 180) / 7)
    twice = Table(np.concatenate([truth.as_array(), truth.as_array()]))
    # Two rows on one truth neither gain nor cost in the exact score; the sane one takes the second for false.
    assert score_sdc2(twice, truth).score == pytest.approx(len(truth))
    assert score_sdc2(twice, truth, sane=True).score == pytest.approx(0.0)


def test_the_sane_score_works_anywhere_on_the_sky_and_in_frequency():
    truth = table(GOLDEN["sdc2"][0]["truth"])
    moved = truth.copy()
    moved["central_freq"] = truth["central_freq"] * 1.2
    moved["ra"] = truth["ra"] - 150
    assert score_sdc2(moved, moved).score < 0 < score_sdc2(moved, moved, sane=True).score


def catalogue() -> Table:
    truth = table(GOLDEN["sdc2"][0]["truth"])[:6]
    values = {
        "source_id": np.arange(1, 7), "ra": truth["ra"], "dec": truth["dec"], "hi_size": truth["hi_size"],
        "line_flux": truth["line_flux_integral"], "frequency": truth["central_freq"], "kin_pa": truth["pa"],
        "inclination": truth["i"], "w20": truth["w20"],
    }  # fmt: skip
    return make_cube_table(values)


def test_a_catalogue_becomes_a_list(tmp_path):
    ours = catalogue()
    ours["line_flux"][2] = -1.0
    ours["kin_pa"][1] = np.nan
    path = write_sdc2(ours, tmp_path / "s_sdc2.txt")
    back = read_sdc2(path)
    assert back.colnames == list(SDC2_COLUMNS) and list(back["id"]) == [1, 2, 4, 5, 6]
    assert back["pa"][1] == 0 and np.isfinite([list(row) for row in back]).all()
    assert back["line_flux_integral"].unit == "Jy Hz" and back["ra"][0] == pytest.approx(ours["ra"][0], abs=1e-8)


@pytest.mark.parametrize("ending", ["fits", "vot", "parquet", "ecsv", "csv"])
def test_cube_catalogues_survive_every_format_and_are_scored(tmp_path, ending):
    from survey_io.catalogue import read_catalogue, write_catalogue

    ours = catalogue()
    path = write_catalogue(ours, tmp_path / f"c.{ending}")
    back = read_catalogue(path)
    assert back.colnames == [column.name for column in CUBE_COLUMNS]
    assert back["w20"].unit == "km / s" and back["line_flux"].meta["ucd"] == "phot.flux;spect.line"
    truth = write_sdc2(ours, tmp_path / "t.txt")
    report = evaluate(path, truth, scorer="sdc2")
    assert report["exact"]["score"] == pytest.approx(6, abs=1e-2)
    assert "SDC2" in str(report)


def test_lists_that_cannot_be_read(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("id ra dec\n1 2 3\n")
    with pytest.raises(InputError, match="columns of SDC2"):
        read_sdc2(path)
    with pytest.raises(InputError, match="no such file"):
        read_sdc2(tmp_path / "none.txt")
