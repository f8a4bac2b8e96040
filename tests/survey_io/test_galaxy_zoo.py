"""Galaxy Zoo 2's tree, and its three layouts in trees of exactly their form."""

import csv

import numpy as np
import pytest
from astropy.table import Table
from PIL import Image

from survey_io.datasets.galaxy_tree import (
    ANSWERS,
    KAGGLE_COLUMNS,
    QUESTIONS,
    conditional_fractions,
    cumulative_fractions,
    question_shares,
)
from survey_io.datasets.galaxy_zoo import catalogue_votes, coarse_class, read_catalogue, read_galaxy_zoo
from survey_io.datasets.pictures import Split
from survey_io.errors import InputError

# Identifiers of SDSS that differ in their last digit only, which a float does not hold.
FIRST_OBJECT = 587722981736120339


def paint(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    Image.fromarray(small).resize((24, 24), Image.Resampling.NEAREST).save(path)


def write_csv(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def random_counts(count, seed=0):
    """Votes of galaxies, as people pass down the tree."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((count, 37), int)
    for galaxy in range(count):
        for one in QUESTIONS:
            people = 40 if one.parent is None else counts[galaxy, one.parent]
            counts[galaxy, one.place] = rng.multinomial(people, rng.dirichlet(np.ones(len(one.answers))))
    return counts


@pytest.fixture
def hart(tmp_path):
    """60 galaxies in the layout of Hart et al. 2016; one not in the mapping, one without picture, one artefact."""
    counts = random_counts(60)
    suffixes = ("count", "weight", "fraction", "weighted_fraction", "debiased", "flag")
    header = ["dr7objid", "ra", "dec", "rastring", "decstring", "sample", "gz2_class", "total_classifications",
              "total_votes", *(f"{stem}_{suffix}" for stem in ANSWERS for suffix in suffixes)]  # fmt: skip
    shares = np.nan_to_num(conditional_fractions(counts))
    kinds = ["Er", "SBc2t(r)", "Ser", "Sc?l", "Ei(m)", "SBb"]
    rows = []
    for k in range(60):
        text = "A" if k == 3 else kinds[k % 6]
        votes = []
        for answer in range(37):
            share = shares[k, answer]
            votes += [counts[k, answer], counts[k, answer], share, share, share**2, 0]
        place = [FIRST_OBJECT + k, 150.1, -3.2, "10:00:24", "-03:12:00"]
        rows.append([*place, "original", text, 40, counts[k].sum(), *votes])
    assert len(header) == 231
    write_csv(tmp_path / "gz2_hart16.csv", header, rows)
    write_csv(
        tmp_path / "gz2_filename_mapping.csv", ["objid", "sample", "asset_id"],
        [[FIRST_OBJECT + k, "original", 100 + k] for k in range(60) if k != 10],
    )  # fmt: skip
    for k in range(60):
        if k != 20:
            paint(tmp_path / "images" / f"{100 + k}.jpg", k)
    return tmp_path, counts


def write_kaggle(folder, counts, *, labels=False, split=None):
    rows = cumulative_fractions(conditional_fractions(counts))
    header = ["GalaxyID", *KAGGLE_COLUMNS] + (["split"] if split else [])
    table = [[100_000 + k, *(f"{one:.6f}" for one in row)] for k, row in enumerate(rows)]
    if split:
        table = [[*row, word] for row, word in zip(table, split, strict=True)]
    write_csv(folder / ("labels.csv" if labels else "training_solutions_rev1.csv"), header, table)
    for k in range(len(rows)):
        paint(folder / ("images" if labels else "images_training_rev1") / f"{100_000 + k}.jpg", k)
    return rows


def problems(pictures):
    return {one.kind: one.count for one in pictures.report.problems}


def test_the_tree_has_11_questions_and_37_answers_in_the_published_order():
    assert [len(one.answers) for one in QUESTIONS] == [3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6]
    assert len(ANSWERS) == len(KAGGLE_COLUMNS) == 37
    assert ANSWERS[0] == "t01_smooth_or_features_a01_smooth" and ANSWERS[-1] == "t11_arms_number_a37_cant_tell"
    assert KAGGLE_COLUMNS[13] == "Class6.1" and ANSWERS[13] == "t06_odd_a14_yes"
    # Who is asked what: bar, spiral and bulge come after "not edge-on", arms after "spiral".
    led = {one.name: None if one.parent is None else ANSWERS[one.parent] for one in QUESTIONS}
    assert led["bar"] == led["spiral"] == led["bulge_prominence"] == "t02_edgeon_a05_no"
    assert led["arms_winding"] == led["arms_number"] == "t04_spiral_a08_spiral"
    assert led["rounded"] == "t01_smooth_or_features_a01_smooth" and led["bulge_shape"] == "t02_edgeon_a04_yes"
    assert led["odd_feature"] == "t06_odd_a14_yes" and led["odd"] is None


def test_fractions_of_both_kinds():
    conditional = np.full(37, np.nan)
    conditional[QUESTIONS[0].place] = (0.2, 0.7, 0.1)
    conditional[QUESTIONS[1].place] = (0.4, 0.6)
    conditional[QUESTIONS[3].place] = (0.5, 0.5)
    conditional[QUESTIONS[9].place] = (1.0, 0.0, 0.0)
    cumulative = cumulative_fractions(conditional)
    # 0.7 saw features, 0.42 of all not edge-on, 0.21 a spiral, all of these tight.
    assert cumulative[QUESTIONS[1].place] == pytest.approx([0.28, 0.42])
    assert cumulative[QUESTIONS[3].place] == pytest.approx([0.21, 0.21])
    assert cumulative[QUESTIONS[9].place] == pytest.approx([0.21, 0, 0])
    assert question_shares(cumulative)[[0, 1, 2, 3, 9]] == pytest.approx([1, 0.7, 0, 0.42, 0.21])
    back = conditional_fractions(cumulative)
    known = np.isfinite(conditional)
    assert back[known] == pytest.approx(conditional[known]) and np.isnan(back[QUESTIONS[7].place]).all()


@pytest.mark.parametrize(
    ("text", "name"),
    [("Ec", "E"), ("Ei(m)", "E"), ("SBc2t", "SB"), ("SBd?l(r)", "SB"), ("Ser", "S"), ("Sc+t", "S"), ("Sb", "S"),
     ("A", None), ("", None)],
)  # fmt: skip
def test_classes_of_the_course_out_of_class_strings(text, name):
    assert coarse_class(text) == name


def test_classes_out_of_the_catalogue(hart):
    galaxies = read_galaxy_zoo(hart[0], side=12)
    assert galaxies.classes == ("E", "S", "SB") and len(galaxies) == 57
    assert problems(galaxies) == {"galaxy without entry in the mapping": 1, "label without picture": 1,
                                  "picture without label": 1, "no class": 1}  # fmt: skip
    named = dict(zip(galaxies.names, np.array(galaxies.classes)[galaxies.label], strict=True))
    assert named[str(FIRST_OBJECT + 1)] == "SB" and named[str(FIRST_OBJECT + 2)] == "S"
    assert galaxies.pixels.shape == (57, 12, 12, 3)


def test_counts_out_of_the_catalogue(hart):
    folder, counts = hart
    galaxies = read_galaxy_zoo(folder, target="votes", side=12)
    assert len(galaxies) == 58 and galaxies.classes == ()
    row = int(np.flatnonzero(galaxies.names == str(FIRST_OBJECT + 59))[0])
    assert (galaxies.votes[row] == counts[59]).all()


def test_debiased_votes_keep_the_number_of_people(hart):
    folder, counts = hart
    table = read_catalogue(folder / "gz2_hart16.csv")
    debiased = catalogue_votes(table, debiased=True)
    assert question_shares(debiased) == pytest.approx(question_shares(counts))
    first = QUESTIONS[0].place
    square = conditional_fractions(counts)[:, first] ** 2
    assert conditional_fractions(debiased)[:, first] == pytest.approx(square / square.sum(axis=1, keepdims=True))


def test_the_catalogue_as_fits_reads_the_same(hart, tmp_path):
    folder, _ = hart
    plain = read_galaxy_zoo(folder, target="votes", side=12)
    table = read_catalogue(folder / "gz2_hart16.csv")
    table["dr7objid"] = [int(one) for one in table["dr7objid"]]
    (folder / "gz2_hart16.csv").unlink()
    Table(table).write(folder / "gz2_hart16.fits")
    again = read_galaxy_zoo(folder, target="votes", side=12)
    assert (again.names == plain.names).all() and (again.votes == plain.votes).all()


def test_kaggle_solutions_give_cumulative_fractions(tmp_path):
    rows = write_kaggle(tmp_path, random_counts(30, 1))
    galaxies = read_galaxy_zoo(tmp_path, target="votes", side=12)
    assert galaxies.votes == pytest.approx(rows, abs=1e-6)
    with pytest.raises(InputError, match="missing class"):
        read_galaxy_zoo(tmp_path, side=12)


def test_published_split_holds_but_for_folds(tmp_path):
    words = ["train", "val", "test"] * 10
    write_kaggle(tmp_path, random_counts(30, 2), labels=True, split=words)
    galaxies = read_galaxy_zoo(tmp_path, target="votes", side=12)
    assert galaxies.part.tolist() == ["train", "validation", "test"] * 10
    folded = read_galaxy_zoo(tmp_path, target="votes", side=12, split=Split(folds=3, fold=1))
    assert folded.part.tolist() != galaxies.part.tolist()


def test_broken_votes_are_dropped(tmp_path):
    counts = random_counts(20, 3)
    rows = write_kaggle(tmp_path, counts)
    rows[4, 5], rows[6, 0:3] = np.nan, 0
    header = ["GalaxyID", *KAGGLE_COLUMNS]
    write_csv(tmp_path / "training_solutions_rev1.csv", header, [[100_000 + k, *row] for k, row in enumerate(rows)])
    galaxies = read_galaxy_zoo(tmp_path, target="votes", side=12)
    assert len(galaxies) == 18 and problems(galaxies) == {"votes missing or negative": 2}


def test_labels_with_classes_repeated_rows_and_galaxies_to_leave_out(tmp_path):
    rows = [[k, "spiral" if k % 2 else "round"] for k in range(40)] + [[7, "round"]]
    write_csv(tmp_path / "labels.csv", ["GalaxyID", "class"], rows)
    for k in range(41):
        paint(tmp_path / "images" / f"{k}.png", k)
    write_csv(tmp_path / "other.csv", ["GalaxyID", "anything"], [[5, 1], [999, 1]])
    galaxies = read_galaxy_zoo(tmp_path, side=12, without=tmp_path / "other.csv")
    assert galaxies.classes == ("round", "spiral") and len(galaxies) == 39 and "5" not in galaxies.names
    assert galaxies.label[galaxies.names == "7"].tolist() == [1]
    assert problems(galaxies) == {
        "galaxy in the table more than once, the first row counts": 1, "picture without label": 1,
        "left out for other.csv": 1,
    }  # fmt: skip


def test_a_folder_of_something_else_is_told_of(tmp_path):
    with pytest.raises(InputError, match=r"no Galaxy Zoo 2 here; expected gz2_hart16.csv with"):
        read_galaxy_zoo(tmp_path)
    write_csv(tmp_path / "labels.csv", ["GalaxyID", "class"], [[1, "a"]])
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="none of the 1 labelled galaxies has a picture"):
        read_galaxy_zoo(tmp_path)


def test_the_real_stripe_82_table(shared_data):
    table = read_catalogue(shared_data / "galaxy_zoo2" / "gz2_table5_stripe82_19761.fits.gz")
    counts = catalogue_votes(table)
    assert counts.shape == (19_761, 37) and table["dr7objid"][0] == "8647474690312307154"
    stated = np.asarray(table[f"{ANSWERS[1]}_fraction"])
    # This table's counts are weighted votes, rounded to whole ones: its fractions differ by some hundredths.
    difference = np.abs(conditional_fractions(counts)[:, 1] - stated)
    assert np.median(difference) < 0.001 and np.quantile(difference, 0.9) < 0.03
    assert np.isfinite(catalogue_votes(table, debiased=True)).all()
