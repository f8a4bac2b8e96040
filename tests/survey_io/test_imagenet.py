"""ImageNet's reader on trees of exactly its layouts."""

import numpy as np
import pytest
from PIL import Image

from survey_io.datasets.imagenet import read_imagenet
from survey_io.errors import InputError

SYNSETS = ("n01440764", "n01443537", "n02099601")


def paint(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize((30, 24), Image.Resampling.NEAREST).save(path, format="JPEG")


def train(folder):
    for k, name in enumerate(SYNSETS):
        for i in range(60):
            paint(folder / "train" / name / f"{name}_{i}.JPEG", 100 * k + i)


@pytest.mark.parametrize("inside", ["", "ILSVRC/Data/CLS-LOC"])
def test_flat_validation_pictures_get_their_synsets_from_the_table(tmp_path, inside):
    train(tmp_path / inside)
    lines = ["ImageId,PredictionString"]
    for i in range(10):
        paint(tmp_path / inside / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", 1000 + i)
        if i < 9:
            lines.append(f"ILSVRC2012_val_{i:08d},{SYNSETS[i % 3]} 1 2 3 4 {SYNSETS[i % 3]} 5 6 7 8")
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    pictures = read_imagenet(tmp_path, side=16, memory=1e-9)
    tested = pictures.rows("test")
    assert pictures.classes == SYNSETS and len(pictures) == 189 and pictures.pixels is None
    assert pictures.label[tested].tolist() == [0, 1, 2] * 3
    assert {one.kind: one.count for one in pictures.report.problems} == {"picture without label": 1}
    assert pictures.read(tested[:2]).shape == (2, 16, 16, 3)


def test_validation_in_folders(tmp_path):
    train(tmp_path)
    paint(tmp_path / "val" / SYNSETS[1] / "ILSVRC2012_val_00000007.JPEG", 999)
    paint(tmp_path / "val" / "n99999999" / "ILSVRC2012_val_00000008.JPEG", 998)
    pictures = read_imagenet(tmp_path, side=16)
    assert pictures.label[pictures.rows("test")].tolist() == [1]
    assert {one.kind: one.count for one in pictures.report.problems} == {"synset that training has not": 1}


def test_what_is_missing_is_told_of(tmp_path):
    with pytest.raises(InputError, match="expected train and val of ILSVRC 2012"):
        read_imagenet(tmp_path, side=16)
    train(tmp_path)
    paint(tmp_path / "val" / "ILSVRC2012_val_00000007.JPEG", 999)
    with pytest.raises(InputError, match=r"need LOC_val_solution.csv"):
        read_imagenet(tmp_path, side=16)
