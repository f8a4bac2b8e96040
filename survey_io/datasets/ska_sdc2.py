"""Cubes to learn from: SKA Science Data Challenge 2 as published, and others with a truth in its columns.

``sky_{ldev,dev,full}_v2.fits`` with ``sky_{ldev,dev,full}_truthcat_v2.txt`` (Hartley et al. 2023, MNRAS 523, 1967).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table

from survey_io.cube import Cube, open_cube
from survey_io.cube_noise import CubeNoise, estimate_cube_noise
from survey_io.datasets.report import DataReport
from survey_io.datasets.survey import SurveyFiles
from survey_io.datasets.survey_checks import row_names
from survey_io.errors import InputError, OptionError
from survey_io.geometry import inverse
from survey_io.sdc2 import read_sdc2

PARTS = ("ldev", "dev", "full")
# Extent of a galaxy's light (FWHM) over its HI diameter, and of its line's bulk over w20.
LIGHT_SHARE, LINE_SHARE = 0.52, 0.8


@dataclass(frozen=True)
class SurveyCube:
    """An opened cube with its galaxies.

    Attributes
    ----------
    files : SurveyFiles
    cube : Cube
    noise : CubeNoise
        As detection estimates it.
    truth : Table
        Usable rows, in the columns of SDC2.
    galaxies : dict of ndarray
        As `models.cube_loader.HiCube` has them: ``x``, ``y``, ``z`` in px and channels, ``flux`` (sum of S/N by the
        beam's area), ``size`` (px), ``w20`` (channels), ``inclination`` (rad), ``low`` (rad, direction of the gas at
        low channels), expected ``snr`` of the matched filter; and ``row`` of the truth.
    """

    files: SurveyFiles
    cube: Cube
    noise: CubeNoise
    truth: Table
    galaxies: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """File name without its ending."""
        return self.cube.stem

    @property
    def beam_px(self) -> float:
        """Geometric mean of the beam's axes, px."""
        major, minor, _ = self.cube.plane.beam_pixels()
        return float(np.sqrt(major * minor))

    @property
    def area(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(0, self.cube.shape[1]), slice(0, self.cube.shape[2])


def find_sdc2(folder: str | Path, *, part: str = "ldev") -> SurveyFiles:
    """The published files of a part of the challenge.

    Raises
    ------
    InputError
        When one is missing.
    OptionError
        For a part that there is not.
    """
    if part not in PARTS:
        raise OptionError(f"SDC2 has the parts {', '.join(PARTS)} with a truth; got {part!r}")
    folder = Path(folder)
    found = []
    for what, pattern in (("cube", f"sky_{part}*.fits"), ("truth", f"sky_{part}_truthcat*.txt")):
        paths = sorted(folder.glob(pattern))
        if not paths:
            raise InputError(
                f"{folder}: expected the {what} of SDC2 as published ({pattern}), found none; fetch it from the "
                "challenge's page, or choose another part"
            )
        found.append(paths[-1])
    return SurveyFiles(*found)


def open_survey_cube(files: SurveyFiles, *, report: DataReport | None = None) -> SurveyCube:
    """Open a cube, bring its truth to voxels and look what is wrong with it.

    Raises
    ------
    InputError
        When a file cannot be read, the cube has no beam, or no galaxy lies in it.
    """
    report = DataReport("survey") if report is None else report
    cube = open_cube(files.image)
    if cube.plane.beam is None:
        raise InputError(f"{files.image}: expected a beam in the header (BMAJ, BMIN, BPA); write it into the header")
    noise = estimate_cube_noise(cube.pixels)
    truth = read_sdc2(files.truth)
    columns = {name: np.asarray(truth[name], float) for name in truth.colnames}
    names = ("ra", "dec", "central_freq", "line_flux_integral", "hi_size", "w20", "pa", "i")
    whole = np.all([np.isfinite(columns[name]) for name in names], axis=0)
    bright = whole & (columns["line_flux_integral"] > 0)
    sized = bright & (columns["hi_size"] > 0) & (columns["w20"] > 0)
    _, first = np.unique(np.stack([columns[name] for name in ("ra", "dec", "central_freq")]), axis=1, return_index=True)
    single = np.isin(np.arange(len(truth)), first)
    for kind, rows in (
        ("value missing", ~whole), ("flux 0 or negative", whole & ~bright), ("size or width of 0", bright & ~sized),
        ("listed twice", sized & ~single),
    ):  # fmt: skip
        report.add(kind, row_names(cube.stem, np.flatnonzero(rows)), "dropped")
    truth = truth[sized & single]
    x, y = cube.plane.sky_to_pixel(truth["ra"], truth["dec"])
    z = cube.spectral.channel(truth["central_freq"])
    inside = np.ones(len(truth), bool)
    for place, count in zip((z, y, x), cube.shape, strict=True):
        inside &= (place > -0.5) & (place < count - 0.5)
    report.add("galaxy outside the cube", row_names(cube.stem, np.flatnonzero(~inside)), "dropped")
    if not inside.any():
        raise InputError(
            f"{files.truth}: none of its {len(truth)} galaxies lies in {files.image}; do they belong together?"
        )
    rows = np.flatnonzero(inside)
    report.counts.setdefault(cube.stem, {})["galaxies"] = len(rows)
    return SurveyCube(files, cube, noise, truth, _to_voxels(cube, noise, truth[rows], x[rows], y[rows], z[rows], rows))


def _to_voxels(
    cube: Cube, noise: CubeNoise, truth: Table, x: np.ndarray, y: np.ndarray, z: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    channel, iy, ix = (np.clip(np.rint(at).astype(int), 0, n - 1) for at, n in zip((z, y, x), cube.shape, strict=True))
    rms = noise.channel_rms[channel] * noise.relative[iy, ix] * cube.plane.jansky_per_beam()
    width = cube.spectral.width(z)
    flux = np.asarray(truth["line_flux_integral"], float) / width / rms
    size = np.asarray(truth["hi_size"], float) / cube.plane.pixel_scale
    w20 = np.asarray(truth["w20"], float) / cube.spectral.velocity_width(z, width)
    pa, inclination = np.radians(np.asarray(truth["pa"], float)), np.radians(np.asarray(truth["i"], float))
    # The receding side lies at pa east of north; it is at low channels where frequency rises with the channel.
    step = np.einsum("...ij,...j->...i", inverse(cube.plane.jacobian(x, y)), np.stack([np.sin(pa), np.cos(pa)], -1))
    low = np.arctan2(step[..., 1], step[..., 0]) + (0.0 if cube.spectral.increasing else np.pi)
    major, minor, _ = cube.plane.beam_pixels()
    light = LIGHT_SHARE * size
    area = np.hypot(light, major) * np.hypot(light * np.cos(inclination), minor) / (major * minor)
    # The matched filter of a Gaussian on the sky and a box along the channels.
    snr = flux / np.sqrt(np.maximum(LINE_SHARE * w20, 1.0) * area)
    found = {"x": x, "y": y, "z": z, "flux": flux, "size": size, "w20": w20, "inclination": inclination, "low": low}
    # Where the noise is unknown nothing is shown, and nothing can be asked.
    found["snr"] = np.nan_to_num(snr)
    found["flux"] = np.where(np.isfinite(flux), flux, 1.0)
    return found | {"row": rows}
