"""Each recipe of photographs with boxes takes a step on a tiny tree of exactly its public layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from models.checkpoints import start_from
from models.lessons import get_lesson
from models.registry import get_model
from models.train_options import TrainOptions
from models.weights import Card, save_weights
from survey_io.datasets.coco import CLASSES

RECIPES = Path(__file__).parents[2] / "flows" / "recipes"


@pytest.fixture
def voc(make_voc, tmp_path) -> Path:
    """VOC2007 and VOC2012, each with its lists."""
    root = make_voc(tmp_path / "voc", train=30, test=4)
    shutil.move(make_voc(tmp_path / "later", train=12, test=2, seed=1) / "VOCdevkit" / "VOC2007",
                root / "VOCdevkit" / "VOC2012")  # fmt: skip
    return root


@pytest.fixture
def coco(tmp_path) -> Path:
    from PIL import Image

    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    for split, count in (("train2017", 80), ("val2017", 4)):
        (root / split).mkdir()
        images, annotations = [], []
        for k in range(count):
            Image.new("RGB", (80, 60), (3 * k % 256, 10, len(split))).save(root / split / f"{k:012d}.jpg")
            images.append({"id": k, "file_name": f"{k:012d}.jpg", "width": 80, "height": 60})
            box = {"bbox": [10.0, 5.0, 40.0, 30.0], "area": 1200.0, "iscrowd": 0}
            annotations.append({"id": k + 1, "image_id": k, "category_id": k % 80 + 1, **box})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("recipe", "layout"),
    [("voc-yolo-light", "voc"), ("voc-darknet19", "voc"), ("coco-darknet19", "coco"), ("voc-cutouts", "voc"),
     ("voc-cutouts-background", "voc")],
)  # fmt: skip
def test_recipe_takes_a_step_on_its_layout(request, recipe, layout) -> None:
    text = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ") and f"skysift train {recipe}" in text.splitlines()[0]
    data = request.getfixturevalue(layout)
    small = {"widths": 0.1}
    options = TrainOptions(**{**yaml.safe_load(text), "data": data, "batch": 2, "model_options": small})
    torch.manual_seed(0)
    net = get_model(options.name).build(**small)
    lesson = get_lesson(options.lesson)(net, options)
    parts = lesson.parts
    assert len(parts.train) and len(parts.validation) and len(parts.test)
    batch = next(iter(lesson.batches(seed=options.seed)))
    loss, _ = lesson.loss(net, batch, torch.device("cpu"), "f32")
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(one.grad).all() for one in net.parameters())


def test_a_detector_begins_with_the_layers_of_its_classifier(tmp_path) -> None:
    torch.manual_seed(0)
    small = {"widths": 0.1}
    backbone = get_model("darknet19").build(**small, classes=["a", "b"])
    path = tmp_path / "darknet19.safetensors"
    save_weights(backbone, Card(model="darknet19", options=backbone.options), path)
    net = get_model("voc-darknet19").build(**small)
    said = start_from(net, path, partial=True)
    # All 18 convolutions; the three more and the head are the detector's own.
    for index in range(18):
        assert torch.equal(net.body[index][0].weight, backbone.body[index][0].weight)
    assert len(net.body) == 21 and "darknet19" in said
