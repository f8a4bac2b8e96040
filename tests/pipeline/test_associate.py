"""Objects of the store: the same whatever the order of observations, kept up through superseding and upgrades."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from astropy.table import Table

from pipeline.survey import SurveyStore, open_store
from pipeline.survey.associate import associate, pending
from pipeline.survey.schema import observation, run, sky_object, source, unresolved
from survey_io.columns import make_table
from survey_io.cube_columns import make_cube_table

Where = Callable[[str], SurveyStore]


@pytest.fixture(params=["sqlite", "postgresql"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Where]:
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            yield lambda name: stack.enter_context(open_store(tmp_path / name))
        else:
            server = request.getfixturevalue("postgres_server")
            yield lambda name: stack.enter_context(open_store(server.database()))


def sky(n: int = 120, side: float = 45.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions so dense that conflicts abound, across 0h: arcsec, arcsec, Jy."""
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-side, side, (2, n))
    x[:20] = np.arange(20) * 30 + 3 * side  # and a few in a row by themselves
    return x, y, 10 ** rng.uniform(-3.3, -2.3, n)


def look(seed: int, *, kept: float = 0.8) -> Table:
    """One look at the sky: some sources are missed, all move a little."""
    x, y, flux = sky()
    rng = np.random.default_rng(100 + seed)
    seen = np.flatnonzero(rng.random(len(x)) < kept)
    n = len(seen)
    error = rng.uniform(0.1, 0.6, n)
    return make_table({
        "source_id": np.arange(1, n + 1), "name": [f"S{k}" for k in range(n)],
        "ra": ((x[seen] + rng.normal(0, error)) / 3600 / np.cos(np.radians(30))) % 360,
        "dec": -30 + (y[seen] + rng.normal(0, error)) / 3600,
        "ra_err": error, "dec_err": error, "flux": flux[seen] * rng.normal(1, 0.1, n), "flux_err": flux[seen] * 0.1,
        "p_real": np.full(n, 0.9), "snr": np.full(n, 9.0), "flags": rng.choice([0, 1], n, p=[0.9, 0.1]),
    })  # fmt: skip


def manifest(number: int, **options: Any) -> dict[str, Any]:
    return {
        "input": {"path": f"/data/{number}.fits", "sha256": f"{number * 7919 % 1000:064x}", "shape": [300, 300],
                  "beam": {"major": 6.0, "minor": 5.0, "pa": 0.0}, "frequency_hz": 1.4e9 + number},
        "model": {"name": "light", "sha256": "ab"}, "options": options, "versions": {"skysift": "0.1"},
    }  # fmt: skip


def contents(store: SurveyStore) -> tuple[dict[frozenset, tuple], set[tuple]]:
    """Objects by what they hold, and the conflicts, in words that no id is part of."""

    def work(connection: sa.Connection) -> tuple[dict[frozenset, tuple], set[tuple]]:
        s, o = source.c, sky_object.c
        query = sa.select(s.id, observation.c.sha256, s.row, s.object_id, s.current, s.hpx29, s.kind)
        rows = connection.execute(query.join_from(source, observation, observation.c.id == s.observation_id)).all()
        assert not [row for row in rows if not row.current and row.object_id is not None]
        assert not [row for row in rows if row.current and row.object_id is None]
        name = {row.id: (row.sha256, row.row) for row in rows}
        objects = {}
        for one in connection.execute(sa.select(sky_object)):
            members = [row for row in rows if row.object_id == one.id]
            assert len({row.sha256 for row in members}) == len(members) == one.n_sources == one.n_observations
            assert one.first_seen <= one.last_seen
            key = frozenset(name[row.id] for row in members)
            objects[key] = (one.ra, one.dec, one.hpx29, one.n_sources, one.status)
        assert len(objects) == connection.execute(sa.select(sa.func.count(o.id))).scalar()
        apart = {
            (frozenset((name[one.source_id], name[one.other_id])), one.reason, one.distance)
            for one in connection.execute(sa.select(unresolved))
        }
        return objects, apart

    return store.read(work)


def test_the_order_of_observations_does_not_matter(new_store: Where) -> None:
    found = []
    for name, order in (("a", [0, 1, 2, 3, 4]), ("b", [4, 2, 0, 3, 1]), ("c", [3, 1, 4, 0, 2])):
        store = new_store(name)
        for number in order:
            store.record(manifest(number), look(number))
        found.append(contents(store))
    objects, apart = found[0]
    statuses = [values[-1] for values in objects.values()]
    assert {"associated", "unresolved"} <= set(statuses)
    assert sum(values[3] >= 4 for values in objects.values()) > 30 and len(apart) > 20
    assert {reason for _, reason, _ in apart} >= {"same observation", "flux"}
    assert found[1] == found[0] and found[2] == found[0]


def test_superseding_ends_where_a_fresh_survey_does(new_store: Where) -> None:
    store, fresh = new_store("grown"), new_store("fresh")
    rng = np.random.default_rng(5)
    runs, last = {}, {}
    for number in (0, 1, 2, 3):
        runs[number, number] = store.record(manifest(number, look=number), look(number))
        last[number] = number
    for number, seed in ((1, 11), (3, 13), (0, 10), (1, 21)):
        runs[number, seed] = store.record(manifest(number, look=seed), look(seed, kept=rng.uniform(0.3, 1)))
        last[number] = seed
    store.make_current(runs[1, 1])
    store.make_current(runs[1, 21])
    store.make_current(runs[3, 3])
    last[3] = 3
    for number in (2, 3, 0, 1):
        kept = {row["id"]: store.sources(row["id"]) for row in store.runs(current=True)}
        id = next(one for one in kept if one == runs[number, last[number]])
        fresh.record(manifest(number, look=last[number]), kept[id])
    assert contents(store) == contents(fresh)
    # The same run again changes nothing, nor does joining again.
    before = contents(store)
    store.record(manifest(0, look=last[0]), look(last[0]))
    counts = store.write(lambda connection: associate(connection, 1))
    assert counts == {"sources": 0, "joined": 0, "unresolved": 0, "made": 0, "removed": 0}
    assert contents(store) == before and store.read(pending) == []


def test_object_ids_stay_while_an_observation_is_processed_again(new_store: Where) -> None:
    store = new_store("s")
    for number in range(3):
        store.record(manifest(number), look(number))

    def ids(connection: sa.Connection) -> dict:
        query = sa.select(observation.c.sha256, source.c.row, source.c.object_id).where(source.c.current)
        query = query.join_from(source, observation, observation.c.id == source.c.observation_id)
        return {(row.sha256, row.row): row.object_id for row in connection.execute(query)}

    before = store.read(ids)
    store.record(manifest(2, again=True), look(2))
    after = store.read(ids)
    shared = [key for key in before if key in after]
    assert np.mean([before[key] == after[key] for key in shared]) > 0.95
    # An id that is gone is not given again to something else.
    store.record(manifest(1, again=True), look(1)[:0])
    used = set(store.read(lambda c: c.execute(sa.select(sky_object.c.id)).scalars().all()))
    store.record(manifest(1, again="twice"), look(1))
    made = set(store.read(lambda c: c.execute(sa.select(sky_object.c.id)).scalars().all())) - used
    assert made and min(made) > max(before.values())


def test_a_store_from_before_association_is_caught_up(new_store: Where) -> None:
    whole, old = new_store("whole"), new_store("old")
    for number in range(3):
        whole.record(manifest(number), look(number))
        old.record(manifest(number), look(number))
    old.migrate(2)
    old.migrate()
    assert old.read(pending) == [] and old.check()["problems"] == []
    assert contents(old) == contents(whole)


def test_galaxies_of_two_cubes_join_by_place_and_frequency(new_store: Where) -> None:
    store = new_store("cubes")
    for number, offset in ((0, 0.0), (1, 0.8)):
        table = make_cube_table({
            "source_id": [1, 2, 3], "name": ["a", "b", "c"], "ra": np.array([180.0, 180.0, 180.01]) + offset / 3600,
            "dec": [-30.0] * 3, "ra_err": [1.0] * 3, "dec_err": [1.0] * 3, "z": [5.0, 50.0, 30.0],
            "frequency": np.array([1.0e9, 1.1e9, 1.05e9]) + offset * 1e4, "frequency_err": [1e4] * 3,
            "w20": [200.0] * 3, "line_flux": [50.0] * 3, "line_flux_err": [5.0] * 3, "p_real": [0.9] * 3,
        })  # fmt: skip
        told = manifest(number)
        told["input"] |= {"shape": [60, 80, 80], "frequency_hz": [0.9e9, 1.2e9]}
        store.record(told, table)
    objects, apart = contents(store)
    assert sorted(values[3] for values in objects.values()) == [2, 2, 2] and not apart
    # A continuum source at the same place is another thing: its flux is in other units, and it has no frequency.
    store.record(manifest(5), look(5)[:1])
    assert len(contents(store)[0]) == 4


def test_what_has_no_place_has_no_object(new_store: Where) -> None:
    store = new_store("s")
    table = look(0)[:3]
    table["ra"][1] = np.nan
    store.record(manifest(0), table)
    rows = store.read(lambda c: c.execute(sa.select(source.c.object_id).order_by(source.c.row)).scalars().all())
    assert [one is None for one in rows] == [False, True, False]
    assert store.read(lambda c: c.execute(sa.select(run.c.reach)).scalar()) > 0
