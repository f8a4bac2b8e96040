"""A survey to learn from: images of the real sky, each with a catalogue of what is in it.

In a folder, NAME.fits goes with NAME_truth.ecsv (or _reference, or another format of catalogues) and, where there is
one, with NAME_primary_beam.fits: the layout that ``skysift simulate`` writes. A recipe may name files instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from survey_io.background import BackgroundMap, choose_mesh, estimate_background
from survey_io.cut import cut_observation
from survey_io.datasets.report import DataReport
from survey_io.datasets.survey_checks import compare_with_pixels, row_names, usable_rows
from survey_io.datasets.truth import Truth, read_truth
from survey_io.errors import InputError, OptionError
from survey_io.image import open_image
from survey_io.observation import Observation
from survey_io.primary_beam import primary_beam_gain
from survey_io.simulate.render import covariance, ellipse

IMAGE_ENDINGS = (".fits", ".fits.gz", ".fits.fz", ".fit", ".fts")
TABLE_ENDINGS = (".ecsv", ".vot", ".xml", ".parquet", ".csv", ".txt", ".dat", ".cat", ".fits")
ROLES = ("_truth", "_reference", "_truth_sdc1", "_catalogue")
PRIMARY_BEAM = "_primary_beam"
# Pixels read around an area.
BORDER = 128
# Sources within so many px outside an image still shine into it.
MARGIN = 12


@dataclass(frozen=True)
class SurveyFiles:
    """The files of one image; ``area`` (ra_lo, ra_hi, dec_lo, dec_hi) in degrees is where the catalogue is complete."""

    image: Path
    truth: Path
    primary_beam: Path | None = None
    area: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class PixelSources:
    """Sources in the pixels of an image, each array (n,).

    Attributes
    ----------
    x, y : ndarray
        px from 0, in the image or up to `MARGIN` outside.
    flux : ndarray
        Integrated over the area of the beam, image unit, behind the primary beam: what the pixels hold.
    major, minor, theta : ndarray
        Intrinsic FWHM in px, angle from +x towards +y in rad.
    snr : ndarray
        Expected noise-free peak over the local rms.
    row : ndarray of int
        Row of the truth.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    major: np.ndarray
    minor: np.ndarray
    theta: np.ndarray
    snr: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: np.ndarray) -> PixelSources:
        return PixelSources(**{name: value[rows] for name, value in vars(self).items()})


@dataclass(frozen=True)
class SurveyImage:
    """An opened image with its sources.

    Attributes
    ----------
    files : SurveyFiles
    observation : Observation
    truth : Truth
        All usable rows.
    sources : PixelSources
        Of the rows that lie in this image.
    background : BackgroundMap
        As detection estimates it.
    area : (rows, columns)
        Whole pixels in which the truth is complete.
    """

    files: SurveyFiles
    observation: Observation
    truth: Truth
    sources: PixelSources
    background: BackgroundMap
    area: tuple[slice, slice]

    @property
    def name(self) -> str:
        """File name without its ending."""
        return self.observation.stem

    @property
    def beam(self) -> tuple[float, float, float]:
        """FWHM in px and rad."""
        return self.observation.beam_pixels()

    @property
    def beam_px(self) -> float:
        """Geometric mean of the beam's axes, px."""
        return float(np.sqrt(self.beam[0] * self.beam[1]))

    def snr_map(self) -> np.ndarray:
        """Background-subtracted pixels over the local rms, float32, NaN where blank: what networks are shown."""
        whole = tuple(slice(0, side) for side in self.observation.shape)
        level, rms = self.background.sample(whole)
        return ((self.observation.pixels.read(whole) - level) / rms).astype(np.float32)


def find_survey(folder: str | Path, images: Sequence[Mapping[str, Any]] = ()) -> list[SurveyFiles]:
    """The images of a survey with their catalogues.

    Parameters
    ----------
    folder : path
    images : sequence of mapping, optional
        ``image``, ``truth`` and perhaps ``primary_beam`` and ``area`` of each, files as seen from ``folder``. Default:
        all that go together by their names.

    Raises
    ------
    InputError
        When a file is missing or no image of the folder has a catalogue.
    OptionError
        For an entry of ``images`` that is not understood.
    """
    folder = Path(folder)
    if images:
        return [_named(folder, entry) for entry in images]
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of images with catalogues, there is none; check data")
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    found = []
    for name in names:
        stem = next((name[: -len(end)] for end in IMAGE_ENDINGS if name.lower().endswith(end)), None)
        if stem is None or stem.endswith((PRIMARY_BEAM, *ROLES)):
            continue
        # A FITS table is a catalogue only by its role: NAME.fits is the image.
        tables = [stem + role + end for role in ROLES for end in TABLE_ENDINGS]
        tables += [stem + end for end in TABLE_ENDINGS if end != ".fits"]
        table = next((one for one in tables if one in names), None)
        if table is not None:
            beam = next((one for end in IMAGE_ENDINGS if (one := stem + PRIMARY_BEAM + end) in names), None)
            found.append(SurveyFiles(folder / name, folder / table, folder / beam if beam else None))
    if not found:
        raise InputError(
            f"{folder}: expected images with catalogues (NAME.fits with NAME_truth.ecsv, .vot, .csv, ...), found none "
            f"among {len(names)} files; rename them, or name them in lesson_options: images"
        )
    return found


def _named(folder: Path, entry: Mapping[str, Any]) -> SurveyFiles:
    known = ("image", "truth", "primary_beam", "area")
    unknown = [name for name in entry if name not in known]
    if unknown or not {"image", "truth"} <= set(entry):
        raise OptionError(f"images: expected entries with image and truth, known are {', '.join(known)}; got {entry}")
    paths = {name: folder / entry[name] for name in known[:3] if entry.get(name)}
    for path in paths.values():
        if not path.is_file():
            raise InputError(f"{path}: no such file; check the recipe's images and data")
    area = entry.get("area")
    if area is not None and len(area) != 4:
        raise OptionError(f"images: area: expected RA_LO, RA_HI, DEC_LO, DEC_HI in degrees, got {area}")
    return SurveyFiles(
        paths["image"], paths["truth"], paths.get("primary_beam"), None if area is None else tuple(map(float, area))
    )


def open_survey_image(
    files: SurveyFiles, *, columns: Mapping[str, str] | None = None, report: DataReport | None = None
) -> SurveyImage:
    """Open an image, bring its truth to pixels and look what is wrong with it.

    Parameters
    ----------
    files : SurveyFiles
    columns : mapping, optional
        As `read_truth` takes it.
    report : DataReport, optional
        Receives counts and faults; faulty rows are left out.

    Raises
    ------
    InputError
        When a file cannot be read, the image has no beam, or no source lies in it.
    """
    report = DataReport("survey") if report is None else report
    observation = open_image(files.image)
    if observation.beam is None:
        raise InputError(
            f"{files.image}: expected a beam in the header (BMAJ, BMIN, BPA): sizes and fluxes to learn from need it; "
            "write it into the header"
        )
    area = _area(files, observation)
    if files.area is not None:
        # Of a whole field only the part with a catalogue is read, and what networks see around it.
        spans = [
            slice(max(span.start - BORDER, 0), min(span.stop + BORDER, side))
            for span, side in zip(area, observation.shape, strict=True)
        ]
        observation = cut_observation(observation, (spans[0], spans[1]))
        area = tuple(slice(a.start - s.start, a.stop - s.start) for a, s in zip(area, spans, strict=True))
    beam = observation.beam_pixels()
    beam_px = float(np.sqrt(beam[0] * beam[1]))
    background = estimate_background(observation.pixels, mesh=choose_mesh(observation.shape, beam_px))
    truth = read_truth(files.truth, columns=columns)
    truth = usable_rows(observation.stem, truth, report)
    x, y = observation.sky_to_pixel(truth.ra, truth.dec)
    ny, nx = observation.shape
    near = (x > -0.5 - MARGIN) & (x < nx - 0.5 + MARGIN) & (y > -0.5 - MARGIN) & (y < ny - 0.5 + MARGIN)
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    report.add("source outside the image", row_names(observation.stem, np.flatnonzero(~inside)), "dropped")
    if not inside.any():
        raise InputError(
            f"{files.truth}: none of its {len(truth)} sources lies in {files.image}; do they belong together?"
        )
    rows = np.flatnonzero(near)
    sources = _to_pixels(observation, background, files, truth[rows], x[rows], y[rows], rows)
    report.counts.setdefault(observation.stem, {})["sources"] = int(inside.sum())
    image = SurveyImage(files, observation, truth, sources, background, area)
    compare_with_pixels(image, report)
    return image


def _to_pixels(
    observation: Observation, background: BackgroundMap, files: SurveyFiles, truth: Truth, x: np.ndarray,
    y: np.ndarray, rows: np.ndarray,
) -> PixelSources:  # fmt: skip
    beam = observation.beam_pixels()
    # A vanishing size has no direction, and its shape matrix no inverse.
    major, minor = np.maximum(truth.major, 1e-6), np.maximum(truth.minor, 1e-6)
    major, minor, theta = observation.ellipse_to_pixel(x, y, major, minor, truth.pa)
    beam_cov = covariance(*(np.array([value]) for value in beam))
    if truth.apparent:
        cov = covariance(major, minor, theta) - beam_cov
        # What noise made smaller than the beam is a point.
        small = (cov[0] + cov[2] <= 0) | (cov[0] * cov[2] - cov[1] ** 2 < 0)
        floor = 1e-8
        major, minor, theta = ellipse(np.where(small, np.array([[floor], [0.0], [floor]]), cov))
    gain = np.ones(len(x))
    if files.primary_beam is not None:
        # The response need not reach beyond the image, where some sources lie.
        held = [np.clip(at, 0, side - 1) for at, side in zip((x, y), observation.shape[::-1], strict=True)]
        gain = primary_beam_gain(files.primary_beam, *observation.pixel_to_sky(*held))
    flux = truth.flux * gain / observation.jansky_per_beam()
    cov = covariance(major, minor, theta) + beam_cov
    area = np.sqrt((cov[0] * cov[2] - cov[1] ** 2) / (beam_cov[0] * beam_cov[2] - beam_cov[1] ** 2))
    snr = flux / area / background.at(y, x)[1]
    return PixelSources(x, y, flux, major, minor, theta, snr, rows)


def _area(files: SurveyFiles, observation: Observation) -> tuple[slice, slice]:
    """Pixels in which the truth is complete: the image, or the largest window within a rectangle on the sky."""
    ny, nx = observation.shape
    if files.area is None:
        return slice(0, ny), slice(0, nx)
    ra, dec = files.area[:2], files.area[2:]
    along = np.linspace(0, 1, 33)
    # Edges on the sky are curves in the image: the window lies within all of them.
    sides = [(np.full(33, one), dec[0] + along * (dec[1] - dec[0])) for one in ra]
    sides += [(ra[0] + along * (ra[1] - ra[0]), np.full(33, one)) for one in dec]
    curves = [observation.sky_to_pixel(side[0] % 360.0, side[1]) for side in sides]
    spans = []
    for axis, count in ((1, ny), (0, nx)):
        pair = sorted((curve[axis] for curve in curves), key=np.ptp)[:2]
        low, high = sorted(pair, key=lambda curve: float(curve.mean()))
        spans.append(slice(max(0, int(np.ceil(low.max()))), min(count, int(np.floor(high.min())) + 1)))
    if any(span.stop <= span.start for span in spans):
        raise InputError(f"{files.image}: the area {files.area} that its catalogue covers lies outside the image")
    return spans[0], spans[1]
