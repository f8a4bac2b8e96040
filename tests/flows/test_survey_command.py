"""``skysift survey`` and ``skysift detect --catalogue``, by the command line's own parser."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.cli import app
from flows.images import survey_store
from pipeline.survey import open_store
from pipeline.survey.migrations import LATEST
from survey_io.errors import InputError, OptionError, SkysiftError
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation


def skysift(*arguments: str | Path) -> int:
    return app(args=[str(part) for part in arguments], standalone_mode=False) or 0


@pytest.fixture
def sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small image, and a working folder beside it."""
    monkeypatch.chdir(tmp_path)
    for name in ("SKYSIFT_CATALOGUE", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    survey_store.cache_clear()
    return write_simulation(simulate_continuum((120, 140), seed=5, model=SkyModel(density=0.02)), tmp_path)["image"]


def test_record_list_take_back_and_forget(
    sky: Path, store_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    detect = ("detect", sky.name, "--model", "threshold", "--workers", "1", "--catalogue", store_url)
    assert skysift(*detect, "-o", "one") == 0
    assert "  run 1 of the survey" in capsys.readouterr().out
    assert skysift(*detect, "-o", "two", "--threshold", "0.9") == 0
    # The same again is the run that is there.
    assert skysift(*detect, "-o", "three") == 0
    assert "  run 1 of the survey" in capsys.readouterr().out
    monkeypatch.setenv("SKYSIFT_CATALOGUE", store_url)
    with open_store(store_url) as store:
        assert store.observation(1)["path"] == str(sky)
        assert store.run(2)["output"] == os.path.abspath("two")
        rows = [run["rows"] for run in store.runs()]
    assert skysift("survey", "status", "--check") == 0
    said = capsys.readouterr().out
    assert "observations: 1 done" in said
    assert f"sources: {sum(rows)}, of which {rows[1]} count" in said
    assert f"threshold: 2 runs, 1 count with {rows[1]} sources" in said
    assert skysift("survey", "runs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["2*", "1"]
    assert skysift("survey", "use", "1") == 0
    assert f"run 1 of {sky.name} counts now, with {rows[0]} sources" in capsys.readouterr().out
    assert skysift("survey", "forget", "--before", "2100-01-01", "--dry-run") == 0
    assert skysift("survey", "forget", "--before", "2100-01-01") == 0
    words = f"1 superseded runs with {rows[1]} sources"
    assert capsys.readouterr().out.splitlines() == [f"would delete {words}", f"deleted {words}"]
    assert skysift("survey", "add", "two/sky_run.json", "one/sky_run.json") == 0
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "run 3 of the survey", "run 1 of the survey",
    ]  # fmt: skip
    with pytest.raises(InputError, match="there is none with 99"):
        skysift("survey", "use", "99")
    survey_store(store_url).close()


def test_versions_of_the_schema(sky: Path, store_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(store_url) as store:
        store.enqueue(sky, sha256="a")
    place = ("--catalogue", store_url)
    assert skysift("survey", "migrate", *place, "--back") == 0
    assert skysift("survey", "status", *place) == 2
    assert f"schema version {LATEST - 1}, this skysift has {LATEST}" in capsys.readouterr().out
    assert skysift("survey", "migrate", *place) == 0
    assert f"schema version {LATEST}, was {LATEST - 1}" in capsys.readouterr().out
    assert skysift("survey", "status", *place) == 0
    with pytest.raises(OptionError, match="holds observations; delete the database itself"):
        skysift("survey", "migrate", *place, "--to", "0")
    with pytest.raises(OptionError, match="expected a version of the schema from 0 to .*, got 99"):
        skysift("survey", "migrate", *place, "--to", "99")
    with pytest.raises(OptionError, match="not both"):
        skysift("survey", "migrate", *place, "--to", "1", "--back")


def test_reading_makes_no_store(sky: Path) -> None:
    for command in (("status",), ("runs",), ("use", "1"), ("forget", "--before", "2026-01-01"), ("migrate",)):
        with pytest.raises(SkysiftError, match="expected a survey's store, there is none"):
            skysift("survey", *command, "--catalogue", "nowhere")
    assert not Path("nowhere").exists()


def test_a_store_that_fails_in_the_middle_loses_nothing(
    sky: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    detect = ("detect", sky.name, "--model", "threshold", "--workers", "1", "--catalogue", "survey")
    store = survey_store("survey")
    store.write(lambda connection: connection.exec_driver_sql("ALTER TABLE source RENAME TO moved"))
    assert skysift(*detect, "-o", "out") == 2
    said = capsys.readouterr()
    assert "written but not recorded; later: skysift survey add out/sky_run.json" in said.err
    store.write(lambda connection: connection.exec_driver_sql("ALTER TABLE moved RENAME TO source"))
    assert store.counts()["runs"] == 0
    assert skysift("survey", "add", "out/sky_run.json", "--catalogue", "survey") == 0
    assert store.counts()["current_sources"] > 0
    # An address that cannot be used is said before any work.
    with pytest.raises(SkysiftError, match="not a database"):
        skysift("detect", sky.name, "--catalogue", sky.name, "-o", "never")
    assert not Path("never").exists()
    store.close()
