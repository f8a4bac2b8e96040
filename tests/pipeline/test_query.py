"""Cones, boxes and conditions on the survey, on both databases, against positions looked at one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipeline.survey import SurveyStore, open_store
from pipeline.survey.places import Box, Cone, parse_box, parse_cone
from pipeline.survey.query import DEFAULT_COLUMNS, in_time, query_objects, query_sources, source_columns
from pipeline.survey.sky import separation
from survey_io.columns import make_table
from survey_io.errors import OptionError


def manifest(number: int, **options: Any) -> dict[str, Any]:
    return {
        "input": {"path": f"/data/{number}.fits", "sha256": f"{number:064x}", "shape": [300, 300],
                  "beam": {"major": 6.0, "minor": 5.0, "pa": 0.0}},
        "model": {"name": "light", "sha256": "ab"}, "options": options, "versions": {"skysift": "0.1"},
    }  # fmt: skip


RA = np.array([0.02, 359.98, 0.5, 180.0, 90.0, 270.0, 53.1, 10.0])
DEC = np.array([0.0, 0.01, 0.3, 89.98, 89.97, -89.99, -27.8, 10.0])


@pytest.fixture(scope="module")
def stores(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, SurveyStore]]:
    found = {"sqlite": open_store(tmp_path_factory.mktemp("survey"))}
    with contextlib.suppress(pytest.skip.Exception):
        found["postgresql"] = open_store(request.getfixturevalue("postgres_server").database())
    for store in found.values():
        table = make_table({
            "source_id": np.arange(8), "name": [f"S{k}" for k in range(8)], "ra": RA, "dec": DEC,
            "ra_err": np.full(8, 0.3), "dec_err": np.full(8, 0.3), "snr": np.arange(8) + 3.0,
            "p_real": np.linspace(0, 1, 8), "flux": np.full(8, 1.5), "flux_err": np.full(8, 0.1),
            "flags": np.arange(8), "local_rms": [1e-5, 2e-5, np.inf, np.nan, -np.inf, 3e-5, 4e-5, 5e-5],
            "n_blend": np.arange(8),
        })  # fmt: skip
        store.record(manifest(1, first=True), table)
        table["snr"] += 10.0
        store.record(manifest(1, first=False), table)
        table["ra"] += 0.1 / 3600
        store.record(manifest(2), table[:2])
    yield found
    for store in found.values():
        store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, stores: dict[str, SurveyStore]) -> SurveyStore:
    if request.param not in stores:
        pytest.skip("no PostgreSQL server here: install Debian's package postgresql")
    return stores[request.param]


def rows(table: Any) -> list[str]:
    return sorted(table["name"].tolist())


def test_a_cone_is_sorted_by_distance_and_wraps_around(store: SurveyStore) -> None:
    found = query_sources(store, cone=parse_cone("0,0,3'"))
    assert found["name"].tolist() == ["S0", "S0", "S1", "S1"]
    assert np.all(np.diff(found["distance"]) >= 0) and found["distance"].unit == "deg"
    assert np.allclose(found["distance"], separation(0, 0, found["ra"], found["dec"]))
    assert found.colnames == [*DEFAULT_COLUMNS, "distance"]
    assert found["flux"].unit == "Jy" and found["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    assert len(query_sources(store, cone=parse_cone("0,0,3'"), limit=3)) == 3
    assert rows(query_sources(store, cone=Cone(0, 90, 0.05))) == ["S3", "S4"]
    assert len(query_sources(store, cone=Cone(0, 0, 180))) == 10
    assert len(query_sources(store, cone=Cone(200, 0, 0.001))) == 0


@pytest.mark.parametrize(
    "text, expected",
    [
        ("359.9,0.1,-1,1", ["S0", "S0", "S1", "S1"]), ("359.9,360,-1,1", ["S1", "S1"]),
        ("0,1,-1,1", ["S0", "S0", "S2"]),
        ("0,360,89,90", ["S3", "S4"]), ("170,190,89,90", ["S3"]), ("0,360,-90,-89", ["S5"]),
        ("23:59:55,0:00:10,-0:30,0:30", ["S0", "S0", "S1", "S1"]), ("10,10,10,10", ["S7"]),
        ("-0.1,0.1,-1,1", ["S0", "S0", "S1", "S1"]), ("1,0.1,-1,1", ["S0", "S0", "S1", "S1"]),
        ("0,200,-90,90", ["S0", "S0", "S2", "S3", "S4", "S6", "S7"]), ("3h,4h,-28d,-27d", ["S6"]),
    ],
)  # fmt: skip
def test_boxes_wrap_and_reach_the_poles(store: SurveyStore, text: str, expected: list[str]) -> None:
    assert rows(query_sources(store, box=parse_box(text))) == expected


def test_conditions_reach_the_columns_of_the_catalogues(store: SurveyStore) -> None:
    assert rows(query_sources(store, where="snr > 18 and p_real < 0.95")) == ["S6"]
    assert rows(query_sources(store, where="local_rms >= 3e-5")) == ["S2", "S5", "S6", "S7"]
    assert rows(query_sources(store, where="local_rms < 0 or local_rms is null")) == ["S3", "S4"]
    assert rows(query_sources(store, where="n_blend = 2 and flux_unit = 'Jy'")) == ["S2"]
    assert rows(query_sources(store, where="flags & 4 = 4 and name like 's%'")) == ["S4", "S5", "S6", "S7"]
    assert rows(query_sources(store, where="id > 0", limit=0)) == []
    found = query_sources(store, columns=["name", "local_rms", "n_blend"], where="current", limit=3)
    assert found.colnames == ["name", "local_rms", "n_blend"] and found["local_rms"].unit == "Jy/beam"
    assert found["local_rms"].tolist() == [1e-5, 2e-5, np.inf] and found["n_blend"].dtype.kind == "i"


def test_superseded_rows_come_only_when_asked_for(store: SurveyStore) -> None:
    every = query_sources(store, where="name = 'S7'", all_versions=True)
    assert every["snr"].tolist() == [10.0, 20.0] and every["current"].tolist() == [False, True]
    assert query_sources(store, where="name = 'S7'")["snr"].tolist() == [20.0]
    assert len(query_sources(store, where="not current", all_versions=True)) == 8


def test_objects_join_observations(store: SurveyStore) -> None:
    found = query_objects(store, cone=parse_cone("0,0,3'"))
    assert found["n_observations"].tolist() == [2, 2] and set(found["status"]) == {"associated"}
    assert len(query_objects(store)) == 8
    assert len(query_objects(store, where="status = 'single' and dec > 0")) == 4
    sources = query_sources(store, cone=parse_cone("0,0,3'"))
    assert set(sources["object_id"]) == set(found["id"])


def test_a_question_that_takes_too_long_is_given_up(store: SurveyStore) -> None:
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000000)"
    count = f"{numbers} SELECT count(*) FROM n"
    with pytest.raises(OptionError, match="longer than 0.2 s"):
        in_time(store, lambda connection: connection.exec_driver_sql(count).scalar(), 0.2)
    assert len(query_sources(store, where="id > 0")) == 10


@pytest.mark.parametrize("name", ["where", "columns"])
def test_what_is_not_there_is_said(store: SurveyStore, name: str) -> None:
    with pytest.raises(OptionError, match="there is no column 'nose'"):
        query_sources(store, **{name: "nose > 1" if name == "where" else ["nose"]})
    with pytest.raises(OptionError, match="there is no column 'details'"):
        query_sources(store, where="details is not null")
    assert "details" not in source_columns() and "sha256" not in source_columns()


def test_numbers_beyond_the_databases_are_one_line(store: SurveyStore) -> None:
    # SQLite has infinity for them.
    try:
        found = query_sources(store, where="1e308 * snr * 1e10 > 5")
    except OptionError as error:
        assert store.is_postgres and "beyond what the database can hold" in str(error)
    else:
        assert not store.is_postgres and len(found) == 10


@pytest.mark.parametrize(
    "text, expected",
    [
        ("53.1,-27.8,0.1", (53.1, -27.8, 0.1)), ("03:32:24,-27:48:00,6'", (53.1, -27.8, 0.1)),
        ("3h32m24s,-27d48m00s,360arcsec", (53.1, -27.8, 0.1)), ("J033224-274800,0.1", (53.1, -27.8, 0.1)),
        ("SKS J033224.00-274800.0, 6 arcmin", (53.1, -27.8, 0.1)), ('J0332+2748,36"', (53.0, 27.8, 0.01)),
        ("-10,0,1", (350.0, 0.0, 1.0)), ("53d06m,-0:30:00,1deg", (53.1, -0.5, 1.0)),
        ("3 32 24,-27 48 0,1", (53.1, -27.8, 1.0)),
    ],
)  # fmt: skip
def test_cones_are_read_as_people_write_them(text: str, expected: tuple[float, float, float]) -> None:
    cone = parse_cone(text)
    assert (cone.ra, cone.dec, cone.radius) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    ["", "1,2", "1,2,3,4", "a,b,c", "10,91,1", "10,0,-1", "10,0,181", "10,0,5 parsec", "J9900-000000,1", "nan,0,1",
     "10,0,1'; drop", "10,0,inf", "1e9,0,1", "25:00:00,0,", "J033224-279900,1"],
)  # fmt: skip
def test_cones_that_are_none_get_one_line(text: str) -> None:
    with pytest.raises(OptionError, match="expected") as caught:
        parse_cone(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1,2,3", "0,1,5,4", "0,1,-91,4", "0,1,x,4"])
def test_boxes_that_are_none_get_one_line(text: str) -> None:
    with pytest.raises(OptionError, match="expected"):
        parse_box(text)


def test_the_cone_around_a_box_holds_it() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        dec1, dec2 = np.sort(rng.uniform(-90, 90, 2))
        ra1, ra2 = rng.uniform(0, 360, 2)
        box = Box(ra1, ra2, dec1, dec2)
        cone = box.around()
        ra = (ra1 + rng.uniform(0, 1, 500) * ((ra2 - ra1) % 360)) % 360
        dec = rng.uniform(dec1, dec2, 500)
        assert np.max(separation(cone.ra, cone.dec, ra, dec)) <= cone.radius + 1e-9
