"""Planted skies: seeded, not square, off the origin, with unit and beam, so that swapped axes show."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

PIXEL = 1.5
BEAM = (9.0, 6.0, 30.0)
RMS = 1e-4
SHAPE = (150, 210)
FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True)
class PlantedSky:
    """A FITS image and what lies in it.

    Attributes
    ----------
    path : Path
    truth : Table
        x, y (pixels from 0), ra, dec (deg), peak_flux (Jy/beam), flux (Jy), maj, min (arcsec, as seen through
        the beam), pa (deg).
    beam : tuple of float
        (major, minor) in arcsec and position angle in degrees.
    rms : float
        Jy/beam.
    shape : tuple of int
        (ny, nx).
    """

    path: Path
    truth: Table
    beam: tuple[float, float, float]
    rms: float
    shape: tuple[int, int]


def make_wcs(
    *,
    centre: tuple[float, float] = (53.1, -27.8),
    reference: tuple[float, float] = (131.0, 55.5),
    scale: tuple[float, float] = (-PIXEL, PIXEL),
    rotation: float = 0.0,
    axes: tuple[str, str] = ("RA---SIN", "DEC--SIN"),
    frame: str | None = "ICRS",
) -> WCS:
    """A celestial WCS: reference in pixels from 0, scale in arcsec, rotation in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = axes
    wcs.wcs.crval = centre
    wcs.wcs.crpix = (reference[0] + 1, reference[1] + 1)
    wcs.wcs.cdelt = (scale[0] / 3600, scale[1] / 3600)
    turn = np.radians(rotation)
    wcs.wcs.pc = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    if frame:
        wcs.wcs.radesys = frame
        if frame.startswith("FK"):
            wcs.wcs.equinox = 1950.0 if frame == "FK4" else 2000.0
    wcs.wcs.set()
    return wcs


WCS_VARIANTS: dict[str, Callable[[], WCS]] = {
    "plain": make_wcs,
    "east right": lambda: make_wcs(scale=(PIXEL, PIXEL)),
    "north down": lambda: make_wcs(scale=(-PIXEL, -PIXEL)),
    "turned": lambda: make_wcs(rotation=37.0),
    "turned and mirrored": lambda: make_wcs(rotation=-112.0, scale=(PIXEL, PIXEL)),
    "pixels not square": lambda: make_wcs(scale=(-2 * PIXEL, PIXEL), rotation=20.0),
    "across ra 0": lambda: make_wcs(centre=(0.001, -30.0)),
    "near the pole": lambda: make_wcs(centre=(200.0, 89.99), axes=("RA---TAN", "DEC--TAN")),
    "far from the reference": lambda: make_wcs(centre=(53.1, -26.0), reference=(-4000.0, -4300.0)),
    "galactic": lambda: make_wcs(centre=(18.0, 0.2), axes=("GLON-CAR", "GLAT-CAR"), frame=None),
    "latitude first": lambda: make_wcs(centre=(-27.8, 53.1), axes=("DEC--TAN", "RA---TAN")),
    "fk5": lambda: make_wcs(frame="FK5"),
    "fk4": lambda: make_wcs(frame="FK4"),
    "ecliptic": lambda: make_wcs(axes=("ELON-TAN", "ELAT-TAN"), frame=None),
}


@pytest.fixture(params=list(WCS_VARIANTS))
def any_wcs(request: pytest.FixtureRequest) -> WCS:
    """Each way in which an image may lie on the sky, one after the other."""
    return WCS_VARIANTS[request.param]()


def image_header(
    wcs: WCS, *, beam: tuple[float, float, float] | None = BEAM, unit: str | None = "JY/BEAM"
) -> fits.Header:
    """Header of an image with this WCS; beam in arcsec and degrees."""
    header = wcs.to_header()
    if unit:
        header["BUNIT"] = unit
    if beam:
        header["BMAJ"], header["BMIN"], header["BPA"] = beam[0] / 3600, beam[1] / 3600, beam[2]
    return header


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as a FITS image: ``write_image(data, wcs=..., name=..., **header)``."""

    def write(
        data: np.ndarray, *, wcs: WCS | None = None, name: str = "sky.fits", **keywords: object
    ) -> Path:
        header = image_header(wcs or make_wcs())
        header.update({key: value for key, value in keywords.items() if value is not None})
        for key, value in keywords.items():
            if value is None:
                del header[key]
        fits.PrimaryHDU(data, header).writeto(tmp_path / name)
        return tmp_path / name

    return write


def plant(path: Path, *, wcs: WCS | None = None, shape: tuple[int, int] = SHAPE, seed: int = 7) -> PlantedSky:
    """Write an image with 12 Gaussian sources on a grid in noise that the beam has smoothed."""
    rng = np.random.default_rng(seed)
    wcs = wcs or make_wcs()
    ny, nx = shape
    y, x = np.meshgrid((np.arange(3) + 0.5) * ny / 3, (np.arange(4) + 0.5) * nx / 4, indexing="ij")
    x, y = (position.ravel() + rng.uniform(-6, 6, 12) for position in (x, y))
    peak = RMS * np.geomspace(12, 300, 12)[rng.permutation(12)]
    major = BEAM[0] * rng.uniform(1.05, 1.6, 12)
    minor = BEAM[1] * rng.uniform(1.05, 1.3, 12)
    pa = rng.uniform(0, 180, 12)
    noise = gaussian_filter(
        rng.normal(size=shape), np.sqrt(BEAM[0] * BEAM[1]) / PIXEL * FWHM_TO_SIGMA, mode="wrap"
    )
    image = noise * (RMS / noise.std())
    rows, columns = np.mgrid[:ny, :nx]
    for one in range(12):
        dx, dy = (columns - x[one]) * PIXEL, (rows - y[one]) * PIXEL
        # North up and east left: along the major axis is (-sin pa, cos pa).
        angle = np.radians(pa[one])
        along, across = -dx * np.sin(angle) + dy * np.cos(angle), dx * np.cos(angle) + dy * np.sin(angle)
        shape_term = (along / (major[one] * FWHM_TO_SIGMA)) ** 2 + (
            across / (minor[one] * FWHM_TO_SIGMA)
        ) ** 2
        image += peak[one] * np.exp(-0.5 * shape_term)
    fits.PrimaryHDU(image.astype(np.float32), image_header(wcs)).writeto(path)
    ra, dec = wcs.all_pix2world(x, y, 0)
    truth = Table(
        {
            "x": x,
            "y": y,
            "ra": ra,
            "dec": dec,
            "peak_flux": peak,
            "flux": peak * major * minor / (BEAM[0] * BEAM[1]),
            "maj": major,
            "min": minor,
            "pa": pa,
        }
    )
    return PlantedSky(path, truth, BEAM, RMS, shape)


@pytest.fixture(scope="session")
def plant_sky() -> Callable[..., PlantedSky]:
    """`plant`, for fixtures of other folders: ``plant_sky(path)``."""
    return plant


@pytest.fixture
def planted_sky(tmp_path: Path) -> PlantedSky:
    """150 x 210 pixels of 1.5 arcsec, north up, beam 9 x 6 arcsec at 30 degrees, 12 sources."""
    return plant(tmp_path / "planted.fits")


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Names of models stand for the shipped weights, whatever this user has promoted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SKYSIFT_MODELS", raising=False)
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server (see postgres.py), started once; tests that need it are skipped where it is not installed."""
    spec = importlib.util.spec_from_file_location("postgres", Path(__file__).with_name("postgres.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.find_programs() is None:
        # deploy/test.sh installs it where it can, and says so.
        assert not os.environ.get("SKYSIFT_TEST_POSTGRES"), "PostgreSQL was installed for the tests, it is not found"
        pytest.skip("no PostgreSQL server here: install Debian's package postgresql")
    with module.serve_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Any) -> str:
    """URL of a new, empty PostgreSQL database; usable from subprocesses."""
    return postgres_server.database()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new survey store may be made: a folder, then a PostgreSQL database."""
    return str(tmp_path / "survey") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture(scope="session", autouse=True)
def _exact_by_default() -> Iterator[None]:
    """Engine auto computes in f32, whatever lower precisions were measured on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.engines.choose._passed", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images that may lie beside the repository; tests that need them are skipped without."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder}")
    return folder


@pytest.fixture(scope="session")
def make_voc() -> Callable[..., Path]:
    """Writes a tree in the layout of PASCAL VOC: images of unequal sides with one to three coloured shapes each.

    Cats are red discs, dogs green squares, trains wide blue bars, so that a small network learns them.
    """
    from PIL import Image, ImageDraw

    colours = {"cat": (220, 40, 30), "dog": (40, 200, 50), "train": (40, 60, 220)}

    def make(root: Path, *, train: int = 12, test: int = 6, seed: int = 0, side: int = 96) -> Path:
        rng = np.random.default_rng(seed)
        place = root / "VOCdevkit" / "VOC2007"
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (place / folder).mkdir(parents=True, exist_ok=True)
        names = [f"{seed:02d}{i:04d}" for i in range(train + test)]
        for name in names:
            wide, high = side, int(rng.integers(side // 2, side))
            image = Image.fromarray(rng.integers(90, 140, (high, wide, 3)).astype(np.uint8))
            draw, objects = ImageDraw.Draw(image), []
            for label in rng.choice(list(colours), rng.integers(1, 4), replace=False):
                size = rng.integers(side // 5, side // 3)
                x_side, y_side = (int(size * 1.5), int(size * 0.6)) if label == "train" else (int(size), int(size))
                x, y = int(rng.integers(0, wide - x_side)), int(rng.integers(0, high - y_side))
                shape = draw.ellipse if label == "cat" else draw.rectangle
                # Both ends belong to the shape, as to a VOC box.
                shape((x, y, x + x_side - 1, y + y_side - 1), fill=colours[label])
                corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + x_side, "ymax": y + y_side}
                box = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
                objects.append(f"<object><name>{label}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>")
            image.save(place / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)
            size = f"<size><width>{wide}</width><height>{high}</height><depth>3</depth></size>"
            (place / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
        lists = {"trainval": names[:train], "test": names[train:]}
        for name, members in lists.items():
            (place / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(members) + "\n")
        return root

    return make


@pytest.fixture(scope="session")
def small_survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated image of 460 x 150 px, its truth and its primary beam, as ``skysift simulate`` writes them."""
    from survey_io.simulate.continuum import SkyModel, simulate_continuum
    from survey_io.simulate.tables import write_simulation

    folder = tmp_path_factory.mktemp("survey")
    sky = simulate_continuum(
        (460, 150), beam_pixels=(3.2, 2.4, 0.6), seed=31, model=SkyModel(density=0.02), pixel_scale=0.5,
        primary_beam_fwhm=1.5, centre=(0.01, -30.0),
    )  # fmt: skip
    write_simulation(sky, folder)
    return folder


@pytest.fixture(scope="session")
def small_sdc2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    """A simulated cube of 72 channels and 132 x 44 px by the names of SDC2, and its model (seed 5)."""
    from survey_io.simulate.hi import HiModel, simulate_hi, write_hi

    folder = tmp_path_factory.mktemp("sdc2")
    model = HiModel(shape=(72, 132, 44), density=500.0, least_flux=12.0, first_frequency=1.0e9, continuum=0.0)
    paths = write_hi(model, *simulate_hi(model, seed=5), folder, name="sky_ldev_v2")
    paths["truth"].rename(folder / "sky_ldev_truthcat_v2.txt")
    return folder, model


@pytest.fixture(scope="session")
def tiny_recipe() -> str:
    """A recipe that trains a small network of lines within seconds."""
    return TINY_RECIPE


TINY_RECIPE = """# A small network of lines.
name: lines
output: training/tiny
steps: 2
batch: 1
channels: 256
device: cpu
precision: f32
loaders: 0
pool: 8
save_every: 1
calibration_skies: 0
model_options: {stem: 8, width: 8, wide: 8, dilations: [[1, 2]]}
retrain: {judge_options: {spectra: 2}, draws: 20, export: false}
"""
