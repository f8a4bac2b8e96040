"""Units and beams in the dialects of radio and optical software."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits

from survey_io import Beam, InputError, open_image
from survey_io.headers import header_frequency, header_unit
from tests.conftest import BEAM, PIXEL

DATA = np.random.default_rng(3).normal(size=(40, 70)).astype(np.float32)


def test_beams_in_their_places(write_image, tmp_path):
    bare = {"BMAJ": None, "BMIN": None, "BPA": None}
    history = [
        "AIPS   CLEAN BMAJ=  2.0000E-03 BMIN=  1.0000E-03 BPA=   5.00",
        "AIPS   CLEAN BMAJ=  1.2500E-03 BMIN=  1.0000E-03 BPA= -10.00",
    ]
    path = write_image(DATA, name="none.fits", **bare)
    sky = open_image(path)
    assert sky.beam is None
    assert any("beam is missing" in note for note in sky.notes)
    with pytest.raises(InputError, match="--beam MAJOR,MINOR,PA"):
        sky.beam_pixels()
    given = open_image(path, beam=(5.0, 4.0, 170.0))
    assert given.beam == Beam(5.0, 4.0, 170.0, "option")
    assert not any("missing" in note for note in given.notes)

    with fits.open(path, mode="append") as hdus:
        for line in history:
            hdus[0].header.add_history(line)
        hdus.writeto(tmp_path / "aips.fits")
    beam = open_image(tmp_path / "aips.fits").beam
    assert (beam.major, beam.minor, beam.pa) == pytest.approx((4.5, 3.6, 170.0)) and beam.origin == "history"

    columns = [
        fits.Column(name, "E", unit, array=np.array([value]))
        for name, unit, value in (("BMAJ", "arcsec", 8.0), ("BMIN", "arcsec", 7.0), ("BPA", "deg", 12.0))
    ]
    with fits.open(path) as hdus:
        hdus.append(fits.BinTableHDU.from_columns(columns, name="BEAMS"))
        hdus.writeto(tmp_path / "casa.fits")
    beam = open_image(tmp_path / "casa.fits").beam
    assert (beam.major, beam.minor, beam.pa) == pytest.approx((8.0, 7.0, 12.0)) and beam.origin == "table"


@pytest.mark.parametrize(("major", "text"), [(0.0, "0 x"), (25.0, "larger than the image"), ("wide", "0 x")])
def test_a_beam_that_cannot_be_one_is_missing(write_image, major, text):
    sky = open_image(write_image(DATA, BMAJ=major))
    assert sky.beam is None
    assert any(text in note for note in sky.notes)


@pytest.mark.parametrize("beam", [(0.0, 0.0, 0.0), (5.0,), "beam", (np.nan, 1.0, 0.0), (3.0, -1.0, 0.0)])
def test_a_beam_option_that_cannot_be_one(planted_sky, beam):
    with pytest.raises(InputError, match="beam"):
        open_image(planted_sky.path, beam=beam)


def test_axes_of_a_beam_are_put_in_order():
    beam = Beam(3.0, 4.0, 100.0)
    assert (beam.major, beam.minor, beam.pa) == (4.0, 3.0, 10.0)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("Jy/beam", u.Jy / u.beam),
        ("JY/BEAM", u.Jy / u.beam),
        ("Jy beam-1", u.Jy / u.beam),
        ("jy/bm", u.Jy / u.beam),
        ("mJy/beam", u.mJy / u.beam),
        ("MJY/BEAM", u.mJy / u.beam),
        ("UJY/BEAM", u.uJy / u.beam),
        ("MJy/sr", u.MJy / u.sr),
        ("MJY/SR", u.MJy / u.sr),
        ("JY/PIXEL", u.Jy / u.pix),
        ("K", u.K),
        ("counts", u.ct),
        ("COUNTS", u.ct),
        ("adu", u.adu),
        ("ADU", u.adu),
        ("electron/s", u.electron / u.s),
        ("", None),
        ("W.U.", None),
        ("furlong", None),
    ],
)
def test_units(text, unit):
    got, note = header_unit(fits.Header({"BUNIT": text}))
    assert got == unit
    assert bool(note) == (unit is None or text == "MJY/BEAM")


def test_what_a_pixel_is_worth_in_jansky_per_beam(write_image):
    area = np.pi / (4 * np.log(2)) * BEAM[0] * BEAM[1]
    per_sr = area * (np.pi / 180 / 3600) ** 2
    for number, (unit, factor) in enumerate(
        (
            ("mJy/beam", 1e-3),
            ("MJy/sr", 1e6 * per_sr),
            ("Jy/pixel", area / PIXEL**2),
            ("K", 2 * 1.380649e-23 * (1.4e9 / 299792458) ** 2 * per_sr * 1e26),
        )
    ):
        sky = open_image(write_image(DATA, name=f"{number}.fits", BUNIT=unit, RESTFRQ=1.4e9))
        assert sky.jansky_per_beam() == pytest.approx(factor, rel=1e-4), unit
    for number, unit in enumerate(("adu", None), start=9):
        sky = open_image(write_image(DATA, name=f"{number}.fits", BUNIT=unit))
        with pytest.raises(InputError, match="converts to Jy/beam"):
            sky.jansky_per_beam()


@pytest.mark.parametrize(
    ("cards", "hertz"),
    [
        ({"NAXIS": 3, "CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CDELT3": 1e6, "CRPIX3": 3.0}, 1.398e9),
        ({"NAXIS": 3, "CTYPE3": "FREQ", "CRVAL3": 1.4, "CUNIT3": "GHz"}, 1.4e9),
        ({"NAXIS": 4, "CTYPE4": "FREQ-LSR", "CRVAL4": 560.0, "CUNIT4": "MHZ"}, 5.6e8),
        ({"NAXIS": 2, "RESTFRQ": 1.42e9}, 1.42e9),
        ({"NAXIS": 2, "FREQ": "unknown", "OBSFREQ": 3e9}, 3e9),
        ({"NAXIS": 2, "RESTFRQ": 0.0}, None),
        ({"NAXIS": 2}, None),
    ],
)
def test_frequencies(cards, hertz):
    got = header_frequency(fits.Header(cards))
    assert got == (None if hertz is None else pytest.approx(hertz))
