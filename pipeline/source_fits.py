"""The fits behind `pipeline.measure`: state of all sources of a window, and the passes that improve it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.cutouts import LADDER, Indices, Sky, batches, bucket_radii, nearby_pairs, subtract_models
from pipeline.fit_errors import prior_precision
from pipeline.fitting import (
    Grid,
    Limits,
    Pixels,
    Stack,
    fit,
    gaussian_values,
    linear_peak,
    taper_weights,
    whole_blocks,
)
from pipeline.gaussians import FWHM_PER_SIGMA, Array, BeamFrame
from pipeline.moments import SEMI_AXIS, aperture_moments
from pipeline.options import Options
from survey_io.columns import Flag

# A peak below this part of the local rms is no measurement; it keeps logarithms finite.
FAINTEST = 0.01

# Peaks (n,), centres (2, n) and shapes (3, n) of all sources.
Models = tuple[Array, Array, Array]


class MeasureOptions(Options):
    """How sources are measured. Lengths are in FWHM of the beam where not said otherwise."""

    title: ClassVar[str] = "measure"

    aperture: float = Field(1.2, ge=0.8, le=2.0, description="Radius of the fit in FWHM of the source.")
    taper: float = Field(
        0.7,
        ge=0.0,
        le=0.9,
        description="Strength of the weights' fall-off: 0 = uniform, 0.9 = nearly optimal for "
        "noise correlated exactly like the beam.",
    )
    size_prior: float = Field(
        0.1,
        gt=0.0,
        le=2.0,
        description="Scatter of the guessed size of a point source about the truth, relative.",
    )
    extended_prior: float = Field(
        0.3, gt=0.0, le=2.0, description="Scatter of the guessed size of a well resolved source, relative."
    )
    prior_snr: float = Field(
        10.0, gt=0.0, description="Signal-to-noise above which the guessed size counts less and less."
    )
    iterations: int = Field(8, ge=2, le=50, description="Steps of the first fit: the time bound.")
    refinements: int = Field(
        4, ge=0, le=50, description="Steps of the second fit, with the neighbours as fitted."
    )
    neighbours: float = Field(6.0, ge=1.0, le=20.0, description="Sources up to this far are subtracted.")
    largest: float = Field(
        6.0, ge=2.0, le=6.5, description="Sources larger than this are summed, not fitted."
    )
    resolved: float = Field(
        1.0, ge=0.0, description="Excess over the beam, in sigma, that counts as resolved."
    )
    bright_ratio: float = Field(
        30.0, gt=1.0, description="Peak ratio that makes a neighbour a far brighter one."
    )
    high_residual: float = Field(
        3.0, gt=1.0, description="Reduced chi squared above which a source is flagged."
    )


class SourceFits:
    """State of one call: guesses, fits so far and what goes into the results, all (n,) over all sources."""

    def __init__(
        self,
        sky: Sky,
        frame: BeamFrame,
        guesses: dict[str, Array],
        owned: NDArray[np.bool_],
        options: MeasureOptions,
    ) -> None:
        self.sky, self.frame, self.owned, self.options = sky, frame, owned, options
        self.x, self.y = guesses["x"], guesses["y"]
        # Beyond 2^31 no image has pixels, and rounding such guesses to integers would wrap.
        self.usable = np.isfinite(self.x) & np.isfinite(self.y) & (np.hypot(self.x, self.y) < 2**31)
        self.ix = np.rint(np.where(self.usable, self.x, -(10**6))).astype(np.int64)
        self.iy = np.rint(np.where(self.usable, self.y, -(10**6))).astype(np.int64)
        self.guess = self._guessed_shapes(guesses)
        count = self.x.size
        offset = np.where(self.usable, np.stack([self.x - self.ix, self.y - self.iy]), 0.0)
        self.centre = frame.from_pixels @ offset
        size = major_in_beams(self.guess)
        self.large = self.usable & (size > options.largest)
        area = np.exp(2 * self.guess[0])
        self.peak = (
            np.where(np.isfinite(guesses["flux"]) & (guesses["flux"] > 0), guesses["flux"], 0.0) / area
        )
        # Fits: peak in image units, centre from the pixel (iy, ix) and shape in the beam frame.
        self.fit_peak, self.fit_centre, self.fit_shape = (
            self.peak.copy(),
            self.centre.copy(),
            self.guess.copy(),
        )
        self.aperture_shape = self.guess.copy()
        self.local_rms = np.full(count, np.nan)
        self.coverage = np.zeros(count)
        # Only sources measured by their sum have these; the others' flux follows from peak and shape.
        self.flux, self.flux_noise = np.full(count, np.nan), np.full(count, np.nan)
        self.pixels, self.residual = np.zeros(count), np.zeros(count)
        self.precision, self.width = np.ones((2, count)), np.ones((2, count))
        self.flags, self.held = np.zeros(count, np.int64), np.zeros(count, bool)
        self.first, self.second, self.separation = nearby_pairs(
            self.x, self.y, self.usable, options.neighbours * frame.major
        )

    def _guessed_shapes(self, guesses: dict[str, Array]) -> Array:
        """Guesses (3, n), made sane: nothing is smaller than the beam, and odd values mean the beam."""
        major, minor, theta = (guesses[name] for name in ("major", "minor", "theta"))
        odd = ~(np.isfinite(major) & np.isfinite(minor) & np.isfinite(theta) & (major > 0) & (minor > 0))
        beam = self.frame.major, self.frame.minor, self.frame.theta
        major, minor, theta = (np.where(odd, b, g) for b, g in zip(beam, (major, minor, theta), strict=True))
        shape = np.stack(self.frame.shape(major, minor, theta))
        elongation = np.hypot(shape[1], shape[2])
        s = np.clip(shape[0], 0.0, np.log(1e3))
        return np.concatenate([s[None], shape[1:] * np.minimum(1, 2 * s / np.maximum(elongation, 1e-12))])

    def run(self) -> None:
        """Fit owned sources and their neighbours, then the owned ones again with the neighbours as fitted."""
        self.width = self._prior_width(self.guess)
        self.precision = prior_precision(self.guess, self.width, self.options.taper)
        beside = np.zeros_like(self.owned)
        beside[self.second[self.owned[self.first]]] = True
        compact = self.usable & ~self.large
        chosen = np.flatnonzero(compact & (self.owned | beside))
        self._pass(chosen, self._models(), self.options.iterations, start_again=True)
        # From here on all take their neighbours from the first pass: those that are not owned had no other.
        # More rounds do not help: close pairs begin to trade flux.
        models = self._models()
        if self.options.refinements:
            crowded = self._crowded()
            grown = major_in_beams(self.fit_shape) > 1.15 * major_in_beams(self.guess)
            self.aperture_shape = np.where(grown & self.owned, self.fit_shape, self.guess)
            self._pass(
                np.flatnonzero(compact & self.owned & (crowded | grown)),
                models,
                self.options.refinements,
                start_again=False,
            )
        self._sum_large(np.flatnonzero(self.large & self.owned), models)

    def _prior_width(self, shape: Array) -> Array:
        """Scatter (2, n) of guessed shapes about the truth, at low signal-to-noise."""
        resolved = 1 - 1 / np.maximum(major_in_beams(shape), 1.0) ** 2
        width = self.options.size_prior + (self.options.extended_prior - self.options.size_prior) * resolved
        # The two axes scatter nearly independently: s is half the sum of their logs, h their difference.
        return np.stack([width / np.sqrt(2), width * np.sqrt(2)])

    def _crowded(self) -> NDArray[np.bool_]:
        """Sources whose cut-outs hold more than a trace of a neighbour."""
        i, j = self.first, self.second
        gap = self.separation / self.frame.major - 0.7 * major_in_beams(self.guess[:, i])
        size = np.maximum(major_in_beams(self.fit_shape[:, j]), major_in_beams(self.guess[:, j]))
        trace = np.maximum(self.peak[j], self.fit_peak[j]) * np.exp2(
            -4 * np.square(np.maximum(gap, 0) / size)
        )
        crowded = np.zeros_like(self.owned)
        crowded[i[trace > 0.1 * self.local_rms[i]]] = True
        return crowded

    def _models(self) -> Models:
        """All sources as they are known now."""
        return self.fit_peak.copy(), self.fit_centre.copy(), self.fit_shape.copy()

    def _pass(self, chosen: Indices, models: Models, iterations: int, *, start_again: bool) -> None:
        """Fit the chosen sources with the neighbours as given."""
        radii = bucket_radii(major_in_beams(self.aperture_shape), self.options.aperture)
        for grid, part in batches(radii, self.frame, chosen):
            part = whole_blocks(part)
            self._fit_stack(grid, part, *self._cut(grid, part, models), iterations, start_again)

    def _cut(self, grid: Grid, part: Indices, models: Models) -> tuple[Pixels, Pixels, Array]:
        """Data in local rms with neighbours subtracted; (local rms / rms)^2, 0 where blank; local rms."""
        data, rms, edge = self.sky.gather(grid, self.iy[part], self.ix[part])
        with np.errstate(invalid="ignore", divide="ignore"):
            valid = np.isfinite(data) & (rms > 0) & np.isfinite(rms)
            middle = np.flatnonzero((grid.dy == 0) & (grid.dx == 0))[0]
            scale = np.where(valid[middle], rms[middle], np.nan).astype(float)
            lost = np.flatnonzero(~valid[middle])
            if lost.size:
                some = valid[:, lost].sum(0)
                total = np.where(valid[:, lost], rms[:, lost], 0).sum(0, dtype=float)
                scale[lost] = np.where(some > 0, total / np.maximum(some, 1), np.nan)
            unit = np.where(np.isfinite(scale), scale, 1.0).astype(np.float32)
            weight = np.where(valid, np.square(unit / rms), np.float32(0))
            data = np.where(valid, data / unit, np.float32(0))
        self._subtract_neighbours(grid, part, data, unit.astype(float), models)
        blank = ~valid.all(0)
        self.flags[part] |= np.where(edge, int(Flag.EDGE), np.where(blank, int(Flag.BLANK), 0))
        return data, weight, scale

    def _subtract_neighbours(
        self, grid: Grid, part: Indices, data: Pixels, unit: Array, models: Models
    ) -> None:
        """Subtract, in place, all models that reach into the cut-outs."""
        peak, centre, shape = models
        place = np.full(self.x.size, -1)
        place[part] = np.arange(part.size)
        sigma = self.frame.major / FWHM_PER_SIGMA
        # At twice its FWHM a Gaussian has fallen to 2^-16.
        limit = (grid.radius + 2 * FWHM_PER_SIGMA * major_in_beams(shape[:, self.second])) * sigma
        used = (place[self.first] >= 0) & (self.separation <= limit) & (peak[self.second] > 0)
        i, j = self.first[used], self.second[used]
        order = np.argsort(place[i], kind="stable")
        i, j = i[order], j[order]
        away = self.frame.from_pixels @ np.stack([self.ix[j] - self.ix[i], self.iy[j] - self.iy[i]]).astype(
            float
        )
        subtract_models(
            grid, data, place[i], np.log(peak[j] / unit[place[i]]), *(centre[:, j] + away), shape[:, j]
        )

    def _fit_stack(
        self,
        grid: Grid,
        part: Indices,
        data: Pixels,
        weight: Pixels,
        scale: Array,
        iterations: int,
        start_again: bool,
    ) -> None:
        """Fit one stack; what will not fit keeps the guessed shape, at worst the position too."""
        tapers = taper_weights(grid, *self.centre[:, part], self.aperture_shape[:, part], self.options.taper)
        stack = Stack(grid, data, weight * tapers)
        self.coverage[part] = stack.weight.sum(0) / tapers.sum(0)
        guess = np.concatenate([np.zeros((1, part.size)), self.centre[:, part], self.guess[:, part]])
        if start_again:
            brightness = linear_peak(stack, guess)
            factor = np.sqrt(1 + np.square(np.maximum(brightness, 0) / self.options.prior_snr))
            self.width[:, part] *= factor
            self.precision[:, part] /= factor**2
            state = guess.copy()
        else:
            state = np.concatenate(
                [np.zeros((1, part.size)), self.fit_centre[:, part], self.fit_shape[:, part]]
            )
            brightness = linear_peak(stack, state)
        state[0] = np.maximum(brightness, 0.5)
        shift = 0.5 * FWHM_PER_SIGMA * np.maximum(minor_in_beams(self.guess[:, part]), 1.0)
        limits = Limits(
            centre=guess[1:3],
            shift=shift,
            shape=guess[3:],
            precision=self.precision[:, part],
            largest=2 * grid.radius / FWHM_PER_SIGMA,
            free=np.ones((6, part.size), bool),
        )
        state, good = fit(stack, state, limits, iterations=iterations)
        failed = ~good
        for held in (slice(3, 6), slice(1, 6)):
            bad = whole_blocks(np.flatnonzero(~good))
            if not bad.size:
                break
            state[:, bad], good[bad] = _fit_held(stack, guess, limits, bad, held, iterations)
        state[:, ~good] = guess[:, ~good]
        state[0, ~good] = np.maximum(linear_peak(stack, guess)[~good], FAINTEST)
        self.residual[part] = (np.square(data - _model(grid, state)) * weight).sum(0)
        self.pixels[part] = (weight > 0).sum(0)
        # Without pixels at the centre a peak is an extrapolation.
        empty = ~np.isfinite(scale) | (self.coverage[part] < 0.02)
        self.local_rms[part] = np.where(empty, np.nan, scale)
        self.held[part] = failed | empty
        self.fit_peak[part] = np.where(empty, self.peak[part], state[0] * np.where(empty, 1.0, scale))
        self.fit_centre[:, part] = np.where(empty, guess[1:3], state[1:3])
        self.fit_shape[:, part] = np.where(empty, guess[3:], state[3:])

    def _sum_large(self, chosen: Indices, models: Models) -> None:
        """Apertures for sources that are too large to be Gaussians."""
        largest = self.options.neighbours + self.options.aperture * LADDER[-1]
        wanted = SEMI_AXIS * major_in_beams(self.guess)
        radii = np.minimum(np.exp2(np.ceil(np.log2(wanted) * 2) / 2), largest) * FWHM_PER_SIGMA
        for grid, part in batches(radii, self.frame, chosen):
            data, weight, scale = self._cut(grid, part, models)
            sums = aperture_moments(grid, data, weight > 0, self.centre[:, part], self.guess[:, part])
            empty = ~np.isfinite(scale) | (sums.pixels == 0)
            unit = np.where(empty, np.nan, scale)
            self.local_rms[part], self.held[part] = unit, True
            self.fit_peak[part] = np.where(empty, self.peak[part], np.maximum(sums.peak, FAINTEST) * unit)
            area = 2 * np.pi * self.frame.pixels_per_area
            self.flux[part] = sums.total * unit / area
            self.flux_noise[part] = unit * np.sqrt(sums.pixels / area)
            self.coverage[part] = np.where(empty, 0.0, 1.0)
            self.fit_centre[:, part], self.fit_shape[:, part] = sums.centre, sums.shape
            self.residual[part], self.pixels[part] = np.nan, sums.pixels


def _fit_held(
    stack: Stack, guess: Array, limits: Limits, chosen: Indices, held: slice, iterations: int
) -> tuple[Array, NDArray[np.bool_]]:
    """Fit some sources of a stack again from their guesses, with some parameters held there."""
    some, narrower = stack.columns(chosen), limits.columns(chosen)
    narrower.free[held] = False
    state = guess[:, chosen]
    state[0] = np.maximum(linear_peak(some, state), 0.5)
    return fit(some, state, narrower, iterations=iterations)


def _model(grid: Grid, state: Array) -> Pixels:
    """Models (P, n) in local rms."""
    return gaussian_values(grid, np.log(state[0]), state[1], state[2], state[3:])


def major_in_beams(shape: Array) -> Array:
    """Larger size of shapes (3, n) in beams."""
    return np.exp(shape[0] + np.hypot(shape[1], shape[2]) / 2)


def minor_in_beams(shape: Array) -> Array:
    """Smaller size of shapes (3, n) in beams."""
    return np.exp(shape[0] - np.hypot(shape[1], shape[2]) / 2)
