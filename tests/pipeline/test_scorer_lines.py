"""The scorer of lines, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scorers.lines import match_lines, score_lines

TRUTH = {
    "z": np.array([100.0, 200.0, 206.0, 300.0, 400.0]), "width": np.array([10.0, 10.0, 10.0, 40.0, 4.0]),
    "flux": np.array([50.0, 60.0, -90.0, 80.0, 5.0]), "snr": np.array([8.0, 9.0, 12.0, 6.0, 1.0]),
    "ignore": np.zeros(5, bool),
}  # fmt: skip


def found(*rows):
    z, width, flux, score = (np.array(column, float) for column in zip(*rows, strict=True))
    return {"z": z, "width": width, "flux": flux, "sign": np.sign(flux), "score": score}


def test_matches_are_near_of_one_sign_and_one_each():
    rows = found((103, 10, 40, 0.9), (98, 10, 45, 0.8), (204, 10, -90, 0.7), (330, 40, 80, 0.6), (400, 4, 6, 0.95))
    # The second has lost its line to the first; the fourth is too far off; the last line is too faint to be one.
    assert match_lines(rows, TRUTH).tolist() == [0, -1, 2, -1, -1]


def test_of_two_lines_in_reach_the_more_significant_was_seen():
    truth = {**TRUTH, "flux": np.abs(TRUTH["flux"])}
    assert match_lines(found((202, 10, 60, 0.9)), truth).tolist() == [2]


def test_figures():
    rows = found((101, 12, 55, 0.9), (203, 10, 60, 0.8), (500, 10, 5, 0.7), (310, 40, 60, 0.2))
    score = score_lines([(rows, TRUTH)], least=5)
    assert (score.wanted, score.rows) == (4, 4)
    assert score.completeness == pytest.approx(3 / 4) and score.reliability == pytest.approx(3 / 4)
    assert score.f1 == pytest.approx(0.75) and score.centre == pytest.approx(0.25)
    pure = score_lines([(rows, TRUTH)], least=5, threshold=0.75)
    assert (pure.rows, pure.reliability, pure.completeness) == (2, 1.0, 0.5)
    hidden = {**TRUTH, "ignore": np.array([False, True, True, True, False])}
    # What is not wanted is not false either.
    assert score_lines([(rows, hidden)], least=5).reliability == pytest.approx(3 / 4)
    assert score_lines([(rows, hidden)], least=5).completeness == 1.0


def test_nothing_found():
    empty = {name: np.empty(0) for name in ("z", "width", "flux", "sign", "score")}
    score = score_lines([(empty, TRUTH)], least=5)
    assert score.completeness == score.reliability == score.f1 == 0 and np.isnan(score.centre)
