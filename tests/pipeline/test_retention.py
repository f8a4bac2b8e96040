"""What goes by age, and that nothing goes which a run refers to or which is not the service's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.retention import find_stale, parse_age, remove
from pipeline.survey import open_store
from survey_io.columns import make_table
from survey_io.errors import OptionError

DAY = 86_400
NOW = time.time()


def manifest(sha256: str, **options: str) -> dict:
    return {"input": {"path": "/inbox/sky.fits", "shape": [9, 9], "sha256": sha256}, "options": options}


def old(path: Path, days: float = 100, content: str = "x" * 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    for one in (path, path.parent):
        os.utime(one, (NOW - days * DAY, NOW - days * DAY))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    results = home / "results"
    old(results / ("a-" + "1" * 12) / "a_run.json")
    old(results / ("a-" + "1" * 12 + "-run2") / "a_run.json")
    old(results / ("b-" + "2" * 12) / "b_run.json")
    old(results / ("new-" + "3" * 12) / "new_run.json", days=10)
    # Old, but one of its files is not.
    old(results / ("c-" + "4" * 12) / "c_run.json")
    old(results / ("c-" + "4" * 12) / "c_cat.fits", days=1)
    old(results / "my own" / "mine_run.json")
    old(results / ("notes-" + "5" * 12) / "letter.txt")
    old(results / (".d-" + "6" * 12 + ".work") / "ledger")
    old(results / (".e-" + "7" * 12 + ".work") / "ledger")
    old(home / "quarantine" / "bad.fits", days=4000)
    old(home / "quarantine" / "bad.fits.reason.txt")
    old(home / "quarantine" / "fresh.fits", days=4000)
    old(home / "quarantine" / "fresh.fits.reason.txt", days=1)
    old(home / "quarantine" / "mine.txt")
    old(home / "previews" / "key" / "maps.npz")
    old(home / "logs" / "skysift-20260101T000000000Z-1.jsonl")
    old(home / "logs" / "skysift.jsonl")
    old(tmp_path / "elsewhere" / "f_run.json")
    (results / ("f-" + "8" * 12)).symlink_to(tmp_path / "elsewhere")
    for folder in ("results", "quarantine", "logs", "previews"):
        os.utime(home / folder, (NOW, NOW))
    return home


def test_old_things_go_and_current_ones_stay(home: Path, store_url: str) -> None:
    before = parse_age("90d", now=NOW)
    with open_store(store_url) as store:
        empty = make_table({"ra": np.empty(0), "dec": np.empty(0)})
        for number, name in enumerate(("", "-run2")):
            folder = home / "results" / ("a-" + "1" * 12 + name)
            store.record(manifest("1" * 64, tile=str(number)), empty, output=folder)
        store.enqueue("/inbox/e.fits", sha256="7" * 64)
        store.claim("worker")
        stale = list(find_stale(home, before, store=store))
    assert sorted((one.kind, one.path.name) for one in stale) == [
        ("log", "skysift-20260101T000000000Z-1.jsonl"),
        ("preview", "key"),
        ("quarantine", "bad.fits"),
        ("quarantine", "bad.fits.reason.txt"),
        ("results", "a-111111111111"),
        ("results", "b-222222222222"),
        ("unfinished", ".d-666666666666.work"),
    ]
    assert next(one.bytes for one in stale if one.path.name == "bad.fits") == 1000
    everything = sorted(home.rglob("*"))
    # One is used again between the look and the removal.
    (home / "results" / "b-222222222222" / "b_run.json").touch()
    gone, errors = remove(stale, before)
    assert not errors and len(gone) == 6
    left = sorted(home.rglob("*"))
    assert set(left) < set(everything) and not [one for one in left if one.name.endswith(".gone")]
    assert (home / "results" / "b-222222222222" / "b_run.json").exists()
    assert (home.parent / "elsewhere" / "f_run.json").exists() and (home / "quarantine" / "fresh.fits").exists()


def test_results_stay_without_a_catalogue(home: Path) -> None:
    kinds = {one.kind for one in find_stale(home, parse_age("90d", now=NOW))}
    assert kinds == {"log", "preview", "quarantine"}
    assert list(find_stale(home / "nowhere", NOW)) == []


def test_ages() -> None:
    assert parse_age("2d", now=NOW) == NOW - 2 * DAY and parse_age("1w", now=NOW) == NOW - 7 * DAY
    assert parse_age("2026-01-01") == 1767225600.0
    for text in ("90", "0d", "-3d", "3 months", "2999-01-01", ""):
        with pytest.raises(OptionError, match="expected an age such as 90d"):
            parse_age(text)
