"""The challenge's error and the accuracy of questions, worked out by hand."""

import numpy as np
import pytest

from pipeline.scorers.galaxy_zoo import galaxy_errors, galaxy_zoo_rmse, mean_fractions, question_scores
from survey_io.errors import OptionError


def votes(*, smooth, odd=0.0, edge=0.5):
    """Cumulative fractions: smooth or features, edge-on or not, odd or not."""
    row = np.zeros(37)
    row[:2] = smooth, 1 - smooth
    row[3:5] = (1 - smooth) * edge, (1 - smooth) * (1 - edge)
    row[13:15] = odd, 1 - odd
    return row


def test_rmse_by_hand():
    truth = np.array([votes(smooth=1.0), votes(smooth=0.0, edge=1.0)])
    predicted = np.array([votes(smooth=0.8, edge=0.5), votes(smooth=0.0, edge=0.7)])
    # Galaxy 1: 0.2, 0.2 in question 1 and 0.1, 0.1 in question 2; galaxy 2: 0.3, 0.3 in question 2.
    assert galaxy_errors(truth, predicted) * 37 == pytest.approx([0.04 + 0.04 + 0.01 + 0.01, 0.09 + 0.09])
    assert galaxy_zoo_rmse(truth, predicted) == pytest.approx(np.sqrt(0.28 / 74))
    assert galaxy_zoo_rmse(truth, truth) == 0


def test_the_mean_answers_the_same_for_all():
    training = np.array([votes(smooth=0.2), votes(smooth=0.6)])
    same = mean_fractions(training, 3)
    assert same.shape == (3, 37) and same[2, 0] == pytest.approx(0.4) and same[0, 1] == pytest.approx(0.6)


def test_questions_count_where_they_were_reached():
    true, said = [(0.9, 0.5), (0.1, 0.9), (0.3, 0.4), (0.4, 0.5)], [(0.6, 0.5), (0.7, 0.6), (0.2, 0.6), (0.1, 0.5)]
    truth = np.array([votes(smooth=smooth, edge=edge) for smooth, edge in true])
    predicted = np.array([votes(smooth=smooth, edge=edge) for smooth, edge in said])
    first, edge, bar, *_ = question_scores(truth, predicted)
    assert first.name == "smooth_or_features" and first.count == 4
    assert first.accuracy == 0.75 and first.commonest == 0.75
    assert (first.sure_count, first.sure_accuracy) == (2, 0.5)
    # Reached by 90, 70 and 60 % of people; edge-on is right for the first of them and, tied at one half, for the last.
    assert edge.count == 3 and edge.accuracy == pytest.approx(2 / 3)
    assert edge.rmse == pytest.approx(np.sqrt((0.3**2 + 0.2**2 + 0) / 3))
    assert bar.count == 0 and np.isnan(bar.accuracy) and np.isnan(bar.rmse)


def test_wrong_tables_are_refused():
    with pytest.raises(OptionError, match="shape"):
        galaxy_errors(np.zeros((2, 36)), np.zeros((2, 36)))
    with pytest.raises(OptionError, match="NaN"):
        galaxy_errors(np.full((1, 37), np.nan), np.zeros((1, 37)))
