"""Spectra to lines: the same for every tiling and engine; a batch of spectra is each of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u

from pipeline.reliability import Calibration
from pipeline.spectrum_finders import make_spectrum_finder
from pipeline.spectrum_lines import catalogue_lines, prepare_spectrum, search_spectra
from survey_io.simulate.lines import LineModel, simulate_lines
from survey_io.spectrum import Spectrum

MODEL = LineModel(channels=2300, density=8, width=9, absorbing=0.4, level=120.0, slope=20, gaps=1.0, spikes=1.0)


def spectrum(seed: int, channels: int = 2300, **fields) -> Spectrum:
    flux = simulate_lines(replace(MODEL, channels=channels), seed).flux
    return Spectrum(f"s{seed}", "s.fits", 5000 + 0.8 * np.arange(channels), u.Angstrom, flux, **fields)


@pytest.fixture(scope="module")
def prepared():
    return [prepare_spectrum(spectrum(seed, channels)) for seed, channels in ((1, 2300), (2, 700), (3, 301))]


@pytest.mark.parametrize(
    ("model", "ways"),
    [
        ("line-clip", [(64, "auto"), (500, "auto"), (16384, "auto")]),
        ("lines", [(64, "openvino"), (700, "onnx"), (16384, "torch")]),
    ],
)
def test_same_lines_for_any_tiling_and_engine(prepared, model, ways):
    finder, card = make_spectrum_finder(model, engine="auto")
    reference = list(search_spectra(prepared, finder, tile=1536))
    assert sum(len(lines) for lines in reference) > 10
    for tile, engine in ways:
        finder, card = make_spectrum_finder(model, engine=engine)
        for old, new in zip(reference, search_spectra(prepared, finder, tile=tile), strict=True):
            assert len(new) == len(old), (tile, engine)
            np.testing.assert_allclose(new.centre, old.centre, atol=2e-3)
            np.testing.assert_allclose(new.logit, old.logit, atol=2e-3)
            np.testing.assert_allclose(new.size, old.size, rtol=1e-3)
            np.testing.assert_array_equal(new.params["sign"], old.params["sign"])


def test_a_spectrum_is_searched_the_same_alone_and_among_others(prepared):
    finder, _ = make_spectrum_finder("lines")
    together = list(search_spectra(prepared, finder, tile=1536))
    for one, lines in zip(prepared, together, strict=True):
        (alone,) = search_spectra([one], finder, tile=1536)
        assert len(alone) == len(lines)
        np.testing.assert_allclose(alone.centre, lines.centre, atol=2e-3)


def test_rows_of_spectra_in_other_units_are_in_those_of_the_first():
    first = spectrum(1, flux_unit=u.Jy)
    second = replace(first, name="nm", axis=first.axis / 10, unit=u.nm, flux=1e3 * first.flux, flux_unit=u.mJy, row=4)
    prepared = [prepare_spectrum(one) for one in (first, second)]
    finder, _ = make_spectrum_finder("line-clip")
    found = list(search_spectra(prepared, finder, tile=1536))
    table = catalogue_lines(prepared, found, Calibration(), 0.5, has_network=False)
    one, other = table[table["spectrum"] == "s1"], table[table["spectrum"] == "nm"]
    assert len(one) == len(other) > 3 and set(other["row"]) == {4} and set(one["row"]) == {-1}
    for name in ("centre", "fwhm", "flux", "peak", "equivalent_width", "frequency", "fwhm_kms", "continuum"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-5, err_msg=name)
    assert table["centre"].unit == u.Angstrom and list(table["line_id"]) == list(range(1, len(table) + 1))


def test_the_course_of_the_errors_is_heeded():
    model = LineModel(channels=2000, density=0, spikes=0, gaps=0, level=10.0)
    flux = simulate_lines(model, 5).flux
    noisy = np.where(np.abs(np.arange(2000) - 1000) < 8, 8.0, 1.0)
    flux = 10 + (flux - 10) * noisy
    axis = 5000 + np.arange(2000.0)
    finder, _ = make_spectrum_finder("line-clip")
    counts = []
    for error in (None, noisy):
        one = prepare_spectrum(Spectrum("s", "s", axis, u.Angstrom, flux, error=error))
        (found,) = search_spectra([one], finder, tile=1536)
        counts.append(int((np.abs(found.centre[:, 0] - 1000) < 15).sum()))
    assert counts[0] >= 1 and counts[1] == 0
