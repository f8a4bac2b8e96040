"""A survey's images with their catalogues: found, brought to pixels, and looked through for faults."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table, vstack

from survey_io import open_image
from survey_io.cut import cut_observation
from survey_io.datasets.report import DataReport
from survey_io.datasets.survey import SurveyFiles, find_survey, open_survey_image
from survey_io.errors import InputError, OptionError


def test_files_go_together_by_their_names(small_survey: Path, tmp_path: Path) -> None:
    (found,) = find_survey(small_survey)
    assert found.image.name == "sky.fits" and found.truth.name == "sky_truth.ecsv"
    assert found.primary_beam.name == "sky_primary_beam.fits" and found.area is None
    entry = {"image": "sky.fits", "truth": "sky_truth_sdc1.txt", "area": [0, 1, -31, -29]}
    (named,) = find_survey(small_survey, [entry])
    assert named.primary_beam is None and named.area == (0.0, 1.0, -31.0, -29.0)
    with pytest.raises(InputError, match="found none among 0 files"):
        find_survey(tmp_path)
    with pytest.raises(InputError, match="there is none"):
        find_survey(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no such file"):
        find_survey(small_survey, [{"image": "sky.fits", "truth": "other.csv"}])
    with pytest.raises(OptionError, match="expected entries with image and truth"):
        find_survey(small_survey, [{"image": "sky.fits", "catalogue": "sky_truth.ecsv"}])


def test_sources_lie_in_their_pixels(small_survey: Path) -> None:
    """The simulator's own pixels, angles and peaks come back through the sky; the primary beam is in the flux."""
    truth = Table.read(small_survey / "sky_truth.ecsv")
    report = DataReport("survey")
    image = open_survey_image(find_survey(small_survey)[0], report=report)
    s = image.sources
    np.testing.assert_allclose(s.x, truth["x"][s.row], atol=1e-3)
    np.testing.assert_allclose(s.y, truth["y"][s.row], atol=1e-3)
    np.testing.assert_allclose(s.major, truth["maj"][s.row] / 0.5, rtol=2e-3)
    elongated = truth["min"][s.row] < 0.8 * truth["maj"][s.row]
    theta = np.radians(np.asarray(truth["pa_sky"][s.row]) + 90)
    turn = np.abs((s.theta - theta + np.pi / 2) % np.pi - np.pi / 2)
    assert turn[elongated].max() < 0.01
    # Without the primary beam the outer fluxes are higher by what it takes.
    bare = open_survey_image(SurveyFiles(small_survey / "sky.fits", small_survey / "sky_truth.ecsv")).sources
    gain = s.flux / bare.flux
    far = np.abs(s.y - 229.5)
    assert gain[far < 30].min() > 0.96 and 0.5 < gain[far > 200].max() < 0.95
    bright = (bare.snr > 20) & (far < 40) & (truth["kind"][s.row] == 1)
    assert np.median(s.snr[bright] / truth["peak_snr"][s.row][bright]) == pytest.approx(1.0, abs=0.1)
    assert not [one for one in report.problems if one.action == "refused"]
    assert report.counts["sky"] == {"sources": len(truth)}


def test_faults_are_counted(small_survey: Path, tmp_path: Path) -> None:
    table = Table.read(small_survey / "sky_truth.ecsv")["id", "ra_core", "dec_core", "flux", "maj", "min", "pa_sky"]
    names = ("id", "ra", "dec", "flux", "major", "minor", "pa")
    table.rename_columns(table.colnames, list(names))
    for name, unit in (("ra", "deg"), ("dec", "deg"), ("flux", "Jy"), ("major", "arcsec"), ("minor", "arcsec")):
        table[name].unit = unit
    bad = table[:6].copy()
    bad["dec"][0] = np.nan
    bad["flux"][1], bad["flux"][2] = -1e-6, 0.0
    bad["major"][3] = np.nan
    bad["dec"][4] = 10.0
    bad["major"][5], bad["minor"][5] = 0.0, 0.0
    vstack([table, table[:2], bad]).write(tmp_path / "truth.ecsv")
    report = DataReport("survey")
    open_survey_image(SurveyFiles(small_survey / "sky.fits", tmp_path / "truth.ecsv"), report=report)
    found = {one.kind.split(",")[0]: (one.count, one.action) for one in report.problems}
    assert found["position missing or no position"] == (1, "dropped")
    assert found["flux missing"] == (2, "dropped")
    assert found["size or angle missing or negative"] == (1, "dropped")
    assert found["source outside the image"] == (1, "dropped")
    # Two rows twice; the one with its size taken away has the place and flux of its first listing.
    assert found["listed twice"] == (3, "dropped")
    report.require()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"flux": 1e3}, "times the peak that their fluxes mean"),
        ({"dec": 1.6 / 3600}, "beams in (x, y) from their positions"),
    ],
)
def test_a_truth_that_does_not_fit_its_image_is_refused(small_survey, tmp_path, change, told) -> None:
    table = Table.read(small_survey / "sky_truth.ecsv")["ra_cent", "dec_cent", "flux", "maj", "min", "pa_sky"]
    table.rename_columns(["ra_cent", "dec_cent", "maj", "min", "pa_sky"], ["ra", "dec", "major", "minor", "pa"])
    if "flux" in change:
        table["flux"] *= change["flux"]
    else:
        table["dec"] += change["dec"]
    table.write(tmp_path / "truth.ecsv")
    report = DataReport("survey")
    open_survey_image(SurveyFiles(small_survey / "sky.fits", tmp_path / "truth.ecsv"), report=report)
    assert any(told in one.kind for one in report.problems)
    with pytest.raises(InputError, match="mend the data"):
        report.require()


def test_what_cannot_be_opened(small_survey: Path, tmp_path: Path) -> None:
    from astropy.io import fits

    shutil.copy(small_survey / "sky.fits", tmp_path / "sky.fits")
    with fits.open(tmp_path / "sky.fits", mode="update") as hdus:
        del hdus[0].header["BMAJ"]
    with pytest.raises(InputError, match="expected a beam in the header"):
        open_survey_image(SurveyFiles(tmp_path / "sky.fits", small_survey / "sky_truth.ecsv"))
    (tmp_path / "far.csv").write_text("ra,dec,flux\n100,10,1\n")
    with pytest.raises(InputError, match="none of its 1 sources lies in"):
        open_survey_image(SurveyFiles(small_survey / "sky.fits", tmp_path / "far.csv"))


def test_an_area_is_a_window_of_the_image(small_survey: Path) -> None:
    """Only the part with a catalogue is read: its pixels and sources are those of the whole image."""
    whole = open_survey_image(find_survey(small_survey)[0])
    ra, dec = whole.observation.pixel_to_sky(np.array([120.0, 30.0]), np.array([300.0, 430.0]))
    files = SurveyFiles(
        small_survey / "sky.fits", small_survey / "sky_truth.ecsv", None, (ra[0], ra[1], dec[0], dec[1])
    )
    part = open_survey_image(files)
    assert part.observation.shape == (287, 150)
    rows, columns = part.area
    assert (rows.stop - rows.start, columns.stop - columns.start) == pytest.approx((131, 91), abs=2)
    first = whole.observation.shape[0] - part.observation.shape[0]
    np.testing.assert_array_equal(
        part.observation.pixels.read((slice(-3, 40), slice(20, 60)))[3:],
        whole.observation.pixels.read((slice(first, first + 40), slice(20, 60))),
    )
    own = np.isin(whole.sources.row, part.sources.row)
    np.testing.assert_allclose(part.sources.y + first, whole.sources.y[own], atol=1e-6)
    assert part.snr_map().shape == part.observation.shape


def test_a_cut_reads_nothing_else(small_survey: Path) -> None:
    observation = open_image(small_survey / "sky.fits")
    cut = cut_observation(observation, (slice(30, 90), slice(11, 61)))
    assert cut.shape == (60, 50)
    np.testing.assert_allclose(cut.pixel_to_sky(3.5, 7.0), observation.pixel_to_sky(14.5, 37.0))
    edge = cut.pixels.read((slice(-2, 3), slice(-1, 2)))
    assert np.isnan(edge[:2]).all() and np.isnan(edge[:, 0]).all()
    np.testing.assert_array_equal(edge[2:, 1:], observation.pixels.read((slice(30, 33), slice(11, 13))))
    assert cut_observation(observation, (slice(0, 460), slice(0, 150))) is observation
