"""Spectra as a user meets them: one file in, one catalogue of lines out, on any axis; bad input in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from flows.cli import main
from pipeline.detect import detect
from pipeline.options import DetectOptions
from survey_io.errors import InputError, OptionError
from survey_io.simulate.line_shapes import gaussian_profile

LIGHT = 299_792_458.0
COUNT, RMS = 1700, 0.02
# Channel, FWHM (channels) and flux (times rms and channels).
LINES = ((150.3, 3.0, 60.0), (402.75, 9.0, -90.0), (640.2, 20.0, 150.0), (1001.6, 6.0, 75.0), (1400.4, 60.0, -260.0))


def run(*arguments: str) -> int:
    """Exit status of the command."""
    try:
        return main(list(arguments)) or 0
    except SystemExit as stop:
        return int(stop.code or 0)


def planted(seed: int = 3) -> np.ndarray:
    z = np.arange(COUNT)
    flux = 2.0 + 3e-4 * z + 0.05 * np.sin(z / 400) + RMS * np.random.default_rng(seed).normal(size=COUNT)
    for centre, width, amount in LINES:
        low, part = gaussian_profile().paint(COUNT, centre, width)
        flux[low : low + len(part)] += RMS * amount * part
    flux[800] += 40 * RMS
    flux[1200:1215] = np.nan
    return flux.astype(np.float32)


AXES = {
    "wavelength": {"CTYPE1": "WAVE", "CUNIT1": "Angstrom", "CRVAL1": 4500.0, "CDELT1": 1.2},
    "frequency": {"CTYPE1": "FREQ", "CUNIT1": "Hz", "CRVAL1": 1.1e11, "CDELT1": 1e6, "RESTFRQ": 1.1027e11},
    "velocity": {"CTYPE1": "VRAD", "CUNIT1": "m/s", "CRVAL1": -4e5, "CDELT1": 600.0, "RESTFRQ": 1.420405751768e9},
}


def save(path, kind: str, *, descending: bool = False, flux: np.ndarray | None = None):
    header = fits.Header({**AXES[kind], "CRPIX1": 1.0, "BUNIT": "Jy", "OBJECT": "planted"})
    flux = planted() if flux is None else flux
    if descending:
        header["CRVAL1"] += (COUNT - 1) * header["CDELT1"]
        header["CDELT1"] *= -1
        flux = flux[::-1]
    fits.PrimaryHDU(flux, header).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("kind", list(AXES))
def test_planted_lines_on_every_axis(tmp_path, kind, descending):
    path = save(tmp_path / f"{kind}.fits", kind, descending=descending)
    table = detect(path, DetectOptions(output=tmp_path)).table
    axis = AXES[kind]
    # Wavelengths and the rest: the axis as written, from its first channel up.
    value = {z: axis["CRVAL1"] + axis["CDELT1"] * z for z, *_ in LINES}
    for z, width, amount in LINES:
        scale = u.Unit(axis["CUNIT1"]).to(table["centre"].unit)
        row = table[int(np.argmin(np.abs(np.asarray(table["centre"]) - scale * value[z])))]
        apart = (row["centre"] - scale * value[z]) / (scale * axis["CDELT1"])
        assert abs(apart) < max(0.15, 0.06 * width), (z, apart)
        assert abs(apart) < 4 * row["channel_err"]
        assert row["channel"] == pytest.approx(z, abs=max(0.15, 0.06 * width))
        assert row["kind"] == ("emission" if amount > 0 else "absorption")
        assert row["flux"] == pytest.approx(RMS * amount * scale * axis["CDELT1"], rel=0.25)
        assert row["fwhm_channels"] == pytest.approx(np.hypot(width, 0.68), rel=0.35)
        level = 2.0 + 3e-4 * z + 0.05 * np.sin(z / 400)
        assert row["continuum"] == pytest.approx(level, abs=0.02)
        lost = -RMS * amount / level * scale * axis["CDELT1"]
        assert row["equivalent_width"] == pytest.approx(lost, rel=0.25)
        if kind == "wavelength":
            assert row["frequency"] == pytest.approx(LIGHT / (value[z] * 1e-10), rel=3e-4)
        elif kind == "frequency":
            assert row["velocity"] == pytest.approx(LIGHT / 1e3 * (1 - value[z] / axis["RESTFRQ"]), abs=3)
        else:
            assert row["velocity"] == pytest.approx(value[z] / 1e3, abs=3)
            assert row["frequency"] == pytest.approx(axis["RESTFRQ"] * (1 - value[z] / LIGHT), rel=1e-5)
    # The spike is none, and little else is found.
    assert len(table) <= len(LINES) + 1
    assert not (np.abs(np.asarray(table["channel"]) - 800) < 3).any()


def test_one_command(tmp_path, capsys):
    good, bad = save(tmp_path / "good.fits", "wavelength"), tmp_path / "bad.txt"
    bad.write_text("nothing like a spectrum\n")
    assert run("detect", str(bad), str(good), "-o", str(tmp_path), "--format", "fits,votable,ecsv") == 2
    said = capsys.readouterr()
    assert "bad.txt" in said.err and len(said.err.strip().splitlines()) == 1
    assert "lines in" in said.out and "Mchannel/s" in said.out
    table = Table.read(tmp_path / "good_cat.fits")
    assert len(table) >= len(LINES) and (table["p_real"] > 0.3).all() and table["spectrum"][0] == "planted"
    assert len(Table.read(tmp_path / "good_cat.vot")) == len(Table.read(tmp_path / "good_cat.ecsv")) == len(table)
    assert (tmp_path / "good_quicklook.png").stat().st_size > 20_000
    manifest = json.loads((tmp_path / "good_run.json").read_text())
    assert manifest["model"]["name"] == "lines" and manifest["counts"]["lines"] == len(table)
    assert manifest["input"]["shape"] == [COUNT] and manifest["input"]["sha256"]
    assert manifest["noise"]["median_rms"] == pytest.approx(RMS, rel=0.1)


def test_several_spectra_in_one_file_and_one_of_them_empty(tmp_path):
    rows = np.stack([planted(1), np.full(COUNT, np.nan), planted(2)])
    path = save(tmp_path / "rows.fits", "frequency", flux=rows.astype(np.float32))
    result = detect(path, DetectOptions(output=tmp_path))
    assert set(result.table["row"]) == {0, 2}
    for row in (0, 2):
        channels = np.asarray(result.table["channel"])[np.asarray(result.table["row"]) == row]
        assert all(np.abs(channels - z).min() < max(0.5, 0.06 * width) for z, width, _ in LINES)
    assert any("left out" in note for note in result.manifest["input"]["notes"])


def test_a_table_with_columns(tmp_path):
    axis = 4500 + 1.2 * np.arange(COUNT)
    table = Table({"wavelength": axis, "flux": planted().astype(float)})
    table["wavelength"].unit = "Angstrom"
    table.write(tmp_path / "columns.ecsv")
    found = detect(tmp_path / "columns.ecsv", DetectOptions(output=tmp_path, model="line-clip")).table
    assert np.abs(np.asarray(found["centre"]) - (4500 + 1.2 * 640.2)).min() < 1


def test_a_line_shorter_spectrum_and_no_lines(tmp_path):
    quiet = np.random.default_rng(0).normal(size=40).astype(np.float32)
    result = detect(save(tmp_path / "short.fits", "velocity", flux=quiet), DetectOptions(output=tmp_path))
    assert len(result.table) == 0 and result.files["fits"].exists() and result.files["quicklook"].exists()


def test_what_cannot_be_done_is_said(tmp_path):
    path = save(tmp_path / "s.fits", "wavelength")
    with pytest.raises(OptionError, match="sdc1 is for images"):
        detect(path, DetectOptions(output=tmp_path, formats=("sdc1",)))
    with pytest.raises(OptionError, match="reads images, and these are spectra"):
        detect(path, DetectOptions(output=tmp_path, model="light"))
    for name, flux, words in (
        ("blank", np.full(COUNT, np.nan), "blank|no flux|finite|missing"),
        ("flat", np.ones(COUNT), "noise"),
        ("tiny", np.arange(12.0), "32 channels"),
    ):
        bad = save(tmp_path / f"{name}.fits", "wavelength", flux=flux.astype(np.float32))
        with pytest.raises(InputError, match=words):
            detect(bad, DetectOptions(output=tmp_path))
    series = Table({"time": np.arange(300.0), "flux": np.ones(300)})
    series["time"].unit = "d"
    series.write(tmp_path / "curve.ecsv")
    with pytest.raises(InputError, match="light curve"):
        detect(tmp_path / "curve.ecsv", DetectOptions(output=tmp_path))
