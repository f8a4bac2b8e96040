"""Seeded cubes of HI galaxies with known truth: rotating discs, correlated noise, residual continuum, interference.

Fluxes, sizes and widths follow the statistics of SKA Science Data Challenge 2 (Hartley et al. 2023): its flux
quantiles, a mass-size relation and a mass-width relation with their scatters, at redshifts 0.24 to 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.fft import irfft2, rfft2
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from survey_io.errors import OptionError
from survey_io.sdc2 import write_sdc2
from survey_io.simulate.hi_paint import FWHM_TO_SIGMA, GAUSSIAN_W20, beam_transfer, disc_points, rotation_speed, splat
from survey_io.simulate.hi_templates import STRETCH, choose, read_templates
from survey_io.spectral import HI_REST_FREQUENCY, LIGHT

# Quantiles of the challenge's line fluxes (Jy Hz): half of all lie below 5.6, one in fifty above 73.
FLUX_QUANTILES = (
    (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.82, 0.9, 0.95, 0.98, 0.99, 0.998, 1.0),
    (1.34, 1.92, 2.15, 2.99, 5.58, 12.93, 17.9, 28.5, 45.2, 72.6, 96.4, 189.0, 582.0),
)
# log D[kpc] = a + b log M and log (w20 / sin i)[km/s] = a + b log M, with their scatters.
SIZE_RELATION, WIDTH_RELATION = (-2.951, 0.480, 0.133), (0.765, 0.186, 0.15)
# Galaxies above a given flux grow fewer with frequency in the challenge: d ln n / d nu, per Hz.
DENSITY_SLOPE = -3.9e-9
# Scale length of a disc and radius at which its rotation curve turns over, both over the HI radius: the middle,
# the scatter in ln, and limits.
# Scale lengths give the light's rms over the HI radius that the atlas of real galaxies has (0.43, from 0.35 to 0.53).
SCALE_LENGTH, SCALE_SCATTER, SCALE_LIMITS = 0.28, 0.25, (0.17, 0.5)
TURNOVER, TURNOVER_SCATTER, TURNOVER_LIMITS = 0.15, 0.5, (0.05, 0.6)
DISPERSION_SCATTER = 0.2
# Gain errors of the continuum's subtraction: their rms, and how far they are alike in Hz and arcsec (Hartley et al.).
GAIN_ERROR, GAIN_BAND, GAIN_REACH = 1e-3, 10e6, 512.0
MASS_PER_FLUX = 49.8


@dataclass(frozen=True)
class HiModel:
    """What a cube holds.

    Attributes
    ----------
    shape : (nchan, ny, nx)
    pixel_scale : float
        arcsec.
    channel_width, first_frequency : float
        Hz; channels go up in frequency.
    beam, beam_minor : float
        FWHM along the major and the minor axis, arcsec; None for a round beam.
    beam_pa : float
        Position angle of the beam, degrees east of north.
    rms : float
        Noise of a channel in Jy/beam at the middle of the band; it falls by ``noise_fall`` along the cube.
    density : float
        Galaxies per 10^6 voxels above ``least_flux``; the challenge has 1.0 above 1.3 Jy Hz.
    least_flux : float
        Jy Hz; galaxies below are not drawn.
    dispersion : float
        Of the gas, km/s; the middle where ``variety`` is above 0.
    lopsided : float
        Largest difference, 0 to 0.8, of a galaxy's brighter side from the mean at the HI radius; that side also
        reaches further and its rotation curve turns over later.
    warp : float
        Largest turn, degrees, of position angle and inclination between 0.8 and 1.5 HI radii.
    hole : float
        Largest depth of a central depression, 0 to 1.
    variety : float
        Scatter of scale length, turnover radius and dispersion from galaxy to galaxy, as a multiple of the usual.
    templates : path, optional
        Folder of real galaxies (see `read_templates`) from which ``template_share`` of the galaxies are made; such a
        galaxy has its template's inclination.
    held_out : bool, optional
        Only the templates held out (True) or only the others (False); None for all.
    continuum : float
        Continuum sources above 3 mJy per 10^4 px whose subtraction left an error, 0 for none; with pixels of 2.8
        arcsec the sky has about 0.6.
    interference : float
        Share of channels with interference, whose noise is 3 to 20 times the others'.
    flagged : float
        Share of channels that interference has cost: NaN.
    """

    shape: tuple[int, int, int] = (256, 128, 128)
    pixel_scale: float = 2.8
    channel_width: float = 30e3
    first_frequency: float = 1.05e9
    beam: float = 7.0
    beam_minor: float | None = None
    beam_pa: float = 0.0
    rms: float = 2.6e-5
    noise_fall: float = 0.1
    density: float = 1.0
    least_flux: float = 1.34
    dispersion: float = 8.0
    lopsided: float = 0.4
    warp: float = 20.0
    hole: float = 0.9
    variety: float = 1.0
    templates: str | Path | None = None
    template_share: float = 0.5
    held_out: bool | None = None
    continuum: float = 0.0
    interference: float = 0.0
    flagged: float = 0.0
    centre: tuple[float, float] = (180.0, -30.0)

    def __post_init__(self) -> None:
        minor = self.beam if self.beam_minor is None else self.beam_minor
        if not 1.5 * self.pixel_scale <= minor <= self.beam:
            raise OptionError(
                f"a beam of {self.beam:g} x {minor:g} arcsec in pixels of {self.pixel_scale:g}: expected a minor axis"
                " of at least 1.5 pixels and no longer than the major one"
            )

    @property
    def beam_px(self) -> float:
        """FWHM of the beam, px; of the round one of the same area where it is not round."""
        return float(np.sqrt(self.beam_shape[0] * self.beam_shape[1]))

    @property
    def beam_shape(self) -> tuple[float, float, float]:
        """FWHM of the beam along both axes, px, and its position angle, degrees."""
        minor = self.beam if self.beam_minor is None else self.beam_minor
        return self.beam / self.pixel_scale, minor / self.pixel_scale, self.beam_pa

    @property
    def beam_area(self) -> float:
        """Area of the beam, px."""
        return float(np.pi / (4 * np.log(2)) * self.beam_px**2)

    def frequency(self, z: np.ndarray) -> np.ndarray:
        """Hz at channels counted from 0."""
        return self.first_frequency + self.channel_width * np.asarray(z, float)

    def channel_rms(self) -> np.ndarray:
        """Noise of each channel, Jy/beam."""
        place = np.linspace(-0.5, 0.5, self.shape[0])
        return self.rms * (1 - self.noise_fall * place)


# What a plain disc has where it is not 0.
PLAIN = {"scale": 0.4, "turnover": TURNOVER, "dispersion": np.nan, "template": -1}


@dataclass
class Galaxies:
    """Truth, one entry per galaxy, and what else its painter needs.

    ``x, y, z`` in px and channels, of the centre of rotation; ``flux`` Jy Hz; ``size`` HI diameter in arcsec; ``w20``
    km/s, full width at 20% of the peak of the global profile before the channels blur it; ``pa`` of the receding
    side, east of north, and ``inclination`` in degrees, both within 0.8 HI radii; ``snr`` of the painted cube, filled
    by `paint_galaxies`.

    The others may be left out, which gives a plain disc: ``lopsided`` (amount) and ``lopsided_angle`` (degrees from
    the receding side, in the disc) of the brighter side; ``skew``, by how much faster the receding side turns (0.1:
    10% faster, and the other slower); ``warp_pa`` and ``warp_inclination``, the turn at the disc's edge in degrees;
    ``hole``, the depth of a central depression; ``scale`` (length) and ``turnover`` of the rotation curve in HI
    radii; ``dispersion`` in km/s, NaN for the model's. A galaxy made of a template has its number in ``template``
    (-1: a disc) and 1 in ``mirrored`` where its handedness is changed; its centre is that of the template's light and
    the middle of its profile at 20% of the peak, its angle that of the light's velocity gradient.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    flux: np.ndarray
    size: np.ndarray
    w20: np.ndarray
    pa: np.ndarray
    inclination: np.ndarray
    snr: np.ndarray
    lopsided: np.ndarray | None = None
    lopsided_angle: np.ndarray | None = None
    skew: np.ndarray | None = None
    warp_pa: np.ndarray | None = None
    warp_inclination: np.ndarray | None = None
    hole: np.ndarray | None = None
    scale: np.ndarray | None = None
    turnover: np.ndarray | None = None
    dispersion: np.ndarray | None = None
    template: np.ndarray | None = None
    mirrored: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is None:
                setattr(self, name, np.full(len(self.x), PLAIN.get(name, 0.0)))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index) -> Galaxies:
        return Galaxies(**{name: value[index] for name, value in vars(self).items()})


def draw_fluxes(count: int, least: float, rng: np.random.Generator) -> np.ndarray:
    """Line fluxes in Jy Hz with the challenge's distribution above ``least``."""
    share, log_flux = np.array(FLUX_QUANTILES[0]), np.log(FLUX_QUANTILES[1])
    start = float(np.interp(np.log(max(least, FLUX_QUANTILES[1][0])), log_flux, share))
    return np.exp(np.interp(rng.uniform(start, 1, count), share, log_flux))


def draw_galaxies(model: HiModel, rng: np.random.Generator) -> Galaxies:
    """Draw a population over a cube; all centres lie within it."""
    share = 1 - np.interp(np.log(model.least_flux), np.log(FLUX_QUANTILES[1]), FLUX_QUANTILES[0])
    count = int(rng.poisson(model.density * np.prod(model.shape) / 1e6 * share))
    nchan, ny, nx = model.shape
    x, y, share = rng.uniform(-0.5, nx - 0.5, count), rng.uniform(-0.5, ny - 0.5, count), rng.uniform(0, 1, count)
    slope = DENSITY_SLOPE * model.channel_width * nchan
    z = nchan * np.log1p(share * np.expm1(slope)) / slope - 0.5
    flux = draw_fluxes(count, model.least_flux, rng)
    redshift = HI_REST_FREQUENCY / model.frequency(z) - 1
    grid = np.linspace(max(redshift.min(initial=0.3) - 0.01, 1e-3), redshift.max(initial=0.3) + 0.01, 50)
    distance = np.interp(redshift, grid, FlatLambdaCDM(H0=67, Om0=0.32).luminosity_distance(grid).value)
    mass = np.log10(MASS_PER_FLUX * distance**2 * flux)
    a, b, scatter = SIZE_RELATION
    kpc = 10 ** (a + b * mass + rng.normal(0, scatter, count))
    inclination = np.degrees(np.arccos(rng.uniform(0, 1, count)))
    a, b, scatter = WIDTH_RELATION
    turning = 10 ** (a + b * mass + rng.normal(0, scatter, count)) * np.sin(np.radians(inclination))
    pa = rng.uniform(0, 360, count)
    dispersion = model.dispersion * np.exp(DISPERSION_SCATTER * model.variety * rng.normal(size=count))
    galaxies = Galaxies(
        x, y, z, flux,
        size=kpc / (1e3 * distance / (1 + redshift) ** 2) * 206264.806,
        w20=np.hypot(turning, GAUSSIAN_W20 * dispersion),
        pa=pa, inclination=inclination, snr=np.zeros(count), dispersion=dispersion,
        lopsided=model.lopsided * rng.uniform(0, 1, count), lopsided_angle=rng.uniform(0, 360, count),
        skew=0.25 * model.lopsided * rng.uniform(-1, 1, count),
        warp_pa=model.warp * rng.uniform(-1, 1, count), warp_inclination=model.warp * rng.uniform(-1, 1, count),
        hole=model.hole * rng.uniform(0, 1, count),
        scale=_vary(SCALE_LENGTH, SCALE_SCATTER * model.variety, SCALE_LIMITS, count, rng),
        turnover=_vary(TURNOVER, TURNOVER_SCATTER * model.variety, TURNOVER_LIMITS, count, rng),
    )  # fmt: skip
    if model.templates is not None:
        _give_templates(model, galaxies, kpc, rng)
    return galaxies


def _give_templates(model: HiModel, galaxies: Galaxies, kpc: np.ndarray, rng: np.random.Generator) -> None:
    """Make some galaxies of templates, in place; they take what a template cannot be made to have."""
    templates = read_templates(model.templates, held_out=model.held_out)
    rows = np.flatnonzero(rng.random(len(galaxies)) < model.template_share)
    beam = model.beam_shape[1] * model.pixel_scale
    number = choose(
        templates, inclination=galaxies.inclination[rows], w20=galaxies.w20[rows], size_kpc=kpc[rows],
        size_beams=galaxies.size[rows] / beam, rng=rng,
    )  # fmt: skip
    own = np.array([templates[one].w20 for one in number])
    galaxies.template[rows] = number
    galaxies.mirrored[rows] = rng.integers(0, 2, len(rows))
    galaxies.inclination[rows] = [templates[one].inclination for one in number]
    galaxies.w20[rows] = np.clip(galaxies.w20[rows], own / STRETCH, own * STRETCH)


def _vary(middle: float, scatter: float, limits: tuple[float, float], count: int, rng: np.random.Generator):
    return np.clip(middle * np.exp(scatter * rng.normal(size=count)), *limits)


def paint_galaxies(model: HiModel, galaxies: Galaxies, *, sky: np.ndarray | None = None) -> np.ndarray:
    """Noise-free cube in Jy/beam, float32, seen through the beam; fills ``galaxies.snr``.

    The S/N is that of a filter matched to the galaxy in noise with the beam's correlation.
    """
    cube = np.zeros(model.shape, np.float32) if sky is None else sky
    noise = model.channel_rms()
    for row in range(len(galaxies)):
        galaxy = {name: float(value[row]) for name, value in vars(galaxies).items()}
        origin, box = _paint_one(model, galaxy)
        near = noise[int(np.clip(round(galaxy["z"]), 0, len(noise) - 1))]
        galaxies.snr[row] = np.sqrt((box**2).sum() / (0.5 * model.beam_area)) / near
        low = np.maximum(origin, 0)
        high = np.minimum(origin + box.shape, model.shape)
        if (low < high).all():
            target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            cube[target] += box[tuple(slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True))]
    return cube


def _paint_one(model: HiModel, galaxy: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """A disc or a template: first voxel of its box, and the box in Jy/beam."""
    per_channel = LIGHT * model.channel_width * HI_REST_FREQUENCY / model.frequency(galaxy["z"]) ** 2
    scale = galaxy["flux"] * model.beam_area / model.channel_width
    if galaxy["template"] >= 0:
        template = read_templates(model.templates, held_out=model.held_out)[int(galaxy["template"])]
        low, box = template.paint(
            (galaxy["z"], galaxy["y"], galaxy["x"]), size=galaxy["size"] / model.pixel_scale, w20=galaxy["w20"],
            pa=galaxy["pa"], mirrored=galaxy["mirrored"] > 0, per_channel=per_channel, beam=model.beam_shape,
        )  # fmt: skip
        return low, (box * scale).astype(np.float32)
    radius = 0.5 * galaxy["size"] / model.pixel_scale
    east, north, turning, weight = disc_points(galaxy, radius)
    dispersion = model.dispersion if np.isnan(galaxy["dispersion"]) else galaxy["dispersion"]
    dispersion = min(dispersion, galaxy["w20"] / GAUSSIAN_W20)
    speed = rotation_speed(turning, weight, dispersion, galaxy["w20"])
    # Receding gas is at lower frequencies; east is towards smaller x.
    place = (
        galaxy["z"] - speed * turning / per_channel,
        galaxy["y"] + radius * north,
        galaxy["x"] - radius * east,
    )
    low, box = splat(place, weight, blur=dispersion / per_channel, beam=model.beam_shape)
    return low, (box * scale).astype(np.float32)


def noise_cube(model: HiModel, rng: np.random.Generator) -> np.ndarray:
    """Noise in Jy/beam with the beam's autocorrelation in each channel, float32."""
    return _unit_noise(model, model.shape[0], rng) * model.channel_rms().astype(np.float32)[:, None, None]


def _unit_noise(model: HiModel, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Channels of noise of unit rms with the beam as its autocorrelation."""
    noise = rng.standard_normal((channels, *model.shape[1:]), dtype=np.float32)
    major, minor, _ = model.beam_shape
    if major != minor:
        transfer = beam_transfer(noise.shape[1:], model.beam_shape, power=0.5)
        half = np.ones(transfer.shape)
        half[:, 1 : (noise.shape[2] + 1) // 2] = 2
        transfer /= np.sqrt((half * transfer**2).sum() / np.prod(noise.shape[1:]))
        return irfft2(rfft2(noise) * transfer.astype(np.float32), noise.shape[1:])
    # White noise through a kernel of the beam over sqrt 2 has the beam as its autocorrelation.
    sigma = model.beam_px / np.sqrt(2) * FWHM_TO_SIGMA
    for axis in (1, 2):
        noise = gaussian_filter1d(noise, sigma, axis=axis, mode="wrap", truncate=4.0)
    impulse = np.zeros(2 * int(4 * sigma + 2) + 1)
    impulse[len(impulse) // 2] = 1
    noise /= np.float32((gaussian_filter1d(impulse, sigma, truncate=4.0) ** 2).sum())
    return noise


def contaminate(model: HiModel, cube: np.ndarray, rng: np.random.Generator) -> None:
    """Add what is left of continuum sources, and interference, in place; flagged channels become NaN."""
    nchan = model.shape[0]
    _leave_continuum(model, cube, rng)
    bad = np.flatnonzero(_runs(nchan, model.interference, rng))
    if len(bad):
        # Interference adds to the noise; the galaxies stay as bright as they were.
        louder = rng.uniform(3, 20, len(bad)) ** 2 - 1
        extra = np.sqrt(louder) * model.channel_rms()[bad]
        cube[bad] += _unit_noise(model, len(bad), rng) * extra.astype(np.float32)[:, None, None]
    cube[_runs(nchan, model.flagged, rng)] = np.nan


def _leave_continuum(model: HiModel, cube: np.ndarray, rng: np.random.Generator) -> None:
    """Add the errors left by subtracting continuum sources with wrong gains (Hartley et al. 2023, section 3)."""
    nchan, ny, nx = model.shape
    count = int(rng.poisson(model.continuum * ny * nx / 1e4))
    if not count:
        return
    x, y = rng.uniform(-0.5, nx - 0.5, count), rng.uniform(-0.5, ny - 0.5, count)
    # Counts fall as S^-0.8 above 3 mJy; the brightest are peeled one by one and leave no more than 0.5 Jy does.
    flux = np.minimum(3e-3 * rng.uniform(size=count) ** (-1 / 0.8), 0.5)
    # Errors as a sum of waves over the sky, each with its own smooth spectrum: neighbours share them.
    waves = 64
    reach = GAIN_REACH / model.pixel_scale
    phase = np.stack([x, y], axis=1) @ rng.normal(0, 1 / reach, (2, waves)) + rng.uniform(0, 2 * np.pi, waves)
    length = GAIN_BAND / model.channel_width
    # Smooth spectra from nodes four to a correlation length: filtering channel by channel would take long.
    nodes = np.arange(-4 * length, nchan + 4 * length, length / 4)
    rough = gaussian_filter1d(rng.standard_normal((waves, len(nodes))), 4 / np.sqrt(2), axis=1, mode="wrap")
    rough *= np.sqrt(4 / np.sqrt(2) * 2 * np.sqrt(np.pi))
    spectra = CubicSpline(nodes, rough, axis=1)(np.arange(nchan))
    error = GAIN_ERROR * np.sqrt(2 / waves) * np.cos(phase) @ spectra
    error *= flux[:, None] * (model.frequency(np.arange(nchan)) / model.frequency(nchan / 2)) ** -0.7
    half = int(np.ceil(2 * model.beam_shape[0]))
    major, minor, angle = model.beam_shape[0], model.beam_shape[1], np.radians(model.beam_pa)
    for one in range(count):
        rows = slice(max(round(y[one]) - half, 0), round(y[one]) + half + 1)
        columns = slice(max(round(x[one]) - half, 0), round(x[one]) + half + 1)
        dy, dx = np.mgrid[rows.start : min(rows.stop, ny), columns.start : min(columns.stop, nx)]
        dy, dx = dy - y[one], dx - x[one]
        along, across = dy * np.cos(angle) - dx * np.sin(angle), dy * np.sin(angle) + dx * np.cos(angle)
        spot = np.exp(-4 * np.log(2) * ((along / major) ** 2 + (across / minor) ** 2))
        cube[:, rows, columns] += (error[one][:, None, None] * spot).astype(np.float32)


def _runs(count: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which channels lie in runs, 4 long on average or longer, that take a share of all."""
    if share <= 0:
        return np.zeros(count, bool)
    length = max(4.0, 2 * share / (1 - share))
    enter, leave = share / (length * (1 - share)), 1 / length
    chance, inside = rng.random(count), rng.random() < share
    taken = np.zeros(count, bool)
    for channel in range(count):
        taken[channel] = inside
        inside = chance[channel] >= leave if inside else chance[channel] < enter
    return taken


def simulate_hi(model: HiModel, *, seed: int) -> tuple[np.ndarray, Galaxies]:
    """Cube in Jy/beam, float32 (nchan, ny, nx), and its galaxies; the same seed gives the same cube."""
    rng = np.random.default_rng(seed)
    galaxies = draw_galaxies(model, rng)
    cube = noise_cube(model, rng)
    paint_galaxies(model, galaxies, sky=cube)
    contaminate(model, cube, rng)
    return cube, galaxies


def truth_table(model: HiModel, galaxies: Galaxies) -> Table:
    """Truth in the columns of the challenge, and ``x``, ``y``, ``z`` and ``snr`` beside them."""
    x, y = galaxies.x, galaxies.y
    ra, dec = WCS(_wcs_header(model)).celestial.all_pix2world(x, y, 0) if len(x) else (np.empty(0), np.empty(0))
    return Table({
        "id": np.arange(len(galaxies)), "ra": ra, "dec": dec, "hi_size": galaxies.size,
        "line_flux_integral": galaxies.flux, "central_freq": model.frequency(galaxies.z), "pa": galaxies.pa,
        "i": galaxies.inclination, "w20": galaxies.w20, "x": x, "y": y, "z": galaxies.z, "snr": galaxies.snr,
    })  # fmt: skip


def _wcs_header(model: HiModel) -> fits.Header:
    nchan, ny, nx = model.shape
    header = fits.Header()
    minor = model.beam if model.beam_minor is None else model.beam_minor
    cards = {
        "CTYPE1": "RA---SIN", "CRVAL1": model.centre[0], "CRPIX1": (nx + 1) / 2,
        "CDELT1": -model.pixel_scale / 3600, "CUNIT1": "deg",
        "CTYPE2": "DEC--SIN", "CRVAL2": model.centre[1], "CRPIX2": (ny + 1) / 2,
        "CDELT2": model.pixel_scale / 3600, "CUNIT2": "deg",
        "CTYPE3": "FREQ", "CRVAL3": model.first_frequency, "CRPIX3": 1.0, "CDELT3": model.channel_width, "CUNIT3": "Hz",
        "RESTFRQ": HI_REST_FREQUENCY, "BUNIT": "Jy/beam", "BMAJ": model.beam / 3600, "BMIN": minor / 3600,
        "BPA": model.beam_pa, "RADESYS": "ICRS", "SPECSYS": "BARYCENT",
    }  # fmt: skip
    header.update(cards)
    return header


def write_hi(model: HiModel, cube: np.ndarray, galaxies: Galaxies, folder: str | Path, *, name: str = "cube") -> dict:
    """Write a simulated cube and its truth; returns the paths as "cube" and "truth"."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"cube": folder / f"{name}.fits", "truth": folder / f"{name}_truth.txt"}
    header = _wcs_header(model)
    header["OBJECT"] = "simulated"
    fits.PrimaryHDU(cube.astype(">f4"), header).writeto(paths["cube"], overwrite=True)
    write_sdc2(truth_table(model, galaxies), paths["truth"])
    return paths
