"""What every peer needs: the image, its beam, and catalogues brought to sky units. Runs in the peers'
environment."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass
class Image:
    """A two-dimensional image: data (ny, nx) native float32, beam in arcsec and degrees east of north."""

    path: Path
    data: np.ndarray
    wcs: WCS
    beam: tuple[float, float, float]
    scale: float

    @property
    def beam_pixels(self) -> tuple[float, float, float]:
        """Beam axes in pixels and angle in radians from +x to +y."""
        major, minor, pa = self.beam
        x, y = self.data.shape[1] / 2, self.data.shape[0] / 2
        return major / self.scale, minor / self.scale, float(pa_to_theta(self, x, y, pa))

    @property
    def beam_area(self) -> float:
        """Solid angle of the beam in pixels."""
        return np.pi / (4.0 * np.log(2.0)) * self.beam[0] * self.beam[1] / self.scale**2


def open_plane(path: Path) -> Image:
    """The first plane of a FITS image whose first extension with data holds 2 or more axes."""
    with fits.open(path) as hdus:
        hdu = next(one for one in hdus if one.data is not None)
        data = np.squeeze(np.asarray(hdu.data)).astype(np.float32)
        header = hdu.header.copy()
    wcs = WCS(header).celestial
    beam = (header["BMAJ"] * 3600, header["BMIN"] * 3600, header.get("BPA", 0.0))
    scale = 3600.0 * np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
    return Image(Path(path), np.ascontiguousarray(data), wcs, beam, float(scale))


def write_plane(image: Image, path: Path) -> None:
    """Write the plane with a two-dimensional header: SExtractor, PyBDSF and BANE differ in how they read
    four axes."""
    header = image.wcs.to_header()
    header["BMAJ"], header["BMIN"], header["BPA"] = image.beam[0] / 3600, image.beam[1] / 3600, image.beam[2]
    header["BUNIT"] = "JY/BEAM"
    fits.writeto(path, image.data, header, overwrite=True)


def _bearing(image, x, y, dx, dy):
    ra1, dec1 = image.wcs.all_pix2world(x, y, 0)
    ra2, dec2 = image.wcs.all_pix2world(x + dx, y + dy, 0)
    east = ((ra2 - ra1 + 180.0) % 360.0 - 180.0) * np.cos(np.radians(dec1))
    return np.degrees(np.arctan2(east, dec2 - dec1))


def theta_to_pa(image: Image, x: np.ndarray, y: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Degrees east of north in [0, 180) of directions theta (radians, from +x to +y) at pixels x, y."""
    return _bearing(image, x, y, np.cos(theta), np.sin(theta)) % 180.0


def pa_to_theta(image: Image, x: float, y: float, pa: float) -> float:
    """Inverse of `theta_to_pa`, in [0, pi), for images whose pixels are square on the sky."""
    along_x, along_y = _bearing(image, x, y, 1.0, 0.0), _bearing(image, x, y, 0.0, 1.0)
    turn = np.sign((along_y - along_x + 180.0) % 360.0 - 180.0)
    return np.radians((pa - along_x) * turn) % np.pi


def covariance(major: np.ndarray, minor: np.ndarray, pa: np.ndarray) -> np.ndarray:
    """Second moments (..., 3) as xx, yy, xy of ellipses with axes major, minor at the angle pa (degrees
    from x to y)."""
    angle = np.radians(pa)
    c, s = np.cos(angle), np.sin(angle)
    xx = major**2 * c**2 + minor**2 * s**2
    yy = major**2 * s**2 + minor**2 * c**2
    return np.stack([xx, yy, (major**2 - minor**2) * s * c], axis=-1)


def deconvolve(major: np.ndarray, minor: np.ndarray, pa: np.ndarray, beam: tuple[float, float, float]):
    """Axes and angle left of fitted ellipses after the beam is taken out in quadrature; 0 for an
    unresolved axis."""
    xx, yy, xy = np.moveaxis(covariance(major, minor, pa) - covariance(*map(np.asarray, beam)), -1, 0)
    middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    largest, least = np.maximum(middle + spread, 0.0), np.maximum(middle - spread, 0.0)
    angle = np.where(largest > 0.0, np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) % 180.0, pa)
    return np.sqrt(largest), np.sqrt(least), angle


def isophotal(image: Image, *, x, y, a, b, theta, peak, threshold, rms, fluxes: dict) -> dict:
    """Catalogue of a tool that measures moments above a threshold.

    a, b: rms axes (pixels) of the flux above the isophote; theta: radians from +x to +y; fluxes: sums in
    Jy/beam x pixel.
    Two sizes are given: from the moments as they are, and enlarged for the flux below the isophote (exact
    for a Gaussian).
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    ra, dec = image.wcs.all_pix2world(x, y, 0)
    major = np.asarray(a) * FWHM * image.scale
    minor = np.asarray(b) * FWHM * image.scale
    pa = theta_to_pa(image, x, y, np.asarray(theta))
    table = {
        "ra": ra,
        "dec": dec,
        "x": x,
        "y": y,
        "peak": peak,
        "snr": peak / rms,
        "maj": major,
        "min": minor,
        "pa": pa,
    }
    table["dmaj"], table["dmin"], table["dpa"] = deconvolve(major, minor, pa, image.beam)
    cut = np.clip(np.asarray(threshold) / np.asarray(peak), 1e-6, 0.95)
    kept = 1.0 + cut * np.log(cut) / (1.0 - cut)
    grow = 1.0 / np.sqrt(kept)
    table["cmaj"], table["cmin"], table["cpa"] = deconvolve(major * grow, minor * grow, pa, image.beam)
    table["flux_peak"] = peak
    for name, total in fluxes.items():
        table[f"flux_{name}"] = np.asarray(total) / image.beam_area
    return table


def fitted(image: Image, *, ra, dec, peak, flux, rms, major, minor, pa) -> dict:
    """Catalogue of a tool that fits Gaussians: sky degrees, Jy, arcsec FWHM, degrees east of north."""
    x, y = image.wcs.all_world2pix(ra, dec, 0)
    table = {
        "ra": ra,
        "dec": dec,
        "x": x,
        "y": y,
        "peak": peak,
        "snr": peak / rms,
        "maj": major,
        "min": minor,
        "pa": pa,
    }
    table["dmaj"], table["dmin"], table["dpa"] = deconvolve(major, minor, pa, image.beam)
    table["flux_peak"], table["flux_fit"] = peak, flux
    return table


def beam_kernel(image: Image) -> np.ndarray:
    """The beam sampled on pixels, for finders that filter before they detect."""
    major, minor, theta = image.beam_pixels
    half = int(np.ceil(1.3 * major))
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    along, across = u * np.cos(theta) + v * np.sin(theta), v * np.cos(theta) - u * np.sin(theta)
    return np.exp(-4 * np.log(2) * ((along / major) ** 2 + (across / minor) ** 2)).astype(np.float32)


def write_csv(table: dict, path: Path) -> int:
    """Write the rows that have finite positions, peaks and sizes; returns their number."""
    columns = {name: np.asarray(values, dtype=float) for name, values in table.items()}
    good = np.all([np.isfinite(columns[name]) for name in ("ra", "dec", "peak", "maj", "min")], axis=0)
    with Path(path).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(
            zip(*([f"{value:.12g}" for value in values[good]] for values in columns.values()), strict=True)
        )
    return int(good.sum())
