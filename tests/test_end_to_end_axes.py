"""Every way to write a cube's axes: planted lines come out at their place, frequency, velocity and angle."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from flows.cli import main
from pipeline.cube_products import line_spectrum, source_cubelet
from pipeline.detect_cube import analyse_cube
from pipeline.gaussians import beam_area
from pipeline.options import DetectOptions
from survey_io.cube import open_cube
from survey_io.cubelet import moment_maps
from survey_io.spectral import HI_REST_FREQUENCY as REST
from survey_io.spectral import read_spectral_axis

SHAPE = (64, 50, 66)
BEAM_PX, PIXEL = 4.0, 6.0
# x, y, z, and the direction in which the line moves with channel, rad from +x towards +y.
PLACES = ((17.3, 16.8, 22.4, 0.4), (47.6, 30.2, 41.7, 2.2))
PEAK, RMS, HALF, DRIFT = 80.0, 1.0, 7.0, 0.5
C = 299792458.0
# Beams of single channels over the median one.
BEAM_SHARES = np.linspace(0.9, 1.1, SHAPE[0])


@dataclass(frozen=True)
class Axis:
    """A header's spectral axis and, independently, the frequency at channels counted from 0."""

    cards: dict
    frequency: Callable[[np.ndarray], np.ndarray]
    spectral_number: int = 3
    ending: str = ".fits"
    integers: bool = False
    beams: bool = False
    blanks: bool = False
    note: str = ""
    sky: dict = field(default_factory=dict)


def linear(ctype: str, value: float, step: float, unit: str | None, to_frequency: Callable, **more) -> Axis:
    """An axis with its reference at channel 20.5 (from 0)."""
    number = more.get("spectral_number", 3)
    scale = more.pop("scale", 1.0)
    extra = more.pop("extra", {})
    cards = {f"CTYPE{number}": ctype, f"CRVAL{number}": value, f"CRPIX{number}": 21.5, f"CDELT{number}": step}
    if unit is not None:
        cards[f"CUNIT{number}"] = unit
    return Axis({**cards, **extra}, lambda z: to_frequency((value + step * (z - 20.5)) * scale), **more)


def radio(v):
    return REST * (1 - v / C)


def optical(v):
    return REST / (1 + v / C)


def relativistic(v):
    return REST * np.sqrt((1 - v / C) / (1 + v / C))


STOKES = {"CTYPE4": "STOKES", "CRVAL4": 1.0, "CRPIX4": 1.0, "CDELT4": 1.0}
STOKES_THIRD = {"CTYPE3": "STOKES", "CRVAL3": 1.0, "CRPIX3": 1.0, "CDELT3": 1.0}
AXES = {
    "FREQ, Hz, up, SIN": linear("FREQ", 1.3e9, 1e5, "Hz", lambda f: f),
    "FREQ, MHz, down, TAN, Stokes last": linear(
        "FREQ", 1400.0, -0.05, "MHZ", lambda f: f, scale=1e6, extra=STOKES,
        sky={"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
    ),
    "FREQ, GHz, up, two Stokes third": linear(
        "FREQ", 1.3, 1e-4, "GHz", lambda f: f, scale=1e9, extra=STOKES_THIRD, spectral_number=4, note="Stokes I",
    ),
    "VRAD, km/s, up, turned": linear("VRAD", 5e3, 10.0, "km/s", radio, scale=1e3, sky={"CROTA2": 40.0}),
    "VRAD, M/S, down, east right": linear("VRAD", 5e6, -1e4, "M/S", radio, sky={"CDELT1": PIXEL / 3600}),
    "VOPT, m/s, up, NCP, integers": linear(
        "VOPT", 8e6, 1.2e4, "m/s", optical, integers=True,
        sky={"CTYPE1": "RA---NCP", "CTYPE2": "DEC--NCP", "CRVAL2": 60.0},
    ),
    "VOPT, KM/S, down, blank channels and border": linear(
        "VOPT", 6000.0, -12.0, "KM/S", optical, scale=1e3, blanks=True
    ),
    "VELO-HEL, m/s, up, compressed": linear("VELO-HEL", 5e5, 6e3, "M/S", radio, ending=".fits.gz", note="radio"),
    "VELO-LSR with VELREF, down": linear("VELO-LSR", 5e6, -8e3, "m/s", optical, extra={"VELREF": 1}, note="optical"),
    "VELO, relativistic, up, a beam per channel": linear("VELO", 9e6, 9e3, "m/s", relativistic, beams=True),
    "FELO-HEL, m/s, up": Axis(
        {"CTYPE3": "FELO-HEL", "CRVAL3": 5e6, "CRPIX3": 21.5, "CDELT3": 1e4, "CUNIT3": "m/s"},
        lambda z: optical(5e6) - (z - 20.5) * 1e4 * optical(5e6) ** 2 / (C * REST), note="equal frequency",
    ),
    "WAVE, m, up, galactic": linear(
        "WAVE", 0.2112, 1.2e-5, "m", lambda w: C / w,
        sky={"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR", "CRVAL2": 0.0},
    ),
    "WAVE, mm, down": linear("WAVE", 212.0, -0.012, "mm", lambda w: C / w, scale=1e-3),
    "AWAV, Angstrom, up": linear(
        "AWAV", 6563.0, 0.6, "Angstrom", lambda w: C / (w * 1.000276), scale=1e-10, extra={"RESTFRQ": 4.5681e14}
    ),
    "ZOPT, down": linear("ZOPT", 0.05, -4e-5, None, lambda z: REST / (1 + z)),
}  # fmt: skip


def voxels(seed: int = 5) -> np.ndarray:
    """Lines whose place drifts with channel, in noise that the beam has smoothed."""
    rng = np.random.default_rng(seed)
    sigma = BEAM_PX / 2.3548
    noise = gaussian_filter(rng.normal(size=SHAPE), (0, sigma, sigma), mode="wrap")
    cube = noise * (RMS / noise.std())
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for x0, y0, z0, angle in PLACES:
        shift = DRIFT * (z - z0)
        squared = (x - x0 - shift * np.cos(angle)) ** 2 + (y - y0 - shift * np.sin(angle)) ** 2
        profile = np.clip(HALF + 0.5 - np.abs(z - z0), 0, 1)
        cube += PEAK * profile * np.exp(-0.5 * squared / sigma**2)
    return cube.astype(np.float32)


def write_cube(path: Path, axis: Axis, data: np.ndarray) -> fits.Header:
    """Write voxels with these axes; returns the header as written."""
    data = data.copy() * 1e-3
    cards = {
        "CTYPE1": "RA---SIN", "CRVAL1": 150.0, "CRPIX1": 14.0, "CDELT1": -PIXEL / 3600, "CUNIT1": "deg",
        "CTYPE2": "DEC--SIN", "CRVAL2": 35.0, "CRPIX2": 33.0, "CDELT2": PIXEL / 3600, "CUNIT2": "deg",
        "RESTFRQ": REST, "BUNIT": "JY/BEAM", "BMAJ": BEAM_PX * PIXEL / 3600, "BMIN": BEAM_PX * PIXEL / 3600,
        "BPA": 0.0, **axis.sky, **axis.cards,
    }  # fmt: skip
    if axis.blanks:
        data[:3], data[33], data[:, :4], data[..., -3:] = np.nan, np.nan, np.nan, np.nan
    if axis.spectral_number == 4:
        data = np.stack([data, 0.3 * data[::-1]], axis=1)
    elif "CTYPE4" in axis.cards:
        data = data[None]
    hdus = fits.HDUList([fits.PrimaryHDU(data, fits.Header(cards))])
    if axis.integers:
        step = 2.5e-6
        hdus[0].scale("int16", bscale=step, bzero=0.02)
    if axis.beams:
        for key in ("BMAJ", "BMIN", "BPA"):
            del hdus[0].header[key]
        side = BEAM_SHARES * BEAM_PX * PIXEL
        columns = [fits.Column(name, "1E", unit="arcsec", array=side) for name in ("BMAJ", "BMIN")]
        columns.append(fits.Column("BPA", "1E", unit="deg", array=np.zeros(SHAPE[0])))
        hdus.append(fits.BinTableHDU.from_columns(columns, name="BEAMS"))
    hdus.writeto(path)
    return fits.getheader(path)


def library_sky(header: fits.Header) -> WCS:
    """The sky axes by the coordinate library alone, which does not need the spectral axis for them."""
    plane = fits.Header({key: value for key, value in header.items() if key[-1:] in "12" or key == "RADESYS"})
    with warnings.catch_warnings():
        # It says so when it puts a standard name in the place of NCP.
        warnings.simplefilter("ignore")
        return WCS(plane, naxis=2)


@pytest.fixture(scope="module")
def planted() -> np.ndarray:
    return voxels()


@pytest.mark.parametrize("name", list(AXES))
def test_planted_lines_come_out(name, planted, tmp_path):
    axis = AXES[name]
    path = tmp_path / f"c{axis.ending}"
    header = write_cube(path, axis, planted)
    cube = open_cube(path, scratch=tmp_path)
    assert cube.shape == SHAPE and (axis.note in " ".join(cube.notes))
    result = analyse_cube(cube, DetectOptions(model="smooth-clip", workers=1))
    table = result.table
    bright = table[table["snr"] > 30]
    assert len(bright) == len(PLACES)
    celestial = library_sky(header)
    rest = header["RESTFRQ"]
    for x0, y0, z0, angle in PLACES:
        row = bright[np.argmin(np.hypot(bright["x"] - x0, bright["y"] - y0))]
        assert (row["x"], row["y"]) == pytest.approx((x0, y0), abs=0.25) and row["z"] == pytest.approx(z0, abs=0.4)
        sky = celestial.pixel_to_world(x0, y0).icrs
        assert SkyCoord(row["ra"], row["dec"], unit="deg").separation(sky).arcsec < 0.3 * PIXEL
        nu, channel = axis.frequency(z0), abs(axis.frequency(z0 + 0.5) - axis.frequency(z0 - 0.5))
        assert row["frequency"] == pytest.approx(nu, abs=0.4 * channel)
        assert row["v_opt"] == pytest.approx(C / 1e3 * (rest / nu - 1), abs=0.4 * C / 1e3 * rest * channel / nu**2)
        assert row["redshift"] == pytest.approx(rest / nu - 1, abs=0.4 * rest * channel / nu**2)
        assert row["v_rad"] == pytest.approx(C / 1e3 * (1 - nu / rest), abs=0.4 * C / 1e3 * channel / rest)
        # The receding side is where the line has its lowest frequency.
        sign = 1 if axis.frequency(z0 + 1) < nu else -1
        ahead = celestial.pixel_to_world(x0 + sign * 3 * np.cos(angle), y0 + sign * 3 * np.sin(angle)).icrs
        turn = row["kin_pa"] - sky.position_angle(ahead).deg
        assert abs((turn + 180) % 360 - 180) < 4
        profile = np.clip(HALF + 0.5 - np.abs(np.arange(SHAPE[0]) - z0), 0, 1)
        if axis.beams:
            # What fills a wider beam is less flux in that channel.
            profile /= BEAM_SHARES**2
        assert row["line_flux"] == pytest.approx(1e-3 * PEAK * profile.sum() * channel, rel=0.04)
    _check_box(cube, result, table, header)


def _check_box(cube, result, table, header) -> None:
    """A source's box has standard axes that agree with the cube's, and its map has the catalogue's flux."""
    beam = cube.plane.beam_pixels()
    row = int(np.argmax(np.where(table["snr"] > 30, table["x"], 0)))
    box = source_cubelet(cube, result.noise, beam, result.lines, row)
    cards = {key: value for key, value in box.header.items() if key.endswith("3") or key == "RESTFRQ"}
    axis, _ = read_spectral_axis(fits.Header({**cards, "NAXIS3": box.mask.shape[0]}), 3)
    start = [span.start for span in box.window]
    assert min(start) > 0
    assert axis.frequency(5) == pytest.approx(cube.spectral.frequency(5 + start[0]), rel=1e-12)
    ours, theirs = library_sky(box.header), library_sky(header)
    assert ours.pixel_to_world(3, 4).icrs.separation(
        theirs.pixel_to_world(3 + start[2], 4 + start[1]).icrs
    ).arcsec == pytest.approx(0, abs=1e-3)
    moments = moment_maps(box, float(table["z"][row]))
    assert moments.flux_unit == u.Jy / u.beam * u.km / u.s and moments.unit == u.km / u.s
    # Where every channel has its own beam a map has no single one to sum by.
    total = np.nansum(moments.flux) / float(beam_area(*beam[:2]))
    assert total == pytest.approx(float(table["line_flux_kms"][row]), rel=0.02 if cube.beams is None else 0.1)
    spectrum = line_spectrum(box, cube.pixel_beam())
    flux = (spectrum["flux_density"] * cube.spectral.width(spectrum["channel"])).sum()
    assert flux == pytest.approx(float(table["line_flux"][row]), rel=1e-4)
    centre = np.nansum(moments.velocity * moments.flux) / np.nansum(moments.flux[np.isfinite(moments.velocity)])
    channel = float(cube.spectral.velocity_width(table["z"][row], cube.spectral.width(table["z"][row])))
    assert centre == pytest.approx(float(table["v_opt"][row]), abs=0.3 * channel)


def run(*arguments: str) -> int:
    """Exit status of the command."""
    try:
        return main(list(arguments)) or 0
    except SystemExit as stop:
        return int(stop.code or 0)


def test_bad_files_get_a_line_each_and_the_good_ones_a_catalogue(planted, tmp_path, capsys):
    plain = AXES["FREQ, Hz, up, SIN"]
    kinds = {
        "untold.fits": (Axis({"CTYPE3": "TIME", "CRVAL3": 1.0, "CDELT3": 1.0}, plain.frequency), "CTYPE"),
        "velocity.fits": (Axis({**AXES["VOPT, KM/S, down, blank channels and border"].cards}, optical),
                          "--rest-frequency"),
        "short.fits": (plain, "cut short"), "short2.fits.gz": (plain, "cut short"),
        "blank.fits": (plain, "blank"), "beamless.fits": (Axis({**plain.cards, "BMAJ": -1.0}, plain.frequency),
                                                        "--beam"),
        "single.fits": (plain, "2 channels"), "good.fits": (plain, ""), "other.fits": (plain, ""),
    }  # fmt: skip
    small = planted[:30, :40]
    for name, (axis, _) in kinds.items():
        data = {"blank.fits": small * np.nan, "single.fits": small[:1]}.get(name, small)
        write_cube(tmp_path / name, axis, data)
    for name in ("short.fits", "short2.fits.gz"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with fits.open(tmp_path / "velocity.fits", mode="update") as hdus:
        del hdus[0].header["RESTFRQ"]
    with fits.open(tmp_path / "other.fits", mode="update") as hdus:
        # A frequency that is not HI's, without its line: a catalogue, and a word about what it lacks.
        del hdus[0].header["RESTFRQ"]
        hdus[0].header["CRVAL3"] = 1.1e11
    files = [str(tmp_path / name) for name in kinds]
    assert run("detect", *files, "-o", str(tmp_path / "out"), "--model", "smooth-clip", "--products", "1") == 2
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    bad = {name: word for name, (_, word) in kinds.items() if word}
    assert len(lines) == len(bad)
    for line, (name, word) in zip(lines, bad.items(), strict=True):
        assert name in line and word in line, line
    assert (tmp_path / "out" / "good_cat.fits").is_file() and (tmp_path / "out" / "other_cat.fits").is_file()
    assert "note: no rest frequency" in said.out
    products = {path.name.split("_", 2)[-1] for path in (tmp_path / "out" / "other_products").iterdir()}
    assert {"cube.fits", "mom1.fits", "spec.fits"} < products
    (moment,) = (tmp_path / "out" / "other_products").glob("*_mom1.fits")
    assert fits.getheader(moment)["BUNIT"] == "Hz"
