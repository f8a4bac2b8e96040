"""Boxes stay on their shapes through crops, flips, scales and mosaics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.photo_augment import MARGIN, Scene, View, colours, letterbox, mosaic, place, random_view, show


def red_box(shape: tuple[int, int], box: tuple[int, int, int, int]) -> Scene:
    """A red rectangle over rows y0..y1-1 and columns x0..x1-1 of a black image."""
    image = np.zeros((*shape, 3), np.uint8)
    y0, x0, y1, x1 = box
    image[y0:y1, x0:x1, 0] = 255
    return Scene(image, np.array([box], np.float32) - 0.5, np.array([3]), np.array([False]))


def extent(image: np.ndarray) -> np.ndarray:
    """Edges of what is red, at half of the brightness."""
    red = (image[..., 0].astype(int) - image[..., 1]) > 127
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    return np.array([rows[0] - 0.5, columns[0] - 0.5, rows[-1] + 0.5, columns[-1] + 0.5])


def test_letterbox_keeps_the_aspect_and_centres() -> None:
    scene = red_box((40, 80), (10, 20, 30, 60))
    laid = place(scene, letterbox((40, 80), 160), 160)
    assert laid.image.shape == (160, 160, 3)
    np.testing.assert_allclose(laid.boxes, [[59.5, 39.5, 99.5, 119.5]])
    np.testing.assert_allclose(extent(laid.image), laid.boxes[0], atol=1)
    assert (laid.image[:39] == MARGIN).all() and (laid.image[121:] == MARGIN).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), high=st.integers(30, 90), wide=st.integers(30, 90))
def test_a_random_view_moves_boxes_with_their_shapes(seed: int, high: int, wide: int) -> None:
    rng = np.random.default_rng(seed)
    scene = red_box((high, wide), (5, 8, high - 8, wide - 4))
    view = random_view((high, wide), 96, rng)
    laid = place(scene, view, 96, visible=0.0, smallest=0.0)
    if len(laid.boxes):
        # The canvas is pasted at whole pixels.
        np.testing.assert_allclose(extent(laid.image), laid.boxes[0], atol=1.6)
    back = view.back(view.boxes(scene.boxes, wide), wide)
    np.testing.assert_allclose(back, scene.boxes, atol=1e-3)


def test_a_flip_mirrors() -> None:
    scene = red_box((40, 60), (5, 10, 15, 30))
    laid = place(scene, View((1.0, 1.0), (0.0, 0.0), flip=True), 60)
    np.testing.assert_allclose(laid.boxes, [[4.5, 29.5, 14.5, 49.5]])
    np.testing.assert_allclose(extent(laid.image), laid.boxes[0])


def test_what_is_cut_becomes_difficult_and_what_is_outside_goes() -> None:
    scene = red_box((60, 60), (0, 0, 20, 20))
    at = lambda shift: place(scene, View((1.0, 1.0), (shift, 0.0)), 60)  # noqa: E731
    assert not at(-8.0).difficult[0] and at(-14.0).difficult[0] and len(at(-20.0).boxes) == 0
    np.testing.assert_allclose(at(-8.0).boxes, [[-0.5, -0.5, 11.5, 19.5]])
    small = place(scene, View((0.1, 0.1), (0.0, 0.0)), 60)
    assert small.difficult[0]


def test_a_mosaic_holds_four_scenes_with_their_boxes() -> None:
    rng = np.random.default_rng(3)
    scenes = [red_box((50, 50), (10, 10, 40, 40)) for _ in range(4)]
    for _ in range(10):
        made = mosaic(scenes, 128, rng)
        assert made.image.shape == (128, 128, 3) and len(made.boxes) == len(made.labels) == len(made.difficult)
        for box in made.boxes[~made.difficult]:
            y, x = np.round((box[:2] + box[2:]) / 2).astype(int)
            assert made.image[y, x, 0] > 200


def test_colours_change_no_place() -> None:
    rng = np.random.default_rng(0)
    scene = red_box((40, 60), (5, 10, 15, 30))
    changed = [colours(scene.image, rng) for _ in range(20)]
    assert all(one.dtype == np.uint8 and one.shape == scene.image.shape for one in changed)
    assert any((one != scene.image).any() for one in changed)
    bright = changed[0].astype(int).sum(axis=-1)
    assert bright[6:14, 12:28].min() > bright[20:].max()


def test_show_pads_with_grey() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    shown = show(image, letterbox((10, 20), 32), 32)
    assert shown[0, 0].tolist() == [MARGIN] * 3 and shown[16, 16].max() == 0


def test_views_need_an_image_that_is_not_empty() -> None:
    with pytest.raises(ZeroDivisionError):
        letterbox((0, 0), 32)
