"""What pages ask the store for, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipeline.survey import SurveyStore, open_store
from pipeline.survey.browse import count_cone, list_observations, read_columns, read_position, read_source
from pipeline.survey.simple_cone import cone_answer, cone_error
from survey_io.columns import make_table
from survey_io.errors import InputError


@pytest.fixture
def store(store_url: str) -> Iterator[SurveyStore]:
    with open_store(store_url) as store:
        yield store


def record(store: SurveyStore, digest: str, name: str, count: int, **options: Any) -> int:
    values = {
        "source_id": np.arange(1, count + 1), "name": np.array([f"SKY J{one:04d}" for one in range(count)]),
        "ra": 50 + 0.001 * np.arange(count), "dec": np.full(count, -10.0), "snr": np.arange(count) % 7 + 5.0,
        "flux": np.where(np.arange(count) % 3 == 0, np.nan, 1e-3), "p_real": np.full(count, 0.9),
        "flux_net": np.full(count, 2e-3), "flags": np.arange(count),
    }  # fmt: skip
    manifest = {
        "input": {"path": f"/data/{name}", "shape": [90, 80], "sha256": digest * 64},
        "model": {"name": "light", "sha256": "1" * 64}, "options": options, "versions": {"skysift": "0.1.0"},
        "total_seconds": 2.5, "finished": "2026-03-01T10:00:00Z", "files": {},
    }  # fmt: skip
    return store.record(manifest, make_table(values))


def test_observations_are_found_by_state_and_name(store: SurveyStore) -> None:
    record(store, "a", "field_100%.fits", 4)
    record(store, "b", "FIELD_1000.fits", 3)
    waiting, _ = store.enqueue("/data/other.fits", sha256="c" * 64)
    rows, count = list_observations(store)
    assert count == 3 and [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
    assert rows[0]["id"] == waiting and rows[0]["rows"] is None and rows[1]["rows"] == 3

    def named(text: str) -> list[str]:
        return [row["name"] for row in list_observations(store, text=text)[0]]

    assert named("field_1") == ["FIELD_1000.fits", "field_100%.fits"]
    # Signs that are wildcards elsewhere are themselves here.
    assert named("0%") == ["field_100%.fits"]
    assert list_observations(store, text="' OR 1=1 --")[1] == 0
    assert list_observations(store, state="arrived")[1] == 1
    page, count = list_observations(store, limit=1, offset=1)
    assert count == 3 and [row["name"] for row in page] == ["FIELD_1000.fits"]
    assert list_observations(store, ids=[])[1] == 0


def test_only_the_current_run_stands_in_the_list(store: SurveyStore) -> None:
    record(store, "a", "sky.fits", 4)
    later = record(store, "a", "sky.fits", 2, threshold=0.9)
    (row,), count = list_observations(store)
    assert count == 1 and (row["run_id"], row["rows"]) == (later, 2)


def test_columns_come_by_falling_signal_to_noise(store: SurveyStore) -> None:
    run = record(store, "a", "sky.fits", 50)
    columns, total = read_columns(store, run, limit=20)
    assert total == 50 and len(columns["row"]) == 20
    assert np.all(np.diff(columns["snr"]) <= 0) and columns["snr"][0] == 11
    rows = columns["row"].astype(int)
    assert list(columns["name"]) == [f"SKY J{row:04d}" for row in rows]
    assert np.array_equal(np.isnan(columns["flux"]), rows % 3 == 0) and np.all(np.isnan(columns["freq"]))
    empty, total = read_columns(store, record(store, "b", "empty.fits", 0), limit=20)
    assert total == 0 and all(len(values) == 0 for values in empty.values())


def test_a_source_in_full(store: SurveyStore) -> None:
    run = record(store, "a", "sky.fits", 5)
    items = {item["name"]: item for item in read_source(store, run, 4)["items"]}
    assert items["flux_net"]["value"] == pytest.approx(2e-3) and items["flux_net"]["unit"] == "Jy"
    assert items["flags"]["value"] == 4 and items["ra"]["value"] == pytest.approx(50.004)
    assert items["peak_flux"]["value"] is None
    with pytest.raises(InputError, match="there is none with 5"):
        read_source(store, run, 5)


def test_cones_are_counted_and_answered(store: SurveyStore) -> None:
    assert read_position(store) is None
    record(store, "a", "sky.fits", 500)
    assert read_position(store) is not None
    assert 50 <= count_cone(store, 50.0, -10.0, 0.05, 1000) <= 200
    assert count_cone(store, 50.2, -10.0, 5.0, 100) == 100 and count_cone(store, 230.0, 10.0, 1.0, 100) == 0
    document, rows, overflow = cone_answer(store, 50.0, -10.0, 0.0101, limit=5)
    assert rows == 5 and overflow and b'value="OVERFLOW"' in document
    document, rows, overflow = cone_answer(store, 50.0, -10.0, 0.0101, limit=1000)
    assert rows == 11 and not overflow and b'ucd="POS_EQ_RA_MAIN" ref="icrs"' in document
    assert cone_answer(store, 50.0, -10.0, 0.0, limit=10)[1] == 0
    assert b'value="&lt;a&gt; &amp; b"' in cone_error("<a> &\n b")
