"""Tiles: who owns which pixel, what is read, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from survey_io.tiles import plan_tiles, round_up


def test_a_plan_by_hand() -> None:
    tiles = plan_tiles((10, 7), tile=(6, 100), halo=3, stride=4)
    assert [t.index for t in tiles] == [0, 1]
    # 6 becomes 8 and 3 becomes 4, whole cells; the last window is cut to whole cells, not to the image.
    assert tiles[0].core == (slice(0, 8), slice(0, 7)) and tiles[0].full == (slice(-4, 12), slice(-4, 12))
    assert tiles[1].core == (slice(8, 10), slice(0, 7)) and tiles[1].full == (slice(4, 16), slice(-4, 12))
    assert tiles[1].origin == (4, -4)


def test_tiles_come_in_raster_order() -> None:
    tiles = plan_tiles((5, 6, 7), tile=(2, 3, 4), halo=0)
    starts = [tuple(s.start for s in t.core) for t in tiles]
    assert starts == sorted(starts) and len(starts) == 3 * 2 * 2


@pytest.mark.parametrize(
    "wrong",
    [{"shape": (0, 5)}, {"tile": 0}, {"stride": 0}, {"halo": -1}, {"halo": (1, -1)}, {"tile": (4, 0)}],
)
def test_senseless_plans_are_refused(wrong: dict) -> None:
    asked = {"shape": (9, 9), "tile": 4, "halo": 1, "stride": 1, **wrong}
    with pytest.raises(ValueError, match="at least 1 px"):
        plan_tiles(asked.pop("shape"), **asked)


def test_a_size_for_another_number_of_axes_is_refused() -> None:
    with pytest.raises(ValueError):
        plan_tiles((9, 9), tile=(4, 4, 4), halo=1)


def test_round_up_reaches_the_next_multiple_and_stays_on_one() -> None:
    assert [round_up(v, 4) for v in (0, 1, 4, 5)] == [0, 4, 4, 8]


def test_halo_gives_every_core_pixel_its_surroundings() -> None:
    image = np.arange(23 * 31).reshape(23, 31)
    for tile in plan_tiles(image.shape, tile=8, halo=5, stride=4):
        for core, full in zip(tile.core, tile.full, strict=True):
            assert core.start - full.start >= 5 and full.stop - core.stop >= 5
