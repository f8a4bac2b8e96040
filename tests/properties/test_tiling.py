"""Any shape: cores cover each pixel once, windows lie on the grid of cells, samples show no seams."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_io.background import ArrayPixels, BackgroundMap
from survey_io.binned import BinnedPixels
from survey_io.tiles import plan_tiles


@st.composite
def plans(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    ndim = draw(st.integers(1, 3))
    most = {1: 400, 2: 60, 3: 20}[ndim]

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return draw(st.tuples(*[st.integers(low, high)] * ndim))

    return per_axis(1, most), per_axis(1, most + 5), per_axis(0, 12), per_axis(1, 9)


@given(plans())
@settings(deadline=None, max_examples=150)
def test_cores_cover_every_pixel_once_and_origins_lie_on_the_grid(plan) -> None:
    shape, tile, halo, stride = plan
    tiles = plan_tiles(shape, tile=tile, halo=halo, stride=stride)
    owners = np.zeros(shape, int)
    for number, one in enumerate(tiles):
        assert one.index == number
        owners[one.core] += 1
        for axis, (core, full) in enumerate(zip(one.core, one.full, strict=True)):
            assert 0 <= core.start < core.stop <= shape[axis]
            assert full.start % stride[axis] == 0 and (full.stop - full.start) % stride[axis] == 0
            assert full.start <= core.start - halo[axis] and full.stop >= core.stop + halo[axis]
            # No more than the rounding to cells asks for.
            assert core.start - full.start < halo[axis] + stride[axis]
            assert full.stop - core.stop < halo[axis] + 2 * stride[axis]
    assert (owners == 1).all()


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.integers(4, 40),
    st.tuples(st.integers(-30, 150), st.integers(-30, 150)),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_a_window_of_the_background_is_a_part_of_the_whole(cells, mesh, corner, size, seed) -> None:
    rng = np.random.default_rng(seed)
    level, rms = (rng.normal(size=cells).astype(np.float32) for _ in range(2))
    found = BackgroundMap(level, rms, mesh)
    whole = found.sample((slice(-40, 220), slice(-40, 220)))
    window = tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))
    part = found.sample(window)
    for values, reference in zip(part, whole, strict=True):
        expected = reference[tuple(slice(s.start + 40, s.stop + 40) for s in window)]
        np.testing.assert_allclose(values, expected, rtol=0, atol=2e-6)


@given(
    st.tuples(st.integers(1, 25), st.integers(1, 25)),
    st.integers(1, 6),
    st.tuples(st.integers(-2, 4), st.integers(-2, 4)),
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_binned_pixels_are_block_means_of_what_is_not_blank(shape, factor, corner, size, seed) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=shape).astype(np.float32)
    image[rng.random(shape) < 0.3] = np.nan
    window = tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))
    got = BinnedPixels(ArrayPixels(image), factor).read(window)
    for i, row in enumerate(range(window[0].start, window[0].stop)):
        for j, column in enumerate(range(window[1].start, window[1].stop)):
            y0, x0 = max(row * factor, 0), max(column * factor, 0)
            block = image[y0 : max((row + 1) * factor, 0), x0 : max((column + 1) * factor, 0)]
            block = block[np.isfinite(block)].astype(float)
            if block.size:
                np.testing.assert_allclose(got[i, j], block.mean(), rtol=1e-6, atol=1e-7)
            else:
                assert np.isnan(got[i, j])
