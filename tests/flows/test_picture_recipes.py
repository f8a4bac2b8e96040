"""Each recipe of pictures takes a step on a tiny tree of exactly its public layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from models.lessons import get_lesson
from models.registry import get_model
from models.train_options import TrainOptions
from survey_io.datasets.galaxy_tree import KAGGLE_COLUMNS

RECIPES = Path(__file__).parents[2] / "flows" / "recipes"
COUNT = 60


def paint(path, seed, side):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((side, side)).save(path)


def mnist(folder):
    rng = np.random.default_rng(0)
    for name, shape, top in (("images-idx3", (COUNT, 28, 28), 256), ("labels-idx1", (COUNT,), 10)):
        head = b"\0\0\x08" + bytes([len(shape)]) + b"".join(side.to_bytes(4, "big") for side in shape)
        (folder / f"t10k-{name}-ubyte").write_bytes(head + rng.integers(0, top, shape, dtype=np.uint8).tobytes())


def cifar10(folder):
    rng = np.random.default_rng(0)
    inside = folder / "cifar-10-batches-bin"
    inside.mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        records = rng.integers(0, 256, (COUNT // 5, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(len(records)) % 10
        (inside / f"{name}.bin").write_bytes(records.tobytes())


def asirra(folder):
    for k in range(COUNT):
        paint(folder / "train" / f"{('cat', 'dog')[k % 2]}.{k // 2}.jpg", k, 90)


def gz2_classes(folder):
    kinds = ("Er", "SBb2t", "Ser", "Sc")
    (folder / "gz2_hart16.csv").write_text(
        "dr7objid,gz2_class\n" + "".join(f"{587722981736120339 + k},{kinds[k % 4]}\n" for k in range(COUNT))
    )
    (folder / "gz2_filename_mapping.csv").write_text(
        "objid,sample,asset_id\n" + "".join(f"{587722981736120339 + k},original,{k}\n" for k in range(COUNT))
    )
    for k in range(COUNT):
        paint(folder / "images" / f"{k}.jpg", k, 60)


def gz2_answers(folder):
    row = ["0.5", "0.4", "0.1", *["0.2"] * 34]
    lines = [",".join(["GalaxyID", *KAGGLE_COLUMNS]), *(",".join([str(k), *row]) for k in range(COUNT))]
    (folder / "training_solutions_rev1.csv").write_text("\n".join(lines) + "\n")
    for k in range(COUNT):
        paint(folder / "images_training_rev1" / f"{k}.jpg", k, 60)


def imagenet(folder):
    # A hundredth of the training pictures validates.
    for k in range(8 * COUNT):
        paint(folder / "train" / f"n0{k % 3}" / f"n0{k % 3}_{k}.JPEG", k, 60)
    for k in range(9):
        paint(folder / "val" / f"n0{k % 3}" / f"ILSVRC2012_val_{k:08d}.JPEG", 1000 + k, 60)


@pytest.mark.parametrize(
    ("recipe", "make", "classes"),
    [("mnist", mnist, 10), ("cifar10", cifar10, 10), ("asirra", asirra, 2), ("gz2-classes", gz2_classes, 3),
     ("gz2-answers", gz2_answers, 37), ("imagenet-darknet19", imagenet, 3)],
)  # fmt: skip
def test_recipe_takes_a_step_on_its_layout(tmp_path, recipe, make, classes):
    text = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ") and f"skysift train {recipe}" in text.splitlines()[0]
    make(tmp_path)
    options = TrainOptions(**{**yaml.safe_load(text), "data": tmp_path, "batch": 4})
    torch.manual_seed(0)
    net = get_model(options.name).build(**options.model_options)
    lesson = get_lesson(options.lesson)(net, options)
    assert len(net.answers.classes) == classes
    counts = lesson.check().counts
    assert all(sum(counts[part].values()) for part in ("train", "validation", "test"))
    inputs, targets = next(iter(lesson.batches(seed=options.seed)))
    loss, _ = lesson.loss(net, (inputs, targets), torch.device("cpu"), "f32")
    loss.backward()
    assert torch.isfinite(loss) and inputs[0].shape[0] == 4 and inputs[0].std() > 0.01
