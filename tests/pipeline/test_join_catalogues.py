"""Two catalogues side by side, against distances looked at one by one and chances that were counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from pipeline.join_catalogues import Joined, join_positions, join_tables
from pipeline.survey.sky import separation
from survey_io.catalogue import read_catalogue, write_catalogue
from survey_io.errors import OptionError
from survey_io.outside import Positions


def positions(ra, dec, error: float = np.nan) -> Positions:
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    return Positions(ra % 360, dec, np.full(len(ra), error), np.full(len(ra), error), ("ra", "dec"))


def scatter(n: int, seed: int, *, side: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-side / 2, side / 2, n), 30 + rng.uniform(-side / 2, side / 2, n)


def test_all_pairs_are_those_within_the_radius() -> None:
    a, b = scatter(200, 1), scatter(300, 2)
    found = join_positions(positions(*a), positions(*b), radius=20.0, find="all")
    far = separation(a[0][:, None], a[1][:, None], b[0], b[1]) * 3600
    expected = {(i, j) for i, j in zip(*np.nonzero(far <= 20.0), strict=True)}
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected and len(expected) > 100
    assert np.allclose(found.distance, far[found.first, found.second])
    assert np.all(np.diff(found.first) >= 0) and np.isnan(found.normalised).all()


def test_best_uses_each_row_once_and_first_takes_the_closest() -> None:
    a, b = positions([0.0, 2 / 3600], [0.0, 0.0]), positions([1.5 / 3600, 4 / 3600], [0.0, 0.0])
    best = join_positions(a, b, radius=5.0)
    assert list(zip(best.first, best.second, strict=True)) == [(0, 1), (1, 0)]
    first = join_positions(a, b, radius=5.0, find="first")
    assert list(zip(first.first, first.second, strict=True)) == [(0, 0), (1, 0)]
    assert best.distance == pytest.approx([4.0, 0.5], abs=1e-6)


def test_errors_decide_when_they_are_asked_to() -> None:
    a = positions([0.0], [0.0], 1.0)
    b = Positions(np.array([3.0, 4.0]) / 3600, np.zeros(2), np.array([0.5, 3.0]), np.array([0.5, 3.0]), ("ra", "dec"))
    assert join_positions(a, b, radius=10.0).second.tolist() == [0]
    found = join_positions(a, b, radius=10.0, sigma=5.0)
    assert found.second.tolist() == [1] and found.normalised == pytest.approx([4 / np.sqrt(10)], rel=1e-4)
    assert len(join_positions(a, b, radius=10.0, sigma=1.0)) == 0
    # Without errors sigma has nothing to say, and the radius decides.
    assert len(join_positions(positions([0.0], [0.0]), positions([3 / 3600], [0.0]), radius=10.0, sigma=1.0)) == 1


@pytest.mark.parametrize("dec", [0.0, 89.9995, -90.0])
def test_seams_of_the_sky_do_not_matter(dec: float) -> None:
    shift = 1e-4 if abs(dec) < 89 else 90.0
    found = join_positions(positions([-shift], [dec], 0.5), positions([shift], [dec], 0.5), radius=5.0)
    assert len(found) == 1 and found.distance[0] == pytest.approx(3600 * separation(-shift, dec, shift, dec), abs=1e-5)
    lost = join_positions(positions([np.nan], [0.0]), positions([0.0], [np.nan]), radius=5.0)
    assert len(lost) == 0


@pytest.mark.parametrize("n", [300, 3000])
def test_the_chance_is_how_often_unrelated_rows_match(n: int) -> None:
    others = positions(*scatter(n, 3, side=0.5))
    probes = positions(*scatter(2000, 4, side=0.4))
    found = join_positions(probes, others, radius=20.0, find="first")
    # For a match at the distance d the chance says how many probes have one within d: a uniform number from 0 to 1 for
    # all probes with any match at all; so its mean over them is about half of the largest.
    share = len(found) / len(probes)
    largest = 1 - np.exp(-n / 0.25 / np.cos(np.radians(30)) * np.pi * (20 / 3600) ** 2)
    assert share == pytest.approx(largest, rel=0.15)
    assert np.mean(found.chance) == pytest.approx(largest / 2, rel=0.2)


def test_where_little_is_known_the_chance_is_that_of_what_is() -> None:
    lone = join_positions(positions([10.0], [0.0]), positions([10.0, 200.0], [1 / 3600, 0.0]), radius=5.0, known=0.1)
    assert 0 < lone.chance[0] < 1e-3
    many = positions([10.0, *(10 + np.arange(1, 30) * 5.0)], [1 / 3600] * 30)
    assert 0 < join_positions(positions([10.0], [0.0]), many, radius=5.0, known=0.1).chance[0] < 1e-3


TABLES = (
    Table({"name": ["a", "b", "c"], "flux": np.array([1.0, 2.0, 3.0], "f4"), "n": [1, 2, 3]}),
    Table({"name": ["x", "y"], "snr": [5.0, 6.0], "id": np.array([7, 8]), "good": [True, False]}),
)
JOINED = Joined(np.array([1]), np.array([0]), np.array([0.5]), np.array([1.0]), np.array([0.01]))


@pytest.mark.parametrize(
    "join, names",
    [
        ("inner", [("b", "x")]), ("left", [("b", "x"), ("a", None), ("c", None)]),
        ("right", [("b", "x"), (None, "y")]), ("outer", [("b", "x"), ("a", None), ("c", None), (None, "y")]),
    ],
)  # fmt: skip
def test_rows_without_a_partner_are_kept_on_the_sides_asked_for(join: str, names: list, tmp_path: Path) -> None:
    table = join_tables(*TABLES, JOINED, join=join)
    assert table.colnames == ["name_1", "flux", "n", "name_2", "snr", "id", "good", "distance", "normalised", "chance"]
    got = zip(table["name_1"].tolist(), table["name_2"].tolist(), strict=True)
    assert list(got) == names
    assert np.isnan(table["snr"][1:]).tolist() == [pair[1] is None for pair in names[1:]]
    for ending in ("fits", "vot", "parquet", "ecsv", "csv"):
        back = read_catalogue(write_catalogue(table, tmp_path / f"t.{ending}"))
        assert len(back) == len(names) and back["distance"][0] == 0.5


def test_nothing_matches_nothing() -> None:
    empty = Table({"ra": np.empty(0), "dec": np.empty(0), "k": np.empty(0, int)})
    none = join_positions(positions([], []), positions([1.0], [1.0]), radius=5.0)
    assert len(none) == 0
    table = join_tables(empty, TABLES[1], Joined(*(np.empty(0, int),) * 2, *(np.empty(0),) * 3), join="outer")
    assert len(table) == 2 and table["k"].mask.all()


@pytest.mark.parametrize(
    "wrong", [{"radius": 0}, {"radius": np.nan}, {"radius": 1, "sigma": -1}, {"radius": 1, "find": "x"}]
)
def test_options_that_make_no_sense_get_one_line(wrong: dict) -> None:
    with pytest.raises(OptionError, match="expected"):
        join_positions(positions([0], [0]), positions([0], [0]), **wrong)
    with pytest.raises(OptionError, match="--join"):
        join_tables(*TABLES, JOINED, join="cross")
