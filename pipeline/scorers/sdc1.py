"""The score of the SKA Science Data Challenge 1, as the official scorer computes it and in a corrected form.

The rules were re-derived from ska_sdc 2.0.0 (Bonaldi et al. 2021, MNRAS 500, 3821): candidates within the
beam-convolved size of the submitted source, one match per submitted and per true source by a distance in
position, flux and size, seven sub-scores per match, one point off per false detection.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from pipeline.crossmatch import unit_vectors
from pipeline.scorers.sdc1_table import sdc1_columns
from survey_io.datasets.ska_sdc1 import FREQUENCY, TRAINING_AREA
from survey_io.datasets.truth import GAUSSIAN_PER_SIZE
from survey_io.errors import InputError

SUBSCORES = ("position", "flux", "b_maj", "b_min", "pa", "core_frac", "class")

# (ra_lo, ra_hi, dec_lo, dec_hi) in degrees, by frequency in MHz.
_TRAINING_AREA = {FREQUENCY[band]: area for band, area in TRAINING_AREA.items()}
_MATCH_LIMIT = 5.0
_POSITION_SCALE, _FLUX_SCALE, _SIZE_SCALE = 0.93, 0.36, 4.38
_PAIRS = 2_000_000


@dataclass(frozen=True)
class Sdc1Score:
    """Result of `score_sdc1`.

    Attributes
    ----------
    value : float
        Sum of the matches' mean sub-scores less the number of false detections.
    n_det, n_match, n_bad, n_false : int
        Submitted rows scored, matches, candidates refused as too different (they count as false), false rows.
    score_det : float
        Sum over matches of the mean of the seven sub-scores.
    accuracy : float
        100 * score_det / n_match (percent), 0 without a match.
    means : dict of float
        Mean of each sub-score over the matches, by the names in `SUBSCORES`.
    submitted, true : numpy.ndarray
        Row numbers (n_match,) of the matched rows in the tables handed in.
    subscores : numpy.ndarray
        (n_match, 7), columns in the order of `SUBSCORES`.
    """

    value: float
    n_det: int
    n_match: int
    n_bad: int
    n_false: int
    score_det: float
    accuracy: float
    means: dict[str, float]
    submitted: np.ndarray = field(repr=False)
    true: np.ndarray = field(repr=False)
    subscores: np.ndarray = field(repr=False)

    @property
    def purity(self) -> float:
        """Matched share of the submitted rows, 0 to 1; NaN for an empty submission."""
        return self.n_match / self.n_det if self.n_det else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Numbers for a report or a JSON file."""
        names = ("value", "n_det", "n_match", "n_bad", "n_false", "score_det", "accuracy")
        return {
            **{name: getattr(self, name) for name in names},
            "purity": self.purity,
            "means": dict(self.means),
        }


def score_sdc1(
    submission: Any,
    truth: Any,
    *,
    frequency: float = 560,
    train: bool | None = None,
    mode: str = "core",
    strict: bool = True,
) -> Sdc1Score:
    """Score a catalogue by the rules of SDC1.

    Parameters
    ----------
    submission, truth : structured array, astropy Table or mapping
        The 12 columns of `SDC1_COLUMNS` (see `read_sdc1` for units and conventions).
    frequency : 560, 1400 or 9200
        Band in MHz; it sets the beam 0.25 * 1400 / frequency (arcsec) and the training area.
    train : bool, optional
        True scores inside the challenge's training area, False outside it, None everywhere.
    mode : "core" or "centroid"
        Positions that are matched.
    strict : bool
        True follows the official scorer in everything: the flat-sky search in degrees of right ascension,
        position
        angles folded to 45 degrees, all zeros dropped from a column that holds one negative value, 0 for a
        submission without a match. False corrects these: great circles, angles modulo 180 degrees, only
        the rows with impossible values dropped, -n_det without a match.

    Returns
    -------
    Sdc1Score

    Raises
    ------
    InputError
        Missing columns, an unknown band or mode, a size type other than 1, 2, 3.
    """
    band = round(float(frequency))
    if band not in _TRAINING_AREA:
        raise InputError(f"expected an SDC1 frequency of 560, 1400 or 9200 MHz, got {frequency}.")
    if mode not in ("core", "centroid"):
        raise InputError(f"expected mode core or centroid, got {mode!r}.")
    beam = 0.25 * 1400.0 / band
    sub, sub_rows = _prepare(sdc1_columns(submission), band, train=train, strict=strict)
    tru, tru_rows = _prepare(sdc1_columns(truth), band, train=train, strict=strict)
    n_det = len(sub_rows)

    i, j, distance = _match(sub, tru, beam=beam, mode=mode, strict=strict)
    accepted = distance < _MATCH_LIMIT
    n_bad = int(np.count_nonzero(~accepted))
    i, j = i[accepted], j[accepted]

    scores = _subscores(sub, tru, i, j, beam=beam, strict=strict)
    n_match = len(i)
    score_det = float(np.sum(scores.mean(axis=1)))
    value = score_det - (n_det - n_match)
    if n_match == 0:
        value = 0.0 if strict else -float(n_det)
    return Sdc1Score(
        value=value,
        n_det=n_det,
        n_match=n_match,
        n_bad=n_bad,
        n_false=n_det - n_match,
        score_det=score_det,
        accuracy=100.0 * score_det / n_match if n_match else 0.0,
        means=dict(zip(SUBSCORES, (scores.mean(axis=0) if n_match else np.zeros(7)).tolist(), strict=True)),
        submitted=sub_rows[i],
        true=tru_rows[j],
        subscores=scores,
    )


def _prepare(
    columns: dict[str, np.ndarray], band: int, *, train: bool | None, strict: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    keep = ~np.any([np.isnan(values) for values in columns.values()], axis=0)
    for name in ("flux", "core_frac", "b_min", "b_maj"):
        values = columns[name]
        if strict:
            if np.any(values[keep] < 0.0):
                keep &= values > 0.0
        else:
            keep &= values > 0.0 if name == "flux" else values >= 0.0
    rows = np.flatnonzero(keep)
    cut = {name: values[rows] for name, values in columns.items()}
    for name in ("ra_core", "ra_cent"):
        cut[name] = np.where(cut[name] > 180.0, cut[name] - 360.0, cut[name])
    wrong = ~np.isin(cut["size"], (1.0, 2.0, 3.0))
    if wrong.any():
        raise InputError(
            f"column size: expected types 1, 2 or 3, got {np.unique(cut['size'][wrong]).tolist()[:5]}."
        )
    if train is not None:
        ra_lo, ra_hi, dec_lo, dec_hi = _TRAINING_AREA[band]
        ra, dec = cut["ra_core"], cut["dec_core"]
        if train:
            inside = (ra > ra_lo) & (ra < ra_hi) & (dec > dec_lo) & (dec < dec_hi)
        else:
            # Both comparisons are strict: a source on the border is in neither area.
            inside = (ra < ra_lo) | (ra > ra_hi) | (dec < dec_lo) | (dec > dec_hi)
        rows = rows[inside]
        cut = {name: values[inside] for name, values in cut.items()}
    cut["factor"] = GAUSSIAN_PER_SIZE[cut["size"].astype(np.int64)]
    return cut, rows


def _convolved_size(columns: dict[str, np.ndarray], beam: float) -> np.ndarray:
    largest = np.maximum(columns["b_maj"], columns["b_min"]) * columns["factor"]
    return np.sqrt(largest**2 + beam**2)


def _coordinates(columns: dict[str, np.ndarray], mode: str) -> tuple[np.ndarray, np.ndarray]:
    suffix = "core" if mode == "core" else "cent"
    return columns[f"ra_{suffix}"], columns[f"dec_{suffix}"]


def _match(
    sub: dict[str, np.ndarray], tru: dict[str, np.ndarray], *, beam: float, mode: str, strict: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the submission and the truth that answer each other, and their distance, before the limit on
    it.

    The nearest truth per submitted id is kept, then the nearest submission per true id: losers get no second
    choice.
    """
    sub_points, tru_points = _coordinates(sub, mode), _coordinates(tru, mode)
    empty = np.zeros(0, dtype=np.int64)
    if len(sub_points[0]) == 0 or len(tru_points[0]) == 0:
        return empty, empty, np.zeros(0)
    radius = _convolved_size(sub, beam) / 3600.0
    if strict:
        points, tree = np.column_stack(sub_points), cKDTree(np.column_stack(tru_points))
    else:
        points, tree = unit_vectors(*sub_points), cKDTree(unit_vectors(*tru_points))
        radius = 2.0 * np.sin(np.radians(np.minimum(radius, 180.0)) / 2.0)
    found = []
    for part in _parts(tree.query_ball_point(points, radius, return_length=True)):
        lists = tree.query_ball_point(points[part], radius[part], return_sorted=True)
        i = np.repeat(np.arange(part.start, part.stop), [len(one) for one in lists])
        j = np.concatenate([np.asarray(one, dtype=np.int64) for one in lists])
        distance = _distance(sub, tru, i, j, beam=beam, mode=mode)
        best = _lowest(sub["id"][i], distance)
        found.append((i[best], j[best], distance[best]))
    i, j, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    keep = _lowest(sub["id"][i], distance)
    keep = keep[_lowest(tru["id"][j[keep]], distance[keep])]
    return i[keep], j[keep], distance[keep]


def _parts(counts: np.ndarray) -> list[slice]:
    """Cut rows so that no part has many more than `_PAIRS` candidates: a few absurd sizes reach every
    true source."""
    ends = np.searchsorted(np.cumsum(counts), np.arange(_PAIRS, counts.sum() + _PAIRS, _PAIRS)) + 1
    edges = np.unique(np.clip(np.concatenate([[0], ends, [len(counts)]]), 0, len(counts)))
    return [slice(int(lo), int(hi)) for lo, hi in zip(edges[:-1], edges[1:], strict=True)]


def great_circle(ra1: np.ndarray, dec1: np.ndarray, ra2: np.ndarray, dec2: np.ndarray) -> np.ndarray:
    """Great-circle distance in degrees of positions in degrees (Vincenty's formula, exact at all
    distances)."""
    ra1, dec1, ra2, dec2 = (np.radians(value) for value in (ra1, dec1, ra2, dec2))
    sin_d, cos_d = np.sin(ra2 - ra1), np.cos(ra2 - ra1)
    sin_1, cos_1, sin_2, cos_2 = np.sin(dec1), np.cos(dec1), np.sin(dec2), np.cos(dec2)
    across = np.hypot(cos_2 * sin_d, cos_1 * sin_2 - sin_1 * cos_2 * cos_d)
    return np.degrees(np.arctan2(across, sin_1 * sin_2 + cos_1 * cos_2 * cos_d))


def _distance(
    sub: dict[str, np.ndarray],
    tru: dict[str, np.ndarray],
    i: np.ndarray,
    j: np.ndarray,
    *,
    beam: float,
    mode: str,
) -> np.ndarray:
    ra_s, dec_s = _coordinates(sub, mode)
    ra_t, dec_t = _coordinates(tru, mode)
    conv = _convolved_size(tru, beam)[j]
    separation = great_circle(ra_s[i], dec_s[i], ra_t[j], dec_t[j]) * 3600.0
    flux = tru["flux"][j]
    mean_s = (sub["b_maj"] + sub["b_min"]) / 2.0 * sub["factor"]
    mean_t = (tru["b_maj"] + tru["b_min"]) / 2.0 * tru["factor"]
    # A true flux of 0 gives an infinite (or undefined) distance, hence no match.
    with np.errstate(divide="ignore", invalid="ignore"):
        in_flux = np.abs(sub["flux"][i] - flux) / flux / _FLUX_SCALE
        total = np.sqrt(
            (separation / conv / _POSITION_SCALE) ** 2
            + in_flux**2
            + (np.abs(mean_s[i] - mean_t[j]) / conv / _SIZE_SCALE) ** 2
        )
    return np.where(np.isnan(total), np.inf, total)


def _lowest(group: np.ndarray, distance: np.ndarray) -> np.ndarray:
    order = np.lexsort((distance, group))
    sorted_group = group[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = sorted_group[1:] != sorted_group[:-1]
    return np.sort(order[first])


def _fold(angle: np.ndarray) -> np.ndarray:
    """The official folding of position angles, once each in this order: it identifies angles 45 and 90
    degrees apart."""
    angle = np.where(angle > 180.0, angle - 180.0, angle)
    angle = np.where(angle > 90.0, angle - 90.0, angle)
    angle = np.where(angle > 45.0, angle - 45.0, angle)
    return np.where(angle < -45.0, angle + 45.0, angle)


def _subscores(
    sub: dict[str, np.ndarray],
    tru: dict[str, np.ndarray],
    i: np.ndarray,
    j: np.ndarray,
    *,
    beam: float,
    strict: bool,
) -> np.ndarray:
    s = {name: values[i] for name, values in sub.items()}
    t = {name: values[j] for name, values in tru.items()}
    scores = np.ones((len(i), len(SUBSCORES)))
    if len(i) == 0:
        return scores
    separation = np.minimum(
        great_circle(s["ra_core"], s["dec_core"], t["ra_core"], t["dec_core"]),
        great_circle(s["ra_cent"], s["dec_cent"], t["ra_cent"], t["dec_cent"]),
    )
    size = np.sqrt(4.0 * beam**2 + ((t["b_maj"] + t["b_min"]) / 2.0) ** 2)
    convert = s["factor"] / t["factor"]
    # Largest angular sizes are flat-spectrum cores and jets: only their major axis is scored.
    one_sided = t["size"] == 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        scores[:, 0] = _ratio(0.3, separation * 3600.0 / size)
        scores[:, 1] = _ratio(0.1, np.abs(s["flux"] - t["flux"]) / t["flux"])
        scores[:, 2] = _ratio(0.3, np.abs(s["b_maj"] * convert - t["b_maj"]) / t["b_maj"])
        scores[:, 3] = _ratio(0.3, np.abs(s["b_min"] * convert - t["b_min"]) / t["b_min"])
    if strict:
        turn = np.abs(_fold(s["pa"]) - _fold(t["pa"]))
    else:
        turn = np.abs((s["pa"] - t["pa"] + 90.0) % 180.0 - 90.0)
    scores[:, 4] = _ratio(10.0, turn)
    scores[one_sided, 3] = 1.0
    scores[one_sided, 4] = 1.0
    scores[:, 5] = _ratio(0.05, np.abs(s["core_frac"] - t["core_frac"]) / 0.75)
    scores[:, 6] = s["class"] == t["class"]
    return scores


def _ratio(threshold: float, error: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.minimum(1.0, threshold / error)
    return np.where(np.isnan(score), 0.0, score)


def chance_matches(
    submission: Any,
    truth: Any,
    *,
    frequency: float = 560,
    mode: str = "core",
    strict: bool = True,
    shift: float = 30.0,
    directions: int = 8,
) -> dict[str, float]:
    """How many of the matches are accidents: the score of the same catalogue moved off the true positions.

    Parameters
    ----------
    submission, truth : see `score_sdc1`
    shift : float
        Displacement in arcsec: many beams, yet small against the field.
    directions : int
        Number of displacements, spread evenly over the circle; results are averaged over them.

    Returns
    -------
    dict of float
        ``rate`` (share of rows that match by chance, 0 to 1), ``accuracy`` (percent, of these matches) and
        ``matches`` (expected number in the whole catalogue). Rows that leave the rectangle of the true
        positions are not counted, so that the edge does not lower the rate.
    """
    sub, tru = sdc1_columns(submission), sdc1_columns(truth)
    n_det = n_match = 0
    score = 0.0
    ra_t = np.where(tru["ra_core"] > 180.0, tru["ra_core"] - 360.0, tru["ra_core"])
    for angle in np.arange(directions) * 2.0 * np.pi / max(directions, 1):
        moved = dict(sub)
        inside = np.ones(len(sub["id"]), dtype=bool)
        for suffix in ("core", "cent"):
            dec = sub[f"dec_{suffix}"] + shift / 3600.0 * np.sin(angle)
            ra = sub[f"ra_{suffix}"] + shift / 3600.0 * np.cos(angle) / np.cos(np.radians(dec))
            moved[f"ra_{suffix}"], moved[f"dec_{suffix}"] = ra, dec
        if len(ra_t):
            ra = np.where(moved["ra_core"] > 180.0, moved["ra_core"] - 360.0, moved["ra_core"])
            inside = (ra >= ra_t.min()) & (ra <= ra_t.max())
            inside &= (moved["dec_core"] >= tru["dec_core"].min()) & (
                moved["dec_core"] <= tru["dec_core"].max()
            )
        part = {name: values[inside] for name, values in moved.items()}
        result = score_sdc1(part, tru, frequency=frequency, mode=mode, strict=strict)
        n_det, n_match, score = n_det + result.n_det, n_match + result.n_match, score + result.score_det
    rate = n_match / n_det if n_det else 0.0
    return {
        "rate": rate,
        "accuracy": 100.0 * score / n_match if n_match else 0.0,
        "matches": rate * len(sub["id"]),
    }
