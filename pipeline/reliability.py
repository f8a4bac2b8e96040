"""The probability that a detection is real: the detector's own, calibrated, then corrected for this image.

Calibration is a logistic map fitted on held-out simulated sky; it ships with the weights. An image with other
noise, artefacts or source density shifts it: the negated image holds the same noise and no sources, so what
is found there tells how many false detections to expect, and all log odds move together until the catalogue
expects as many.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

# Detections below this probability are not counted: they are many, and hardly any is kept.
COUNTED = 0.25
# Relative uncertainty of the expected number in the negated image: its ratio to the false detections varied by that
# much between calibration skies.
SYSTEMATIC = 0.35
# Detections above this make up the density of likely ones.
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
        odds = self.intercept + self.slope * np.asarray(logit, np.float64) + shift
        return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))


@dataclass(frozen=True)
class ImageReliability:
    """What the negated image said.

    Attributes
    ----------
    shift : float
        Added to all log odds.
    negatives : int
        Detections in the searched part of the negated image.
    expected : float
        What the shipped calibration expected there.
    searched : float
        Share of the image's area that was searched.
    density : float
        Likely detections per beam area.
    """

    shift: float
    negatives: int
    expected: float
    searched: float
    density: float

    def summary(self) -> dict[str, float]:
        """For the manifest."""
        return asdict(self)


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
    density = float((calibration.probability(logit) > LIKELY).sum()) / max(beams, 1.0)
    counted = logit[calibration.probability(logit) > COUNTED]
    count = int((calibration.probability(negative_logit) > COUNTED).sum())
    shifts = np.linspace(-4, 4, 321)
    if len(counted) == 0:
        return ImageReliability(0.0, count, 0.0, searched, density)
    # A histogram keeps this independent of the number of sources.
    height, edges = np.histogram(np.clip(counted, -10, 30), bins=400)
    centres = (edges[1:] + edges[:-1]) / 2
    false = np.array([(height * (1 - calibration.probability(centres, s))).sum() for s in shifts])
    share = calibration.noise_share / (1 + calibration.confusion * density)
    mean = np.maximum(false * searched * share, 1e-9)
    # A Poisson count whose expectation is itself uncertain: negative binomial.
    size = 1 / SYSTEMATIC**2
    likelihood = count * np.log(mean / (mean + size)) - size * np.log1p(mean / size)
    posterior = likelihood - 0.5 * (shifts / calibration.shift_width) ** 2
    best = float(shifts[int(np.argmax(posterior))])
    return ImageReliability(best, count, float(mean[len(shifts) // 2]), searched, density)
