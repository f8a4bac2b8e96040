"""What is wrong with a catalogue that networks shall learn from, by itself and against its image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from survey_io.datasets.report import DataReport
from survey_io.datasets.truth import Truth

if TYPE_CHECKING:
    from survey_io.datasets.survey import SurveyImage

# Positions are compared where a source is this bright and has no neighbour of a tenth of its flux within 3 beams.
BRIGHT_SNR, ALONE_BEAMS = 20.0, 3.0
# Median offset in beams that is told, and that is refused: from there on targets lie beside their sources.
TOLD_OFFSET, WORST_OFFSET = 0.1, 0.5
# Median ratio of true peak to pixel beyond which the unit of one of the two must be wrong.
WORST_RATIO = 5.0


def row_names(stem: str, rows: Iterable[int]) -> list[str]:
    """Rows of an image's catalogue by name, counted from 1."""
    return [f"{stem} row {row + 1}" for row in rows]


def usable_rows(stem: str, truth: Truth, report: DataReport) -> Truth:
    """Rows that can be learned from; what is wrong with the others goes into the report."""
    place = np.isfinite(truth.ra) & np.isfinite(truth.dec) & (np.abs(truth.dec) <= 90)
    flux = truth.flux > 0
    size = np.isfinite(truth.major) & np.isfinite(truth.minor) & (truth.minor >= 0) & np.isfinite(truth.pa)
    _, first = np.unique(np.stack([truth.ra, truth.dec, truth.flux]), axis=1, return_index=True)
    single = np.isin(np.arange(len(truth)), first)
    report.add("position missing or no position", row_names(stem, np.flatnonzero(~place)), "dropped")
    report.add("flux missing, 0 or negative", row_names(stem, np.flatnonzero(place & ~flux)), "dropped")
    report.add("size or angle missing or negative", row_names(stem, np.flatnonzero(place & flux & ~size)), "dropped")
    report.add("listed twice", row_names(stem, np.flatnonzero(place & flux & size & ~single)), "dropped")
    kept = place & flux & size & single
    report.add("size of 0, learned as a point", row_names(stem, np.flatnonzero(kept & (truth.major == 0))), "kept")
    return truth[kept]


def compare_with_pixels(image: SurveyImage, report: DataReport) -> None:
    """Look whether bright sources lie where the truth says, and are as bright."""
    from scipy.spatial import cKDTree

    s, beam_px = image.sources, image.beam_px
    ny, nx = image.observation.shape
    half = int(np.ceil(beam_px))
    fit = (s.x > half) & (s.x < nx - 1 - half) & (s.y > half) & (s.y < ny - 1 - half) & (s.major < 1.5 * beam_px)
    # By rank, not by S/N: in the wrong unit all or none would be bright.
    bright = np.flatnonzero(fit)[np.argsort(-s.snr[fit])][:300]
    if len(bright) > 20 and (s.snr[bright] > BRIGHT_SNR).sum() >= 20:
        bright = bright[s.snr[bright] > BRIGHT_SNR]
    points = np.c_[s.x, s.y]
    near = cKDTree(points).query_ball_point(points[bright], ALONE_BEAMS * beam_px)
    alone = [i for i, others in zip(bright, near, strict=True) if s.flux[others].sum() < 1.1 * s.flux[i]]
    if len(alone) < 5:
        return
    offsets, ratios = [], []
    for i in alone:
        iy, ix = round(s.y[i]), round(s.x[i])
        window = (slice(iy - half, iy + half + 1), slice(ix - half, ix + half + 1))
        level, rms = image.background.at(np.array([iy]), np.array([ix]))
        pixels = image.observation.pixels.read(window) - level[0]
        if not np.isfinite(pixels).all():
            continue
        weight = np.clip(pixels, 0, None) ** 2
        rows, columns = np.mgrid[window]
        total = max(weight.sum(), 1e-300)
        offsets.append(((weight * columns).sum() / total - s.x[i], (weight * rows).sum() / total - s.y[i]))
        ratios.append(pixels.max() / (s.snr[i] * rms[0]))
    if not offsets:
        return
    shift = np.median(offsets, axis=0) / beam_px
    size = float(np.hypot(*shift))
    if size > TOLD_OFFSET:
        kind = f"bright sources lie ({shift[0]:+.2f}, {shift[1]:+.2f}) beams in (x, y) from their positions"
        report.add(kind, row_names(image.name, s.row[alone]), "refused" if size > WORST_OFFSET else "kept")
    ratio = float(np.median(ratios))
    if not 1 / WORST_RATIO < ratio < WORST_RATIO:
        kind = f"bright sources have {ratio:.3g} times the peak that their fluxes mean: units, or primary beam?"
        report.add(kind, row_names(image.name, s.row[alone]), "refused")
