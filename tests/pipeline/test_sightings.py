"""Association as a function of the set of sources: what joins, what stays apart and is said, and no order matters."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.survey.sightings import ALONE, AssociationOptions, Groups, Sightings, find_links, group_sightings

OPTIONS = AssociationOptions()


def sightings(ra, dec, observation, **given) -> Sightings:
    n = len(ra)
    values = {
        "ra": np.asarray(ra, float), "dec": np.asarray(dec, float), "observation": np.asarray(observation),
        "ra_err": np.full(n, 0.2), "dec_err": np.full(n, 0.2), "beam": np.full(n, 6.0),
        "flux": np.full(n, 1.0), "flux_err": np.full(n, 0.05), "band": np.full(n, 1.4e9),
        "freq": np.full(n, np.nan), "freq_err": np.full(n, np.nan), "width": np.full(n, np.nan),
        "kind": np.zeros(n, int), "unit": np.zeros(n, int), "rank": np.arange(n),
    }  # fmt: skip
    return Sightings(**{**values, **{name: np.asarray(value) for name, value in given.items()}})


def group(one: Sightings, options: AssociationOptions = OPTIONS) -> Groups:
    return group_sightings(one, find_links(one, options))


def partition(groups: Groups, names: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(names[groups.label == label].tolist()) for label in np.unique(groups.label)}


def conflicts(groups: Groups, names: np.ndarray) -> set[tuple[frozenset[int], str]]:
    return {
        (frozenset((int(names[i]), int(names[j]))), ALONE[reason])
        for i, j, reason in zip(groups.first, groups.second, groups.reason, strict=True)
    }


def arcsec(*values: float) -> np.ndarray:
    return np.array(values) / 3600.0


@pytest.mark.parametrize("ra, dec", [(0.0, 0.0), (0.0, -89.9999), (180.0, 90.0), (53.1, -27.8)])
def test_near_sources_of_different_observations_are_joined(ra: float, dec: float) -> None:
    # 0.8 arcsec to either side across 0h, or across the pole.
    decs = np.clip(dec + arcsec(0.0, 0.0), -90, 90) if abs(dec) < 89 else np.array([dec, dec])
    step = arcsec(0.8)[0] / max(np.cos(np.radians(dec)), 1e-3)
    found = group(sightings([(ra - step / 2) % 360, (ra + step / 2) % 360], decs, [1, 2]))
    assert len(set(found.label)) == 1 and len(found.first) == 0


def test_a_source_never_joins_one_of_its_own_observation() -> None:
    found = group(sightings(arcsec(0.0, 0.3), [0.0, 0.0], [1, 1]))
    assert len(set(found.label)) == 2 and len(found.first) == 0


def test_the_nearer_of_two_partners_wins_and_the_other_is_a_conflict() -> None:
    one = sightings(arcsec(0.0, 0.2, 1.2), [0.0] * 3, [1, 2, 2])
    found = group(one)
    assert partition(found, np.arange(3)) == {frozenset({0, 1}), frozenset({2})}
    assert conflicts(found, np.arange(3)) == {(frozenset({0, 2}), "same observation")}


def test_fluxes_that_disagree_stay_apart_and_are_said() -> None:
    found = group(sightings(arcsec(0.0, 0.1), [0.0] * 2, [1, 2], flux=[1.0, 9.0]))
    assert conflicts(found, np.arange(2)) == {(frozenset({0, 1}), "flux")}
    # Faint fluxes differ by more than the factor within their noise; two bands allow for a spectrum.
    assert len(group(sightings(arcsec(0, 0.1), [0, 0], [1, 2], flux=[1.0, 9.0], flux_err=[2.0, 2.0])).first) == 0
    assert len(group(sightings(arcsec(0, 0.1), [0, 0], [1, 2], flux=[1.0, 9.0], band=[1e9, 3e9])).first) == 0
    # Nothing is known of a flux at an edge, or in another unit.
    assert len(group(sightings(arcsec(0, 0.1), [0, 0], [1, 2], flux=[1.0, np.nan])).first) == 0
    assert len(group(sightings(arcsec(0, 0.1), [0, 0], [1, 2], flux=[1.0, 9.0], unit=[0, 1])).first) == 0


def test_lines_need_the_same_frequency_and_kinds_do_not_mix() -> None:
    line = {"freq_err": [1e4, 1e4], "width": [5e5, 5e5]}
    same = group(sightings(arcsec(0, 0.1), [0, 0], [1, 2], freq=[1.39e9, 1.39e9 + 1e5], **line))
    other = group(sightings(arcsec(0, 0.1), [0, 0], [1, 2], freq=[1.39e9, 1.38e9], **line))
    half = group(sightings(arcsec(0, 0.1), [0, 0], [1, 2], freq=[1.39e9, np.nan], **line))
    assert [len(set(found.label)) for found in (same, other, half)] == [1, 2, 2]
    assert len(other.first) == 0  # two galaxies on one line of sight are no conflict
    assert len(set(group(sightings(arcsec(0, 0.1), [0, 0], [1, 2], kind=[0, 1])).label)) == 2


def test_a_chain_does_not_grow() -> None:
    one = sightings(arcsec(0.0, 1.7, 3.6), [0.0] * 3, [1, 2, 3])
    found = group(one)
    assert partition(found, np.arange(3)) == {frozenset({0, 1}), frozenset({2})}
    assert conflicts(found, np.arange(3)) == {(frozenset({1, 2}), "distance")}


def test_errors_that_mean_nothing_are_bounded_by_the_beam() -> None:
    wide = sightings(arcsec(0.0, 40.0), [0.0] * 2, [1, 2], ra_err=[np.nan, 1e9], dec_err=[np.inf, 1e9])
    assert len(set(group(wide).label)) == 2
    near = sightings(arcsec(0.0, 5.0), [0.0] * 2, [1, 2], ra_err=[np.nan, 0.2])
    assert len(set(group(near).label)) == 1
    assert len(set(group(sightings(arcsec(0, 1.0), [0, 0], [1, 2], beam=[np.nan] * 2)).label)) == 1


def crowd(seed: int, n: int = 400, observations: int = 6) -> Sightings:
    """Sources so dense that chains, conflicts and ties abound."""
    rng = np.random.default_rng(seed)
    flux = 10 ** rng.uniform(-1, 1, n)
    return sightings(
        rng.uniform(0, 60, n) / 3600, rng.uniform(-30, 30, n) / 3600, rng.integers(observations, size=n),
        ra_err=rng.uniform(0.05, 1.0, n), dec_err=rng.uniform(0.05, 1.0, n), flux=flux, flux_err=flux / 20,
        beam=rng.choice([3.0, 6.0], n), rank=rng.permutation(n),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_sources_does_not_matter(seed: int) -> None:
    one = crowd(seed)
    whole = group(one)
    assert len(whole.first) > 20  # it is a crowd
    for shuffle in range(3):
        order = np.random.default_rng(100 + shuffle).permutation(len(one))
        again = group(one[order])
        assert partition(again, order) == partition(whole, np.arange(len(one)))
        assert conflicts(again, order) == conflicts(whole, np.arange(len(one)))


def test_groups_are_complete_and_of_one_observation_each() -> None:
    one = crowd(9)
    links = find_links(one, OPTIONS)
    found = group_sightings(one, links)
    linked = set(zip(links.first[links.alike].tolist(), links.second[links.alike].tolist(), strict=True))
    for members in partition(found, np.arange(len(one))):
        assert len({int(one.observation[row]) for row in members}) == len(members)
        assert all((a, b) in linked or (b, a) in linked for a in members for b in members if a < b)


def test_links_agree_with_all_pairs_looked_at_one_by_one() -> None:
    one = crowd(5, n=120)
    links = find_links(one, OPTIONS)
    found = set(zip(links.first.tolist(), links.second.tolist(), strict=True))
    expected = set()
    ex, ey = one.position_errors(OPTIONS)
    for i in range(120):
        for j in range(120):
            if one.rank[i] < one.rank[j] and one.observation[i] != one.observation[j]:
                dx, dy = (one.ra[i] - one.ra[j]) * 3600, (one.dec[i] - one.dec[j]) * 3600
                d = np.sqrt(dx**2 / (ex[i] ** 2 + ex[j] ** 2) + dy**2 / (ey[i] ** 2 + ey[j] ** 2))
                if d <= 5 and np.hypot(dx, dy) <= max(one.beam[i], one.beam[j]):
                    expected.add((i, j))
    assert found == expected and len(expected) > 50
    first, second = np.arange(60), np.arange(60, 120)
    part = find_links(one, OPTIONS, among=(first, second))
    assert set(zip(part.first.tolist(), part.second.tolist(), strict=True)) == {
        (i, j) for i, j in expected if (i < 60) != (j < 60)
    }


def test_no_sources_are_no_groups() -> None:
    found = group(crowd(0, n=0))
    assert len(found.label) == 0 and len(found.first) == 0
