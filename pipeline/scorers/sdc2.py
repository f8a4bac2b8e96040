"""The score of SKA Science Data Challenge 2, as its organisers compute it, and a variant without its quirks.

Hartley et al. 2023, MNRAS 523, 1967, and the challenge's published scorer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.cosmology import LambdaCDM
from scipy.spatial import cKDTree

__all__ = ["SDC2_SUBSCORES", "Sdc2Score", "score_sdc2"]

SDC2_SUBSCORES = ("position", "central_freq", "line_flux_integral", "hi_size", "pa", "w20", "i")
THRESHOLDS = {
    "position": 0.3, "central_freq": 0.3, "line_flux_integral": 0.1, "hi_size": 0.3, "pa": 10.0, "w20": 0.3, "i": 10.0,
}  # fmt: skip
BEAM, REST, LIGHT = 7.0, 1.420405752e9, 299792.458
FIELD = (180.0, -30.0)
BAND = (0.95e9, 1.15e9)
LARGEST_DISTANCE = 5.0


@dataclass(frozen=True)
class Sdc2Score:
    """What a submission earned.

    Attributes
    ----------
    score : float
        Sum of the matches' scores less the false detections.
    n_det, n_match, n_false, n_true : int
        Rows handed in, matched, not matched, and true sources.
    n_found : int
        True sources with a match.
    mean : float
        Mean score of a match, 0..1; NaN without matches.
    subscores : dict of float
        Mean of each part over the matches.
    index, truth : ndarray of int
        Rows of submission and truth of the matches.
    """

    score: float
    n_det: int
    n_match: int
    n_false: int
    n_true: int
    n_found: int
    mean: float
    subscores: dict[str, float]
    index: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)

    @property
    def reliability(self) -> float:
        """Share of the rows that are matched."""
        return self.n_match / self.n_det if self.n_det else float("nan")


def score_sdc2(submission: Any, truth: Any, *, sane: bool = False) -> Sdc2Score:
    """Score a list against the truth.

    Parameters
    ----------
    submission, truth : mapping or table
        Columns of `survey_io.sdc2.SDC2_COLUMNS`.
    sane : bool
        A truth belongs to its best submission only and others on it are false; offsets are measured on the sphere
        wherever the field lies; frequencies are not cut to the challenge's band. The exact score counts several rows on
        one truth as matches of shared worth.
    """
    sub, ref = _columns(submission), _columns(truth)
    n_det = len(sub["ra"])
    rows = np.arange(n_det)
    if not sane:
        keep = (sub["central_freq"] > BAND[0]) & (sub["central_freq"] < BAND[1])
        rows, sub = rows[keep], {name: value[keep] for name, value in sub.items()}
        kept = (ref["central_freq"] > BAND[0]) & (ref["central_freq"] < BAND[1])
    else:
        kept = np.ones(len(ref["ra"]), bool)
    true_rows = np.flatnonzero(kept)
    ref = {name: value[kept] for name, value in ref.items()}
    n_true = int(kept.sum())
    if not len(rows) or not n_true:
        return _nothing(n_det, n_true)
    field_centre = FIELD if not sane else (float(np.median(ref["ra"])), float(np.median(ref["dec"])))
    s, t = _physical(sub, field_centre), _physical(ref, field_centre)
    i, j = _candidates(s, t)
    if not len(i):
        return _nothing(n_det, n_true)
    distance = _distance(sub, ref, s, t, i, j)
    order = np.lexsort((distance, i))
    i, j, distance = i[order], j[order], distance[order]
    first = np.r_[True, i[1:] != i[:-1]]
    i, j, distance = i[first], j[first], distance[first]
    if sane:
        order = np.lexsort((distance, j))
        first = np.r_[True, j[order][1:] != j[order][:-1]]
        i, j, distance = i[order][first], j[order][first], distance[order][first]
    candidate = np.isfinite(distance)
    i, j, distance = i[candidate], j[candidate], distance[candidate]
    # Several rows on one truth are counted before the far ones are dropped, as the challenge does.
    duplicates = np.bincount(j, minlength=n_true)[j]
    near = distance < LARGEST_DISTANCE
    i, j, duplicates = i[near], j[near], duplicates[near]
    if not len(i):
        return _nothing(n_det, n_true)
    parts = _subscores(sub, ref, s, t, i, j)
    each = np.mean([parts[name] for name in SDC2_SUBSCORES], axis=0)
    n_false = n_det - len(i)
    return Sdc2Score(
        score=float((each / duplicates).sum() - n_false), n_det=n_det, n_match=len(i), n_false=n_false, n_true=n_true,
        n_found=len(np.unique(j)), mean=float(each.mean()),
        subscores={name: float(value.mean()) for name, value in parts.items()}, index=rows[i], truth=true_rows[j],
    )  # fmt: skip


def _nothing(n_det: int, n_true: int) -> Sdc2Score:
    empty = np.empty(0, int)
    parts = dict.fromkeys(SDC2_SUBSCORES, float("nan"))
    return Sdc2Score(-float(n_det), n_det, 0, n_det, n_true, 0, float("nan"), parts, empty, empty)


def _columns(table: Any) -> dict[str, np.ndarray]:
    names = ("ra", "dec", "hi_size", "line_flux_integral", "central_freq", "pa", "i", "w20")
    return {name: np.asarray(table[name], np.float64) for name in names}


@lru_cache(maxsize=1)
def _cosmology() -> LambdaCDM:
    return LambdaCDM(H0=67.0, Om0=0.32, Ode0=0.68)


def _physical(c: dict[str, np.ndarray], centre: tuple[float, float]) -> dict[str, np.ndarray]:
    """Positions in Mpc, and sizes seen through the beam in arcsec, Mpc and Hz."""
    cosmology, frequency = _cosmology(), c["central_freq"]
    distance = cosmology.angular_diameter_distance(REST / frequency - 1).value
    origin = SkyCoord(*centre, unit="deg")
    x, y = origin.spherical_offsets_to(SkyCoord(c["ra"], c["dec"], unit="deg"))
    size = np.sqrt(c["hi_size"] ** 2 + BEAM**2)
    spectral = c["w20"] * frequency**2 / (LIGHT * REST)
    far = cosmology.angular_diameter_distance(REST / (frequency + spectral) - 1).value
    return {
        "position": np.stack([x.radian * distance, y.radian * distance, distance], -1),
        "conv": size, "size": size / 206265 * distance, "spectral": spectral, "depth": distance - far,
    }  # fmt: skip


def _candidates(s: dict[str, np.ndarray], t: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    radius = np.maximum(s["size"], np.abs(s["depth"]))
    near = cKDTree(t["position"]).query_ball_point(s["position"], radius)
    i = np.repeat(np.arange(len(near)), [len(n) for n in near])
    j = np.concatenate([np.asarray(n, int) for n in near]) if len(near) else np.empty(0, int)
    return i, j.astype(int)


def _distance(sub, ref, s, t, i, j) -> np.ndarray:
    apart = _separation(sub, ref, i, j) / t["conv"][j]
    offset = np.abs(sub["central_freq"][i] - ref["central_freq"][j]) / t["spectral"][j]
    flux = np.abs(sub["line_flux_integral"][i] - ref["line_flux_integral"][j]) / ref["line_flux_integral"][j]
    size = np.abs(sub["hi_size"][i] - ref["hi_size"][j]) / t["conv"][j]
    width = np.abs(sub["w20"][i] - ref["w20"][j]) / ref["w20"][j]
    total = np.sqrt(apart**2 + offset**2 + flux**2 + size**2 + width**2)
    # What lies outside the truth's own extent is no candidate.
    return np.where((apart < 1) & (offset < 1), total, np.inf)


def _separation(sub, ref, i, j) -> np.ndarray:
    """Great-circle distance in arcsec."""
    ra1, dec1, ra2, dec2 = (
        np.radians(v) for v in (sub["ra"][i], sub["dec"][i], ref["ra"][j], ref["dec"][j])
    )
    half = np.sin((dec2 - dec1) / 2) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin((ra2 - ra1) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1)))) * 3600


def _subscores(sub, ref, s, t, i, j) -> dict[str, np.ndarray]:
    turn = np.abs(sub["pa"][i] - ref["pa"][j]) % 360
    errors = {
        "position": _separation(sub, ref, i, j) / np.sqrt(4 * BEAM**2 + ref["hi_size"][j] ** 2),
        "central_freq": np.abs(sub["central_freq"][i] - ref["central_freq"][j]) / t["spectral"][j],
        "line_flux_integral":
            np.abs(sub["line_flux_integral"][i] - ref["line_flux_integral"][j]) / ref["line_flux_integral"][j],
        "hi_size": np.abs(sub["hi_size"][i] - ref["hi_size"][j]) / ref["hi_size"][j],
        "pa": np.minimum(turn, 360 - turn),
        "w20": np.abs(sub["w20"][i] - ref["w20"][j]) / ref["w20"][j],
        "i": np.abs(sub["i"][i] - ref["i"][j]),
    }  # fmt: skip
    with np.errstate(divide="ignore"):
        return {name: np.minimum(1.0, THRESHOLDS[name] / errors[name]) for name in SDC2_SUBSCORES}
