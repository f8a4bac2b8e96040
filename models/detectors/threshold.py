"""A detector without weights: local maxima of the S/N image, filtered, thresholded and deblended.

It is the baseline that every trained network has to beat, and the detector that runs where no weights can be
had. All decisions about a pixel use pixels at most ``receptive_field / 2`` away: there is no labelling of
islands, whose outcome would change with the cut of the tiles. The same sky gives the same rows in any tiling.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.registry import register_model

Array = NDArray[np.float64]
Index = NDArray[np.int64]

FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))
# Moments are taken under a Gaussian weight of the beam's shape; beyond 3.7 sigma of it nothing is left to
# add.
CUTOUT_SIGMAS = 3.7
# Apparent sizes are reported within these bounds, in beams; outside them a weighted moment is only noise.
SIZE_RANGE = (0.7, 4.0)
# S/N at which the measured shape and the beam have the same say.
SHAPE_SNR = 7.0
# A second maximum is compared with brighter ones up to this distance, in beams: on an extended source the
# crests that noise makes are about one beam apart, so each has a brighter one within reach.
NEIGHBOUR_BEAMS = 3.0
# From this S/N on a neighbour's own moments say how far its wing goes; below, only the beam is taken for
# granted.
WING_SNR = 10.0
# Minima below -ARTEFACT_FLOOR sigma within this many beams tell of sidelobes, whose crests are as high as
# their troughs are deep: every sigma beyond the floor raises the noise assumed for the maxima around by
# ARTEFACT_SLOPE. Noise alone goes that deep near 2 per cent of the maxima.
ARTEFACT_BEAMS = 4.0
ARTEFACT_FLOOR = 4.0
ARTEFACT_SLOPE = 0.4
LOWEST_SNR = 2.2
# Source density assumed by the score: sources per beam and unit S/N at S/N 5 and the slope of their counts,
# between the SDC1 560 MHz (1000 h) and 1.4 GHz fields.
TYPICAL_DENSITY = 5e-4
TYPICAL_SLOPE = 1.8
# Pixels handled at once when cutouts are gathered: they stay in the cache, and a crowded tile needs no more.
GATHER_PIXELS = 250_000

KEYS = ("x", "y", "peak_snr", "score", "flux_snr", "major", "minor", "theta")


def score_from_snr(snr: Array) -> Array:
    """Probability that a local maximum of this S/N is a source, for Gaussian noise and typical source counts.

    Noise maxima follow the Euler characteristic density of a Gaussian field with the beam's autocorrelation,
    ``(u**2 - 1) exp(-u**2 / 2) / sqrt(2 pi)`` per beam area and unit u (Adler 1981, *The Geometry of Random
    Fields*); sources follow a power law in S/N. The ratio of the two is the odds.

    Parameters
    ----------
    snr : array
        Detection S/N; values below 2.2 are treated as 2.2, where the formula ends to rise with S/N.

    Returns
    -------
    array
        Same shape, in (0, 1), strictly increasing with `snr` above 2.2 in double precision: a factor
        ``1 - 0.02 / u`` stands for artefacts and keeps very bright sources in order.
    """
    u = np.maximum(np.asarray(snr, dtype=np.float64), LOWEST_SNR)
    log_source = math.log(TYPICAL_DENSITY) - TYPICAL_SLOPE * np.log(u / 5.0)
    log_noise = np.log(u * u - 1.0) - 0.5 * u * u - 0.5 * math.log(2.0 * math.pi)
    odds = np.clip(log_source - log_noise, -500.0, 500.0)
    return (1.0 - 0.02 / u) / (1.0 + np.exp(-odds))


def _covariance(major: float, minor: float, theta: float) -> Array:
    """Covariance (2, 2) in (x, y) of a Gaussian with these FWHM (px) and angle (rad)."""
    c, s = math.cos(theta), math.sin(theta)
    rotation = np.array([[c, -s], [s, c]])
    return rotation @ np.diag([(major / FWHM) ** 2, (minor / FWHM) ** 2]) @ rotation.T


def _quadratic(inverse: Array, dx: Array, dy: Array) -> Array:
    """Squared distance in sigmas of the Gaussian with this inverse covariance (2, 2)."""
    return inverse[0, 0] * dx * dx + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy * dy


@register_model("threshold", kind="detector", has_weights=False)
class ThresholdDetector:
    """Local maxima above a threshold in S/N, with the noise bumps of brighter neighbours left out.

    Parameters
    ----------
    threshold : float
        Lowest detection S/N reported, above 2.2.
    filter_beam : float
        FWHM of the Gaussian filter in beams, 0 for none; evaluated at local maxima only. In noise with the
        beam's own autocorrelation a point source is found best without a filter, a resolved one with a filter
        of its intrinsic shape. Of 0, 0.35, 0.5, 0.7 and 1, half a beam had the highest F1 on SDC1 pixels
        (.910, none .907) and was within .003 of none on simulated skies; 1 was the worst everywhere.
    saddle_sigma : float
        A maximum must rise this many sigma above the saddle towards each brighter neighbour.
    saddle_fraction : float
        The same as a fraction of the saddle, for bright sources whose small-scale structure is not noise.
    min_separation : float
        Of two maxima closer than this (beams), the fainter is dropped.
    beam_range : float
        Largest beam FWHM (px) that `find` accepts; it fixes the receptive field.

    Attributes
    ----------
    name : str
    stride : int
        Always 1: detections have no cells.
    receptive_field : int
        Pixels; every output depends on pixels within half of it.
    """

    name = "threshold"
    stride = 1

    def __init__(
        self,
        threshold: float = 4.0,
        *,
        filter_beam: float = 0.5,
        saddle_sigma: float = 1.0,
        saddle_fraction: float = 0.03,
        min_separation: float = 0.6,
        beam_range: float = 10.0,
    ) -> None:
        if not threshold > LOWEST_SNR:
            raise ValueError(f"threshold must be above {LOWEST_SNR} sigma, got {threshold}; take 4 to 5")
        if not (filter_beam >= 0 and saddle_sigma >= 0 and saddle_fraction >= 0 and min_separation >= 0):
            raise ValueError(
                "filter_beam, saddle_sigma, saddle_fraction and min_separation must be 0 or more, got "
                f"{filter_beam}, {saddle_sigma}, {saddle_fraction}, {min_separation}"
            )
        self.threshold = float(threshold)
        self.filter_beam = float(filter_beam)
        self.saddle_sigma = float(saddle_sigma)
        self.saddle_fraction = float(saddle_fraction)
        self.min_separation = float(min_separation)
        self.beam_range = float(beam_range)
        self.receptive_field = self.field_for(self.beam_range)

    def cutout_radius(self, major: float) -> int:
        """Half side (px) of the cutouts around a maximum for a beam of `major` px FWHM."""
        return max(3, math.ceil(CUTOUT_SIGMAS * major / FWHM) + 1)

    def field_for(self, major: float) -> int:
        """Receptive field (px) for a beam of `major` px FWHM: reach of neighbours and of their cutouts."""
        reach = max(NEIGHBOUR_BEAMS * major + self.cutout_radius(major), ARTEFACT_BEAMS * major)
        return 2 * (math.ceil(reach) + 2)

    def find(self, snr: NDArray[np.float32], beam: tuple[float, float, float]) -> dict[str, Array]:
        """Detect sources in one window.

        Parameters
        ----------
        snr : array (H, W)
            Signal over local rms; NaN where blank or outside the image.
        beam : (major_px, minor_px, theta)
            FWHM in pixels; angle of the major axis, radians counter-clockwise from +x.

        Returns
        -------
        dict of arrays (N,), float64
            ``x``, ``y`` sub-pixel peak (window pixels, centres at integers); ``peak_snr``; ``score`` in
            (0, 1); ``flux_snr`` integrated flux over rms (in beams); ``major``, ``minor`` apparent FWHM (px)
            and ``theta`` (rad, [0, pi)). In raster order; empty arrays when nothing is found.

        Raises
        ------
        ValueError
            `snr` is not two-dimensional, or the beam is not positive or wider than `beam_range`.
        """
        snr = np.asarray(snr, dtype=np.float32)
        if snr.ndim != 2:
            raise ValueError(f"snr must be an image (H, W), got shape {snr.shape}; pass one window at a time")
        major, minor, theta = (float(v) for v in beam)
        if not 0 < minor <= major <= self.beam_range:
            raise ValueError(
                f"beam must satisfy 0 < minor <= major <= {self.beam_range} px, got {major} x {minor}; "
                "build ThresholdDetector with a larger beam_range"
            )
        rows, columns = _local_maxima(snr, 0.8 * self.threshold if self.filter_beam else self.threshold)
        if rows.size == 0:
            return {key: np.empty(0) for key in KEYS}
        covariance = _covariance(major, minor, theta)
        radius = self.cutout_radius(major)
        significance = snr[rows, columns].astype(np.float64)
        if self.filter_beam:
            significance = _filtered(snr, rows, columns, covariance, self.filter_beam, radius)
        bright = significance > self.threshold
        rows, columns, significance = rows[bright], columns[bright], significance[bright]
        measured = _measure(snr, rows, columns, covariance, radius)
        # Applied after that choice: the artefacts around a neighbour lie beyond the receptive field.
        significance = significance / _artefact_noise(snr, rows, columns, ARTEFACT_BEAMS * major)
        keep = significance > self.threshold
        keep &= ~self._outshone(snr, rows, columns, significance, measured, covariance)
        measured["x"] = measured["x"] + columns
        measured["y"] = measured["y"] + rows
        measured["score"] = score_from_snr(significance)
        return {key: measured[key][keep] for key in KEYS}

    def _outshone(
        self,
        snr: NDArray[np.float32],
        rows: Index,
        columns: Index,
        significance: Array,
        measured: dict[str, Array],
        covariance: Array,
    ) -> NDArray[np.bool_]:
        """True for maxima that a brighter neighbour explains: close, on its wing, or not above the saddle."""
        outshone = np.zeros(rows.size, dtype=bool)
        points = np.stack([columns, rows], axis=1).astype(np.float64)
        reach = NEIGHBOUR_BEAMS * FWHM * math.sqrt(float(np.linalg.eigvalsh(covariance)[-1]))
        pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
        if pairs.size == 0:
            return outshone
        peaks = snr[rows, columns].astype(np.float64)
        # Maxima come in raster order, so the tie of two equal peaks falls to the first one in any tiling.
        first_brighter = (peaks[pairs[:, 0]] > peaks[pairs[:, 1]]) | (
            (peaks[pairs[:, 0]] == peaks[pairs[:, 1]]) & (pairs[:, 0] < pairs[:, 1])
        )
        faint = np.where(first_brighter, pairs[:, 1], pairs[:, 0])
        bright = np.where(first_brighter, pairs[:, 0], pairs[:, 1])
        step = points[bright] - points[faint]
        inverse = np.linalg.inv(covariance)
        radius2 = _quadratic(inverse, step[:, 0], step[:, 1])
        close = radius2 < (self.min_separation * FWHM) ** 2
        angle = np.arctan2(step[:, 1], step[:, 0]) - measured["theta"][bright]
        length2 = np.sum(step * step, axis=1) * FWHM**2
        own2 = length2 * (np.cos(angle) / measured["major"][bright]) ** 2
        own2 += length2 * (np.sin(angle) / measured["minor"][bright]) ** 2
        own2 = np.where(peaks[bright] > WING_SNR, np.minimum(own2, radius2), radius2)
        wing = peaks[bright] * np.exp(-0.5 * own2)
        on_wing = significance[faint] - wing < 0.9 * self.threshold
        samples = math.ceil(1.5 * reach)
        saddle = peaks[faint].copy()
        for fraction in np.arange(1, samples) / samples:
            line = np.rint(fraction * step).astype(np.int64)
            value = snr[rows[faint] + line[:, 1], columns[faint] + line[:, 0]]
            np.fmin(saddle, np.where(np.isnan(value), -np.inf, value), out=saddle)
        margin = np.maximum(self.saddle_sigma, self.saddle_fraction * np.maximum(saddle, 0.0))
        outshone[faint[close | on_wing | (peaks[faint] - saddle < margin)]] = True
        return outshone


def _local_maxima(snr: NDArray[np.float32], threshold: float) -> tuple[Index, Index]:
    """Rows and columns of pixels above `threshold` that no pixel of their 3 x 3 neighbourhood exceeds.

    Of equal neighbours the first in raster order counts; NaN and the outside never exceed anything.
    """
    height, width = snr.shape
    rows, columns = np.divmod(np.flatnonzero(snr > threshold), max(width, 1))
    for dy, dx in ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        y, x = rows + dy, columns + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        other = np.where(inside, snr[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)], -np.inf)
        value = snr[rows, columns]
        beaten = (other >= value) if (dy, dx) < (0, 0) else (other > value)
        rows, columns = rows[~beaten], columns[~beaten]
    return rows, columns


def _artefact_noise(snr: NDArray[np.float32], rows: Index, columns: Index, reach: float) -> Array:
    """Factor >= 1 on the noise at each maximum, from the deepest minimum within `reach` px."""
    factor = np.ones(rows.size)
    low_rows, low_columns = _local_maxima(-snr, ARTEFACT_FLOOR)
    if low_rows.size == 0:
        return factor
    near = cKDTree(np.stack([columns, rows], axis=1)).sparse_distance_matrix(
        cKDTree(np.stack([low_columns, low_rows], axis=1)), reach, output_type="ndarray"
    )
    excess = -snr[low_rows, low_columns].astype(np.float64) - ARTEFACT_FLOOR
    np.maximum.at(factor, near["i"], 1.0 + ARTEFACT_SLOPE * excess[near["j"]])
    return factor


def _cutouts(snr: NDArray[np.float32], rows: Index, columns: Index, dx: Index, dy: Index) -> Array:
    """Pixels at the offsets (K,) from each maximum, (N, K); blank pixels and the outside count as 0."""
    height, width = snr.shape
    y, x = rows[:, None] + dy, columns[:, None] + dx
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    cut = snr[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)].astype(np.float64)
    cut[~inside | np.isnan(cut)] = 0.0
    return cut


def _offsets(covariance: Array, sigmas: float, radius: int) -> tuple[Index, Index, Array, Array]:
    """Offsets dx, dy (K,) within so many sigmas of the beam, their squared distance, inverse covariance."""
    dy, dx = (a.ravel() for a in np.mgrid[-radius : radius + 1, -radius : radius + 1])
    inverse = np.linalg.inv(covariance)
    radius2 = _quadratic(inverse, dx, dy)
    near = radius2 < sigmas * sigmas
    return dx[near], dy[near], radius2[near], inverse


def _filtered(
    snr: NDArray[np.float32], rows: Index, columns: Index, covariance: Array, size: float, radius: int
) -> Array:
    """S/N of every maximum under a Gaussian filter of `size` beams, for noise correlated like the beam."""
    dx, dy, radius2, inverse = _offsets(covariance, min(3.5 * size, CUTOUT_SIGMAS), radius)
    kernel = np.exp(-0.5 * radius2 / size**2)
    kernel /= _filtered_noise(kernel, dx, dy, inverse)
    step = max(1, GATHER_PIXELS // kernel.size)
    parts = [
        (_cutouts(snr, rows[i : i + step], columns[i : i + step], dx, dy) * kernel).sum(-1)
        for i in range(0, rows.size, step)
    ]
    return np.concatenate(parts)


def _measure(
    snr: NDArray[np.float32], rows: Index, columns: Index, covariance: Array, radius: int
) -> dict[str, Array]:
    """Sub-pixel peak and weighted moments of every maximum, in batches of bounded memory."""
    dx, dy, radius2, _ = _offsets(covariance, CUTOUT_SIGMAS, radius)
    step = max(1, GATHER_PIXELS // dx.size)
    parts = []
    for i in range(0, max(rows.size, 1), step):
        here = rows[i : i + step], columns[i : i + step]
        core = _cutouts(snr, *here, np.tile([-1, 0, 1], 3), np.repeat([-1, 0, 1], 3))
        x, y, peak = _parabola(core.reshape(-1, 3, 3))
        flux, axes = _moments(_cutouts(snr, *here, dx, dy), dx, dy, radius2, covariance, peak)
        parts.append({"x": x, "y": y, "peak_snr": peak, "flux_snr": flux} | axes)
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _filtered_noise(kernel: Array, dx: Array, dy: Array, inverse: Array) -> float:
    """Rms of unit noise with the beam's autocorrelation after `kernel`."""
    ux, uy = dx[:, None] - dx, dy[:, None] - dy
    correlation = np.exp(-0.5 * _quadratic(inverse, ux, uy))
    return math.sqrt(float(kernel @ correlation @ kernel))


def _parabola(block: Array) -> tuple[Array, Array, Array]:
    """Offset (x, y) of the peak from the central pixel, at most half a pixel, and its height.

    From the quadratic through the logarithm of the 3 x 3 pixels, which is exact for a Gaussian of any angle;
    blocks of (N, 3, 3) with a pixel that is not positive use the values themselves.
    """
    top = block[:, 1, 1]
    positive = (block > 0).all((1, 2))
    value = np.where(positive[:, None, None], np.log(np.where(block > 0, block, 1.0)), block)
    gx, gy = 0.5 * (value[:, 1, 2] - value[:, 1, 0]), 0.5 * (value[:, 2, 1] - value[:, 0, 1])
    xx = value[:, 1, 2] - 2 * value[:, 1, 1] + value[:, 1, 0]
    yy = value[:, 2, 1] - 2 * value[:, 1, 1] + value[:, 0, 1]
    xy = 0.25 * (value[:, 2, 2] - value[:, 2, 0] - value[:, 0, 2] + value[:, 0, 0])
    # Corners beside a blank or a neighbour can turn the surface into a saddle; without them it is a
    # paraboloid.
    xy = np.where(xy * xy < 0.8 * xx * yy, xy, 0.0)
    curved = (xx < -1e-12) & (yy < -1e-12)
    determinant = np.where(curved, xx * yy - xy * xy, 1.0)
    x = np.clip(np.where(curved, (xy * gy - yy * gx) / determinant, 0.0), -0.5, 0.5)
    y = np.clip(np.where(curved, (xy * gx - xx * gy) / determinant, 0.0), -0.5, 0.5)
    rise = gx * x + gy * y + 0.5 * (xx * x * x + 2 * xy * x * y + yy * y * y)
    return x, y, np.where(positive, top * np.exp(rise), top + rise)


def _moments(
    cut: Array, dx: Array, dy: Array, radius2: Array, covariance: Array, peak: Array
) -> tuple[Array, dict[str, Array]]:
    """Integrated S/N (in beams) and apparent axes from second moments under a weight of the beam's shape.

    A Gaussian of covariance C under a weight of covariance B has the covariance ``M = (C^-1 + B^-1)^-1``,
    which is solved for C: this takes the weight, and so the bounded cutout, out again (Bernstein & Jarvis
    2002, AJ 123, 583).
    """
    weighted = np.exp(-0.5 * radius2) * cut
    total = np.maximum(weighted.sum(-1), 1e-6)
    mx, my = (weighted * dx).sum(-1) / total, (weighted * dy).sum(-1) / total
    xx = (weighted * (dx * dx)).sum(-1) / total - mx * mx
    yy = (weighted * (dy * dy)).sum(-1) / total - my * my
    xy = (weighted * (dx * dy)).sum(-1) / total - mx * my
    moment = np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)

    values, vectors = np.linalg.eigh(covariance)
    to_round = vectors @ np.diag(values**-0.5) @ vectors.T
    to_sky = vectors @ np.diag(values**0.5) @ vectors.T
    share, frame = np.linalg.eigh(to_round @ moment @ to_round)
    low, high = (size**2 for size in SIZE_RANGE)
    share = np.clip(share, low / (1 + low), high / (1 + high))
    # Towards the beam by S/N: a moment of a 5 sigma source says little and its neighbours' wings much.
    trust = (peak**3 / (peak**3 + SHAPE_SNR**3))[:, None]
    scale = (share / (1 - share)) ** trust
    flux = peak * np.sqrt(scale[:, 0] * scale[:, 1])

    shape = to_sky @ (frame * scale[:, None, :]) @ np.swapaxes(frame, 1, 2) @ to_sky
    axes, directions = np.linalg.eigh(shape)
    theta = np.mod(np.arctan2(directions[:, 1, 1], directions[:, 0, 1]), np.pi)
    # np.mod of a tiny negative angle rounds to pi itself.
    theta = np.where(theta >= np.pi, 0.0, theta)
    return flux, {"major": FWHM * np.sqrt(axes[:, 1]), "minor": FWHM * np.sqrt(axes[:, 0]), "theta": theta}
