"""Catalogues of other finders scored in the way that is best for each of them."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import map_coordinates

from pipeline.crossmatch import match_pixels
from pipeline.scorers import SUBSCORES, Sdc1Score, as_sdc1, score_sdc1
from survey_io.datasets.truth import GAUSSIAN_PER_SIZE

# Sizes (arcsec at the 560 MHz beam of 1.5") that replace or bound the measured ones, in beams.
CONSTANT_SIZES = tuple(product((0.3, 0.4, 0.6, 0.8), (0.13, 0.23, 0.35)))
FLOORS = (0.0, 0.075, 0.1, 0.13, 0.2, 0.35)


@dataclass
class Field:
    """An image with its truth: everything that a catalogue is scored against.

    ``truth`` has the SDC1 columns, cut to the footprint, with x, y in pixels and ``peak_snr``, the
    apparent noise-free S/N.
    """

    name: str
    path: Path
    truth: np.ndarray
    wcs: WCS
    shape: tuple[int, int]
    beam: tuple[float, float, float]
    scale: float
    rms: float
    frequency: float
    primary_beam: Path | None = None

    def gain(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Primary beam response at positions in degrees; 1 without a primary beam."""
        return primary_beam_gain(self.primary_beam, ra, dec) if self.primary_beam else np.ones(len(ra))


def primary_beam_gain(path: Path, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Response interpolated by a cubic spline in the coarse map of a primary beam."""
    with fits.open(path) as hdus:
        wcs, data = WCS(hdus[0].header).celestial, np.squeeze(hdus[0].data).astype(np.float64)
    x, y = wcs.all_world2pix(ra, dec, 0)
    return map_coordinates(data, [y, x], order=3, mode="nearest")


def robust_rms(data: np.ndarray) -> float:
    """Noise of an image from the median absolute deviation, clipped at 3 sigma until it settles."""
    values = data[np.isfinite(data)].astype(np.float64)
    for _ in range(20):
        middle = np.median(values)
        rms = 1.4826 * np.median(np.abs(values - middle))
        kept = np.abs(values - middle) < 3.0 * rms
        if kept.all():
            break
        values = values[kept]
    return float(rms)


def open_field(
    path: Path, truth: np.ndarray, *, name: str, frequency: float, primary_beam: Path | None = None
) -> Field:
    """Read an image and bring its truth to the columns and the footprint that scoring needs."""
    with fits.open(path) as hdus:
        hdu = next(one for one in hdus if one.data is not None)
        header, data = hdu.header, np.squeeze(hdu.data)
    wcs = WCS(header).celestial
    beam = (header["BMAJ"] * 3600.0, header["BMIN"] * 3600.0, header.get("BPA", 0.0))
    scale = 3600.0 * np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
    field = Field(
        name, Path(path), truth, wcs, data.shape, beam, scale, robust_rms(data), frequency, primary_beam
    )
    x, y = wcs.all_world2pix(truth["ra_cent"], truth["dec_cent"], 0)
    factor = GAUSSIAN_PER_SIZE[truth["size"].astype(int)]
    major, minor = truth["b_maj"] * factor, truth["b_min"] * factor
    dilution = beam[0] * beam[1] / np.sqrt((beam[0] ** 2 + major**2) * (beam[1] ** 2 + minor**2))
    snr = truth["flux"] * field.gain(truth["ra_cent"], truth["dec_cent"]) * dilution / field.rms
    known = truth.dtype.names
    kinds = [(one, truth.dtype[one]) for one in known if one not in ("x", "y", "peak_snr")]
    table = np.empty(len(truth), dtype=[*kinds, ("x", float), ("y", float), ("peak_snr", float)])
    for one, _ in kinds:
        table[one] = truth[one]
    # The challenge gives star-forming galaxies angles in [-90, 90) and AGN in [0, 360); its scorer tells
    # them apart.
    table["pa"] = np.where(table["class"] == 3, (table["pa"] + 90.0) % 180.0 - 90.0, table["pa"] % 360.0)
    table["x"], table["y"], table["peak_snr"] = x, y, truth["peak_snr"] if "peak_snr" in known else snr
    field.truth = table[_inside(field, x, y)]
    return field


def _inside(field: Field, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    ny, nx = field.shape
    return (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)


@dataclass
class Row:
    """One line of the benchmark's table."""

    name: str
    setting: str
    score: Sdc1Score
    centroid: float
    catalogue: np.ndarray
    f1: float
    completeness: float
    purity: float
    seconds: float
    megabytes: float


def read_csv(path: Path) -> np.ndarray:
    """Catalogue of run_peers.py as a structured array of floats."""
    return np.atleast_1d(np.genfromtxt(path, delimiter=",", names=True))


@dataclass(frozen=True)
class Reading:
    """How a peer's catalogue is turned into the SDC1 columns.

    flux: which of its fluxes; kind: "" fitted, "d" deconvolved by us, "c" the same after enlarging for the
    flux below the
    isophote, "o" deconvolved by the tool, "=" constants; major, minor: smallest sizes, or the constants, in
    beams.
    """

    flux: str
    kind: str
    major: float
    minor: float

    def __str__(self) -> str:
        names = {"": "fitted", "d": "deconvolved", "c": "grown", "o": "own", "=": "constant"}
        bound = f" {self.major:g} {self.minor:g}" if self.kind == "=" else f" > {self.major:g} {self.minor:g}"
        return f"{self.flux[5:]} flux, {names[self.kind]} sizes{bound if self.major else ''}"

    def read(self, rows: np.ndarray, field: Field) -> np.ndarray:
        """SDC1 catalogue of a peer's rows: fluxes over the primary beam, angles as 90 - angle."""
        inside = _inside(field, *field.wcs.all_world2pix(rows["ra"], rows["dec"], 0))
        # A failed fit of many beams reaches every true source.
        rows = rows[inside & (rows["maj"] < 50.0 * field.beam[0])]
        beam = np.sqrt(field.beam[0] * field.beam[1])
        sky = {
            "ra": rows["ra"],
            "dec": rows["dec"],
            "flux": rows[self.flux] / field.gain(rows["ra"], rows["dec"]),
        }
        if self.kind == "=":
            sky["maj"], sky["min"] = np.full((2, len(rows)), [[self.major * beam], [self.minor * beam]])
            sky["pa"] = rows["pa"]
        else:
            sky["maj"] = np.maximum(rows[f"{self.kind}maj"], self.major * beam)
            sky["min"] = np.maximum(rows[f"{self.kind}min"], self.minor * beam)
            sky["pa"] = rows[f"{self.kind}pa"]
        return as_sdc1(sky)


def best_reading(rows: np.ndarray, field: Field) -> Reading:
    """The reading of a peer's catalogue that scores best: sizes are tried first, then its kinds of flux."""
    names = rows.dtype.names
    kinds = [(kind, floor) for kind in ("", "d", "c", "o") for floor in (FLOORS if kind else (0.0,))]
    fluxes = [name for name in names if name.startswith("flux_")]
    sizes = [(kind, 2 * floor, floor) for kind, floor in kinds if f"{kind}maj" in names]
    sizes += [("=", *pair) for pair in CONSTANT_SIZES]

    def value(reading: Reading) -> float:
        return score_sdc1(reading.read(rows, field), field.truth, frequency=field.frequency).value

    best = max((Reading(fluxes[-1], *size) for size in sizes), key=value)
    return max((replace(best, flux=flux) for flux in fluxes), key=value)


def match_quality(catalogue: np.ndarray, field: Field, *, snr: float = 5.0) -> tuple[float, float, float]:
    """F1, completeness above an apparent S/N, and purity: rows within half a convolved size of a source
    above S/N 2."""
    x, y = field.wcs.all_world2pix(catalogue["ra_core"], catalogue["dec_core"], 0)
    truth = field.truth[field.truth["peak_snr"] > 2.0]
    largest = truth["b_maj"] * GAUSSIAN_PER_SIZE[truth["size"].astype(int)]
    radius = 0.5 * np.sqrt(field.beam[0] ** 2 + largest**2) / field.scale
    match = match_pixels((x, y), (truth["x"], truth["y"]), radius=radius)
    found = np.zeros(len(truth), dtype=bool)
    found[match.second] = True
    bright = truth["peak_snr"] > snr
    completeness = float(found[bright].mean()) if bright.any() else np.nan
    purity = len(match) / len(catalogue) if len(catalogue) else np.nan
    return 2 * completeness * purity / max(completeness + purity, 1e-9), completeness, purity


def score_row(name: str, setting: str, catalogue: np.ndarray, field: Field, cost: dict) -> Row:
    """Score a catalogue in the SDC1 columns on the image's footprint."""
    result = score_sdc1(catalogue, field.truth, frequency=field.frequency)
    centroid = score_sdc1(catalogue, field.truth, frequency=field.frequency, mode="centroid").value
    f1, completeness, purity = match_quality(catalogue, field)
    seconds, memory = cost.get("seconds", np.nan), cost.get("megabytes", np.nan)
    return Row(name, setting, result, centroid, catalogue, f1, completeness, purity, seconds, memory)


def score_run(
    name: str, run: tuple[dict, Path, dict], field: Field, reading: Reading | None = None
) -> tuple[Row, Reading] | None:
    """Score one run (setting, csv, cost) of a peer in the reading given, else in its best; None without a
    row."""
    setting, path, cost = run
    rows = read_csv(path)
    if rows.dtype.names is None or len(rows) == 0:
        return None
    reading = reading or best_reading(rows, field)
    text = " ".join(f"{key} {value}" for key, value in setting.items())
    return score_row(name, f"{text}; {reading}", reading.read(rows, field), field, cost), reading


def format_rows(rows: list[Row]) -> str:
    """The table: one line a row."""
    short = ("pos", "flux", "b_maj", "b_min", "pa", "core", "class")
    head = f"{'finder':<12}{'n':>7}{'match':>7}{'false':>6}{'purity':>8}{'SDC1':>9}{'(cent.)':>9}"
    head += (
        "".join(f"{name:>7}" for name in short)
        + f"{'acc %':>7}{'F1(5)':>7}{'C(5)':>6}{'s':>8}{'MB':>6}  setting"
    )
    lines = [head, "-" * len(head)]
    for row in rows:
        one = row.score
        line = f"{row.name:<12}{one.n_det:>7}{one.n_match:>7}{one.n_false:>6}{one.purity:>8.3f}"
        line += f"{one.value:>9.1f}{row.centroid:>9.1f}"
        line += "".join(f"{one.means[name]:>7.3f}" for name in SUBSCORES)
        line += f"{one.accuracy:>7.2f}{row.f1:>7.3f}{row.completeness:>6.3f}"
        line += f"{row.seconds:>8.2f}{row.megabytes:>6.0f}  {row.setting}"
        lines.append(line)
    return "\n".join(lines)


def common_subscores(ours: Row, theirs: Row) -> str:
    """Both catalogues' sub-scores on the true sources that both match: a deeper catalogue otherwise looks
    less accurate."""
    _, i, j = np.intersect1d(ours.score.true, theirs.score.true, return_indices=True)
    if len(i) == 0:
        return f"{theirs.name}: no source in common"
    pair = [one.score.subscores[index].mean(axis=0) for one, index in ((ours, i), (theirs, j))]
    values = "  ".join(f"{name} {a:.3f}/{b:.3f}" for name, a, b in zip(SUBSCORES, *pair, strict=True))
    return f"{ours.name}/{theirs.name} on {len(i)} common sources: {values}"
