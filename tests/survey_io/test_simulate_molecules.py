"""Simulated spectra of molecules: statistics of the receivers, truth that follows from the flux, seeds, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from survey_io.errors import OptionError
from survey_io.line_lists import molecular_lines
from survey_io.simulate.molecules import (
    DEMANDED,
    GRID,
    IGNORED_BELOW,
    MoleculeModel,
    draw_source,
    make_spectrum,
    simulate_molecules,
    write_molecules,
)
from survey_io.simulate.receiver import ReceiverModel, add_lines, observe

PERFECT = ReceiverModel(tuned=0, ripple=0, gapped=0, flagged=0, smoothed=0, spikes=0)


@pytest.fixture(scope="module")
def spectra():
    return list(simulate_molecules(60, seed=11))


def test_a_seed_gives_the_same_spectra_and_another_does_not(spectra):
    again = list(simulate_molecules(3, seed=11))
    for one, other in zip(again, spectra, strict=False):
        assert np.array_equal(one.flux, other.flux, equal_nan=True)
        assert np.array_equal(one.snr, other.snr)
    other = next(simulate_molecules(1, seed=12))
    assert not np.array_equal(other.flux, spectra[0].flux, equal_nan=True)


def test_the_noise_is_what_is_told(spectra):
    for one in spectra[:20]:
        seen = np.isfinite(one.flux)
        rest = ((one.flux - one.sky) / one.noise)[seen]
        # Baselines are slow: differences of every third channel hold the noise alone, but for a few spikes.
        change = abs(rest[3:] - rest[:-3])
        assert np.median(change) / 0.6745 / np.sqrt(2) == pytest.approx(1.0, abs=0.05)


def test_smoothed_noise_is_correlated_and_a_filter_hears_more_of_it():
    rng = np.random.default_rng(8)
    model = replace(PERFECT, smoothed=1.0)
    pattern = observe(35_000, rng, model)
    noise = pattern.draw_noise(rng) / pattern.noise
    assert noise.std() == pytest.approx(1.0, abs=0.03)
    found = [np.mean(noise[lag:] * noise[:-lag]) for lag in (1, 2, 3)]
    assert found == pytest.approx([4 / 6, 1 / 6, 0.0], abs=0.03)
    for fwhm in (0.5, 3.0, 12.0):
        line = np.exp(-4 * np.log(2) * (np.arange(-40, 41) / fwhm) ** 2)
        line /= np.sqrt((line**2).sum())
        assert np.convolve(noise, line, "valid").std() == pytest.approx(pattern.noise_gain(fwhm), rel=0.06)
    assert observe(100, rng, PERFECT).noise_gain(np.array([3.0])) == 1.0


def test_spikes_are_single_channels():
    pattern = observe(35_000, np.random.default_rng(9), replace(PERFECT, spikes=1.0))
    wrong = np.flatnonzero(pattern.baseline)
    assert 1 <= len(wrong) <= 5
    assert (abs(pattern.baseline[wrong] / pattern.noise[wrong]) >= 5).all()


def test_the_brightest_line_has_the_signal_to_noise_asked_for():
    lines = molecular_lines()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        source = replace(draw_source(MoleculeModel(), lines, rng), unknown=np.zeros((0, 3)))
        one = make_spectrum(source, lines, rng, receiver=PERFECT)
        if one.present.any():
            # The noise rises towards both ends of the band, by a fifth or, at its upper end, twice.
            assert one.snr.max() == pytest.approx(source.snr, rel=0.35), seed


def test_signal_to_noise_is_that_of_a_matched_filter():
    """Over many noises the filtered spectrum over its noise has the mean told and unit scatter."""
    lines = molecular_lines()
    rng = np.random.default_rng(3)
    source = replace(draw_source(MoleculeModel(presence=(0.04, 0.04)), lines, rng), unknown=np.zeros((0, 3)), snr=9.0)
    while not 0 < (np.max([one.column for one in source.components], axis=0) > 0).sum() < 2:
        source = replace(draw_source(MoleculeModel(presence=(0.04, 0.04)), lines, rng), unknown=np.zeros((0, 3)))
    found = []
    for _ in range(150):
        one = make_spectrum(source, lines, rng, receiver=PERFECT)
        shape = one.sky / one.noise
        found.append((shape * one.flux / one.noise).sum() / np.sqrt((shape**2).sum()) - one.total_snr.max())
    assert np.mean(found) == pytest.approx(0.0, abs=4 / np.sqrt(150))
    assert np.std(found) == pytest.approx(1.0, abs=0.25)


def test_truth_is_consistent(spectra):
    count = len(molecular_lines().species)
    snr, total = (np.stack([getattr(one, name) for one in spectra]) for name in ("snr", "total_snr"))
    present, demanded, ignored, covered = (
        np.stack([getattr(one, name) for one in spectra]) for name in ("present", "demanded", "ignored", "covered")
    )
    assert snr.shape == (60, count)
    assert (snr <= total * (1 + 1e-9)).all()
    assert not demanded[~present].any() and not (demanded & ignored).any()
    assert (snr[demanded] >= DEMANDED).all() and (total[ignored] >= IGNORED_BELOW).all()
    # What is not covered cannot be demanded; and gaps leave some present species without lines.
    assert not demanded[~covered].any() and (present & ~covered).any()
    assert 0.05 < demanded.mean() < 0.3
    # Faint and bright spectra occur.
    assert (snr.max(1) < 4).any() and (snr.max(1) > 25).any()


def test_gaps_are_missing_not_zero(spectra):
    shares = np.array([np.isnan(one.flux).mean() for one in spectra])
    assert (shares == 0).any() and (shares > 0.3).any() and (shares < 0.95).all()
    assert all(one.flux.shape == (GRID.count,) and one.flux.dtype == np.float32 for one in spectra)


def test_unknown_lines_are_not_species():
    lines = molecular_lines()
    model = MoleculeModel(presence=(0.0, 0.0), unknown=40.0)
    rng = np.random.default_rng(4)
    one = make_spectrum(replace(draw_source(model, lines, rng), snr=30.0), lines, rng, receiver=PERFECT)
    assert not one.present.any() and not one.demanded.any()
    assert len(one.source.unknown) > 3
    assert (one.sky > 0.5).any()


def test_receivers_cover_what_they_are_told_to():
    rng = np.random.default_rng(5)
    plain = observe(35_000, rng, PERFECT)
    assert plain.covered.all() and not plain.baseline.any()
    assert np.median(plain.noise) == pytest.approx(1.0, abs=1e-3)
    gaps = [observe(35_000, rng, replace(PERFECT, gapped=1, coverage=(0.4, 0.4))).covered for _ in range(30)]
    assert [one.mean() for one in gaps] == pytest.approx([0.4] * 30, abs=0.01)
    edges = [np.count_nonzero(np.diff(one.astype(int))) for one in gaps]
    assert min(edges) < 4 < max(edges)
    waves = observe(35_000, rng, replace(PERFECT, ripple=1, ripple_amplitude=2.0)).baseline
    power = abs(np.fft.rfft(waves - waves.mean())) ** 2
    assert power[:600].sum() > 0.99 * power.sum(), "no wave is shorter than 60 channels"


def test_added_lines_keep_their_area_however_narrow():
    lines = np.array([[100.3, 0.4, 1.0], [300.0, 7.0, 0.5], [499.8, 3.0, 1.0]])
    out = add_lines(np.zeros(500), lines, 2.0)
    area = 2.0 * lines[:, 2] * lines[:, 1] * np.sqrt(np.pi / (4 * np.log(2)))
    assert out[:200].sum() == pytest.approx(area[0], rel=1e-3)
    assert out[200:400].sum() == pytest.approx(area[1], rel=1e-3)
    assert 0.4 < out[450:].sum() / area[2] < 0.7, "half of it lies beyond the band"


def test_a_model_that_makes_no_sense_is_refused():
    with pytest.raises(OptionError, match="width: expected two positive numbers"):
        MoleculeModel(width=(5.0, 2.0))
    with pytest.raises(OptionError, match="snr"):
        MoleculeModel(snr=(0.0, 2.0))


def test_written_spectra_and_truth(tmp_path, spectra):
    lines = molecular_lines()
    files = write_molecules(spectra[:3], tmp_path / "new", name="survey", lines=lines)
    with fits.open(files["spectra"]) as hdus:
        header, data = hdus[0].header, hdus[0].data
    assert data.shape == (3, GRID.count)
    assert np.array_equal(data[1], spectra[1].flux, equal_nan=True)
    axis = header["CRVAL1"] + header["CDELT1"] * (np.arange(GRID.count) + 1 - header["CRPIX1"])
    assert axis / 1e9 == pytest.approx(GRID.centres(), rel=1e-12)
    assert header["CTYPE1"] == "FREQ" and header["BUNIT"] == "K"
    truth = Table.read(files["truth"])
    assert len(truth) == 3 * len(lines.species)
    row = truth[len(lines.species) + 4]
    assert row["spectrum"] == 1 and str(row["species"]) == lines.species[4]
    assert row["snr"] == pytest.approx(spectra[1].snr[4], rel=1e-5)
    assert bool(row["demanded"]) == bool(spectra[1].demanded[4])
