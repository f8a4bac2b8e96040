"""Lessons on pictures: what is changed and what is not, classes, batches by number, and that a little is learned."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from models.lessons import get_lesson
from models.picture_augment import Changes, changed
from models.registry import get_model
from models.training import TrainOptions
from survey_io.datasets.galaxy_tree import KAGGLE_COLUMNS
from survey_io.errors import OptionError


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Pictures of 40 px with stripes that stand or lie, in folders of these names."""
    folder, rng = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)
    for k in range(120):
        wave = 110 + 90 * np.sin(np.arange(40) * rng.uniform(0.8, 1.2) + rng.uniform(0, 6))
        image = np.broadcast_to(wave, (40, 40)) + rng.normal(0, 10, (40, 40))
        if k % 3 == 0:
            image = image.T
        path = folder / ("lying" if k % 3 == 0 else "standing") / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).convert("RGB").save(path)
    return folder


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory):
    """30 galaxies in Kaggle's layout whose brightness decides between smooth and features."""
    folder, rng = tmp_path_factory.mktemp("galaxies"), np.random.default_rng(1)
    (folder / "images_training_rev1").mkdir()
    rows = []
    for k in range(30):
        smooth = rng.random()
        pixels = np.full((40, 40, 3), 255 * smooth, np.uint8)
        Image.fromarray(pixels).save(folder / "images_training_rev1" / f"{k}.jpg")
        row = np.zeros(37)
        row[:2], row[3:5], row[13:15], row[15] = (smooth, 1 - smooth), (0, 1 - smooth), (0, 1), smooth
        rows.append([k, *row])
    with open(folder / "training_solutions_rev1.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["GalaxyID", *KAGGLE_COLUMNS], *rows])
    return folder


def options(data, *, name="photographs", lesson="images", model=None, **more):
    return TrainOptions(
        name=name, lesson=lesson, data=data, batch=16, precision="f32", model_options=model or {"side": 32, "width": 4},
        lesson_options=more,
    )  # fmt: skip


def make(chosen):
    torch.manual_seed(0)
    net = get_model(chosen.name).build(**chosen.model_options)
    return net, get_lesson(chosen.lesson)(net, chosen)


def learn(net, lesson, steps):
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    batches = iter(lesson.batches(seed=1))
    for _ in range(steps):
        optimiser.zero_grad()
        lesson.loss(net, next(batches), torch.device("cpu"), "f32")[0].backward()
        optimiser.step()
    net.eval()
    held = lesson.held_out()
    return [lesson.loss(net, one, torch.device("cpu"), "f32")[1] for one in held]


def test_without_changes_the_central_part_is_left_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    part = changed(pixels, 12, Changes(), np.random.default_rng(1))
    assert part.shape == (3, 3, 12, 12)
    assert part.numpy() == pytest.approx(pixels[:, 4:16, 4:16].transpose(0, 3, 1, 2) / 255, abs=1e-5)


def test_flips_are_exact_and_come_in_half_of_the_draws():
    pixels = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)
    plain = pixels[..., 0] / 255
    part = changed(pixels, 8, Changes(flip="h"), np.random.default_rng(1))[:, 0].numpy()
    mirrored = np.abs(part - plain[:, :, ::-1]).max(axis=(1, 2)) < 1e-5
    kept = np.abs(part - plain).max(axis=(1, 2)) < 1e-5
    assert (mirrored ^ kept).all() and 0.4 < mirrored.mean() < 0.6


def test_turns_keep_the_centre_and_the_size():
    y, x = np.mgrid[:41, :41] - 20
    disc = (255 * (np.hypot(x, y) < 9)).astype(np.uint8)
    pixels = np.repeat(disc[None, :, :, None], 6, axis=0)
    part = changed(pixels, 31, Changes(turn=180, flip="hv"), np.random.default_rng(1))[:, 0].numpy()
    wanted = disc[5:36, 5:36] / 255
    assert np.abs(part - wanted).mean() < 0.03
    larger = changed(pixels, 31, Changes(scale=0.3), np.random.default_rng(1))[:, 0].numpy().sum(axis=(1, 2))
    # ln of the area varies by up to twice 0.3.
    assert 0.05 < np.log(larger / wanted.sum()).std() < 0.6


def test_light_and_noise_stay_within_the_scale():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 10, 3), dtype=np.uint8)
    part = changed(pixels, 8, Changes(light=0.5, colour=0.2, noise=0.2), np.random.default_rng(1)).numpy()
    assert part.min() >= 0 and part.max() <= 1
    assert np.abs(part - pixels[:, 1:9, 1:9].transpose(0, 3, 1, 2) / 255).mean() > 0.03


def test_batches_depend_on_seed_and_number_only(stripes):
    _, lesson = make(options(stripes, model={"side": 32, "width": 4, "field": 0.8}, flip="h", turn=20))
    first = [batch for batch, _ in zip(lesson.batches(seed=3), range(4), strict=False)]
    later = next(iter(lesson.batches(seed=3, first=2)))
    other = next(iter(lesson.batches(seed=4, first=2)))
    assert torch.equal(first[2][0][0], later[0][0]) and torch.equal(first[2][1]["classes"], later[1]["classes"])
    assert not torch.equal(first[2][0][0], other[0][0])
    halves = [next(iter(lesson.batches(seed=3, first=k, every=2))) for k in (0, 1)]
    assert all(torch.equal(half[0][0], one[0][0]) for half, one in zip(halves, first, strict=False))


def test_network_takes_the_classes_and_learns_them(stripes):
    net, lesson = make(options(stripes, shift=0.1))
    assert net.answers.classes == ("lying", "standing") and net.options["classes"] == ["lying", "standing"]
    assert lesson.check().counts["train"]["standing"] > 40
    assert np.mean([part["accuracy"] for part in learn(net, lesson, 25)]) > 0.9


def test_balance_draws_classes_equally_often(stripes):
    _, lesson = make(options(stripes, balance=1.0, smoothing=0.1))
    batches = iter(lesson.batches(seed=1))
    classes = torch.cat([next(batches)[1]["classes"] for _ in range(20)])
    assert classes.argmax(dim=1).float().mean() == pytest.approx(0.5, abs=0.1)
    assert classes.max() == pytest.approx(0.95) and classes.sum(dim=1).mean() == pytest.approx(1)


def test_classes_of_the_network_hold_against_the_data(stripes):
    net, lesson = make(options(stripes, model={"side": 32, "width": 4, "classes": ["standing", "lying"]}))
    assert net.answers.classes == ("standing", "lying")
    names, label = lesson.examples.pictures.names, lesson.examples.pictures.label
    assert all(name.startswith("lying") == (k == 1) for name, k in zip(names, label, strict=True))
    _, part = make(options(stripes, model={"side": 32, "width": 4, "classes": ["standing", "tilted"]}))
    assert [one.kind for one in part.check().problems] == ["class unknown to the network (lying)"]
    with pytest.raises(OptionError, match="leave classes out"):
        make(options(stripes, model={"side": 32, "width": 4, "classes": ["red", "blue"]}))


def test_held_out_pictures_are_limited_and_never_trained_on(stripes):
    _, lesson = make(options(stripes, held_out=5, validation=0.3))
    assert sum(len(inputs[0]) for inputs, _ in lesson.held_out()) == 5
    assert not set(lesson.examples.train) & set(lesson.examples.pictures.rows("validation"))


@pytest.mark.parametrize(
    ("more", "told"),
    [({"turns": 3}, "did you mean 'turn'"), ({"folds": 2}, "at least 3 folds"), ({"flip": "x"}, "flip"),
     ({"without": "a.csv"}, "galaxy_zoo only")],
)  # fmt: skip
def test_wrong_options_are_told_of(stripes, more, told):
    with pytest.raises(OptionError, match=told):
        make(options(stripes, **more))


def test_a_network_for_other_pictures_is_refused(stripes):
    with pytest.raises(OptionError, match=r"give --data FOLDER with pictures in the layout 'folders'"):
        make(options(None))


def test_votes_are_learned(galaxies, tmp_path):
    chosen = options(
        galaxies, name="galaxy-votes", lesson="votes", model={"side": 32, "width": 4, "dropout": 0.0}, light=0.05,
        validation=0.2,
    )  # fmt: skip
    net, lesson = make(chosen)
    before = np.mean([part["rmse"] for part in learn(net, lesson, 0)])
    net.train()
    assert np.mean([part["rmse"] for part in learn(net, lesson, 40)]) < 0.5 * before
    lesson.draw(net, lesson.held_out()[0], tmp_path / "votes.png")
    with Image.open(tmp_path / "votes.png") as picture:
        assert picture.size[0] > 300


def test_dispersion_needs_counts(galaxies):
    model = {"side": 32, "width": 4, "dispersion": True}
    with pytest.raises(OptionError, match="learned from counts only"):
        make(options(galaxies, name="galaxy-votes", lesson="votes", model=model))
