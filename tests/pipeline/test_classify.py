"""Spectra in any form become one table; what cannot be used is told in a line each and loses nothing else."""

import json

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

import pipeline.classify as classify_module
from models.registry import get_model
from models.weights import Card, save_weights
from pipeline.class_table import describe
from pipeline.classify import classify
from pipeline.classify_options import ClassifyOptions
from survey_io.class_columns import SpectrumFlag, probability_column, spectrum_flags_text
from survey_io.errors import InputError, OptionError
from survey_io.spectral_grid import SpectralGrid
from survey_io.spectrum import Spectrum

GRID = get_model("stellar").build().grid


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that was not trained: its answers depend on every pixel that it reads."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    options = {"width": 4, "features": 4, "dense": 16, "members": 2}
    net = get_model("stellar").build(**options)
    calibration = {"slope": [3.0], "intercept": [], "error_scale": [1.0, 1.0, 2.0]}
    save_weights(net, Card(model="stellar", options=options, threshold=0.5, calibration=calibration), path)
    return str(path)


def star(wave, seed=0):
    rng = np.random.default_rng(seed)
    lines = rng.uniform(3600, 9300, 60)
    flux = 1 - 0.4 * np.exp(-0.5 * ((wave[:, None] - lines) / 4) ** 2).sum(1)
    return flux * (wave / 5000) ** -2 + 0.01 * rng.standard_normal(len(wave))


def write_table(path, wave, flux, unit="Angstrom"):
    Table({"wavelength": wave * u.Unit(unit), "flux": flux}).write(path)


def write_image(path, rows, first=3500.0, step=1.6):
    header = fits.Header({"CRVAL1": first, "CRPIX1": 1, "CDELT1": step, "CTYPE1": "WAVE", "CUNIT1": "Angstrom"})
    fits.writeto(path, np.asarray(rows, np.float32), header)


@pytest.fixture
def folder(tmp_path):
    """One star in three forms, two more in one file, and a file of each kind that must be refused."""
    spectra = tmp_path / "spectra"
    spectra.mkdir()
    wave = 3500 + 1.6 * np.arange(3600)
    flux = star(wave)
    write_table(spectra / "a_angstrom.ecsv", wave, flux)
    write_table(spectra / "b_nm.fits", wave / 10, 7e-15 * flux, "nm")
    write_image(spectra / "c_image.fits", flux)
    write_image(spectra / "d_rows.fits", np.stack([star(wave, 1), np.full(3600, np.nan), star(wave, 2)]))
    (spectra / "e_broken.fits").write_bytes(b"SIMPLE  =                    T" + b" " * 100)
    write_table(spectra / "f_kelvin.ecsv", wave, flux, "K")
    write_table(spectra / "g_radio.ecsv", np.linspace(80, 115, 500), np.ones(500), "GHz")
    (spectra / "h_letters.txt").write_text("no spectrum at all\n")
    return spectra


@pytest.mark.filterwarnings("ignore:The unit 'Angstrom' has been deprecated")
def test_all_forms_give_one_table_and_what_fails_is_told(folder, weights, tmp_path):
    options = ClassifyOptions(model=weights, output=tmp_path / "out", formats="fits,votable,csv", pictures=2)
    result = classify([folder, tmp_path / "absent.fits"], options)
    table = result.table
    assert [row["name"] for row in table][:3] == ["a_angstrom", "b_nm", "c_image"]
    assert list(table["row"]) == [-1, -1, -1, 0, 2]
    # The same star in three forms and units: the same answer.
    chances = np.array([[row[probability_column(k)] for k in "OBAFGKM"] for row in table])
    np.testing.assert_allclose(chances[0], chances[1], atol=1e-5)
    np.testing.assert_allclose(chances[0], chances[2], atol=1e-5)
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-5)
    assert np.abs(chances[3] - chances[4]).max() > 1e-4
    assert (np.array(list("OBAFGKM"))[chances.argmax(1)] == table["class"]).all()
    np.testing.assert_allclose(table["p_class"], chances.max(1), rtol=1e-6)
    assert table["teff"].unit == u.K and (table["teff_err"] > 0).all()
    assert table["coverage_low"].unit == u.AA and table["coverage_low"][0] == pytest.approx(3500, abs=2)
    assert len(result.errors) == 6 and all("\n" not in line for line in result.errors)
    for name, text in {
        "absent": "no such file", "d_rows": "spectrum 1", "e_broken": "", "f_kelvin": "K", "g_radio": "covers 0.0%",
        "h_letters": "",
    }.items():  # fmt: skip
        (line,) = [line for line in result.errors if name in line]
        assert text in line
    written = fits.getdata(tmp_path / "out" / "stellar_classes.fits")
    assert list(written["class"]) == list(table["class"])
    assert len(Table.read(tmp_path / "out" / "stellar_classes.vot")) == 5
    assert len(list((tmp_path / "out" / "stellar_pictures").glob("*.png"))) == 2
    manifest = json.loads((tmp_path / "out" / "stellar_run.json").read_text())
    assert manifest["counts"]["spectra"] == 5 and manifest["counts"]["failed"] == 6
    assert not list((tmp_path / "out").glob(".*"))


def test_workers_batches_engines_and_order_do_not_change_the_answers(folder, weights, tmp_path, monkeypatch):
    good = [folder / name for name in ("a_angstrom.ecsv", "b_nm.fits", "c_image.fits")]
    rows = []
    for n, (batch, engine, workers) in enumerate([(16, "openvino", 1), (2, "torch", 2), (1, "onnx", 3)]):
        monkeypatch.setattr(classify_module, "BATCH", batch)
        options = ClassifyOptions(model=weights, output=tmp_path / str(n), engine=engine, workers=workers)
        table = classify(good if n != 1 else good[::-1], options).table
        table.sort("name")
        rows.append(np.array([[row[key] for key in ("p_O", "p_K", "teff", "logg_err")] for row in table]))
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-4)
    np.testing.assert_allclose(rows[2], rows[0], rtol=1e-4)


def test_an_interrupted_run_continues(folder, weights, tmp_path, monkeypatch):
    good = [folder / name for name in ("a_angstrom.ecsv", "b_nm.fits", "c_image.fits")]
    options = ClassifyOptions(model=weights, output=tmp_path / "out", workers=1)
    monkeypatch.setattr(classify_module, "FILES", 1)
    real, done = classify_module.classify_files, []

    def dies(paths, spec):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(paths)
        return real(paths, spec)

    monkeypatch.setattr(classify_module, "classify_files", dies)
    with pytest.raises(KeyboardInterrupt):
        classify(good, options)
    done.clear()
    table = classify(good, options).table
    assert len(done) == 1 and len(table) == 3
    monkeypatch.setattr(classify_module, "classify_files", real)
    whole = classify(good, options.with_changes(output=tmp_path / "other")).table
    assert (np.asarray(whole["p_K"]) == np.asarray(table["p_K"])).all()


def test_nothing_usable_raises_with_all_reasons(folder, weights, tmp_path):
    paths = [folder / "f_kelvin.ecsv", folder / "g_radio.ecsv"]
    with pytest.raises(InputError) as caught:
        classify(paths, ClassifyOptions(model=weights, output=tmp_path / "out"))
    assert len(caught.value.fields["errors"]) == 2
    assert not list((tmp_path / "out").glob("*.fits"))


def test_a_detector_is_refused_and_unknown_names_are_answered(tmp_path):
    with pytest.raises(OptionError, match=r"detects, it does not classify.*stellar"):
        classify([tmp_path], ClassifyOptions(model="light", output=tmp_path))
    with pytest.raises(OptionError, match="unknown model 'stelar'.*did you mean 'stellar'"):
        classify([tmp_path], ClassifyOptions(model="stelar", output=tmp_path))


def test_the_table_is_never_written_over_an_input(weights, tmp_path):
    wave = 3500 + 1.6 * np.arange(3600)
    path = tmp_path / "stellar_classes.fits"
    write_table(path, wave, star(wave))
    before = path.read_bytes()
    with pytest.raises(Exception, match="stellar_classes.fits"):
        classify([path], ClassifyOptions(model=weights, output=tmp_path))
    assert path.read_bytes() == before


def test_flags_and_signal_to_noise():
    grid = SpectralGrid(start=1.0, step=1.0, count=1000, unit="Angstrom")
    rng = np.random.default_rng(1)
    flux = 50 + rng.standard_normal(1000)
    whole = Spectrum("s", "s", np.arange(1000.0), u.AA, flux)
    row = describe(whole, flux, np.ones(1000), grid)
    assert row["flags"] == 0 and row["snr"] == pytest.approx(50, rel=0.1) and row["seen"] == 1
    part = flux.copy()
    part[100:120], part[250:] = np.nan, np.nan
    coarse = Spectrum("s", "s", np.arange(50.0), u.AA, flux[:50], notes=("no unit: taken as Angstrom",))
    row = describe(coarse, part - 50, np.isfinite(part) * 1.0, grid)
    names = spectrum_flags_text(row["flags"]).split("|")
    assert names == ["PARTIAL_COVERAGE", "LITTLE_COVERAGE", "GAPS", "COARSE", "LOW_SNR", "ASSUMED"]
    assert all(flag.meaning for flag in SpectrumFlag)
    assert (row["low"], row["high"]) == (1, 250)
