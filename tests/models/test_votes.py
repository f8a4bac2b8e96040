"""The likelihood of votes, by hand, and how the votes of a galaxy become fractions."""

import numpy as np
import pytest
import torch
from scipy.special import betaln, gammaln

from models.votes import VoteAnswers, cumulative_tensor, true_fractions, votes_loss
from survey_io.datasets.galaxy_tree import QUESTIONS, conditional_fractions, cumulative_fractions, question_shares

FIRST, EDGE, ODD = QUESTIONS[0].place, QUESTIONS[1].place, QUESTIONS[5].place


def test_fractions_of_answers_sum_to_one_and_pass_down_the_tree():
    raw = np.random.default_rng(0).normal(size=(5, 37))
    answers = VoteAnswers()
    conditional, cumulative = answers.conditional(raw), answers.cumulative(raw)
    assert question_shares(conditional) == pytest.approx(np.ones((5, 11)))
    assert cumulative == pytest.approx(cumulative_fractions(conditional))
    assert cumulative_tensor(torch.from_numpy(raw)).numpy() == pytest.approx(cumulative)
    assert answers.outputs == 37 and answers.concentration(raw) is None


def test_truth_is_the_same_from_counts_and_from_cumulative_fractions():
    counts = np.zeros((1, 37))
    counts[0, FIRST], counts[0, EDGE], counts[0, ODD] = (10, 28, 2), (7, 21), (4, 36)
    fractions = cumulative_fractions(conditional_fractions(counts))
    found = [true_fractions(torch.from_numpy(one)).numpy() for one in (counts, fractions)]
    assert found[0] == pytest.approx(fractions) and found[1] == pytest.approx(fractions)
    assert fractions[0, EDGE] == pytest.approx([0.7 * 0.25, 0.7 * 0.75])


def test_multinomial_likelihood_by_hand():
    raw, votes = torch.zeros(1, 37), torch.zeros(1, 37)
    votes[0, FIRST] = torch.tensor([0.25, 0.75, 0.0])
    votes[0, EDGE] = torch.tensor([0.75, 0.0])
    # One person in all at ln 3, three quarters of one at ln 2; the other questions were not reached.
    loss, parts = votes_loss(raw, votes, VoteAnswers())
    assert float(loss) == pytest.approx(np.log(3) + 0.75 * np.log(2), rel=1e-6)
    # 40 people with these fractions weigh as much as one.
    assert float(votes_loss(raw, 40 * votes, VoteAnswers())[0]) == pytest.approx(float(loss), rel=1e-6)
    assert parts["likelihood"] == pytest.approx(float(loss))


def test_squared_errors_are_of_the_cumulative_fractions():
    raw, votes = torch.zeros(1, 37), torch.zeros(1, 37)
    votes[0, FIRST], votes[0, ODD] = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.5, 0.5])
    said = VoteAnswers().cumulative(raw.numpy())[0]
    wanted = np.zeros(37)
    wanted[0], wanted[ODD] = 1, 0.5
    plain, parts = votes_loss(raw, votes, VoteAnswers())
    assert parts["rmse"] == pytest.approx(np.sqrt(((said - wanted) ** 2).mean()), rel=1e-5)
    with_squares, _ = votes_loss(raw, votes, VoteAnswers(), squared=2.0)
    assert float(with_squares - plain) == pytest.approx(2 * ((said - wanted) ** 2).sum(), rel=1e-5)


def test_dirichlet_multinomial_likelihood_by_hand():
    answers = VoteAnswers(dispersion=True)
    assert answers.outputs == 48
    raw, votes = torch.zeros(1, 48), torch.zeros(1, 37)
    raw[0, 37:] = np.log(10.0)
    votes[0, FIRST], votes[0, ODD] = torch.tensor([5.0, 15.0, 0.0]), torch.tensor([12.0, 8.0])
    # The second of two answers is beta-binomial; of three it is the Dirichlet-multinomial formula.
    pair = betaln(12 + 5, 8 + 5) - betaln(5, 5)
    alpha, counts = np.full(3, 10 / 3), np.array([5.0, 15.0, 0.0])
    three = gammaln(10) - gammaln(30) + (gammaln(counts + alpha) - gammaln(alpha)).sum()
    loss, _ = votes_loss(raw, votes, answers)
    assert float(loss) == pytest.approx(-(pair + three) / 20, rel=1e-5)
    assert answers.concentration(raw.numpy())[0] == pytest.approx(np.full(11, 10.0), rel=1e-5)


def test_concentration_is_learned_from_scattered_counts():
    rng = np.random.default_rng(1)
    answers = VoteAnswers(dispersion=True)
    votes = np.zeros((150, 37))
    votes[:, FIRST] = [rng.multinomial(40, rng.dirichlet([2.0, 3.0, 1.0])) for _ in range(150)]
    raw = torch.zeros(1, 48, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.2)
    for _ in range(60):
        optimiser.zero_grad()
        votes_loss(raw.expand(150, 48), torch.from_numpy(votes).float(), answers)[0].backward()
        optimiser.step()
    assert answers.conditional(raw[0, :37].detach().numpy())[FIRST] == pytest.approx([2 / 6, 3 / 6, 1 / 6], abs=0.05)
    assert answers.concentration(raw[0].detach().numpy())[0] == pytest.approx(6, rel=0.3)
