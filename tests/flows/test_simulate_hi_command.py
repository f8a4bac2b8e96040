"""``skysift simulate hi``: what is asked for is in the files."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from flows.cli import main
from pipeline.options import SimulateHiOptions
from survey_io.sdc2 import read_sdc2
from survey_io.simulate.hi import HiModel


def run(*arguments: str) -> int:
    """Exit status of the command."""
    try:
        return main(["simulate", "hi", *arguments]) or 0
    except SystemExit as stop:
        return int(stop.code or 0)


def test_every_property_of_a_cube_is_an_option():
    known = {field.name for field in fields(HiModel)} - {"least_flux", "dispersion", "centre"}
    assert set(SimulateHiOptions.model_fields) - {"output", "name", "seed"} == known
    # Defaults are the model's, but for the side of the cube, its band, and continuum as the sky has it.
    options, model = SimulateHiOptions(), HiModel()
    other = {name for name in known if getattr(options, name) != getattr(model, name)}
    assert other == {"shape", "first_frequency", "continuum"}


def test_options_reach_the_files(tmp_path: Path, capsys):
    shape = ("--shape", "120,48,56", "--density", "40", "-o", str(tmp_path))
    assert run(
        *shape, "--beam", "12", "--beam-minor", "8", "--beam-pa", "40", "--channel-width", "60000", "--flagged", "0.2",
        "--noise-fall", "0.5", "--continuum", "0", "--interference", "0", "--rms", "1e-6", "--seed", "4",
    ) == 0  # fmt: skip
    assert "120 x 48 x 56 voxels" in capsys.readouterr().out
    with fits.open(tmp_path / "cube.fits") as hdus:
        header, cube = hdus[0].header, hdus[0].data
        beam = [3600 * header["BMAJ"], 3600 * header["BMIN"], header["BPA"]]
        assert beam == pytest.approx([12, 8, 40]) and header["CDELT3"] == 60000
        blank = np.isnan(cube).all(axis=(1, 2))
        assert 0.05 < blank.mean() < 0.5
        spread = np.nanstd(cube, axis=(1, 2))
    assert len(read_sdc2(tmp_path / "cube_truth.txt")) > 3
    assert np.nanmedian(spread[:40]) > np.nanmedian(spread[-40:])


def test_templates_from_the_command(tmp_path: Path, shared_data: Path, capsys):
    atlas = shared_data / "sdc2_templates"
    if not atlas.is_dir():
        pytest.skip("the atlas of SDC2 is not here")
    common = ("--shape", "64,48,56", "--density", "50", "-o", str(tmp_path), "--templates", str(atlas))
    counts = []
    for share, side in (("1", "--held-out"), ("1", "--not-held-out"), ("0", "--held-out")):
        assert run(*common, "--template-share", share, side) == 0
        counts.append(int(capsys.readouterr().out.split("(")[1].split()[0]))
    assert counts[0] == counts[1] > 2 and counts[2] == 0


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--templates", "nowhere", "metadata_appended_LASs.txt"), ("--beam", "3", "minor axis"), ("--warp", "90", "60")],
)
def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path, capsys, option, value, said):
    assert run("-o", str(tmp_path), "--shape", "64,48,56", option, value) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1 and not list(tmp_path.iterdir())
