"""``skysift query`` and ``skysift survey export-hats`` as a user runs them, hostile names and conditions included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.cli import main
from pipeline.survey import open_store
from survey_io.catalogue import read_catalogue
from survey_io.columns import make_table

HOSTILE = "x'; DROP TABLE source; --\n\x1b[31m<script>"


def manifest(number: int, path: str = "/data/sky.fits") -> dict[str, Any]:
    return {
        "input": {"path": path, "sha256": f"{number:064x}", "shape": [300, 300],
                  "beam": {"major": 6.0, "minor": 5.0, "pa": 0.0}},
        "model": {"name": "light", "sha256": "ab" * 32, "engine": "onnx"}, "options": {"threshold": 0.5},
        "versions": {"skysift": "0.1", "numpy": "2"},
    }  # fmt: skip


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKYSIFT_CATALOGUE", str(tmp_path / "survey"))
    with open_store(tmp_path / "survey") as store:
        for number, factor in ((1, 1.0), (2, 9.0)):
            table = make_table({
                "source_id": [1, 2, 3], "name": ["A", HOSTILE, "C"], "ra": np.array([10.0, 10.01, 10.02]),
                "dec": [-30.0] * 3, "ra_err": [0.2] * 3, "dec_err": [0.2] * 3, "snr": [5.0, 6.0, 7.0],
                "p_real": [0.5, 0.95, 0.99], "flux": np.array([1.0, 2.0, 3.0]) * [1, 1, factor],
                "flux_err": [0.1] * 3,
            })  # fmt: skip
            store.record(manifest(number), table)
    return tmp_path / "survey"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    return int(left.value.code or 0)


def test_a_query_is_printed_and_written_in_every_format(
    survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("query", "--cone", "10,-30,20\"", "--where", "p_real > 0.4 and snr < 6") == 0
    text = capsys.readouterr().out
    assert " A " in text and "deg" in text and "10.0000000" in text and "\x1b" not in text
    assert run("query", "--objects", "--where", "status = 'unresolved'") == 0
    assert capsys.readouterr().out.count("unresolved") == 2
    assert run("query", "--box", "0,1,0,1") == 0
    assert capsys.readouterr().out.strip() == "no rows"
    for ending in ("fits", "vot", "parquet", "ecsv", "csv"):
        file = tmp_path / f"found.{ending}"
        assert run("query", "--where", "snr >= 6", "--columns", "id,name,ra,dec,snr,local_rms", "-o", file) == 0
        assert "4 sources" in capsys.readouterr().out
        found = read_catalogue(file)
        assert found["snr"].tolist() == [6.0, 7.0, 6.0, 7.0] and found.colnames[-1] == "local_rms"
        if ending != "csv":
            assert found["ra"].unit == "deg" and found["ra"].meta["ucd"] == "pos.eq.ra;meta.main"


def test_provenance_leads_from_a_row_to_file_weights_options_and_run(
    survey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("query", "--provenance", 6) == 0
    text = capsys.readouterr().out
    for fact in ("/data/sky.fits", f"{2:064x}", "ab" * 32, '"threshold": 0.5', "skysift 0.1", "row 2 of run 2",
                 "unresolved with 3", "flux,"):  # fmt: skip
        assert fact in text
    assert run("query", "--provenance", 5) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text and all("  " in line for line in text.splitlines())
    assert run("query", "--provenance", 99) == 2
    assert "there is none with 99" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--where", "1=1; DROP TABLE source"], "not part of a condition"),
        (["--where", "id in (select id from run)"], "there is no column 'select'"),
        (["--columns", "id, (select 1)"], "there is no column"), (["--columns", "*"], "there is no column"),
        (["--cone", "10,-30"], "expected RA,DEC,RADIUS"), (["--box", "1,2,3"], "expected RA1"),
        (["--limit", "-1"], "0 or more"), (["-o", "x.docx"], "expected a format"),
        (["--provenance", "3", "--objects"], "one source alone"), (["--objects", "--all-versions"], "count now"),
        (["--catalogue", "nowhere"], "nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_one_line(
    survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], word: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run("query", *arguments) == 2
    said = capsys.readouterr().err
    assert word in said and len(said.splitlines()) == 1
    with open_store(survey) as store:
        assert store.counts()["sources"] == 6
    assert not (tmp_path / "nowhere").exists()


def test_the_set_is_exported_beside_the_store(survey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("survey", "export-hats", "--share", "1/2") == 0
    assert "not published" in capsys.readouterr().out
    assert run("survey", "export-hats") == 0
    assert "6 sources in 1 partitions, 0 of them written now" in capsys.readouterr().out
    assert (survey / "parquet" / "collection.properties").exists()
    assert run("survey", "export-hats", "--share", "a/b") == 2
    assert "expected a share as K/N" in capsys.readouterr().err
