"""Training fields cut out of real images, among fields of simulated sky.

A field is turned by one of the eight symmetries of the square, sources and beam with it, and sometimes made noisier
by noise that the beam has smoothed: all that keeps what sources look like through this beam.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.fields import Batch, Field
from models.loader import Sky, SkyFields, encode_targets, positive_radius
from models.streams import my_numbers
from models.visibility import Visibility, crowding_of
from models.yolo.assign import IGNORED, assign_centres
from models.yolo.head import HeadSpec
from survey_io.datasets.survey import MARGIN, PixelSources
from survey_io.simulate.render import correlated_noise, covariance

# Share of fields that get noise, and the most of it over the image's own.
NOISY_SHARE, MOST_NOISE = 0.4, 0.8
# The local rms is itself estimated.
RMS_SCATTER = 0.03
NOISE_SIDE = 512
SIMULATED_SIDE = 256


@dataclass(frozen=True)
class Band:
    """Sources likelier to be found than ``demanded`` must be; those between the two are left alone."""

    demanded: float
    ignored: float


@dataclass(frozen=True)
class RealSky:
    """One image to cut fields from.

    Attributes
    ----------
    snr : ndarray of float32
        NaN where blank.
    sources : PixelSources
        ``flux`` over the local rms.
    beam : (major, minor, theta)
        px, rad.
    usable : ndarray of bool
        Pixels of the part that may be learned from.
    windows : list of (rows, columns)
        That part.
    """

    snr: np.ndarray
    sources: PixelSources
    beam: tuple[float, float, float]
    usable: np.ndarray
    windows: list[tuple[slice, slice]]

    @property
    def beam_px(self) -> float:
        """Geometric mean of the beam's axes."""
        return float(np.sqrt(self.beam[0] * self.beam[1]))

    @property
    def area(self) -> int:
        """Usable pixels."""
        return int(self.usable.sum())


def turn(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, angles: tuple[np.ndarray, ...], code: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """One of the eight symmetries of the square.

    Parameters
    ----------
    image : ndarray, shape (n, n) or (n, n, k)
    x, y : ndarray
        px.
    angles : tuple of ndarray
        From +x towards +y, rad.
    code : int
        0 to 7: bit 0 swaps the axes, then bit 1 mirrors x, bit 2 mirrors y.

    Returns
    -------
    image, x, y, angles
    """
    last = image.shape[0] - 1
    if code & 1:
        image, (x, y) = image.swapaxes(0, 1), (y, x)
        angles = tuple(np.pi / 2 - angle for angle in angles)
    if code & 2:
        image, x, angles = image[:, ::-1], last - x, tuple(np.pi - angle for angle in angles)
    if code & 4:
        image, y, angles = image[::-1], last - y, tuple(-angle for angle in angles)
    return np.ascontiguousarray(image), x, y, tuple(np.mod(angle, np.pi) for angle in angles)


class SurveyFields(SkyFields):
    """Endless batches by number, a share of their fields real.

    Parameters
    ----------
    spec : HeadSpec
    skies : list of RealSky
    visibility : Visibility
    band : Band
    share : float
        Of real fields.
    augment : bool
        Turn fields and add noise.
    **others
        ``batch``, ``size`` and ``seed`` of `SkyFields`, ``first`` and ``every`` of `models.streams.NumberedBatches`.
    """

    def __init__(
        self, spec: HeadSpec, skies: list[RealSky], *, visibility: Visibility, band: Band, share: float,
        augment: bool = True, batch: int, size: int, seed: int, first: int = 0, every: int = 1,
    ):  # fmt: skip
        super().__init__(spec, batch=batch, size=size, seed=seed, sky_size=SIMULATED_SIDE)
        self.skies, self.visibility, self.band, self.share, self.augment = skies, visibility, band, share, augment
        self.numbers = first, every
        areas = np.array([sky.area for sky in skies], float)
        self.chances = areas / areas.sum()
        self.noise: dict[int, np.ndarray] = {}

    def __iter__(self) -> Iterator[Batch]:
        for number in itertools.count(*my_numbers(*self.numbers)):
            rng = np.random.default_rng([self.seed, number])
            # One small sky for the simulated fields of a batch: they are few, and there against forgetting.
            yield self.make_batch([None if self.share >= 1 else self.draw(rng)], rng)

    def cut(self, sky: Sky | None, rng: np.random.Generator) -> Field:
        """See `PooledFields`."""
        if rng.random() < self.share:
            number = int(rng.choice(len(self.skies), p=self.chances))
            return self.cut_real(number, self.place(self.skies[number], rng), rng)
        return super().cut(sky, rng)

    def place(self, sky: RealSky, rng: np.random.Generator) -> tuple[int, int]:
        """Corner (y, x) of a field around a random place of the usable part; it may reach beyond the image."""
        areas = np.array([np.prod([span.stop - span.start for span in window]) for window in sky.windows], float)
        window = sky.windows[int(rng.choice(len(areas), p=areas / areas.sum()))]
        corner = []
        for span, side in zip(window, sky.snr.shape, strict=True):
            low, high = span.start - self.size // 4, span.stop - self.size + self.size // 4
            if high < low:
                # A part narrower than a field is shown whole.
                low = high = (span.start + span.stop - self.size) // 2
            corner.append(int(rng.integers(low, high + 1)))
            corner[-1] = int(np.clip(corner[-1], -self.size // 4, max(side - 3 * self.size // 4, -self.size // 4)))
        return corner[0], corner[1]

    def cut_real(self, number: int, corner: tuple[int, int], rng: np.random.Generator | None) -> Field:
        """A field of a real image at a corner (y, x); without ``rng`` as it is."""
        sky, size = self.skies[number], self.size
        (y0, x0), s = corner, sky.sources
        image, usable = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
        ny, nx = sky.snr.shape
        rows, columns = slice(max(y0, 0), min(y0 + size, ny)), slice(max(x0, 0), min(x0 + size, nx))
        inside = (slice(rows.start - y0, rows.stop - y0), slice(columns.start - x0, columns.stop - x0))
        image[inside], usable[inside] = sky.snr[rows, columns], sky.usable[rows, columns]
        blank = ~np.isfinite(image)
        reach, middle = size / 2 + MARGIN, (size - 1) / 2
        near = (abs(s.x - x0 - middle) < reach) & (abs(s.y - y0 - middle) < reach)
        s = s[near]
        snr, flux = s.snr, s.flux
        if rng is not None and self.augment:
            scale = float(np.exp(rng.normal(0, RMS_SCATTER)))
            if rng.random() < NOISY_SHARE:
                level = rng.uniform(0, MOST_NOISE)
                image = image + np.float32(level) * self.noise_of(number, rng)
                scale *= np.sqrt(1 + level**2)
            image, snr, flux = image / np.float32(scale), snr / scale, flux / scale
        # Borders and blanks are 0 to the network, whatever was added.
        covered = np.zeros((size, size), bool)
        covered[inside] = True
        image[blank | ~covered] = 0
        x, y, theta, beam_theta = s.x - x0, s.y - y0, s.theta, np.array([sky.beam[2]])
        if rng is not None and self.augment:
            both = np.stack([image, usable], -1)
            both, x, y, (theta, beam_theta) = turn(both, x, y, (theta, beam_theta), int(rng.integers(8)))
            image, usable = both[..., 0], both[..., 1]
        beam = (sky.beam[0], sky.beam[1], float(beam_theta[0]))
        return self.targets(np.ascontiguousarray(image), usable > 0, beam, x, y, theta, flux, snr, s)

    def targets(
        self, image: np.ndarray, usable: np.ndarray, beam: tuple[float, float, float], x: np.ndarray, y: np.ndarray,
        theta: np.ndarray, flux: np.ndarray, snr: np.ndarray, s: PixelSources,
    ) -> Field:  # fmt: skip
        """What is asked of the network: sources by their visibility; nothing where the part ends."""
        beam_px = float(np.sqrt(beam[0] * beam[1]))
        seen = self.visibility.probability(snr, flux / np.maximum(snr, 1e-9), crowding_of(x, y, snr, beam_px))
        keep = (seen > self.band.ignored) & (abs(x - self.size / 2) < self.size) & (flux > 0)
        fields = {
            "x": x[keep], "y": y[keep], "theta": theta[keep], "flux": flux[keep],
            "major": s.major[keep], "minor": s.minor[keep],
        }  # fmt: skip
        target = encode_targets(fields, beam)
        radius = np.full(int(keep.sum()), max(positive_radius(beam_px), self.smallest_radius))
        ignore = seen[keep] < self.band.demanded
        priority = np.log(np.maximum(fields["flux"], 1e-3))
        found = assign_centres(self.anchors, target["centre"], radius, priority, ignore)
        y_anchor, x_anchor = (np.clip(np.rint(at).astype(int), 0, self.size - 1) for at in self.anchors.T)
        found[~usable[y_anchor, x_anchor]] = IGNORED
        # Sources whose anchors are all outside have no vote; they leave the table.
        voted = np.zeros(len(ignore), bool)
        voted[np.unique(found[found >= 0])] = True
        return Field(image, beam, target, found, ignore | ~voted)

    def noise_of(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Unit noise (size, size) as the image's beam smooths it, a random piece of a map that is made once."""
        if number not in self.noise:
            beam = self.skies[number].beam
            cov = covariance(beam[0] / np.sqrt(2), beam[1] / np.sqrt(2), np.array(beam[2]))
            side = max(NOISE_SIDE, self.size + 64)
            self.noise[number] = correlated_noise((side, side), cov, np.random.default_rng([self.seed, number]))
        noise = self.noise[number]
        y0, x0 = rng.integers(0, noise.shape[0] - self.size + 1, 2)
        return noise[y0 : y0 + self.size, x0 : x0 + self.size]


