"""The picture of spectra: with and without lines, long and short, one and many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from matplotlib.image import imread

from pipeline.reliability import Calibration
from pipeline.spectrum_finders import make_spectrum_finder
from pipeline.spectrum_lines import catalogue_lines, prepare_spectrum, search_spectra
from pipeline.spectrum_quicklook import write_spectrum_quicklook
from survey_io.errors import OutputError
from survey_io.simulate.lines import LineModel, simulate_lines
from survey_io.spectrum import Spectrum


def prepared(channels: int, seed: int, *, density: float = 6.0, name: str = "a_$b"):
    model = LineModel(channels=channels, density=density, least_snr=10, level=50.0, gaps=1.0)
    axis = 1.1e11 + 1e6 * np.arange(channels)
    return prepare_spectrum(Spectrum(name, "x", axis, u.Hz, simulate_lines(model, seed).flux, row=seed))


def table_of(spectra):
    finder, _ = make_spectrum_finder("line-clip")
    found = list(search_spectra(spectra, finder, tile=1536))
    return catalogue_lines(spectra, found, Calibration(), 0.5, has_network=False)


@pytest.mark.parametrize(("channels", "count"), [(400, 1), (9000, 1), (600, 9)])
def test_pictures(tmp_path, channels, count):
    spectra = [prepared(channels, seed) for seed in range(count)]
    table = table_of(spectra)
    assert len(table) > 0
    path = write_spectrum_quicklook(spectra, table, tmp_path / "p.png", title="x.fits")
    image = imread(path)
    # Something was drawn in many colours, on a page that grows with the number of spectra shown.
    assert image.shape[1] == 1500 and image.shape[0] > 350 + 250 * min(count, 6)
    assert len(np.unique((image[..., :3] * 15).astype(int).reshape(-1, 3), axis=0)) > 30


def test_without_lines(tmp_path):
    one = prepared(300, 1, density=0.0)
    path = write_spectrum_quicklook([one], table_of([one])[:0], tmp_path / "p.png", title="x.fits")
    assert path.stat().st_size > 10_000


def test_nowhere_to_write(tmp_path):
    one = replace(prepared(300, 1, density=0.0))
    with pytest.raises(OutputError, match="writable"):
        write_spectrum_quicklook([one], table_of([one])[:0], tmp_path / "missing" / "p.png", title="x")
