"""Radio continuum skies with known truth: source counts to below the noise, beam-correlated noise, sidelobes.

The population follows what the SKA Data Challenge 1 truth shows (Bonaldi et al. 2021, MNRAS 500, 3821):
counts that steepen with flux, sizes that grow as about the square root of flux, and axis ratios that fall
with it. All of it is set relative to the noise and the beam (`SkyModel`), so that one model serves any
survey.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .render import (
    EXPONENTIAL_MIX,
    FWHM_TO_SIGMA,
    add_gaussians,
    add_sidelobes,
    correlated_noise,
    covariance,
    ellipse,
)

POINT, GAUSSIAN, DISC, DOUBLE = 0, 1, 2, 3
# Integral counts: d ln N / d ln S = -(SLOPE + CURVE * log10(S / sigma)), read off the SDC1 560 MHz truth.
FAINTEST, BRIGHTEST = 0.3, 3e4


@dataclass(frozen=True)
class SkyModel:
    """What a sky holds, in units of the noise (sigma, per beam) and of the beam's FWHM.

    Attributes
    ----------
    density : float
        Sources per beam area with integrated flux above 5 sigma; SDC1 has 0.026 at 560 MHz and 1000 h.
    slope, curve : float
        Integral counts fall as S to the power -(slope + curve log10 S).
    size_at_10 : float
        Median intrinsic FWHM (major axis), in beams, of a source of 10 sigma.
    size_slope, size_scatter : float
        Power of the size-flux relation; scatter in ln size.
    axis_ratio_at_10, axis_ratio_slope : float
        Median minor/major at 10 sigma and the power of its fall with flux.
    point_fraction, disc_fraction, double_fraction : float
        Shares of unresolved cores, exponential discs and double-lobed sources; the rest are Gaussians.
    kernel : float
        FWHM of the noise's convolution kernel over that of the beam; 1/sqrt 2 gives the beam's
        autocorrelation.
    sidelobe_level : float
        Height of the first sidelobe ring relative to its source's peak; 0 for none.
    background : float
        Amplitude of a smooth background in sigma.
    """

    density: float = 0.004
    slope: float = 0.55
    curve: float = 0.26
    size_at_10: float = 0.28
    size_slope: float = 0.5
    size_scatter: float = 0.47
    axis_ratio_at_10: float = 0.42
    axis_ratio_slope: float = -0.2
    point_fraction: float = 0.06
    disc_fraction: float = 0.2
    double_fraction: float = 0.02
    kernel: float = 1 / np.sqrt(2.0)
    sidelobe_level: float = 0.002
    background: float = 0.0

    @staticmethod
    def random(rng: np.random.Generator) -> SkyModel:
        """Draw a model from the range of skies that a detector shall serve (training)."""
        kernel = rng.uniform(0.66, 0.78)
        if rng.random() < 0.2:
            kernel = rng.uniform(0.2, 0.66) if rng.random() < 0.5 else rng.uniform(0.78, 1.0)
        # Steep counts alone show a network so few bright, extended sources that it comes to doubt them.
        bright = rng.random() < 0.25
        return SkyModel(
            density=_log_uniform(rng, 0.0015, 0.02 if bright else 0.05),
            slope=rng.normal(0.45 if bright else 0.55, 0.08),
            curve=rng.uniform(0.0, 0.12) if bright else rng.uniform(0.15, 0.32),
            size_at_10=0.28 * float(np.exp(rng.normal(0, 0.35))),
            size_slope=rng.uniform(0.35, 0.6),
            size_scatter=rng.uniform(0.35, 0.55),
            axis_ratio_at_10=rng.uniform(0.35, 0.65),
            axis_ratio_slope=rng.uniform(-0.25, 0.0),
            point_fraction=rng.uniform(0.0, 0.25),
            disc_fraction=rng.uniform(0.0, 0.5),
            double_fraction=rng.uniform(0.0, 0.15 if bright else 0.05),
            kernel=kernel,
            sidelobe_level=_log_uniform(rng, 3e-4, 1e-2) if rng.random() < 0.5 else 0.0,
            background=rng.uniform(0, 2) if rng.random() < 0.3 else 0.0,
        )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@dataclass
class Sources:
    """Truth in pixels and sigma. All arrays have one entry per source.

    ``x, y`` centroid (px); ``flux`` integrated over the noise per beam; ``major, minor`` intrinsic FWHM (px;
    sqrt 2 scale lengths for discs, of the second moments for doubles); ``theta`` angle of the major axis from
    +x towards +y (rad); ``kind`` one of POINT, GAUSSIAN, DISC, DOUBLE; ``core_fraction`` share of the flux in
    the core; ``peak`` noise-free apparent peak in sigma, filled by `components`.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    major: np.ndarray
    minor: np.ndarray
    theta: np.ndarray
    kind: np.ndarray
    core_fraction: np.ndarray
    peak: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.x)


def _log_counts(model: SkyModel) -> tuple[np.ndarray, np.ndarray]:
    """A grid of log10 flux and the natural log of the model's integral counts on it, up to a constant."""
    grid = np.linspace(np.log10(FAINTEST), np.log10(BRIGHTEST), 2000)
    slope = model.slope + model.curve * np.maximum(grid, -0.3)
    return grid, -np.cumsum(slope * np.gradient(grid)) * np.log(10)


def draw_fluxes(count: int, model: SkyModel, rng: np.random.Generator) -> np.ndarray:
    """Integrated fluxes in sigma from the model's counts between FAINTEST and BRIGHTEST."""
    grid, log_counts = _log_counts(model)
    above = np.exp(log_counts - log_counts[0])
    return 10 ** np.interp(rng.random(count), 1 - (above - above[-1]) / (above[0] - above[-1]), grid)


def counts_ratio(model: SkyModel) -> float:
    """N(> FAINTEST) / N(> 5 sigma) of the model."""
    grid, log_counts = _log_counts(model)
    return float(np.exp(log_counts[0] - np.interp(np.log10(5.0), grid, log_counts)))


def draw_sources(
    shape: tuple[int, int],
    model: SkyModel,
    beam: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    margin: float = 12.0,
) -> Sources:
    """Draw a population over an image and a margin (px) around it.

    Parameters
    ----------
    shape : (ny, nx)
    model : SkyModel
    beam : (major, minor, theta)
        FWHM in px, rad.
    rng : numpy Generator
    margin : float
        Sources just outside the image leak in.
    """
    ny, nx = shape
    fwhm = np.sqrt(beam[0] * beam[1])
    beam_area = np.pi * beam[0] * beam[1] / (4 * np.log(2))
    area = (ny + 2 * margin) * (nx + 2 * margin)
    count = int(rng.poisson(model.density * area / beam_area * counts_ratio(model)))
    flux = draw_fluxes(count, model, rng)
    kind = rng.choice(
        4,
        count,
        p=[
            model.point_fraction,
            1 - model.point_fraction - model.disc_fraction - model.double_fraction,
            model.disc_fraction,
            model.double_fraction,
        ],
    )
    # Faint doubles are unresolved in practice, and their lobes would be noise: keep them above 10 sigma.
    kind[(kind == DOUBLE) & (flux < 10)] = GAUSSIAN
    relative = np.maximum(flux, 0.5) / 10
    size = model.size_at_10 * fwhm * relative**model.size_slope
    major = np.minimum(size * np.exp(rng.normal(0, model.size_scatter, count)), 5 * fwhm)
    middle = np.clip(model.axis_ratio_at_10 * relative**model.axis_ratio_slope, 0.12, 0.8)
    ratio = 1 / (1 + np.exp(-(np.log(middle / (1 - middle)) + rng.normal(0, 0.55, count))))
    ratio = np.where(kind == POINT, 1.0, np.clip(ratio, 0.05, 1.0))
    major = np.where(kind == POINT, 0.02 * fwhm, major)
    double = kind == DOUBLE
    # FWHM of a double's second moments is about 1.2 times the distance between its lobes.
    major = np.where(double, 1.2 * fwhm * np.exp(rng.uniform(np.log(0.8), np.log(5.0), count)), major)
    ratio = np.where(double, rng.uniform(0.15, 0.4, count), ratio)
    return Sources(
        x=rng.uniform(-margin - 0.5, nx - 0.5 + margin, count),
        y=rng.uniform(-margin - 0.5, ny - 0.5 + margin, count),
        flux=flux,
        major=major,
        minor=major * ratio,
        theta=rng.uniform(0, np.pi, count),
        kind=kind,
        core_fraction=np.where(double, rng.uniform(0.0, 0.15, count), np.where(kind == POINT, 0.75, 0.0)),
    )


def components(
    sources: Sources, beam: tuple[float, float, float], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Break sources into Gaussians convolved with the beam.

    Fills ``sources.peak`` with the highest component sum at the sources' brightest point (the apparent peak),
    and replaces the size and angle of doubles by those of their second moments.

    Returns
    -------
    dict
        ``x, y, peak`` (n,), ``cov`` (3, n) and ``source`` (n,), the index of the source.
    """
    beam_cov = covariance(*(np.array([v]) for v in beam))
    beam_sigma2 = float(np.sqrt(beam_cov[0, 0] * beam_cov[2, 0] - beam_cov[1, 0] ** 2))
    parts: list[tuple[np.ndarray, ...]] = []

    def add(index: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, cov: np.ndarray) -> None:
        cov = cov + beam_cov
        height = flux * beam_sigma2 / np.sqrt(cov[0] * cov[2] - cov[1] ** 2)
        parts.append((index, x, y, height, cov))

    sources.peak = np.zeros(len(sources))
    simple = np.flatnonzero((sources.kind == POINT) | (sources.kind == GAUSSIAN))
    add(
        simple, sources.x[simple], sources.y[simple], sources.flux[simple],
        covariance(sources.major[simple], sources.minor[simple], sources.theta[simple]),
    )  # fmt: skip
    disc = np.flatnonzero(sources.kind == DISC)
    # A disc's FWHM follows the scorer's convention: FWHM = sqrt 2 times the scale length.
    scale = sources.major[disc] / np.sqrt(2.0)
    for share, sigma in EXPONENTIAL_MIX:
        width = scale * sigma / FWHM_TO_SIGMA
        ratio = sources.minor[disc] / sources.major[disc]
        add(
            disc, sources.x[disc], sources.y[disc], share * sources.flux[disc],
            covariance(width, width * ratio, sources.theta[disc]),
        )  # fmt: skip
    double = np.flatnonzero(sources.kind == DOUBLE)
    if len(double):
        _add_doubles(sources, double, add, rng)
    source, x, y, height, cov = (np.concatenate(p, axis=-1) for p in zip(*parts, strict=True))
    # Apparent peak: concentric components add up; a double's is that of its brighter lobe.
    concentric = sources.kind[source] != DOUBLE
    np.add.at(sources.peak, source[concentric], height[concentric])
    np.maximum.at(sources.peak, source[~concentric], height[~concentric])
    return {"source": source, "x": x, "y": y, "peak": height, "cov": cov}


def _add_doubles(sources: Sources, index: np.ndarray, add, rng: np.random.Generator) -> None:
    """Two lobes of unequal flux on a slightly bent axis, and a core at the given position."""
    n = len(index)
    half = 0.5 * sources.major[index] / 1.2
    angle, core = sources.theta[index], sources.core_fraction[index]
    share = rng.uniform(0.3, 0.7, n)
    bend = rng.normal(0, 0.15, (2, n))
    lobe_major = np.maximum(0.7 * sources.minor[index], 0.1 * half) * rng.uniform(0.8, 1.6, n)
    x0, y0, flux = sources.x[index], sources.y[index], sources.flux[index]
    pieces = [(x0, y0, core * flux, np.zeros((3, n)) + np.array([[1e-6], [0.0], [1e-6]]))]
    for sign, part, turn in ((1, share, bend[0]), (-1, 1 - share, bend[1])):
        length = half * rng.uniform(0.85, 1.15, n)
        lobe_cov = covariance(lobe_major, 0.7 * lobe_major, angle + turn)
        pieces.append(
            (
                x0 + sign * length * np.cos(angle + turn),
                y0 + sign * length * np.sin(angle + turn),
                part * (1 - core) * flux,
                lobe_cov,
            )
        )
    total = sum(p[2] for p in pieces)
    cx = sum(p[2] * p[0] for p in pieces) / total
    cy = sum(p[2] * p[1] for p in pieces) / total
    moments = np.zeros((3, n))
    for px, py, part, cov in pieces:
        dx, dy = px - cx, py - cy
        moments += part * (cov + np.stack([dx**2, dx * dy, dy**2]))
    sources.major[index], sources.minor[index], sources.theta[index] = ellipse(moments / total)
    sources.x[index], sources.y[index] = cx, cy
    for px, py, part, cov in pieces:
        add(index, px, py, part, cov)


def paint(
    shape: tuple[int, int],
    sources: Sources,
    model: SkyModel,
    beam: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    gain: np.ndarray | None = None,
) -> np.ndarray:
    """Noise-free sky in sigma, shape (ny, nx) float32: sources, sidelobes and smooth background.

    ``gain`` (primary-beam response per source, shape (n,)) scales what is drawn and ``sources.peak``.
    """
    sky = np.zeros(shape, np.float32)
    parts = components(sources, beam, rng)
    if gain is not None:
        parts["peak"] = parts["peak"] * gain[parts["source"]]
        sources.peak = sources.peak * gain
    add_gaussians(sky, parts["x"], parts["y"], parts["peak"], parts["cov"], floor=0.003)
    if model.sidelobe_level > 0:
        bright = np.flatnonzero(sources.peak > max(40.0, 0.5 / model.sidelobe_level))
        add_sidelobes(
            sky, sources.x[bright], sources.y[bright], sources.peak[bright],
            beam_fwhm=float(np.sqrt(beam[0] * beam[1])), level=model.sidelobe_level, rng=rng,
        )  # fmt: skip
    if model.background > 0:
        y, x = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
        period = rng.uniform(40, 200) * np.sqrt(beam[0] * beam[1])
        phase = rng.uniform(0, 2 * np.pi, 3)
        wave = np.sin(2 * np.pi * (x * np.cos(phase[0]) + y * np.sin(phase[0])) / period + phase[1])
        sky += (model.background * wave).astype(np.float32)
    return sky


def noise_map(
    shape: tuple[int, int], model: SkyModel, beam: tuple[float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Unit-rms noise with the model's correlation, shape (ny, nx) float32."""
    cov = covariance(beam[0] * model.kernel, beam[1] * model.kernel, np.array(beam[2]))
    return correlated_noise(shape, cov, rng)


def detectability(model: SkyModel) -> float:
    """Factor from apparent peak in sigma to the S/N of the best linear filter.

    1 where the noise has the beam's autocorrelation; above 1 for whiter noise, where filtering gains.
    """
    k = min(max(model.kernel, 0.15), 1 / np.sqrt(2.0))
    return float(1 / (2 * k * np.sqrt(1 - k * k)))


@dataclass(frozen=True)
class Simulation:
    """A simulated observation: image (Jy/beam), noise-free image, truth, primary beam or None, and header."""

    image: np.ndarray
    noise_free: np.ndarray
    truth: object
    header: object
    primary_beam: np.ndarray | None
    model: SkyModel


def simulate_continuum(
    shape: tuple[int, int],
    *,
    beam_pixels: float | tuple[float, float, float] = 4.0,
    seed: int = 0,
    model: SkyModel | None = None,
    rms: float = 5e-7,
    pixel_scale: float = 0.6,
    frequency: float = 1.4e9,
    centre: tuple[float, float] = (0.0, -30.0),
    primary_beam_fwhm: float | None = None,
) -> Simulation:
    """Simulate a continuum image with a truth table.

    Parameters
    ----------
    shape : (ny, nx)
    beam_pixels : float or (major, minor, theta)
        FWHM in px and pixel-frame angle in rad of the restoring beam.
    seed : int
        The same seed gives the same sky.
    model : SkyModel, optional
        What the sky holds; default as SDC1 but less dense.
    rms : float
        Noise in Jy/beam.
    pixel_scale : float
        arcsec.
    frequency : float
        Hz, into the header.
    centre : (ra, dec)
        Degrees, of the image's centre.
    primary_beam_fwhm : float, optional
        FWHM of a Gaussian primary beam as a fraction of the longer image side; sources are attenuated by it.

    Returns
    -------
    Simulation
        ``truth`` is an astropy Table in the 12 SDC1 columns plus x, y (px), peak_snr, snr (integrated over
        noise), pa_sky (deg east of north), maj, min (intrinsic FWHM, arcsec) and kind.
    """
    rng = np.random.default_rng(seed)
    model = model or SkyModel()
    beam = (beam_pixels, beam_pixels, 0.0) if np.isscalar(beam_pixels) else tuple(beam_pixels)
    sources = draw_sources(shape, model, beam, rng)
    gain, response = None, None
    if primary_beam_fwhm is not None:
        sigma = primary_beam_fwhm * max(shape) * FWHM_TO_SIGMA
        cy, cx = (shape[0] - 1) / 2, (shape[1] - 1) / 2
        gain = np.exp(-((sources.x - cx) ** 2 + (sources.y - cy) ** 2) / (2 * sigma**2))
        ry = np.exp(-((np.arange(shape[0], dtype=np.float32) - cy) ** 2) / (2 * sigma**2))
        rx = np.exp(-((np.arange(shape[1], dtype=np.float32) - cx) ** 2) / (2 * sigma**2))
        response = (ry[:, None] * rx[None, :]).astype(np.float32)
    sky = paint(shape, sources, model, beam, rng, gain=gain)
    image = noise_map(shape, model, beam, rng)
    image += sky
    image *= np.float32(rms)
    from .tables import image_header, truth_table

    header = image_header(shape, beam, pixel_scale=pixel_scale, frequency=frequency, centre=centre)
    truth = truth_table(sources, header, shape, rms=rms, pixel_scale=pixel_scale)
    return Simulation(image, sky * np.float32(rms), truth, header, response, replace(model))
