"""The score of a catalogue on a part of a survey's images, block by block.

The rules are those of SDC1 (`pipeline.scorers.sdc1`): a match earns the mean of its sub-scores, a false row costs one.
They have their tolerances for a beam of 1.5 arcsec; other images are scored as if theirs were that wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table

from pipeline.detect import Analysis, analyse
from pipeline.options import DetectOptions
from pipeline.scorers.sdc1 import SUBSCORES, Sdc1Score, score_sdc1
from pipeline.scorers.sdc1_table import SDC1_COLUMNS, as_sdc1
from survey_io.datasets.sky_split import SkySplit
from survey_io.datasets.survey import SurveyImage

SCORER_BEAM, SCORER_FREQUENCY = 1.5, 560
# The sub-scores that an image tells of: all but core fraction and class.
MEASURED = 5
MEASURED_COLUMNS = ("flux_best", "maj_best", "min_best", "pa_best")


@dataclass(frozen=True)
class PartScore:
    """Score of a part, per block.

    Attributes
    ----------
    blocks : tuple of str
        Image and first pixel of each.
    value : ndarray (n,)
        Earned less lost in each block: a match belongs to the block of its true source, a false row to its own.
    rows, matched, true : ndarray of int (n,)
        Catalogue rows, matches and true sources that could be seen.
    means : dict of float
        Mean of each sub-score over the matches of the part.
    flux_ratio, size_ratio : float
        Median of measured over true of the matches.
    """

    blocks: tuple[str, ...]
    value: np.ndarray
    rows: np.ndarray
    matched: np.ndarray
    true: np.ndarray
    means: dict[str, float]
    flux_ratio: float
    size_ratio: float

    def numbers(self) -> dict[str, Any]:
        """For reports and cards."""
        rows, matched, true = (int(count.sum()) for count in (self.rows, self.matched, self.true))
        return {
            "score": round(float(self.value.sum()), 2), "rows": rows, "matched": matched, "visible": true,
            "reliability": matched / rows if rows else float("nan"),
            **{name: round(value, 4) for name, value in self.means.items()},
            "flux_ratio": round(self.flux_ratio, 4), "size_ratio": round(self.size_ratio, 4),
        }  # fmt: skip


def find_sources(image: SurveyImage, model: str, *, threshold: float | None = None) -> Analysis:
    """Run the whole pipeline on an image."""
    options = DetectOptions(
        model=model, precision="f32", threshold=threshold, primary_beam=image.files.primary_beam
    )
    return analyse(image.observation, options)


def sdc1_tables(table: Table, image: SurveyImage, rows: np.ndarray, *, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """A catalogue and the true sources ``rows`` of an image in the columns of SDC1.

    With ``exact`` as they are on the sky; else in pixels scaled to the challenge's beam, on a plane at the equator.
    """
    s = image.sources[rows]
    known = image.truth.table
    if exact and set(SDC1_COLUMNS) <= set(known.colnames):
        true = np.asarray(known[list(SDC1_COLUMNS)][s.row])
        return as_sdc1(table), as_sdc1(true)
    scale = SCORER_BEAM / image.beam_px
    gain = np.ones(len(table)) if "pb_gain" not in table.colnames else np.asarray(table["pb_gain"], float)
    to_pixel = scale * image.beam_px / (image.observation.pixel_scale * image.beam_px)
    flat = Table({"ra": -np.asarray(table["x"]) * scale / 3600, "dec": np.asarray(table["y"]) * scale / 3600})
    flat["flux"] = np.asarray(table["flux_best"], float) * gain
    for axis in ("maj", "min"):
        flat[axis] = np.asarray(table[f"{axis}_best"], float) * to_pixel
    theta = image.observation.pa_to_theta(table["x"], table["y"], np.nan_to_num(np.asarray(table["pa_best"], float)))
    flat["pa"] = np.degrees(theta) - 90.0
    factor = image.observation.jansky_per_beam()
    true = Table({"ra": -s.x * scale / 3600, "dec": s.y * scale / 3600, "flux": s.flux * factor})
    true["maj"], true["min"] = s.major * scale, s.minor * scale
    true["pa"] = np.degrees(s.theta) - 90.0
    names = {name: name for name in ("flux", "maj", "min", "pa")}
    return as_sdc1(flat, names), as_sdc1(true, names)


def score_part(
    tables: Sequence[Table], images: Sequence[SurveyImage], splits: Sequence[SkySplit], part: int,
    *, side: int, exact: bool, visible_snr: float = 5.0,
) -> PartScore:  # fmt: skip
    """Score catalogues on one part of their images.

    Parameters
    ----------
    tables, images, splits : sequence
        One of each per image.
    part : int
        TRAIN, VALIDATION or TEST of `survey_io.datasets.sky_split`.
    side : int
        Of the blocks, px.
    exact : bool
        The challenge's own score, for its own images; else that of `sdc1_tables`, by what an image tells of.
    visible_snr : float
        True sources from this peak S/N on are counted in ``true``.
    """
    names: list[str] = []
    values, sums = [], []
    scored: list[tuple[Sdc1Score, np.ndarray, np.ndarray]] = []
    for table, image, split in zip(tables, images, splits, strict=True):
        blocks = split.blocks(part, side)
        names += [f"{image.name}[{rows.start},{columns.start}]" for rows, columns in blocks]
        x, y = np.asarray(table["x"], float), np.asarray(table["y"], float)
        own = split.part_at(y, x) == part
        # Rows that no submission could hold are left out first, so that row numbers stay those of the positions.
        own &= np.isfinite(np.asarray(table["flux_best"], float)) & (np.asarray(table["flux_best"], float) > 0)
        rows = np.flatnonzero(split.part_at(image.sources.y, image.sources.x) == part)
        submission, true = sdc1_tables(table[own], image, rows, exact=exact)
        result = score_sdc1(submission, true, frequency=SCORER_FREQUENCY if not exact else _band(image), strict=exact)
        at = block_of(blocks, y[own], x[own])
        true_at = block_of(blocks, image.sources.y[rows], image.sources.x[rows])
        earned = result.subscores if exact else result.subscores[:, :MEASURED]
        count = len(blocks)
        lost = np.ones(int(own.sum()), bool)
        lost[result.submitted] = False
        value = np.bincount(true_at[result.true], earned.mean(axis=1), count) if len(earned) else np.zeros(count)
        values.append(value - np.bincount(at[lost], minlength=count))
        sums.append(
            [
                np.bincount(at, minlength=count),
                np.bincount(true_at[result.true], minlength=count),
                np.bincount(true_at[image.sources.snr[rows] >= visible_snr], minlength=count),
            ]
        )
        scored.append((result, submission, true))
    subscores = np.concatenate([result.subscores for result, _, _ in scored])
    ratio = {
        name: np.concatenate(
            [sub[name][one.submitted] / np.maximum(true[name][one.true], 1e-30) for one, sub, true in scored]
        )
        for name in ("flux", "b_maj")
    }
    counts = [np.concatenate(parts) for parts in zip(*sums, strict=True)]
    means = dict(zip(SUBSCORES, subscores.mean(axis=0).tolist() if len(subscores) else [0.0] * 7, strict=True))
    return PartScore(
        tuple(names), np.concatenate(values), counts[0], counts[1], counts[2], means,
        *(float(np.median(ratio[name])) if len(ratio[name]) else float("nan") for name in ("flux", "b_maj")),
    )  # fmt: skip


def match_rows(
    table: Table, image: SurveyImage, split: SkySplit, part: int, *, exact: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a catalogue match a true source of a part, and the accuracy (0..1) of those that do."""
    rows = np.flatnonzero(split.part_at(image.sources.y, image.sources.x) == part)
    usable = np.flatnonzero(np.asarray(table["flux_best"], float) > 0)
    submission, true = sdc1_tables(table[usable], image, rows, exact=exact)
    result = score_sdc1(submission, true, frequency=_band(image) if exact else SCORER_FREQUENCY, strict=exact)
    matched, accuracy = np.zeros(len(table), bool), np.zeros(len(table))
    matched[usable[result.submitted]] = True
    earned = result.subscores if exact else result.subscores[:, :MEASURED]
    accuracy[usable[result.submitted]] = earned.mean(axis=1) if len(earned) else 0.0
    return matched, accuracy


def block_of(blocks: Sequence[tuple[slice, slice]], y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Number of the block that each position lies in or is nearest to."""
    distance = np.empty((len(blocks), len(y)))
    for number, (rows, columns) in enumerate(blocks):
        beside = [
            np.maximum(np.maximum(span.start - 0.5 - at, at - span.stop + 0.5), 0)
            for span, at in ((rows, y), (columns, x))
        ]
        distance[number] = np.hypot(*beside)
    return np.argmin(distance, axis=0) if len(blocks) else np.zeros(len(y), int)


def _band(image: SurveyImage) -> int:
    """Band of the challenge in MHz; an image without a frequency is taken for the first."""
    frequency = image.observation.frequency
    return SCORER_FREQUENCY if frequency is None else min((560, 1400, 9200), key=lambda one: abs(frequency / 1e6 - one))
