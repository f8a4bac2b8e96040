"""Draw sources and noise: elliptical Gaussians in bulk, beam-correlated noise, sidelobes."""

from __future__ import annotations

import numpy as np
from scipy import fft

FWHM_TO_SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))
# Exponential disc of scale length 1 as a sum of round Gaussians (flux share, sigma): least-squares fit to the
# exponential's profile between 0 and 8 scale lengths, all shares positive, total 1 (tests compare the
# profiles).
EXPONENTIAL_MIX = (
    (0.0018, 0.1266), (0.0166, 0.3088), (0.0833, 0.5952),
    (0.2607, 1.0281), (0.4282, 1.6686), (0.2094, 2.6379),
)  # fmt: skip


def covariance(major: np.ndarray, minor: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Second moments (xx, xy, yy), px^2, of Gaussians given by FWHM in px and angle from +x to +y in rad.

    Returns
    -------
    ndarray, shape (3, n)
    """
    a2, b2 = (np.asarray(major) * FWHM_TO_SIGMA) ** 2, (np.asarray(minor) * FWHM_TO_SIGMA) ** 2
    c, s = np.cos(theta), np.sin(theta)
    return np.stack([a2 * c * c + b2 * s * s, (a2 - b2) * c * s, a2 * s * s + b2 * c * c])


def ellipse(cov: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """FWHM major, FWHM minor (px) and angle in [0, pi) of second moments (xx, xy, yy), shape (3, ...)."""
    xx, xy, yy = cov
    mean, half = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    major = np.sqrt(mean + half) / FWHM_TO_SIGMA
    minor = np.sqrt(np.maximum(mean - half, 0.0)) / FWHM_TO_SIGMA
    return major, minor, np.mod(0.5 * np.arctan2(2 * xy, xx - yy), np.pi)


def add_gaussians(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, peak: np.ndarray, cov: np.ndarray, *, floor: float = 1e-3
) -> None:
    """Add Gaussians to an image in place, each drawn out to where it falls below ``floor``.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    x, y : ndarray, shape (n,)
        Centres in pixels.
    peak : ndarray, shape (n,)
        Heights in image units.
    cov : ndarray, shape (3, n)
        Second moments (xx, xy, yy), px^2, of what is drawn (beam included).
    floor : float
        Absolute height below which a wing is left out, image units.
    """
    ny, nx = image.shape
    height = np.abs(peak)
    reach = np.sqrt(2.0 * np.log(np.maximum(height / floor, 1.001)))
    sigma = np.sqrt(np.maximum(cov[0], cov[2]))
    half = np.ceil(np.clip(reach, 1.0, 8.0) * sigma).astype(int) + 1
    order = np.argsort(half, kind="stable")
    det = cov[0] * cov[2] - cov[1] ** 2
    inverse = np.stack([cov[2], -cov[1], cov[0]]) / det
    start = 0
    while start < len(order):
        # Sources of like reach share one stamp size; a chunk stays within some 10^6 pixels.
        k = half[order[start]]
        stop = int(np.searchsorted(half[order], int(k * 1.3) + 1, side="right"))
        k = int(half[order[stop - 1]])
        stop = min(stop, start + max(1, 1_500_000 // (2 * k + 1) ** 2))
        index = order[start:stop]
        start = stop
        ix, iy = np.rint(x[index]).astype(int), np.rint(y[index]).astype(int)
        span = np.arange(-k, k + 1)
        dx = (ix[:, None] + span - x[index, None]).astype(np.float32)
        dy = (iy[:, None] + span - y[index, None]).astype(np.float32)
        a, b, c = inverse[:, index].astype(np.float32)
        exponent = (
            (0.5 * a[:, None] * dx * dx)[:, None, :]
            + (0.5 * c[:, None] * dy * dy)[:, :, None]
            + (b[:, None] * dy)[:, :, None] * dx[:, None, :]
        )
        stamp = np.exp(-exponent) * peak[index, None, None].astype(np.float32)
        rows, columns = iy[:, None] + span, ix[:, None] + span
        inside = ((rows >= 0) & (rows < ny))[:, :, None] & ((columns >= 0) & (columns < nx))[:, None, :]
        flat = (np.clip(rows, 0, ny - 1) * nx)[:, :, None] + np.clip(columns, 0, nx - 1)[:, None, :]
        if len(index) * stamp[0].size > 0.05 * image.size:
            total = np.bincount(flat[inside], stamp[inside], image.size)
            image += total.reshape(image.shape).astype(np.float32)
        else:
            np.add.at(image.reshape(-1), flat[inside], stamp[inside])


def correlated_noise(shape: tuple[int, int], cov: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Unit-rms Gaussian noise: white noise convolved with a Gaussian of second moments ``cov``.

    The noise of an image that was convolved with its beam has the beam's autocorrelation where the kernel is
    the beam divided by sqrt 2.

    Parameters
    ----------
    shape : (ny, nx)
    cov : ndarray, shape (3,), or None
        (xx, xy, yy) of the kernel in px^2; None gives white noise.
    rng : numpy Generator

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    white = rng.standard_normal(shape, dtype=np.float32)
    if cov is None:
        return white
    # Padding keeps opposite borders from being correlated through the periodic transform.
    pad = int(np.ceil(6 * np.sqrt(max(cov[0], cov[2]))))
    size = [fft.next_fast_len(n + pad, real=True) for n in shape]
    white = rng.standard_normal(size, dtype=np.float32)
    ky, kx = 2 * np.pi * fft.fftfreq(size[0])[:, None], 2 * np.pi * fft.rfftfreq(size[1])[None, :]
    transfer = np.exp(-0.5 * (cov[0] * kx * kx + 2 * cov[1] * kx * ky + cov[2] * ky * ky)).astype(np.float32)
    # Mean power of the transfer function over the full plane normalises the rms to 1.
    full = 2 * (transfer**2).sum() - (transfer[:, 0] ** 2).sum()
    if size[1] % 2 == 0:
        full -= (transfer[:, -1] ** 2).sum()
    transfer /= np.sqrt(full / (size[0] * size[1]))
    noise = fft.irfft2(fft.rfft2(white) * transfer, s=size)
    return np.ascontiguousarray(noise[: shape[0], : shape[1]], dtype=np.float32)


def add_sidelobes(
    image: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    peak: np.ndarray,
    *,
    beam_fwhm: float,
    level: float,
    rng: np.random.Generator,
) -> None:
    """Add residual sidelobes of bright sources in place: decaying rings with spokes, alike in all the image.

    Parameters
    ----------
    image : ndarray of float32
    x, y, peak : ndarray, shape (n,)
        The bright sources.
    beam_fwhm : float
        px; sets the scale of the rings.
    level : float
        Height of the first ring relative to the source's peak.
    rng : numpy Generator
    """
    ny, nx = image.shape
    period = beam_fwhm * rng.uniform(1.4, 3.5)
    spokes, phase = rng.integers(3, 9), rng.uniform(0, 2 * np.pi)
    contrast, decay = rng.uniform(0.2, 1.0), rng.uniform(0.7, 1.5)
    k = int(np.ceil(12 * beam_fwhm))
    for px, py, height in zip(x, y, peak, strict=True):
        x0, x1 = max(int(px) - k, 0), min(int(px) + k + 1, nx)
        y0, y1 = max(int(py) - k, 0), min(int(py) + k + 1, ny)
        if x0 >= x1 or y0 >= y1:
            continue
        dx, dy = np.arange(x0, x1)[None, :] - px, np.arange(y0, y1)[:, None] - py
        r = np.hypot(dx, dy)
        ring = np.cos(2 * np.pi * (r / period - 1.0)) * (period / np.maximum(r, 0.75 * period)) ** decay
        ring *= 1 + contrast * np.cos(spokes * np.arctan2(dy, dx) + phase)
        ring *= np.clip((k - r) / (0.3 * k), 0, 1) * (r > 0.75 * period)
        image[y0:y1, x0:x1] += (height * level * ring).astype(np.float32)
