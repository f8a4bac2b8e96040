"""The probability that a detection is real: the detector's own, calibrated, then corrected for this image.

Calibration is a logistic map fitted on held-out simulated sky; it ships with the weights. An image with other
noise, artefacts or source density shifts it: the negated image holds the same noise and no sources, so what
is found there tells how many false detections to expect, and all log odds move together until the catalogue
expects as many.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

# Detections below this probability are not counted: they are many, and hardly any is kept. The count fades in over
# this many log odds to either side: a detection that moves by a rounding error across a sharp limit, as engines and
# precisions have it, would move the probabilities of the whole image.
COUNTED, FADE = 0.25, 1.0
# Relative uncertainty of the expected number in the negated image: its ratio to the false detections varied by that
# much between calibration skies.
SYSTEMATIC = 0.35
# Trial shifts of the log odds, and the bins that log odds are counted in.
SHIFTS = np.linspace(-4, 4, 321)
ODDS_RANGE, ODDS_STEP = (-10.0, 30.0), 0.1
# Detections above this make up the density of likely ones; it fades in likewise.
LIKELY = 0.5


@dataclass(frozen=True)
class Calibration:
    """ln odds of being real = intercept + slope * logit of the detector.

    Detections in a negated sky number ``noise_share / (1 + confusion * density)`` times the false ones of the sky
    itself, with ``density`` the likely detections per beam area: where sources crowd, more of what is false is
    confusion or a source fainter than what counts as real, and that has no counterpart in the negative.
    ``shift_width`` is the standard deviation of the shift between skies, in log odds: what a few negative detections
    have to overcome. All three are those that made the corrected probabilities of the calibration's skies most likely.
    """

    slope: float = 1.0
    intercept: float = 0.0
    noise_share: float = 1.0
    confusion: float = 100.0
    shift_width: float = 0.5

    def for_card(self) -> dict[str, float]:
        """Rounded, as a card keeps it."""
        return {name: round(value, 4) for name, value in asdict(self).items()}

    def probability(self, logit: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """Calibrated probability, 0..1."""
        return 1 / (1 + np.exp(-np.clip(self.odds(logit) + shift, -30, 30)))

    def odds(self, logit: np.ndarray) -> np.ndarray:
        """Calibrated log odds, unbounded."""
        return self.intercept + self.slope * np.asarray(logit, np.float64)


@dataclass(frozen=True)
class ImageReliability:
    """What the negated image said.

    Attributes
    ----------
    shift : float
        Added to all log odds.
    negatives : float
        Detections in the searched part of the negated image, those at the limit of what is counted in part.
    expected : float
        What the shipped calibration expected there.
    searched : float
        Share of the image's area that was searched.
    density : float
        Likely detections per beam area.
    """

    shift: float
    negatives: float
    expected: float
    searched: float
    density: float

    def summary(self) -> dict[str, float]:
        """For the manifest."""
        return asdict(self)


def count_above(odds: np.ndarray, probability: float) -> np.ndarray:
    """How much of each detection counts: 0 well below a probability, 1 well above, smoothly between.

    Parameters
    ----------
    odds : ndarray
        Calibrated log odds.
    probability : float
        Where half of a detection counts, 0..1.
    """
    place = np.clip((odds - np.log(probability / (1 - probability)) + FADE) / (2 * FADE), 0, 1)
    return place * place * (3 - 2 * place)


def fit_shift(
    logit: np.ndarray, negative_logit: np.ndarray, searched: float, beams: float, calibration: Calibration
) -> ImageReliability:
    """Shift of the log odds under which the image's false detections number as in its negative.

    Maximises the Poisson likelihood of the negative count times a Gaussian prior on the shift, as wide as the
    calibration says.

    Parameters
    ----------
    logit : ndarray, shape (n,)
        Of all detections of the image.
    negative_logit : ndarray, shape (m,)
        Of the detections in the searched part of the negated image.
    searched : float
        Share of the image's area that was searched.
    beams : float
        Area of the image in beam areas.
    calibration : Calibration
    """
    odds = calibration.odds(logit)
    density = float(count_above(odds, LIKELY).sum()) / max(beams, 1.0)
    count = float(count_above(calibration.odds(negative_logit), COUNTED).sum())
    weight = count_above(odds, COUNTED)
    counted = weight > 0
    if not counted.any():
        return ImageReliability(0.0, count, 0.0, searched, density)
    # Bins keep this independent of the number of sources; weights shared between neighbours keep it smooth.
    height, centres = _binned(odds[counted], weight[counted])
    false = (height / (1 + np.exp(np.clip(centres + SHIFTS[:, None], -30, 30)))).sum(1)
    share = calibration.noise_share / (1 + calibration.confusion * density)
    mean = np.maximum(false * searched * share, 1e-9)
    # A Poisson count whose expectation is itself uncertain: negative binomial.
    size = 1 / SYSTEMATIC**2
    likelihood = count * np.log(mean / (mean + size)) - size * np.log1p(mean / size)
    posterior = likelihood - 0.5 * (SHIFTS / calibration.shift_width) ** 2
    expected = float(mean[len(SHIFTS) // 2])
    return ImageReliability(_highest(SHIFTS, posterior), count, expected, searched, density)


def _binned(odds: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights per bin of the log odds, each shared by its two nearest bins, and the centres of the bins."""
    place = (np.clip(odds, *ODDS_RANGE) - ODDS_RANGE[0]) / ODDS_STEP
    low = np.floor(place).astype(int)
    bins = round((ODDS_RANGE[1] - ODDS_RANGE[0]) / ODDS_STEP) + 2
    height = np.bincount(low, weight * (1 - (place - low)), bins) + np.bincount(low + 1, weight * (place - low), bins)
    return height, ODDS_RANGE[0] + ODDS_STEP * np.arange(bins)


def _highest(x: np.ndarray, y: np.ndarray) -> float:
    """Where a smooth curve, sampled evenly, is highest: the top of the parabola through the three highest samples."""
    i = int(np.argmax(y))
    if not 0 < i < len(x) - 1:
        return float(x[i])
    left, top, right = y[i - 1 : i + 2]
    bend = left - 2 * top + right
    return float(x[i] + (0.5 * (left - right) / bend * (x[1] - x[0]) if bend < 0 else 0.0))
