"""A catalogue against the truth: completeness, reliability, errors, calibration, and the score of SDC1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.crossmatch import Match, match_sky, unit_vectors
from pipeline.evaluate_cube import CubeReport, evaluate_lines
from pipeline.evaluation_report import Report, binned_fraction, write_picture
from pipeline.scorers import as_sdc1, chance_matches, read_sdc1, score_sdc1
from pipeline.scorers.sdc1_table import SDC1_COLUMNS, column_names, float_column
from survey_io.catalogue import read_catalogue
from survey_io.datasets.truth import GAUSSIAN_PER_SIZE
from survey_io.errors import InputError, OptionError

Array = NDArray[np.float64]

SCORERS = ("match", "sdc1", "sdc2")
SNR_EDGES = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 50.0, np.inf)
ERROR_EDGES = (5.0, 10.0, 30.0, np.inf)
PROBABILITY_EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0 + 1e-9)


@dataclass(frozen=True)
class Sources:
    """Columns that both sides of a comparison share, each (n,); NaN where unknown.

    ra, dec in degrees; flux in Jy; major, minor the intrinsic FWHM in arcsec; pa in degrees east of
    north; snr the apparent signal-to-noise of the peak.
    """

    ra: Array
    dec: Array
    flux: Array
    major: Array
    minor: Array
    pa: Array
    snr: Array

    def __len__(self) -> int:
        return len(self.ra)


def evaluate(
    catalogue: Any,
    truth: Any,
    *,
    scorer: str = "match",
    frequency: float = 560,
    train: bool | None = None,
    mode: str = "core",
    beam: float | None = None,
    radius: float | None = None,
    faintest: float = 2.0,
    picture: str | Path | None = None,
) -> Report | CubeReport:
    """Compare a catalogue with the true sources.

    Parameters
    ----------
    catalogue : path, astropy Table or structured array
        A skysift catalogue in any format, or a submission in the SDC1 columns.
    truth : path, astropy Table or structured array
        The SDC1 columns; a column ``peak_snr`` (apparent noise-free S/N of the peak) is used where there
        is one, else it is worked out from flux, size and the catalogue's own noise.
    scorer : "match", "sdc1" or "sdc2"
        match: positions within half a beam-convolved size; sdc1: the same report headed by the challenge's
        score; sdc2: a cube's catalogue, see `pipeline.evaluate_cube.evaluate_lines`.
    frequency, train, mode
        Of the SDC1 scorer, see `pipeline.scorers.score_sdc1`.
    beam : float, optional
        FWHM in arcsec (geometric mean of the axes). Default: from the fits in the catalogue; for the SDC1
        columns the beam that the challenge's images have, 2.4 times the scorer's.
    radius : float, optional
        Match radius in arcsec, the same for all sources. Default: half the truth's size convolved with the
        beam.
    faintest : float
        True sources below this apparent S/N are no partners: where a beam holds several, they match anything.
    picture : path, optional
        Write a PNG with completeness, reliability, calibration and errors.

    Returns
    -------
    Report
        Prints as text; ``values`` holds every number.

    Raises
    ------
    InputError
        Files or columns that cannot be used.
    OptionError
        An unknown scorer or mode.
    """
    if scorer not in SCORERS:
        raise OptionError(
            f"expected a scorer among {', '.join(SCORERS)}, got {scorer!r}; choose one of them."
        )
    if scorer == "sdc2":
        if picture is not None:
            raise OptionError("--picture is for images: a cube's comparison is text only; leave it out")
        return evaluate_lines(catalogue, truth)
    table, true_table = _load(catalogue), _load(truth)
    if not set(SDC1_COLUMNS) <= set(column_names(true_table)):
        raise InputError(
            f"expected a truth table with the SDC1 columns ({' '.join(SDC1_COLUMNS)}),"
            f" got {' '.join(column_names(true_table))}; are catalogue and truth swapped?"
        )
    native = "ra" in column_names(table)
    if beam is None:
        beam = _fitted_beam(table) if native else 2.4 * 0.25 * 1400.0 / frequency
    found = _sources(table)
    true = _with_snr(_sources(true_table), true_table, table, beam)
    found = _found_snr(found, table, true, beam)

    eligible = np.flatnonzero(~(true.snr < faintest))
    reach = 0.5 * np.hypot(beam, np.nan_to_num(true.major[eligible])) if radius is None else radius
    match = match_sky((found.ra, found.dec), (true.ra[eligible], true.dec[eligible]), radius=reach)
    match = Match(match.first, eligible[match.second], match.separation)

    values: dict[str, Any] = {
        "n_catalogue": len(found), "n_truth": len(true), "beam_arcsec": beam, "n_matched": len(match),
        "faintest_snr": faintest,
    }  # fmt: skip
    values |= _counts(found, true, match)
    values["errors"] = _errors(found, true, match, table, beam)
    probability = float_column(table, "p_real") if "p_real" in column_names(table) else None
    if probability is not None:
        values["calibration"] = calibration(probability, _is_matched(match.first, len(found)))
    if scorer == "sdc1":
        values["sdc1"] = _challenge(table, true_table, frequency=frequency, train=train, mode=mode)
    report = Report(values)
    if picture is not None:
        write_picture(report, Path(picture))
    return report


def calibration(probability: Array, real: NDArray[np.bool_]) -> dict[str, Any]:
    """Reliability diagram: the share of real sources among rows of similar probability.

    Parameters
    ----------
    probability : array (n,)
        Stated probability of being real, 0 to 1.
    real : bool array (n,)

    Returns
    -------
    dict
        ``bins``: list of lo, hi, n, mean (stated), fraction (seen), low, high (95% Wilson interval); and
        ``expected_error``: mean over the rows of abs(stated - seen) of their bin.
    """
    bins = binned_fraction(probability, real, PROBABILITY_EDGES)
    total = sum(one["n"] for one in bins)
    error = sum(one["n"] * abs(one["mean"] - one["fraction"]) for one in bins if one["n"])
    return {"bins": bins, "expected_error": error / total if total else float("nan")}


def apparent_snr(flux: Array, major: Array, minor: Array, *, beam: float, rms: Array | float) -> Array:
    """Peak over noise of Gaussians after convolution with a round beam (arcsec FWHM); flux in Jy, rms in
    Jy/beam."""
    return flux * beam**2 / np.sqrt((beam**2 + major**2) * (beam**2 + minor**2)) / rms


def _load(source: Any) -> Any:
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: expected a catalogue, there is no such file; check the path.")
    return read_sdc1(path) if path.suffix.lower() in (".txt", ".dat") else read_catalogue(path)


def _sources(table: Any) -> Sources:
    names = column_names(table)
    if "ra" in names and "dec" in names:
        ra, dec = float_column(table, "ra"), float_column(table, "dec")
        nothing = np.full(len(ra), np.nan)

        def pick(*candidates: str) -> Array:
            return next((float_column(table, name) for name in candidates if name in names), nothing)

        flux = pick("flux_best", "flux")
        sizes = [pick(f"{axis}_best", f"{axis}_deconv") for axis in ("maj", "min", "pa")]
        return Sources(ra, dec, flux, *sizes, pick("snr"))
    if not set(SDC1_COLUMNS) <= set(names):
        raise InputError(f"expected the columns ra, dec, flux, ... or those of SDC1, got {' '.join(names)}.")
    value = {name: float_column(table, name) for name in SDC1_COLUMNS}
    factor = GAUSSIAN_PER_SIZE[np.clip(np.nan_to_num(value["size"]), 0, 3).astype(np.int64)]
    major, minor = value["b_maj"] * factor, value["b_min"] * factor
    return Sources(
        value["ra_cent"], value["dec_cent"], value["flux"], np.maximum(major, minor), np.minimum(major,
        minor),
        (90.0 - value["pa"]) % 180.0, np.full(len(major), np.nan),
    )  # fmt: skip


def _fitted_beam(table: Any) -> float:
    """Beam that the fits imply: the ratio of peak to integrated flux is that of the beam's area to the
    fitted one."""
    names = ("maj", "min", "peak_flux", "flux")
    if not set(names) <= set(column_names(table)):
        raise OptionError("expected a beam: this catalogue has no fitted sizes, so give beam in arcsec.")
    major, minor, peak, flux = (float_column(table, name) for name in names)
    with np.errstate(divide="ignore", invalid="ignore"):
        area = major * minor * peak / flux
    usable = area[np.isfinite(area) & (area > 0.0)]
    if len(usable) == 0:
        raise OptionError("expected a beam: no row of this catalogue has a fit, so give beam in arcsec.")
    return float(np.sqrt(np.median(usable)))


def _with_snr(true: Sources, true_table: Any, table: Any, beam: float) -> Sources:
    names = column_names(true_table)
    if "peak_snr" in names:
        snr = float_column(true_table, "peak_snr")
    elif "local_rms" in column_names(table) and len(table):
        snr = apparent_snr(true.flux, true.major, true.minor, beam=beam, rms=_nearest_noise(table, true))
    else:
        snr = true.snr
    return Sources(true.ra, true.dec, true.flux, true.major, true.minor, true.pa, snr)


def _nearest_noise(table: Any, true: Sources) -> Array:
    """Noise at the true sources: the median of the five nearest rows of the catalogue, primary beam
    included."""
    ra, dec, rms = (float_column(table, name) for name in ("ra", "dec", "local_rms"))
    usable = np.isfinite(ra) & np.isfinite(dec) & (rms > 0.0)
    if not usable.any():
        return np.full(len(true), np.nan)
    points = unit_vectors(ra[usable], dec[usable])
    count = min(5, len(points))
    _, nearest = cKDTree(points).query(unit_vectors(np.nan_to_num(true.ra), np.nan_to_num(true.dec)), k=count)
    return np.median(rms[usable][nearest.reshape(len(true), count)], axis=1)


def _found_snr(found: Sources, table: Any, true: Sources, beam: float) -> Sources:
    """S/N of the rows: their own, or (SDC1 columns have none) flux over the noise that the truth implies."""
    if np.isfinite(found.snr).any() or not np.isfinite(true.snr).any():
        return found
    with np.errstate(divide="ignore", invalid="ignore"):
        rms = np.nanmedian(apparent_snr(true.flux, true.major, true.minor, beam=beam, rms=1.0) / true.snr)
    snr = apparent_snr(found.flux, found.major, found.minor, beam=beam, rms=rms)
    return Sources(found.ra, found.dec, found.flux, found.major, found.minor, found.pa, snr)


def _is_matched(rows: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    matched = np.zeros(length, dtype=bool)
    matched[rows] = True
    return matched


def _counts(found: Sources, true: Sources, match: Match) -> dict[str, Any]:
    seen, real = _is_matched(match.second, len(true)), _is_matched(match.first, len(found))
    purity = float(real.mean()) if len(found) else float("nan")
    counts: dict[str, Any] = {
        "reliability": purity,
        "completeness_bins": binned_fraction(true.snr, seen, SNR_EDGES),
        "reliability_bins": binned_fraction(found.snr, real, SNR_EDGES),
    }
    for limit in (3, 5, 10):
        above = true.snr > limit
        complete = float(seen[above].mean()) if above.any() else float("nan")
        counts[f"completeness_{limit}"] = complete
        total = complete + purity
        counts[f"f1_{limit}"] = 2.0 * complete * purity / total if total > 0 else float("nan")
    return counts


def _spread(values: Array) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if len(values) else float("nan")


def _median(values: Array) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _errors(found: Sources, true: Sources, match: Match, table: Any, beam: float) -> list[dict[str, float]]:
    """Medians and robust spreads of the matched rows, by the true S/N."""
    i, j = match.first, match.second
    snr = true.snr[j]
    with np.errstate(divide="ignore", invalid="ignore"):
        flux_ratio = found.flux[i] / true.flux[j]
        size_ratio = found.major[i] / true.major[j]
        axis_ratio = true.minor[j] / true.major[j]
    # Sizes and angles say nothing where the beam hides them.
    resolved = (true.major[j] > 0.6 * beam) & np.isfinite(size_ratio) & (size_ratio > 0.0)
    turn = np.abs((found.pa[i] - true.pa[j] + 90.0) % 180.0 - 90.0)
    elongated = (true.major[j] > 0.6 * beam) & (axis_ratio < 0.6) & np.isfinite(turn)
    pulls = _pulls(found, true, match, table)
    rows = []
    edges = ERROR_EDGES if np.isfinite(snr).any() else (-np.inf, np.inf)
    for lo, hi in zip(edges[:-1], edges[1:], strict=True):
        part = (snr >= lo) & (snr < hi) if np.isfinite(snr).any() else np.ones(len(i), dtype=bool)
        flux = flux_ratio[part & (flux_ratio > 0.0)]
        row = {
            "lo": lo, "hi": hi, "n": int(part.sum()),
            "position_arcsec": _median(match.separation[part]),
            "flux_ratio": _median(flux), "flux_scatter": _spread(np.log(flux)),
            "size_ratio": _median(size_ratio[part & resolved]), "size_scatter":
            _spread(np.log(size_ratio[part & resolved])),
            "pa_error_deg": _median(turn[part & elongated]), "n_resolved": int((part & resolved).sum()),
            "n_elongated": int((part & elongated).sum()),
        }  # fmt: skip
        rows.append(
            row | {f"{name}_pull": _spread(pull[part & np.isfinite(pull)]) for name, pull in pulls.items()}
        )
    return rows


def _pulls(found: Sources, true: Sources, match: Match, table: Any) -> dict[str, Array]:
    """Errors in units of the stated error: their spread is 1 where the stated errors are right."""
    names = column_names(table)
    i, j = match.first, match.second
    pulls = {}
    if {"ra_err", "dec_err"} <= set(names):
        east = ((found.ra[i] - true.ra[j] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(true.dec[j])) * 3600.0
        north = (found.dec[i] - true.dec[j]) * 3600.0
        with np.errstate(divide="ignore", invalid="ignore"):
            pulls["ra"] = east / float_column(table, "ra_err")[i]
            pulls["dec"] = north / float_column(table, "dec_err")[i]
    if {"flux", "flux_err"} <= set(names):
        with np.errstate(divide="ignore", invalid="ignore"):
            pulls["flux"] = (float_column(table, "flux")[i] - true.flux[j]) / float_column(table, "flux_err")[
                i
            ]
    return pulls


def _challenge(table: Any, truth: Any, *, frequency: float, train: bool | None, mode: str) -> dict[str, Any]:
    submission = as_sdc1(table)
    exact = score_sdc1(submission, truth, frequency=frequency, train=train, mode=mode)
    sane = score_sdc1(submission, truth, frequency=frequency, train=train, mode=mode, strict=False)
    chance = chance_matches(submission, truth, frequency=frequency, mode=mode)
    return {"exact": exact.as_dict(), "corrected": sane.as_dict(), "chance": chance}
