"""Scores of surveys by blocks: they add up to the challenge's score, and a row belongs to one block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from pipeline.scorers.sdc1 import score_sdc1
from pipeline.scorers.sdc1_table import as_sdc1
from pipeline.survey_score import block_of, find_sources, match_rows, score_part
from survey_io.datasets.sky_split import TEST, TRAIN, VALIDATION, split_sky
from survey_io.datasets.survey import SurveyImage, find_survey, open_survey_image


@pytest.fixture(scope="module")
def image(small_survey: Path) -> SurveyImage:
    return open_survey_image(find_survey(small_survey)[0])


@pytest.fixture(scope="module")
def table(image: SurveyImage) -> Table:
    return find_sources(image, "threshold").table


@pytest.fixture(scope="module")
def split(image: SurveyImage):
    return split_sky(image.area, fold=1, folds=3, guard=20)


def test_blocks_add_up_to_the_score(image, table, split) -> None:
    part = score_part([table], [image], [split], TEST, side=60, exact=True)
    own = split.part_at(table["y"], table["x"]) == TEST
    rows = split.part_at(image.sources.y, image.sources.x) == TEST
    truth = as_sdc1(image.truth.table[image.sources.row[rows]])
    whole = score_sdc1(as_sdc1(table[own]), truth, frequency=1400)
    assert part.value.sum() == pytest.approx(whole.value)
    assert part.matched.sum() == whole.n_match and part.rows.sum() == whole.n_det == own.sum() > 10
    assert len(part.blocks) == len(part.value) == len(split.blocks(TEST, 60)) > 4
    assert part.numbers()["flux"] == pytest.approx(whole.means["flux"], abs=1e-4)
    assert 0.8 < part.flux_ratio < 1.2


def test_the_survey_score_does_not_depend_on_the_sky_it_lies_on(image, table, split) -> None:
    """The truth as a catalogue scores one for each source; turned or shifted in flux it scores less."""
    truth, s = image.truth, image.sources
    rows = np.flatnonzero(split.part_at(s.y, s.x) == TEST)
    bright = rows[s.snr[rows] > 5]
    perfect = Table({"x": s.x[bright], "y": s.y[bright]})
    for name, values in {
        "flux_best": truth.flux, "maj_best": truth.major, "min_best": truth.minor, "pa_best": truth.pa,
    }.items():  # fmt: skip
        perfect[name] = values[s.row[bright]]
    perfect["pb_gain"] = s.flux[bright] * image.observation.jansky_per_beam() / truth.flux[s.row[bright]]
    score = score_part([perfect], [image], [split], TEST, side=60, exact=False)
    assert score.value.sum() == pytest.approx(len(bright), rel=0.02)
    # Round sources have no angle.
    assert score.means["pa"] > 0.92 and score.means["b_maj"] > 0.99 and score.means["flux"] > 0.99
    worse = perfect.copy()
    worse["flux_best"] *= 1.3
    assert score_part([worse], [image], [split], TEST, side=60, exact=False).value.sum() < 0.95 * score.value.sum()
    turned = perfect.copy()
    turned["pa_best"] = (turned["pa_best"] + 30) % 180
    assert score_part([turned], [image], [split], TEST, side=60, exact=False).means["pa"] < 0.5
    # Another part holds none of these rows.
    assert score_part([perfect], [image], [split], TRAIN, side=60, exact=False).rows.sum() == 0


def test_rows_that_match_and_their_accuracy(image, table, split) -> None:
    own = table[split.part_at(table["y"], table["x"]) == VALIDATION]
    matched, accuracy = match_rows(own, image, split, VALIDATION, exact=True)
    assert matched.shape == accuracy.shape == (len(own),)
    assert 0.5 < matched.mean() <= 1 and (accuracy[~matched] == 0).all() and (accuracy[matched] > 0.3).all()
    false = own.copy()
    false["ra"] = np.asarray(false["ra"]) + 5.0
    assert not match_rows(false, image, split, VALIDATION, exact=True)[0].any()


def test_places_between_blocks_go_to_the_nearest() -> None:
    blocks = [(slice(0, 10), slice(0, 10)), (slice(0, 10), slice(10, 25)), (slice(14, 20), slice(0, 25))]
    y, x = np.array([3.0, 3.0, 9.6, 12.9, -4.0]), np.array([9.4, 9.6, 3.0, 3.0, 30.0])
    assert block_of(blocks, y, x).tolist() == [0, 1, 0, 2, 1]
