"""Retraining on real cubes: galaxies lie in their voxels, fields keep their angles, and a short training runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits

from models.cube_survey_fields import turn_cube
from models.lessons.cube_survey import CubeSurveyLesson
from models.registry import get_model
from models.training import TrainOptions, make_lesson, train
from survey_io.datasets.report import DataReport
from survey_io.datasets.ska_sdc2 import find_sdc2, open_survey_cube
from survey_io.datasets.sky_split import TRAIN
from survey_io.datasets.survey import find_survey
from survey_io.errors import InputError, OptionError
from survey_io.sdc2 import read_sdc2
from survey_io.simulate.hi import simulate_hi, truth_table


@pytest.fixture
def folder(small_sdc2) -> Path:
    return small_sdc2[0]


def recipe(data: Path | None, output: Path = Path("unused"), **changes) -> TrainOptions:
    values = {
        "name": "light3d", "lesson": "sdc2", "data": data, "output": output, "steps": 3, "batch": 2, "loaders": 0,
        "cube_size": (32, 24, 24), "precision": "f32", "save_every": 3, "picture_every": 1000, "warm_up": 1,
        "device": "cpu", "lesson_options": {"guard": 16, "share": 0.7},
    }  # fmt: skip
    return TrainOptions(**{**values, **changes})


def test_galaxies_lie_in_their_voxels(small_sdc2) -> None:
    folder, model = small_sdc2
    report = DataReport("sdc2")
    cube = open_survey_cube(find_sdc2(folder), report=report)
    truth = truth_table(model, simulate_hi(model, seed=5)[1])
    g = cube.galaxies
    assert len(g["x"]) > 10 and not report.problems
    for axis in "xyz":
        np.testing.assert_allclose(g[axis], truth[axis][g["row"]], atol=0.02)
    np.testing.assert_allclose(np.degrees(g["low"] - np.pi / 2) % 360, truth["pa"][g["row"]], atol=0.1)
    # The expected S/N goes with that of the painted galaxies.
    known = np.asarray(truth["snr"][g["row"]])
    bright = known > 3
    ratio = g["snr"][bright] / known[bright]
    assert 0.6 < np.median(ratio) < 1.5 and np.std(np.log(ratio)) < 0.5


def test_the_receding_side_of_a_cube_that_falls_in_frequency(folder: Path, tmp_path: Path) -> None:
    """The same sky with its channels turned around: galaxies move, and low channels lie on the other side."""
    data, header = fits.getdata(folder / "sky_ldev_v2.fits", header=True)
    assert header["CTYPE3"].startswith("FREQ")
    header["CRPIX3"] = data.shape[0] + 1 - header["CRPIX3"]
    header["CDELT3"] = -header["CDELT3"]
    fits.writeto(tmp_path / "turned.fits", data[::-1], header)
    (tmp_path / "turned_truth.txt").write_text((folder / "sky_ldev_truthcat_v2.txt").read_text())
    (files,) = find_survey(tmp_path)
    turned, plain = open_survey_cube(files).galaxies, open_survey_cube(find_sdc2(folder)).galaxies
    np.testing.assert_allclose(turned["z"], data.shape[0] - 1 - plain["z"], atol=1e-6)
    np.testing.assert_allclose((turned["low"] - plain["low"]) % (2 * np.pi), np.pi, atol=1e-9)


def test_faults_are_counted(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "sky_ldev_truthcat_v2.txt").read_text().splitlines()
    names = lines[0].split()
    row = lines[1].split()

    def changed(**values: str) -> str:
        return " ".join(values.get(name, old) for name, old in zip(names, row, strict=True))

    bad = [
        changed(central_freq="1.3e9"), changed(ra="10", line_flux_integral="-1"), changed(ra="11", w20="0"),
        changed(ra="12", hi_size="nan"), lines[1],
    ]  # fmt: skip
    (tmp_path / "sky_ldev_truthcat_v2.txt").write_text("\n".join([*lines, *bad]) + "\n")
    (tmp_path / "sky_ldev_v2.fits").symlink_to(folder / "sky_ldev_v2.fits")
    report = DataReport("sdc2")
    open_survey_cube(find_sdc2(tmp_path), report=report)
    found = {one.kind: one.count for one in report.problems}
    assert found == {
        "value missing": 1, "flux 0 or negative": 1, "size or width of 0": 1, "listed twice": 1,
        "galaxy outside the cube": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match="expected the cube of SDC2"):
        find_sdc2(folder, part="dev")
    with pytest.raises(OptionError, match="parts"):
        find_sdc2(folder, part="evaluation")
    assert len(read_sdc2(folder / "sky_ldev_truthcat_v2.txt")) == len(lines) - 1


@pytest.mark.parametrize("code", range(16))
def test_a_turned_galaxy_keeps_its_place_and_its_receding_side(code: int) -> None:
    """Gas at low channels lies towards ``low``, however the cube is turned."""
    size, x, y, z, low = 24, 9.0, 14.0, 10.0, 0.7
    snr = np.zeros((size, size, size), np.float32)
    for channel in range(6, 15):
        step = (z - channel) * 0.8
        snr[channel, round(y + step * np.sin(low)), round(x + step * np.cos(low))] = 1.0
    usable = np.zeros((size, size), bool)
    usable[14, 9] = True
    g = {"x": np.array([x]), "y": np.array([y]), "z": np.array([z]), "low": np.array([low])}
    turned, kept, moved = turn_cube(snr, usable, g, code)
    nz, ny, nx = np.nonzero(turned)
    assert (nz.mean(), ny.mean(), nx.mean()) == pytest.approx([moved[a][0] for a in "zyx"], abs=0.35)
    assert kept[round(moved["y"][0]), round(moved["x"][0])] and kept.sum() == 1
    first = nz < moved["z"][0]
    direction = np.arctan2(ny[first].mean() - moved["y"][0], nx[first].mean() - moved["x"][0])
    assert abs((direction - moved["low"][0] + np.pi) % (2 * np.pi) - np.pi) < 0.25


def test_fields_are_cut_where_the_truth_says(folder: Path) -> None:
    options = recipe(folder)
    lesson: CubeSurveyLesson = make_lesson(get_model("light3d").build(), options)
    assert set(lesson.check().counts["sky_ldev_v2"]) == {"guard", "train", "validation", "test"}
    fields = lesson.fields(TRAIN, seed=3, share=1.0, augment=True)
    cube, rng = fields.cubes[0], np.random.default_rng(0)
    brightest = []
    for _ in range(60):
        field = fields.cut_real(cube, fields.place(cube, rng), rng)
        for row in np.flatnonzero(~field.ignore):
            z, y, x = np.rint(field.target["centre"][row]).astype(int)
            within = all(3 < a < n - 4 for a, n in zip((z, y, x), options.cube_size, strict=True))
            if np.exp(field.target["params"][row, 0]) > 60 and within:
                brightest.append(field.snr[z - 3 : z + 4, y - 2 : y + 3, x - 2 : x + 3].max())
    # Highest of 175 voxels of noise is about 2.6.
    assert len(brightest) > 5 and np.median(brightest) > 3.0
    plain = fields.cut_real(cube, (-4, -3, 30), None)
    assert (plain.snr[:4] == 0).all() and (plain.snr[:, :3] == 0).all() and (plain.snr[:, :, 14:] == 0).all()
    same = [next(iter(lesson.batches(seed=2, first=1))) for _ in range(2)]
    assert torch.equal(same[0][0], same[1][0]) and torch.equal(same[0][2], same[1][2])
    with pytest.raises(OptionError, match="detectors of cubes"):
        make_lesson(get_model("light").build(), recipe(folder, name="light"))
    with pytest.raises(OptionError, match="give --data DIR"):
        make_lesson(get_model("light3d").build(), recipe(None))


def test_a_warm_start_from_the_shipped_network(folder: Path, tmp_path: Path) -> None:
    options = recipe(folder, tmp_path / "run", start=Path("light3d"), learning_rate=1e-4)
    state = torch.load(train(options, report=lambda _: None), weights_only=True)
    assert state["step"] == 3 and np.isfinite(state["history"][-1]["loss"])
