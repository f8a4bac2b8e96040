"""How pictures are read and split, and that broken ones, copies and leaks are found."""

import numpy as np
import pytest
from PIL import Image

from survey_io.datasets.image_folder import read_image_folder
from survey_io.datasets.pictures import Split, read_picture, split_by_name
from survey_io.errors import InputError


def paint(path, seed, *, size=(20, 14), mode="RGB"):
    """Write a picture of random blocks that survives JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.NEAREST).convert(mode).save(path)
    return path


@pytest.fixture
def folders(tmp_path):
    """40 pictures of each of two classes, one of them broken."""
    for k in range(40):
        paint(tmp_path / "cat" / f"{k}.png", k)
        paint(tmp_path / "dog" / f"{k}.jpg", 100 + k)
    (tmp_path / "dog" / "7.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    return tmp_path


def problems(pictures):
    return {one.kind: (one.count, one.action) for one in pictures.report.problems}


def test_split_depends_on_the_name_only():
    names = [f"galaxy {k}" for k in range(4000)]
    part = split_by_name(names, Split(0.1, 0.2))
    assert abs((part == "test").mean() - 0.2) < 0.03 and abs((part == "validation").mean() - 0.1) < 0.02
    again = split_by_name(names[::-3], Split(0.1, 0.2))
    assert (again == part[::-3]).all()


def test_exact_split_meets_its_shares():
    part = split_by_name([str(k) for k in range(1000)], Split(0.08, 0.2), exact=True)
    assert [(part == one).sum() for one in ("train", "validation", "test")] == [720, 80, 200]


def test_every_name_is_in_the_test_part_of_one_fold():
    names = [str(k) for k in range(300)]
    parts = np.stack([split_by_name(names, Split(folds=5, fold=k)) for k in range(5)])
    assert ((parts == "test").sum(axis=0) == 1).all()
    assert ((parts == "validation").sum(axis=0) == 1).all()


def test_folds_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 3 folds"):
        Split(folds=2)
    with pytest.raises(ValueError, match="fold 5 of 5"):
        Split(folds=5, fold=5)


def test_a_folder_per_class_is_read_and_parted(folders):
    pictures = read_image_folder(folders, side=16)
    assert pictures.classes == ("cat", "dog") and len(pictures) == 79
    assert pictures.pixels.shape == (79, 16, 16, 3) and pictures.pixels.dtype == np.uint8
    assert problems(pictures) == {"picture cannot be decoded": (1, "dropped")}
    assert sum(sum(one.values()) for one in pictures.report.counts.values()) == 79
    assert set(pictures.part) == {"train", "validation", "test"}
    assert "dog/7.jpg" not in pictures.names
    assert (np.array(pictures.classes)[pictures.label] == [name.split("/")[0] for name in pictures.names]).all()


def test_what_does_not_fit_into_memory_stays_on_disk(folders):
    held, streamed = (read_image_folder(folders, side=16, memory=memory) for memory in (1.0, 1e-9))
    assert streamed.pixels is None and problems(streamed) == problems(held)
    rows = np.array([70, 3, 12])
    assert (streamed.read(rows) == held.read(rows)).all()


@pytest.mark.parametrize("memory", [1.0, 1e-9])
def test_copies_across_splits_never_reach_training(folders, memory):
    pictures = read_image_folder(folders, side=16)
    test, train = (pictures.rows(part)[pictures.label[pictures.rows(part)] == 0] for part in ("test", "train"))
    tested, trained = pictures.names[test[0]], pictures.names[train[0]]
    (folders / trained).write_bytes((folders / tested).read_bytes())
    again = read_image_folder(folders, side=16, memory=memory)
    assert again.part[again.names == tested].tolist() == ["test"] and trained not in again.names
    assert problems(again)["identical pictures across splits, the one further from training stays"] == (1, "dropped")


def test_copies_with_different_labels_are_dropped(folders):
    (folders / "dog" / "3.jpg").unlink()
    (folders / "dog" / "3.png").write_bytes((folders / "cat" / "3.png").read_bytes())
    again = read_image_folder(folders, side=16)
    assert not {"cat/3.png", "dog/3.png"} & set(again.names)
    assert problems(again)["identical pictures of different labels"] == (1, "dropped")


def test_published_parts_hold(tmp_path):
    for k in range(60):
        paint(tmp_path / "train" / "ab"[k % 2] / f"{k}.png", k)
        paint(tmp_path / "test" / "ab"[k % 2] / f"{k}.png", 100 + k)
    pictures = read_image_folder(tmp_path, side=8)
    published = np.array([name.split("/")[0] for name in pictures.names])
    assert ((pictures.part == "test") == (published == "test")).all()
    assert 0 < (pictures.part == "validation").sum() < 20


@pytest.mark.parametrize("inside", ["", "train"])
def test_asirra_is_read_by_its_file_names(tmp_path, inside):
    for k in range(30):
        paint(tmp_path / inside / f"cat.{k}.jpg", k)
        paint(tmp_path / inside / f"dog.{k}.jpg", 100 + k)
    paint(tmp_path / inside / "parrot.jpg", 999)
    pictures = read_image_folder(tmp_path, side=12)
    assert pictures.classes == ("cat", "dog") and np.bincount(pictures.label).tolist() == [30, 30]
    assert problems(pictures) == {"picture without a class in its name": (1, "dropped")}


def test_one_class_is_refused(tmp_path):
    paint(tmp_path / "cat" / "1.png", 1)
    with pytest.raises(InputError, match="1 pictures of 1 classes"):
        read_image_folder(tmp_path, side=8)


def test_central_square_is_taken_and_kept_in_its_colours(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (200, 100, 50)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", side=10) == (200, 100, 50)).all()
    padded = read_picture(tmp_path / "a.png", side=30, shape="pad")
    assert (padded[:8] == 0).all() and (padded[15, 15] == (200, 100, 50)).all()
    assert read_picture(tmp_path / "a.png", side=5, channels=1).shape == (5, 5, 1)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_colour_modes_become_red_green_blue(tmp_path, mode):
    path = paint(tmp_path / f"a.{'jpg' if mode == 'CMYK' else 'png'}", 5, mode="RGB" if mode == "RGBA" else mode)
    if mode == "RGBA":
        with Image.open(path) as opened:
            changed = opened.convert("RGBA")
        changed.save(path)
    assert read_picture(path, side=9).shape == (9, 9, 3)


def test_a_missing_picture_is_told_of(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: expected a picture"):
        read_picture(tmp_path / "gone.png", side=8)
