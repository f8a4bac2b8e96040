"""Average precision against values worked out by hand (VOC) and against COCO's own program."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.scorers.average_precision import (
    AveragePrecision,
    FoundBoxes,
    TrueBoxes,
    VocMatches,
    area_under,
    coco_scores,
    overlaps,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "coco_golden.json").read_text())


def true_boxes(rows, labels=None, ignored=None) -> TrueBoxes:
    boxes = np.array(rows, float).reshape(-1, 4)
    labels = np.zeros(len(boxes), int) if labels is None else np.array(labels, int)
    return TrueBoxes(boxes, labels, np.zeros(len(boxes), bool) if ignored is None else np.array(ignored, bool))


def found_boxes(rows, scores, labels=None) -> FoundBoxes:
    boxes = np.array(rows, float).reshape(-1, 4)
    return FoundBoxes(boxes, np.array(scores, float), np.zeros(len(boxes), int) if labels is None else np.array(labels))


ONE, TWO = [0, 0, 10, 10], [20, 20, 30, 30]


def test_overlap_is_that_of_the_devkit_with_its_inclusive_corners() -> None:
    # VOC corners (1, 1, 10, 10) and (1, 6, 10, 15): 10 x 5 px shared of 150; as edges 0.5 below and above.
    boxes = np.array([[-0.5, -0.5, 9.5, 9.5], [-0.5, 4.5, 9.5, 14.5]])
    assert overlaps(boxes[:1], boxes[1:])[0, 0] == pytest.approx(50 / 150)


def test_each_true_box_is_found_once_and_the_rest_is_wrong() -> None:
    true = [true_boxes([ONE, TWO])]
    found = [found_boxes([ONE, ONE, TWO, [40, 40, 50, 50]], [0.9, 0.8, 0.7, 0.6])]
    recall, precision, score = VocMatches(found, true, 1).curve(0)
    np.testing.assert_allclose(recall, [0.5, 0.5, 1, 1])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 1 / 2])
    np.testing.assert_allclose(score, [0.9, 0.8, 0.7, 0.6])
    # All points: 0.5 at precision 1 and 0.5 at 2/3. Eleven points: six recalls to 0.5 at 1, five at 2/3.
    assert VocMatches(found, true, 1).average_precision().mean == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert VocMatches(found, true, 1).average_precision(points=11).mean == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_a_taken_box_does_not_pass_its_second_finder_on_to_a_neighbour() -> None:
    # The second detection overlaps ONE most, which is taken: it is wrong though it overlaps the neighbour by half too.
    neighbour = [0, 3, 10, 13]
    true = [true_boxes([ONE, neighbour])]
    found = [found_boxes([ONE, [0, 1, 10, 11]], [0.9, 0.8])]
    assert VocMatches(found, true, 1).average_precision().mean == pytest.approx(0.5)


def test_difficult_boxes_count_neither_way() -> None:
    true = [true_boxes([ONE, TWO], ignored=[False, True])]
    both = [found_boxes([TWO, TWO, ONE], [0.9, 0.8, 0.7])]
    assert VocMatches(both, true, 1).average_precision().mean == pytest.approx(1)
    assert VocMatches([found_boxes([], [])], true, 1).average_precision().mean == 0


def test_half_an_overlap_is_enough_and_less_is_not() -> None:
    true = [true_boxes([ONE])]
    half, less = [0, 0, 10, 20], [0, 0, 10, 20.1]
    assert VocMatches([found_boxes([half], [1])], true, 1).average_precision().mean == 1
    assert VocMatches([found_boxes([less], [1])], true, 1).average_precision().mean == 0


def test_classes_apart_images_apart_and_classes_without_truth_do_not_count() -> None:
    true = [true_boxes([ONE], labels=[0]), true_boxes([ONE], labels=[1])]
    wrong_image = [found_boxes([ONE], [0.9], labels=[1]), found_boxes([ONE], [0.9], labels=[1])]
    scores = VocMatches(wrong_image, true, 3).average_precision()
    assert scores.classes[0] == 0 and scores.classes[1] == pytest.approx(0.5) and np.isnan(scores.classes[2])
    assert scores.mean == pytest.approx(0.25)
    assert np.isnan(AveragePrecision(np.full(3, np.nan)).mean)


def test_a_bootstrap_draw_is_the_score_of_those_images() -> None:
    rng = np.random.default_rng(4)
    true = [true_boxes([ONE, TWO], labels=rng.integers(0, 2, 2)) for _ in range(8)]
    found = [
        found_boxes(rng.uniform(0, 30, (3, 1)) + np.array([[0, 0, 10, 10]]), rng.random(3), rng.integers(0, 2, 3))
        for _ in true
    ]
    rows = rng.integers(0, 8, 8)
    whole = VocMatches(found, true, 2).average_precision(rows)
    again = VocMatches([found[i] for i in rows], [true[i] for i in rows], 2).average_precision()
    np.testing.assert_array_equal(whole.classes, again.classes)


def test_area_of_nothing_is_nothing() -> None:
    assert area_under(np.zeros(0), np.zeros(0)) == 0
    assert area_under(np.zeros(0), np.zeros(0), points=11) == 0


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['images']} images")
def test_coco_numbers_are_those_of_its_own_program(case) -> None:
    true, found = [], []
    for image in range(case["images"]):
        rows = [row for row in case["true"] if row[0] == image]
        corner = np.array([[row[3], row[2], row[3] + row[5], row[2] + row[4]] for row in rows]).reshape(-1, 4)
        true.append(
            TrueBoxes(
                corner,
                np.array([row[1] for row in rows], int),
                np.array([row[7] for row in rows], bool),
                np.array([row[6] for row in rows], float),
            )
        )
        rows = [row for row in case["found"] if row[0] == image]
        corner = np.array([[row[3], row[2], row[3] + row[5], row[2] + row[4]] for row in rows]).reshape(-1, 4)
        labels = np.array([row[1] for row in rows], int)
        found.append(FoundBoxes(corner, np.array([row[6] for row in rows], float), labels))
    scores = coco_scores(found, true, case["classes"])
    assert scores.keys() == case["scores"].keys()
    for name, value in case["scores"].items():
        assert scores[name] == pytest.approx(value, abs=1e-6), name
