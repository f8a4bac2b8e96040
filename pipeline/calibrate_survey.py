"""Calibrate a detector on the parts of a survey's images that are not reported on.

The probability and the threshold come from the validation part alone, which nothing was trained on; how measured
values are scaled and mixed comes from training and validation together, for it takes many sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from scipy.optimize import minimize

from models.lessons.survey import open_survey, split_image, survey_options
from models.outline import load_outline
from models.train_options import TrainOptions
from pipeline.calibrate import logit_of, match_truth, recommend_fits
from pipeline.detect import Analysis
from pipeline.gaussians import beam_area
from pipeline.reliability import Calibration, fit_shift
from pipeline.survey_score import find_sources, match_rows, score_part
from survey_io.datasets.sky_split import TRAIN, VALIDATION, SkySplit
from survey_io.datasets.survey import SurveyImage

# Rows of at least this p_real enter the choice of a threshold; those below this log odds are the doubtful ones, whose
# accuracy counts.
CONSIDERED, DOUBTFUL = 0.2, 1.4
LEAST_MATCHES, USUAL_ACCURACY, THRESHOLD_RANGE = 20, 0.75, (0.3, 0.95)
# Pull of slope and intercept to those the weights had, in sources.
PRIOR = 5.0
# Factors that columns are tried with, and the column of the truth that each is compared with.
FACTORS = np.exp(np.linspace(np.log(0.6), np.log(1.7), 105))
SCALED = {
    "flux": ("true_flux", 0.1), "flux_net": ("true_flux", 0.1), "maj_deconv": ("true_maj", 0.3),
    "maj_net": ("true_maj", 0.3), "min_deconv": ("true_min", 0.3), "min_net": ("true_min", 0.3),
}  # fmt: skip
# Sources that a factor is worth fitting on, and the gain in its sub-score below which it is left at 1.
LEAST_ROWS, LEAST_GAIN = 50, 0.003
SIZED_SNR = 12.0


def calibrate_survey(
    model: str, options: TrainOptions, *, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure a detector on the survey of a recipe.

    Parameters
    ----------
    model : str
        Name or file of weights; their card's calibration is where this one begins, or that of the weights that the
        recipe starts from.
    options : TrainOptions
        Of the recipe: where the images are and how they are split.
    report : callable

    Returns
    -------
    dict
        ``threshold``, ``calibration`` (for the card) and ``score``, as of `pipeline.calibrate.calibrate`.
    """
    own = survey_options(options)
    outline, card = load_outline(model)
    images = open_survey(options)
    splits = [split_image(image, outline.receptive_field, own) for image in images]
    found = [find_sources(image, model, threshold=0.0) for image in images]
    tables = [with_truth(one.table, image) for one, image in zip(found, images, strict=True)]
    parts = [split.part_at(table["y"], table["x"]) for table, split in zip(tables, splits, strict=True)]
    begin = card.calibration or _start_calibration(options)
    before = Calibration(**begin.get("reliability", {}))
    calibration = fit_reliability(found, tables, [part == VALIDATION for part in parts], images, before)
    for table, one, image in zip(tables, found, images, strict=True):
        table["p_real"] = calibration.probability(logit_of(table["score"]), shift_of(one, image, calibration))
    seen = vstack(
        [table[(part == TRAIN) | (part == VALIDATION)] for table, part in zip(tables, parts, strict=True)],
        metadata_conflicts="silent",
    )
    likely = seen[np.asarray(seen["p_real"]) > 0.3]
    scale = fit_scales(likely, exact=own.scorer == "sdc1")
    for name, factor in scale.items():
        likely[name] = likely[name] * factor
    fit_from, flux_weight = recommend_fits(likely)
    entries = {**begin, "fit_from": fit_from, "flux_weight": flux_weight, "scale": scale}
    entries["reliability"] = calibration.for_card()
    threshold, figures = choose_threshold(tables, images, splits, entries, side=own.block, exact=own.scorer == "sdc1")
    report(f"threshold {threshold} on the validation part, scale {scale}")
    return {"threshold": threshold, "calibration": entries, "score": {"survey_validation": figures}}


def _start_calibration(options: TrainOptions) -> dict[str, Any]:
    """What the card of the weights that a recipe starts from says; nothing for checkpoints, which have no card."""
    from models.weights import SUFFIX, is_path, read_card

    start = None if options.start is None else str(options.start)
    if start is None or (is_path(start) and not start.endswith(SUFFIX)):
        return {}
    return read_card(start).calibration


def with_truth(table: Table, image: SurveyImage) -> Table:
    """A catalogue with the true values beside it, columns ``real`` and ``true_*`` as `pipeline.calibrate` has them."""
    s = image.sources
    places = Table({"x": s.x, "y": s.y, "peak_snr": s.snr})
    match = match_truth(table, places, image.beam_px, 1.0)
    table = table.copy()
    table["real"] = match >= 0
    row = s.row[np.maximum(match, 0)]
    true = image.truth
    if true.apparent:
        major, minor, pa = image.observation.ellipse_to_sky(s.x, s.y, s.major, s.minor, s.theta)
        sizes = {"maj": major[match], "min": minor[match], "pa_sky": pa[match]}
    else:
        sizes = {"maj": true.major[row], "min": true.minor[row], "pa_sky": true.pa[row]}
    for name, values in {"snr": s.snr[match], "flux": true.flux[row], **sizes}.items():
        table[f"true_{name}"] = np.where(match >= 0, values, np.nan)
    return table


def shift_of(found: Analysis, image: SurveyImage, calibration: Calibration) -> float:
    """The correction that an image's negative asks for."""
    beams = float(np.prod(image.observation.shape)) / float(beam_area(*image.beam[:2]))
    searched = found.manifest["reliability"]["searched"]
    return fit_shift(logit_of(found.table["score"]), found.negative_logit, searched, beams, calibration).shift


def fit_reliability(
    found: Sequence[Analysis], tables: Sequence[Table], use: Sequence[np.ndarray], images: Sequence[SurveyImage],
    before: Calibration,
) -> Calibration:  # fmt: skip
    """Slope and intercept under which rows of the part are as often real as stated, corrections included."""
    logits = [logit_of(table["score"])[one] for table, one in zip(tables, use, strict=True)]
    real = np.concatenate([np.asarray(table["real"])[one] for table, one in zip(tables, use, strict=True)])
    if len(real) == 0:
        return before

    def deviance(p: np.ndarray) -> float:
        trial = replace(before, intercept=float(p[0]), slope=float(np.exp(p[1])))
        odds = np.concatenate(
            [
                trial.intercept + trial.slope * logit + shift_of(one, image, trial)
                for one, image, logit in zip(found, images, logits, strict=True)
            ]
        )
        prior = (p[0] - before.intercept) ** 2 + 4 * (p[1] - np.log(before.slope)) ** 2
        return float(np.sum(np.logaddexp(0, odds) - real * odds)) + PRIOR * prior

    best = minimize(deviance, np.array([before.intercept, np.log(before.slope)]), method="Nelder-Mead").x
    return replace(before, intercept=float(best[0]), slope=float(np.exp(best[1])))


def fit_scales(table: Table, *, exact: bool) -> dict[str, float]:
    """Factors of measured and estimated columns; only those that matter.

    Parameters
    ----------
    table : Table
        Of `with_truth`.
    exact : bool
        Factors that earn most in the challenge's sub-scores, which forgive too little more than too much; else those
        that make the median right.
    """
    found = {}
    for name, (true, limit) in SCALED.items():
        if name not in table.colnames:
            continue
        value, truth = np.asarray(table[name], float), np.asarray(table[true], float)
        use = np.asarray(table["real"]) & (value > 0) & (truth > 0)
        if name.endswith("_deconv"):
            # Of faint sources the deconvolved size is noise, and none that is recommended.
            use &= np.asarray(table["snr"], float) > SIZED_SNR
        if use.sum() < LEAST_ROWS:
            continue
        error = np.abs(FACTORS[:, None] * value[use] / truth[use] - 1)
        earned = np.minimum(1, limit / np.maximum(error, 1e-9)).mean(axis=1)
        # Of a noisy curve the middle of its top.
        smooth = np.convolve(np.pad(earned, 4, mode="edge"), np.ones(9) / 9, mode="valid")
        now = np.interp(0.0, np.log(FACTORS), smooth)
        factor = float(FACTORS[np.argmax(smooth)]) if exact else float(np.median(truth[use] / value[use]))
        factor = float(np.clip(factor, FACTORS[0], FACTORS[-1]))
        if not exact or np.interp(np.log(factor), np.log(FACTORS), smooth) > now + LEAST_GAIN:
            found[name] = round(factor, 4)
    return found


def choose_threshold(
    tables: Sequence[Table], images: Sequence[SurveyImage], splits: Sequence[SkySplit], calibration: dict[str, Any],
    *, side: int, exact: bool,
) -> tuple[float, dict[str, Any]]:  # fmt: skip
    """The threshold on p_real that earns most on the validation part, and what it reaches there.

    A row with a probability q to be a match earns the accuracy a of matches or loses one, so that it pays from
    q = 1 / (1 + a) on. q is a logistic function of p_real, fitted on all rows of the part: on a few hundred sources the
    threshold of the highest score itself would be an accident.
    """
    from pipeline.catalogue import recommend

    best = [recommend(table, calibration) for table in tables]
    logits, matched, earned = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for table, image, split in zip(best, images, splits, strict=True):
        kept = table[(np.asarray(table["p_real"]) > CONSIDERED) & (split.part_at(table["y"], table["x"]) == VALIDATION)]
        rows, accuracy = match_rows(kept, image, split, VALIDATION, exact=exact)
        logit = logit_of(kept["p_real"])
        logits.append(logit)
        matched.append(rows)
        earned.append(accuracy[rows & (logit < DOUBTFUL)])
    x, real, accuracy = (np.concatenate(parts) for parts in (logits, matched, earned))

    def deviance(p: np.ndarray) -> float:
        odds = p[0] + p[1] * x
        return float(np.sum(np.logaddexp(0, odds) - real * odds)) + PRIOR * (p[0] ** 2 + 4 * (p[1] - 1) ** 2)

    constant, slope = minimize(deviance, np.array([0.0, 1.0]), method="BFGS").x
    mean = float(accuracy.mean()) if len(accuracy) >= LEAST_MATCHES else USUAL_ACCURACY
    logit = (-np.log(mean) - constant) / max(slope, 0.3)
    threshold = float(np.clip(1 / (1 + np.exp(-logit)), *THRESHOLD_RANGE))
    threshold = round(threshold, 2)
    kept = [table[np.asarray(table["p_real"]) >= threshold] for table in best]
    return threshold, score_part(kept, images, splits, VALIDATION, side=side, exact=exact).numbers()
