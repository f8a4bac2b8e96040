"""How well lines were found in spectra of known truth: completeness, reliability, errors of centre, width and flux."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["LineScore", "match_lines", "score_lines"]

Arrays = dict[str, np.ndarray]
# A detection is of a line when their centres lie within this share of the geometric mean of their widths (and one
# channel more), and their signs agree.
NEAR = 0.5
# Fainter lines cannot be found but by chance: a detection there is false.
REAL_SNR = 2.0


@dataclass(frozen=True)
class LineScore:
    """What a finder reached on some spectra.

    Attributes
    ----------
    completeness : float
        Share of the wanted lines that were found.
    reliability : float
        Share of the detections that are lines.
    f1 : float
        Harmonic mean of both.
    centre, width, flux : float
        Medians over matches of wanted lines: error of the centre over the FWHM, of ln width, and of ln flux; absolute.
    wanted, rows : int
        Wanted lines, and detections.
    """

    completeness: float
    reliability: float
    f1: float
    centre: float
    width: float
    flux: float
    wanted: int
    rows: int


def match_lines(found: Arrays, truth: Arrays) -> np.ndarray:
    """Row of the truth of each detection of one spectrum, one each, -1 for none.

    Parameters
    ----------
    found : dict of ndarray, shape (n,)
        ``z``, ``width``, ``sign``, ``score``: the surest choose first.
    truth : dict of ndarray, shape (t,)
        ``z``, ``width``, ``flux`` (signed), ``snr``.
    """
    match = np.full(len(found["z"]), -1)
    free = np.asarray(truth["snr"], float) >= REAL_SNR
    for row in np.argsort(-np.asarray(found["score"], float), kind="stable"):
        distance = np.abs(truth["z"] - found["z"][row])
        near = free & (np.sign(truth["flux"]) == found["sign"][row])
        near &= distance < NEAR * np.sqrt(truth["width"] * found["width"][row]) + 1
        if near.any():
            # Of several lines in reach the most significant: a faint one beside it was not what was seen.
            candidates = np.flatnonzero(near)
            match[row] = candidates[np.argmax(np.asarray(truth["snr"])[candidates])]
            free[match[row]] = False
    return match


def score_lines(spectra: list[tuple[Arrays, Arrays]], *, least: float, threshold: float = 0.0) -> LineScore:
    """Score detections of several spectra.

    Parameters
    ----------
    spectra : list of (found, truth)
        As `match_lines` takes them; found also ``flux``. Lines with ``ignore`` are not wanted.
    least : float
        S/N from which a line is wanted.
    threshold : float
        Lowest score of a detection that counts.
    """
    wanted = hits = rows = real = 0
    errors: list[np.ndarray] = []
    for found, truth in spectra:
        kept = np.asarray(found["score"]) >= threshold
        found = {name: np.asarray(value)[kept] for name, value in found.items()}
        match = match_lines(found, truth)
        demanded = (np.asarray(truth["snr"]) >= least) & ~np.asarray(truth["ignore"], bool)
        of = match[match >= 0]
        good = np.flatnonzero(match >= 0)[demanded[of]]
        true = {name: np.asarray(truth[name])[match[good]] for name in ("z", "width", "flux")}
        errors.append(
            np.stack([
                np.abs(found["z"][good] - true["z"]) / true["width"],
                np.abs(np.log(found["width"][good] / true["width"])),
                np.abs(np.log(np.maximum(np.abs(found["flux"][good]), 1e-30) / np.abs(true["flux"]))),
            ], -1)
        )  # fmt: skip
        wanted, hits = wanted + int(demanded.sum()), hits + len(good)
        rows, real = rows + len(match), real + len(of)
    completeness, reliability = hits / max(wanted, 1), real / max(rows, 1)
    middle = np.median(np.concatenate(errors), axis=0) if hits else np.full(3, np.nan)
    f1 = 2 * completeness * reliability / max(completeness + reliability, 1e-9)
    return LineScore(completeness, reliability, f1, *(float(v) for v in middle), wanted, rows)
