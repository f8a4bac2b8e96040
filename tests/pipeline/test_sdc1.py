"""The SDC1 scorer against results of the official one, and its quirks one by one."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from pipeline.scorers import SDC1_COLUMNS, SUBSCORES, as_sdc1, chance_matches, read_sdc1, score_sdc1
from survey_io.errors import InputError

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "sdc1_golden.json").read_text())
RUNS = [(number, name) for number, case in enumerate(GOLDEN["cases"]) for name in case["results"]]


def catalogue(rows):
    return Table(np.array(rows, dtype=float).reshape(-1, 12), names=SDC1_COLUMNS)


def sources(count=40, seed=5, **columns):
    """Sources 20 arcsec apart, so that no two can be confused."""
    rng = np.random.default_rng(seed)
    side = np.arange(count)
    table = {
        "id": side + 100,
        "ra_core": 0.1 + (side % 8) * 20 / 3600 / np.cos(np.radians(30)),
        "dec_core": -30 + (side // 8) * 20 / 3600,
        "flux": 10 ** rng.uniform(-6, -4, count),
        "core_frac": np.full(count, 0.02),
        "b_maj": rng.uniform(0.5, 1.5, count),
        "b_min": rng.uniform(0.2, 0.5, count),
        "pa": rng.uniform(-90, 90, count),
        "size": np.full(count, 2),
        "class": np.full(count, 3),
    }
    table |= columns
    table["ra_cent"], table["dec_cent"] = table["ra_core"], table["dec_core"]
    return Table([table[name] for name in SDC1_COLUMNS], names=SDC1_COLUMNS)


@pytest.mark.parametrize(("number", "name"), RUNS)
def test_equals_the_official_scorer(number, name):
    case = GOLDEN["cases"][number]
    official = case["results"][name]
    ours = score_sdc1(
        catalogue(case["submission"]),
        catalogue(case["truth"]),
        frequency=case["frequency"],
        train="True" in name,
        mode="centroid" if "mode1" in name else "core",
    )
    counts = (ours.n_det, ours.n_match, ours.n_bad, ours.n_false)
    assert counts == tuple(official[key] for key in ("n_det", "n_match", "n_bad", "n_false"))
    # Separations of an arcsec at 1 rad leave 1e-10 of float64; every other number agrees to the last digits.
    assert ours.value == pytest.approx(official["value"], rel=1e-11)
    assert ours.score_det == pytest.approx(official["score_det"], rel=1e-11)
    assert ours.accuracy == pytest.approx(official["acc_pc"], rel=1e-11)
    for subscore in SUBSCORES:
        assert ours.means[subscore] == pytest.approx(official["means"][subscore], rel=1e-10)


def test_truth_against_itself_is_perfect():
    truth = sources()
    for strict in (True, False):
        result = score_sdc1(truth, truth, strict=strict)
        assert result.value == pytest.approx(len(truth))
        assert result.accuracy == pytest.approx(100)
        assert np.array_equal(np.sort(result.submitted), np.arange(len(truth)))
        assert np.array_equal(result.submitted, result.true)


def test_a_duplicate_costs_one():
    truth = sources()
    twice = sources()
    extra = Table(twice[:1])
    extra["id"] = 999
    extra["flux"] *= 1.01
    both = Table(np.concatenate([twice.as_array(), extra.as_array()]))
    result = score_sdc1(both, truth)
    assert result.n_false == 1
    assert result.value == pytest.approx(len(truth) - 1)


def test_one_negative_value_drops_all_zeros_only_when_strict():
    truth = sources()
    core = np.zeros(40)
    core[3] = -1.0
    submission = sources(core_frac=core)
    assert score_sdc1(submission, truth).n_det == 0
    assert score_sdc1(submission, truth, strict=False).n_det == 39


def test_position_angles_fold_to_45_degrees_only_when_strict():
    truth = sources(pa=np.full(40, 10.0))
    turned = sources(pa=np.full(40, 100.0))
    assert score_sdc1(turned, truth).means["pa"] == 1.0
    assert score_sdc1(turned, truth, strict=False).means["pa"] == pytest.approx(10 / 90)
    # The same direction, half a turn apart across the fold: the official scorer takes it for 45 degrees off.
    truth = sources(pa=np.full(40, -80.0))
    same = sources(pa=np.full(40, 100.0))
    assert score_sdc1(same, truth).means["pa"] == pytest.approx(10 / 45)
    assert score_sdc1(same, truth, strict=False).means["pa"] == pytest.approx(1.0)


def test_without_a_match():
    truth = sources()
    away = sources(dec_core=np.full(40, -29.0))
    assert score_sdc1(away, truth).value == 0
    assert score_sdc1(away, truth, strict=False).value == -40
    assert score_sdc1(away[:0], truth).value == 0
    assert score_sdc1(truth, truth[:0]).n_false == 40


def test_corrected_search_allows_for_declination():
    # 1.4 arcsec apart along right ascension at declination -60 are 2.8 arcsec of right ascension.
    truth = sources(dec_core=np.full(40, -60.0), ra_core=np.arange(40) / 60.0, b_maj=np.full(40, 2.0))
    shifted = sources(
        dec_core=np.full(40, -60.0), ra_core=np.arange(40) / 60.0 + 2.8 / 3600, b_maj=np.full(40, 2.0)
    )
    assert score_sdc1(shifted, truth).n_match == 0
    assert score_sdc1(shifted, truth, strict=False).n_match == 40


def test_sizes_convert_between_types():
    truth = sources()
    exponential = sources(size=np.full(40, 3))
    exponential["b_maj"] /= np.sqrt(2)
    exponential["b_min"] /= np.sqrt(2)
    result = score_sdc1(exponential, truth)
    assert result.means["b_maj"] == pytest.approx(1)
    assert result.means["b_min"] == pytest.approx(1)


def test_sub_scores_of_known_errors():
    truth = sources()
    off = sources()
    off["flux"] *= 1.2
    off["b_maj"] *= 1.6
    off["class"] = 2
    off["core_frac"] = 0.02 + 0.15
    means = score_sdc1(off, truth).means
    assert means["flux"] == pytest.approx(0.5)
    assert means["b_maj"] == pytest.approx(0.5)
    assert means["core_frac"] == pytest.approx(0.25)
    assert means["class"] == 0
    assert means["b_min"] == 1


def test_train_area_uses_strict_borders():
    truth = sources(5, ra_core=np.array([-0.1, 0.0, 0.1, -0.6723, -0.3]), dec_core=np.full(5, -29.7))
    assert score_sdc1(truth, truth, train=True).n_det == 2
    assert score_sdc1(truth, truth, train=False).n_det == 1
    assert score_sdc1(truth, truth).n_det == 5
    turned = sources(5, ra_core=np.array([359.9, 0.0, 0.1, 359.3277, 359.7]), dec_core=np.full(5, -29.7))
    assert score_sdc1(turned, truth, train=True).n_match == 2


def test_absurd_sizes_do_not_break_the_search(monkeypatch):
    monkeypatch.setattr("pipeline.scorers.sdc1._PAIRS", 50)
    truth = sources()
    submission = sources()
    submission["b_maj"][:5] = 1e5
    result = score_sdc1(submission, truth)
    assert result.n_match == 35
    assert result.n_false == 5


def test_chance_rate_counts_accidents():
    truth = sources()
    result = chance_matches(truth, truth, shift=7.0)
    assert result["rate"] == 0
    # Shifted by the spacing, every source lands on its neighbour's place.
    same = sources(flux=np.full(40, 1e-5), b_maj=np.full(40, 1.0), b_min=np.full(40, 0.5))
    rate = chance_matches(same, same, shift=20.0, directions=2, strict=False)["rate"]
    assert rate > 0.6


def test_as_sdc1_converts_angles_and_leaves_out_what_cannot_be_scored():
    table = Table(
        {
            "ra": [359.9, 0.1, 0.2],
            "dec": [-30.0, -30.0, np.nan],
            "flux": [1e-5, -1e-6, 1e-5],
            "maj_deconv": [1.0, 1.0, 1.0],
            "min_deconv": [np.nan, 0.5, 0.5],
            "pa_deconv": [30.0, 0.0, 0.0],
        }
    )
    result = as_sdc1(table)
    assert len(result) == 1
    assert result["ra_core"][0] == pytest.approx(-0.1)
    assert result["pa"][0] == pytest.approx(60)
    assert result["b_min"][0] == 0
    assert (result["size"][0], result["class"][0]) == (2, 3)
    for pa in (0.0, 10.0, 100.0, 179.0):
        one = as_sdc1(Table({**table[:1], "pa_deconv": [pa]}))["pa"][0]
        assert -90 <= one < 90
        assert (one + pa) % 180 == pytest.approx(90)
    with pytest.raises(InputError, match="dec"):
        as_sdc1(Table({"ra": [1.0]}))


def test_reads_every_kind_of_challenge_file(tmp_path):
    row = "7 -0.35 -29.7 -0.351 -29.71 3.1e-08 0.5 11.9 4.5 65.0 1 2"
    (tmp_path / "truth.txt").write_text(f"{row}\n")
    (tmp_path / "submission.txt").write_text(
        f"{' '.join(SDC1_COLUMNS)}\n{row}\n{row.replace('3.1e-08', 'nan')}\n"
    )
    header = "".join(f"COLUMN{k}: a name, 1,2,3 and more\n" for k in range(18))
    (tmp_path / "training.txt").write_text(f"{header}{row} 1 100.5 200.25\n{row} 0 1 2\n")
    for name in ("truth", "submission", "training"):
        table = read_sdc1(tmp_path / f"{name}.txt")
        assert table["id"][0] == 7
        assert table["flux"][0] == 3.1e-8
        assert table["class"][0] == 2
    assert len(read_sdc1(tmp_path / "submission.txt")) == 1
    assert read_sdc1(tmp_path / "training.txt")["x"].tolist() == [100.5, 1.0]


@pytest.mark.parametrize("text", ["", "hello\n", "1 2 3\n"])
def test_refuses_other_files(tmp_path, text):
    (tmp_path / "other.txt").write_text(text)
    with pytest.raises(InputError, match="SDC1"):
        read_sdc1(tmp_path / "other.txt")


def test_names_the_broken_row(tmp_path):
    row = "7 -0.35 -29.7 -0.351 -29.71 3.1e-08 0.5 11.9 4.5 65.0 1 2\n"
    (tmp_path / "short.txt").write_text(row + "8 1 2\n")
    with pytest.raises(InputError, match="short.txt"):
        read_sdc1(tmp_path / "short.txt")
    with pytest.raises(InputError, match="there|read"):
        read_sdc1(tmp_path / "missing.txt")


def test_refuses_what_it_cannot_score():
    truth = sources()
    with pytest.raises(InputError, match="560"):
        score_sdc1(truth, truth, frequency=1000)
    with pytest.raises(InputError, match="mode"):
        score_sdc1(truth, truth, mode="both")
    with pytest.raises(InputError, match="b_maj"):
        truth_without = truth.copy()
        truth_without.remove_column("b_maj")
        score_sdc1(truth_without, truth)
    with pytest.raises(InputError, match="size"):
        score_sdc1(sources(size=np.full(40, 4)), truth)
