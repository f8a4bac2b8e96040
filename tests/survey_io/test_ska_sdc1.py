"""SDC1 as published: the files of a band are found and its training area is where the list is complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from survey_io.catalogue import read_sdc1
from survey_io.datasets.ska_sdc1 import TRAINING_AREA, find_sdc1
from survey_io.datasets.survey import open_survey_image
from survey_io.errors import InputError, OptionError
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout around the corner of the training area where the axes have no common zero, coarse pixels."""
    folder = tmp_path_factory.mktemp("sdc1")
    sky = simulate_continuum(
        (300, 360), beam_pixels=2.5, seed=4, model=SkyModel(density=0.01), pixel_scale=6.0, frequency=5.6e8,
        centre=(-0.3, -29.6), primary_beam_fwhm=3.0,
    )  # fmt: skip
    paths = write_simulation(sky, folder, stem="made")
    data, header = fits.getdata(paths["image"], header=True)
    fits.writeto(folder / "SKAMid_B1_1000h_v3.fits", data[None, None], header)
    paths["primary_beam"].rename(folder / "PrimaryBeam_B1.fits")
    rows = paths["truth_sdc1"].read_text().splitlines()[1:]
    header_text = "\n".join(f"COLUMN{i}: name [unit] meaning" for i in range(18))
    lines = [f"{row} {int(number % 10 > 0)} 1.0 1.0" for number, row in enumerate(rows)]
    (folder / "TrainingSet_B1_v2.txt").write_text(header_text + "\n" + "\n".join(lines) + "\n")
    for name in ("made.fits", "made_truth.ecsv", "made_truth_sdc1.txt"):
        (folder / name).unlink()
    return folder


def test_the_published_layout(tree: Path) -> None:
    files = find_sdc1(tree)
    assert files.area == TRAINING_AREA[1] and files.primary_beam.name == "PrimaryBeam_B1.fits"
    image = open_survey_image(files)
    listed = read_sdc1(files.truth)
    assert len(image.truth) == (listed["selection"] == 1).sum() < len(listed)
    # The area's corners on the sky lie outside of the window or on its border, those of the window within the area.
    rows, columns = image.area
    x, y = np.meshgrid([columns.start, columns.stop - 1], [rows.start, rows.stop - 1])
    ra, dec = image.observation.pixel_to_sky(x, y)
    ra = (ra + 180) % 360 - 180
    area = files.area
    assert (ra > area[0] - 1e-6).all() and (ra < area[1] + 1e-6).all()
    assert (dec > max(area[2], dec.min() - 1)).all() and (dec < area[3] + 1e-6).all()
    side = (columns.stop - columns.start) * 6.0 / 3600
    assert side == pytest.approx(0.6723 * np.cos(np.radians(29.6)), abs=0.1)


def test_what_is_missing_is_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected the image of SDC1 .*SKAMid_B2_8h_v"):
        find_sdc1(tree, band=2, depth="8h")
    with pytest.raises(OptionError, match="bands"):
        find_sdc1(tree, band=3)
    with pytest.raises(InputError, match="found none"):
        find_sdc1(tmp_path)
