"""Pictures to a table of classes or votes: all rows, broken files told of, the same numbers as the network's."""

import numpy as np
import pytest
import torch
from astropy.table import Table
from PIL import Image

from models.registry import get_model
from models.weights import Card, save_weights
from pipeline.classify import classify
from pipeline.classify_options import ClassifyOptions
from survey_io.datasets.pictures import read_picture
from survey_io.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSIFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "cutouts").mkdir()
    for k in range(70):
        small = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((60, 60)).save(tmp_path / "cutouts" / f"galaxy{k:02d}.jpg")
    (tmp_path / "cutouts" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return tmp_path / "cutouts"


def weights(tmp_path, name, **options):
    torch.manual_seed(0)
    net = get_model(name).build(side=32, width=4, **options).eval()
    path = tmp_path / f"{name}.safetensors"
    save_weights(net, Card(net.name, net.options, calibration={"slope": [2.0]}), path)
    return net, path


def run(paths, tmp_path, path, **more):
    options = ClassifyOptions(model=str(path), output=tmp_path / "out", engine="torch", formats=("fits", "csv"), **more)
    return classify(paths, options)


def test_a_folder_of_pictures_becomes_a_table_of_classes(folder, tmp_path):
    net, path = weights(tmp_path, "galaxy", classes=["round", "edge-on", "spiral"], field=0.8)
    result = run([folder], tmp_path, path)
    table = result.table
    assert len(table) == 70 and table.colnames[:8] == [
        "picture_id", "name", "file", "class", "p_class", "p_round", "p_edge_on", "p_spiral",
    ]  # fmt: skip
    assert len(result.errors) == 1 and "broken.jpg: expected a picture" in result.errors[0]
    pixels = np.stack([read_picture(folder / "galaxy69.jpg", side=40)])
    with torch.inference_mode():
        wanted = torch.softmax(2 * net(torch.from_numpy(net.prepare(pixels))), dim=1)[0].numpy()
    row = table[table["name"] == "galaxy69"][0]
    assert [row["p_round"], row["p_edge_on"], row["p_spiral"]] == pytest.approx(wanted, abs=1e-5)
    assert row["class"] == ("round", "edge-on", "spiral")[wanted.argmax()]
    assert row["entropy"] == pytest.approx(-(wanted * np.log2(wanted)).sum(), rel=1e-4)
    assert result.manifest["counts"]["pictures"] == 70 and result.manifest["counts"]["failed"] == 1
    assert len(Table.read(result.files["fits"])) == 70 and result.files["manifest"].is_file()


def test_votes_are_given_in_both_kinds(folder, tmp_path):
    _, path = weights(tmp_path, "galaxy-votes", field=0.8)
    table = run([folder / "galaxy00.jpg", folder / "galaxy01.jpg"], tmp_path, path).table
    assert len(table) == 2 and set(table["class"]) <= {"smooth", "features_or_disk", "star_or_artifact"}
    edge = [table[f"t02_edgeon_a0{k}_{word}_fraction"][0] for k, word in ((4, "yes"), (5, "no"))]
    assert sum(edge) == pytest.approx(1, abs=1e-5)
    features = table["t01_smooth_or_features_a02_features_or_disk_fraction"][0]
    assert table["t02_edgeon_a04_yes_cumulative"][0] == pytest.approx(edge[0] * features, rel=1e-4)


def test_the_central_part_is_that_of_the_option(folder, tmp_path):
    _, path = weights(tmp_path, "galaxy")
    with Image.open(folder / "galaxy00.jpg") as opened:
        inner = opened.crop((15, 15, 45, 45))
    inner.save(tmp_path / "inner.png")
    with Image.open(folder / "galaxy00.jpg") as opened:
        opened.save(tmp_path / "outer.png")
    whole = run([tmp_path / "inner.png"], tmp_path, path).table
    part = run([tmp_path / "outer.png"], tmp_path, path, central=0.5).table
    assert part["p_class"][0] == pytest.approx(whole["p_class"][0], abs=1e-6)


def test_what_is_no_picture_is_told_of(tmp_path):
    _, path = weights(tmp_path, "galaxy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="sky.fits: expected a colour picture") as caught:
        run([tmp_path / "sky.fits", tmp_path / "empty"], tmp_path, path)
    assert len(caught.value.fields["errors"]) == 2
