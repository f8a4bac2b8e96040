"""Scores of classifiers against values worked out by hand, and properties that must hold for any scores."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scorers.classification import (
    average_precision,
    balanced_accuracy,
    brier_score,
    class_average_precision,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    reliability_bins,
    roc_auc,
    scores_by_strength,
    top_class,
)
from survey_io.errors import OptionError


def test_average_precision_by_hand():
    truth = np.array([1, 0, 1, 0, 1], bool)
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    # Found at ranks 1, 3 and 5: precisions 1, 2/3, 3/5, each a third of the recall.
    assert average_precision(truth, score) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision(truth, np.exp(7 * score)) == pytest.approx(average_precision(truth, score))
    assert average_precision(truth, truth.astype(float)) == 1.0
    assert np.isnan(average_precision(np.zeros(4, bool), np.arange(4.0)))


def test_ties_are_one_step_whatever_their_order():
    truth, score = np.array([1, 1, 0, 0, 0, 1], bool), np.array([3.0, 1, 1, 1, 1, 0])
    # One of one at score 3, two of five at 1, three of six at 0.
    expected = (1 + 2 / 5 + 3 / 6) / 3
    rng = np.random.default_rng(1)
    for _ in range(5):
        order = rng.permutation(6)
        assert average_precision(truth[order], score[order]) == pytest.approx(expected)
    assert average_precision(truth, np.zeros(6)) == pytest.approx(0.5)


def test_average_precision_of_chance_is_the_share_of_true_ones():
    rng = np.random.default_rng(2)
    truth = rng.random(20_000) < 0.3
    assert average_precision(truth, rng.random(20_000)) == pytest.approx(0.3, abs=0.015)
    assert roc_auc(truth, rng.random(20_000)) == pytest.approx(0.5, abs=0.015)


def test_entries_not_kept_do_not_count():
    rng = np.random.default_rng(3)
    truth, score, keep = rng.random(300) < 0.4, rng.random(300), rng.random(300) < 0.7
    assert average_precision(truth, score, keep=keep) == average_precision(truth[keep], score[keep])
    assert roc_auc(truth, score, keep=keep) == roc_auc(truth[keep], score[keep])
    assert brier_score(truth, score, keep=keep) == brier_score(truth[keep], score[keep])


def test_each_class_has_its_own_average_precision():
    rng = np.random.default_rng(4)
    truth, score, keep = rng.random((200, 3)) < 0.3, rng.random((200, 3)), rng.random((200, 3)) < 0.8
    truth[:, 2] = False
    found = class_average_precision(truth, score, keep=keep)
    assert found[:2] == pytest.approx([average_precision(truth[:, k], score[:, k], keep=keep[:, k]) for k in (0, 1)])
    assert np.isnan(found[2])
    with pytest.raises(OptionError, match="one shape"):
        class_average_precision(truth, score[:, :2])


def test_faint_and_strong_ones_are_scored_apart_against_the_same_false_ones():
    rng = np.random.default_rng(7)
    truth, strength = rng.random((4000, 2)) < 0.2, rng.uniform(2, 10, (4000, 2))
    score = 1 / (1 + np.exp(-(rng.normal(size=truth.shape) + np.where(truth, strength - 4, -1))))
    keep = rng.random(truth.shape) < 0.9
    parts = scores_by_strength(truth, score, strength, [(2, 4), (4, np.inf)], keep=keep)
    assert parts[0]["count"] == (truth & keep & (strength < 4)).sum()
    assert parts[1]["count"] == (truth & keep & (strength >= 4)).sum()
    faint = (truth & (strength < 4)) | ~truth
    expected = [average_precision(truth[:, k], score[:, k], keep=(keep & faint)[:, k]) for k in (0, 1)]
    assert parts[0]["macro_average_precision"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert parts[0]["macro_average_precision"] < 0.6 < 0.9 < parts[1]["macro_average_precision"]
    assert parts[1]["found"] == pytest.approx((score[truth & keep & (strength >= 4)] >= 0.5).mean(), abs=1e-4)
    nothing = scores_by_strength(truth, score, strength, [(50, 60)])[0]
    assert nothing["count"] == 0 and np.isnan(nothing["found"])


def test_roc_auc_equals_the_share_of_pairs_in_order():
    rng = np.random.default_rng(5)
    truth, score = rng.random(80) < 0.4, rng.integers(0, 10, 80).astype(float)
    pairs = score[truth][:, None] - score[~truth][None]
    assert roc_auc(truth, score) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert np.isnan(roc_auc(np.ones(3, bool), np.arange(3)))


def test_confusion_and_balanced_accuracy():
    found = confusion_matrix([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 0, 2], 4)
    assert found.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert balanced_accuracy(found) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    with pytest.raises(OptionError, match="expected 0 to 1"):
        confusion_matrix([0, 1], [0, 2], 2)


def test_honest_probabilities_are_calibrated_and_squared_ones_are_not():
    rng = np.random.default_rng(6)
    probability = rng.random(100_000)
    truth = rng.random(100_000) < probability
    assert expected_calibration_error(truth, probability) < 0.006
    # Squaring shifts the stated value by p - p^2, on average 1/6.
    assert expected_calibration_error(truth, probability**2) == pytest.approx(1 / 6, abs=0.01)
    bins = reliability_bins(truth, probability, bins=10)
    assert bins.count.sum() == 100_000
    assert (np.abs(bins.measured - bins.stated) < 4 * bins.error).all()


def test_bins_hold_their_edges_and_leave_out_empty_ones():
    bins = reliability_bins(np.array([0, 1, 1], bool), np.array([0.0, 0.5, 1.0]), bins=2)
    assert bins.count.tolist() == [1, 2]
    assert bins.stated.tolist() == [0.0, 0.75]
    assert bins.expected_calibration_error == pytest.approx((0 + 2 * 0.25) / 3)
    bins = reliability_bins(np.array([1, 0], bool), np.array([0.95, 0.9]), bins=10)
    assert (bins.low.tolist(), bins.high.tolist()) == ([0.9], [1.0])
    equal = reliability_bins(np.arange(40) % 3 == 0, np.linspace(0, 0.1, 40), bins=4, equal=True)
    assert equal.count.tolist() == [10, 10, 10, 10]
    assert np.isnan(reliability_bins(np.zeros(0, bool), np.zeros(0)).expected_calibration_error)


def test_top_class_of_exclusive_classes():
    right, stated = top_class([0, 2, 1], [[0.7, 0.2, 0.1], [0.5, 0.1, 0.4], [0.1, 0.8, 0.1]])
    assert right.tolist() == [True, False, True]
    assert stated == pytest.approx([0.7, 0.5, 0.8])


def test_losses_by_hand_and_their_bounds():
    truth, probability = np.array([1, 0], bool), np.array([0.8, 0.4])
    assert log_loss(truth, probability) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert brier_score(truth, probability) == pytest.approx((0.04 + 0.16) / 2)
    assert np.isfinite(log_loss(truth, 1 - truth))


def test_what_cannot_be_scored_is_refused_in_one_line():
    with pytest.raises(OptionError, match="one shape"):
        average_precision(np.ones(3, bool), np.ones(2))
    with pytest.raises(OptionError, match="1 of 2 scores are NaN"):
        average_precision(np.ones(2, bool), np.array([1.0, np.nan]))
    with pytest.raises(OptionError, match="calibrated first"):
        reliability_bins(np.ones(2, bool), np.array([1.0, 1.2]))
    with pytest.raises(OptionError, match="keep mask"):
        average_precision(np.ones(2, bool), np.ones(2), keep=np.ones(3, bool))
