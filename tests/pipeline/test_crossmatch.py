"""One-to-one matching against a plain loop over all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.crossmatch import match_pixels, match_sky
from survey_io.errors import OptionError


def loop(first, second, radius):
    """Greedy matching as anyone would write it."""
    distance = np.linalg.norm(first[:, None] - second[None], axis=2)
    pairs, left, right = [], set(range(len(first))), set(range(len(second)))
    for _, i, j in sorted((distance[i, j], i, j) for i in left for j in right if distance[i, j] <= radius[j]):
        if i in left and j in right:
            left.remove(i)
            right.remove(j)
            pairs.append((i, j))
    return sorted(pairs)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 25), m=st.integers(0, 25), width=st.floats(1, 30))
def test_greedy_equals_the_loop(seed, n, m, width):
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0, width, (n, 2)), rng.uniform(0, width, (m, 2))
    radius = rng.uniform(0, 3, m)
    match = match_pixels(tuple(first.T), tuple(second.T), radius=radius)
    assert list(zip(match.first.tolist(), match.second.tolist(), strict=True)) == loop(first, second, radius)
    assert np.all(match.separation <= radius[match.second])


def test_methods_differ_as_documented():
    # b0 lies nearest to a1; a0's second choice is b1.
    first = (np.array([0.0, 0.4]), np.zeros(2))
    second = (np.array([0.5, -1.0]), np.zeros(2))
    pairs = {
        method: list(zip(*(getattr(match_pixels(first, second, radius=2.0, method=method), side).tolist()
                           for side in ("first", "second")), strict=True))
        for method in ("greedy", "mutual", "nearest")
    }  # fmt: skip
    assert pairs["greedy"] == [(0, 1), (1, 0)]
    assert pairs["mutual"] == [(1, 0)]
    assert pairs["nearest"] == [(1, 0)]


def test_many_rounds_end():
    # A chain in which each match frees the next pair only.
    x = np.cumsum(np.linspace(1.0, 2.0, 41))
    match = match_pixels((x[::2],), (x[1::2],), radius=10.0)
    assert len(match) == 20


def test_sky_distance_across_zero_and_near_the_pole():
    ra, dec = np.array([0.0, 120.0]), np.array([0.0, 89.9999])
    moved = (np.array([359.9999, 300.0]), np.array([0.0, 89.9999]))
    match = match_sky((ra, dec), moved, radius=1.0)
    assert match.first.tolist() == [0, 1]
    assert match.separation == pytest.approx([0.36, 0.72], rel=1e-4)
    assert match.of_first(3).tolist() == [0, 1, -1]
    assert match.of_second(2).tolist() == [0, 1]


def test_radius_per_source_and_bad_positions():
    first = (np.array([0.0, 10.0, np.nan]), np.zeros(3))
    second = (np.array([1.0, 11.0]), np.zeros(2))
    assert match_pixels(first, second, radius=np.array([0.5, 1.5])).second.tolist() == [1]
    with pytest.raises(OptionError, match="per row"):
        match_pixels(first, second, radius=np.ones(3))
    with pytest.raises(OptionError, match="negative"):
        match_pixels(first, second, radius=-1.0)
    with pytest.raises(OptionError, match="greedy"):
        match_pixels(first, second, radius=1.0, method="closest")


def test_flux_factor_turns_away_unlike_sources():
    first, second = (np.zeros(1), np.zeros(1)), (np.array([0.1, 0.3]), np.zeros(2))
    fluxes = (np.array([10.0]), np.array([1.0, 9.0]))
    assert match_pixels(first, second, radius=1.0).second.tolist() == [0]
    assert match_pixels(first, second, radius=1.0, fluxes=fluxes, flux_factor=2.0).second.tolist() == [1]
    with pytest.raises(OptionError, match="flux_factor"):
        match_pixels(first, second, radius=1.0, flux_factor=2.0)
