"""Stars: what the network reads does not tell the continuum, and what it is trained on keeps its labels."""

import numpy as np
import pytest

from models.classifiers.stellar import GRID, continuum, prepare
from models.registry import get_model
from models.stellar_lesson import StellarExamples, soft_classes
from models.training import TrainOptions, train
from survey_io.datasets.stellar_spectra import CLASSES, StellarLibrary
from survey_io.errors import OptionError

WAVE = GRID.centres()


def star(depth=0.5, noise=0.0, seed=0):
    flux = 1 - depth * np.exp(-0.5 * ((WAVE - 6564.6) / 6) ** 2) - depth * np.exp(-0.5 * ((WAVE - 4862.7) / 6) ** 2)
    return flux + noise * np.random.default_rng(seed).standard_normal(len(WAVE))


def library(count=40, wave=WAVE):
    """Stars whose lines deepen from M to O."""
    label = np.arange(count) % len(CLASSES)
    flux = np.stack([star(0.1 + 0.1 * (6 - k), 0.02, i) for i, k in enumerate(label)]).astype(np.float32)
    teff = 10 ** (4.4 - 0.12 * label)
    nothing = np.full(count, np.nan)
    return StellarLibrary(
        np.array([f"S {i}" for i in range(count)]), wave, flux, label, label + 0.5, teff, nothing, nothing
    )


def test_continuum_and_unit_do_not_reach_the_network():
    seen = np.ones((1, len(WAVE)))
    plain = prepare(star()[None], seen)
    reddened = prepare((star() * 3e-14 * (WAVE / 5000) ** -2.3)[None], seen)
    # What is left of a steep continuum is its curvature within the median's window.
    assert np.abs(plain - reddened).max() < 0.02
    assert plain[0, 0].min() == pytest.approx(-0.5, abs=0.01) and (plain[0, 1] == 1).all()


def test_missing_pixels_are_marked_and_do_not_matter():
    flux, seen = star()[None].copy(), np.ones((1, len(WAVE)))
    flux[0, 1000:1400], seen[0, 1000:1400] = np.nan, 0
    given = prepare(flux, seen)
    assert (given[0, :, 1000:1400] == 0).all() and given[0, 1].sum() == len(WAVE) - 400
    rest = np.r_[0:900, 1500 : len(WAVE)]
    assert np.abs(given - prepare(star()[None], np.ones_like(seen)))[0, 0, rest].max() < 0.01
    assert np.isnan(continuum(np.full((1, 99), np.nan))).all()
    assert (prepare(np.full((1, len(WAVE)), np.nan), np.zeros((1, len(WAVE)))) == 0).all()


def test_spikes_are_clipped_and_negative_spectra_give_numbers():
    flux = star()[None].copy()
    flux[0, 500], flux[0, 600] = 1e6, -1e6
    given = prepare(np.concatenate([flux, -flux]), np.ones((2, len(WAVE))))
    assert np.isfinite(given).all() and np.abs(given[:, 0]).max() <= 1


def test_examples_keep_labels_and_parts_apart():
    net = get_model("stellar").build()
    examples = StellarExamples(library(), net)
    (inputs,), targets = examples.draw(32, np.random.default_rng(0))
    assert inputs.shape == (32, 2, GRID.count) and np.isfinite(inputs).all()
    np.testing.assert_allclose(targets["classes"].sum(1), 1)
    assert (targets["value_weight"][:, 1:] == 0).all()
    (again,), _ = examples.draw(32, np.random.default_rng(0))
    assert (again == inputs).all()
    sizes = [len(examples.fixed(part)[0][0]) for part in ("train", "validation", "test")]
    assert sum(sizes) == 40 and min(sizes) > 0
    # Half of the class at the border, where a subtype's uncertainty reaches over it.
    one = library(7)
    border = StellarLibrary(**{**vars(one), "subtype": one.label - 0.05})
    assert soft_classes(border)[3, 2] == pytest.approx(0.25, abs=0.01)
    assert soft_classes(one)[3, 3] == pytest.approx(1, abs=1e-6)


def test_a_short_training_learns_planted_stars(tmp_path, monkeypatch):
    monkeypatch.setattr("models.stellar_lesson.read_stellar_spectra", lambda folder: library(70))
    options = TrainOptions(
        name="stellar", output=tmp_path, data=tmp_path, steps=120, warm_up=10, batch=16, loaders=0, precision="f32",
        learning_rate=4e-3, save_every=60, picture_every=120, ema=0.9,
        model_options={"width": 8, "features": 4, "dense": 32, "dropout": 0.0, "members": 1},
    )  # fmt: skip
    lines = []
    train(options, report=lines.append)
    losses = [float(line.split("classes ")[1].split()[0]) for line in lines if "held-out" in line]
    assert losses[-1] < 0.8 * np.log(len(CLASSES)) and losses[-1] < losses[0]
    assert (tmp_path / "step_000120.png").is_file()


def test_training_without_stars_says_what_is_needed():
    with pytest.raises(OptionError, match=r"give --data FOLDER with cflib\.npz and labels\.csv"):
        get_model("stellar").build().lesson(TrainOptions(name="stellar"))
