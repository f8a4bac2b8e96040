"""Measurement on the voxels: centre, line flux, widths, size, angles of detected lines, with errors and flags.

Every source gets a mask of its own: voxels connected to its centre in a lightly smoothed cube, grown to take in what
noise hides. What a source gets depends on its own voxels and neighbours, never on the tile it was found in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from survey_io.columns import Flag
from survey_io.cube_beams import PixelBeam

__all__ = ["measure_lines", "smooth_snr", "source_mask"]

Arrays = dict[str, np.ndarray]
FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))

# A mask begins at this many sigma of the smoothed cube.
MASK_SIGMA = 2.5
# The window around a source, in its extents, and how often it may grow by half when the mask reaches its border.
WINDOW_EXTENTS, GROWTHS = 1.5, 6
# More voxels than this are not read for one source.
MOST_VOXELS = 60_000_000
# An emission-weighted width times this is w20 for profiles between a Gaussian and a box.
SIGMA_TO_W20, SIGMA_TO_W50 = 3.55, 2.75
# Below this S/N the width is that of the second moment: 20% of the peak drowns in noise.
PROFILE_SNR = 12.0
COLUMNS = (
    "x", "y", "z", "x_err", "y_err", "z_err", "flux", "flux_err", "peak", "local_rms", "snr", "w20", "w20_err", "w50",
    "w50_err", "major", "minor", "theta", "major_deconv", "minor_deconv", "isophote", "kin_dx", "kin_dy", "kin_err",
    "n_voxels", "x_min", "x_max", "y_min", "y_max", "z_min", "z_max", "n_blend", "flags",
)  # fmt: skip
# HI column of 1 solar mass per square parsec, cm^-2, and that of 1 Jy/beam km/s times the beam's arcsec^2.
COLUMN_AT_EDGE, COLUMN_PER_FLUX = 1.2483e20, 1.10e24


def measure_lines(
    pixels: Any,
    noise: Any,
    spectral: Any,
    *,
    beam: tuple[float, float, float],
    pixel_scale: float,
    sources: Arrays,
    which: np.ndarray | None = None,
) -> Arrays:
    """Measure detected lines.

    Parameters
    ----------
    pixels : CubeSource or ArrayCube
    noise : CubeNoise
    spectral : SpectralAxis
    beam : (major, minor, theta) or PixelBeam
        FWHM in px, angle of the major axis from +x towards +y in rad; areas of the channels' own beams.
    pixel_scale : float
        arcsec.
    sources : dict of ndarray, shape (n,)
        ``z``, ``y``, ``x`` and ``size_z``, ``size_y``, ``size_x`` (FWHM, channels and px) of all detections: the
        neighbours matter.
    which : ndarray of int, optional
        Rows to measure; all by default.

    Returns
    -------
    dict of ndarray, shape (len(which),)
        `COLUMNS`: positions in px and channels; ``flux`` in the cube's unit times beam times Hz; ``peak`` and
        ``local_rms`` in the cube's unit; ``w20``, ``w50`` in channels; ``major``, ``minor``, ``isophote`` (FWHM and HI
        diameter of the moment-0 map) in px, ``theta`` in rad; ``kin_dx``, ``kin_dy`` from the approaching to the
        receding side in px, ``kin_err`` in rad; the bounding box (inclusive).
    """
    rows = np.arange(len(sources["z"])) if which is None else np.asarray(which, int)
    measured = [_measure(pixels, noise, spectral, beam, pixel_scale, sources, int(row)) for row in rows]
    integers = {"n_voxels", "x_min", "x_max", "y_min", "y_max", "z_min", "z_max", "n_blend", "flags"}
    return {
        name: np.array([m[name] for m in measured], np.int64 if name in integers else np.float64) for name in COLUMNS
    }


def source_mask(
    pixels: Any, noise: Any, beam: tuple[float, float, float], sources: Arrays, row: int
) -> tuple[tuple[slice, slice, slice], np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Window, level-subtracted voxels (NaN where blank), rms and mask of one source; its neighbours and flags."""
    shape = pixels.shape
    centre = np.array([sources[axis][row] for axis in "zyx"], float)
    size = np.array([sources[f"size_{axis}"][row] for axis in "zyx"], float)
    beam_px = float(np.sqrt(beam[0] * beam[1]))
    half = np.array([max(10.0, WINDOW_EXTENTS * size[0]), *(np.maximum(4 * beam_px, WINDOW_EXTENTS * size[1:]))])
    places = np.stack([sources[axis] for axis in "zyx"], -1).astype(float)
    extents = np.stack([sources[f"size_{axis}"] for axis in "zyx"], -1).astype(float)
    flags = 0
    for _ in range(GROWTHS):
        low = np.floor(centre - half).astype(int)
        high = np.ceil(centre + half).astype(int) + 1
        low, high = np.maximum(low, 0), np.minimum(high, shape)
        window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        voxels = pixels.read(window)
        voxels -= noise.level(window)
        rms = np.broadcast_to(noise.rms(window), voxels.shape)
        voxels[~(np.isfinite(rms) & np.isfinite(voxels))] = np.nan
        near = ((places + extents >= low) & (places - extents <= high)).all(axis=1)
        near[row] = False
        mask, blends = _mask(voxels, rms, centre - low, size, beam_px, places[near] - low, extents[near])
        if not mask.any():
            break
        touching = [
            (mask.any(axis=tuple(j for j in range(3) if j != i))[[0, -1]] & [low[i] > 0, high[i] < shape[i]]).any()
            for i in range(3)
        ]
        if not any(touching) or voxels.size > MOST_VOXELS:
            break
        half = np.where(touching, 1.5 * half, half)
    reach = [mask.any(axis=tuple(j for j in range(3) if j != i)) for i in range(3)]
    if mask.any():
        ends = [(r[0] and a == 0) or (r[-1] and b == n) for r, a, b, n in zip(reach, low, high, shape, strict=True)]
        flags |= int(Flag.SPECTRAL_EDGE) * bool(ends[0]) | int(Flag.EDGE) * bool(ends[1] or ends[2])
        box = tuple(slice(np.flatnonzero(r)[0], np.flatnonzero(r)[-1] + 1) for r in reach)
        blank = np.isnan(voxels[box])
        lost = blank.all(axis=(1, 2))
        flags |= int(Flag.FLAGGED_CHANNELS) * bool(lost.any())
        flags |= int(Flag.BLANK) * bool((blank[~lost] & mask[box][~lost]).any())
    return window, voxels, rms, mask, blends, flags


def smooth_snr(
    pixels: Any, noise: Any, window: tuple[slice, slice, slice], width: int, beam_px: float
) -> tuple[np.ndarray, float]:
    """Lightly smoothed S/N of a window, blanks 0, and its own noise."""
    voxels = pixels.read(window)
    voxels -= noise.level(window)
    return _smoothed(voxels, noise.rms(window), width, beam_px)


def _smoothed(voxels: np.ndarray, rms: np.ndarray, width: int, beam_px: float) -> tuple[np.ndarray, float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.nan_to_num(voxels / rms, nan=0.0, posinf=0.0, neginf=0.0)
    sigma = 0.8 * beam_px * FWHM_TO_SIGMA
    smooth = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(snr, sigma, axis=1), sigma, axis=2)
    smooth = ndimage.uniform_filter1d(smooth, width, axis=0, mode="constant")
    below = smooth[smooth < 0]
    return smooth, float(np.median(-below) / 0.6744898) if below.size > 30 else 1.0


def _mask(
    voxels: np.ndarray, rms: np.ndarray, centre: np.ndarray, size: np.ndarray, beam_px: float, places: np.ndarray,
    extents: np.ndarray,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """Mask of a source within its window, and how many of the neighbours given claim voxels of the window."""
    width = int(np.clip(size[0] / 3, 3, 9)) | 1
    smooth, spread = _smoothed(voxels, rms, width, beam_px)
    grid = np.ogrid[tuple(slice(0, n) for n in voxels.shape)]
    own = _distance(grid, centre, size)
    near = own < 1.0
    candidate = (smooth > MASK_SIGMA * spread) | near
    claimed = 0
    for at, extent in zip(places, extents, strict=True):
        # A voxel belongs to the source that is nearest in units of its own extent.
        nearer = _distance(grid, at, extent) < own
        claimed += bool((candidate & nearer).any() and _distance_between(centre, at, size) < 2)
        candidate &= ~nearer
    labels, _ = ndimage.label(candidate)
    start = tuple(int(v) for v in np.clip(np.rint(centre), 0, np.array(voxels.shape) - 1))
    label = labels[start]
    mask = labels == label if label else near & candidate
    # Half a beam and a channel more take in the flux that lies below the threshold.
    reach = max(1, round(0.5 * beam_px))
    disc = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= reach + 0.3
    grown = ndimage.binary_dilation(mask, disc[None])
    grown = ndimage.binary_dilation(grown, np.ones((3, 1, 1), bool))
    if claimed:
        for at, extent in zip(places, extents, strict=True):
            grown &= _distance(grid, at, extent) >= own
    return grown, claimed


def _distance(grid: list[np.ndarray], centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Squared distance in half extents."""
    return sum(((g - c) / (0.5 * s)) ** 2 for g, c, s in zip(grid, centre, size, strict=True))


def _distance_between(a: np.ndarray, b: np.ndarray, size: np.ndarray) -> float:
    return float(np.sqrt((((a - b) / size) ** 2).sum()))


def _measure(
    pixels: Any, noise: Any, spectral: Any, beam: tuple[float, float, float], pixel_scale: float, sources: Arrays,
    row: int,
) -> dict[str, Any]:  # fmt: skip
    window, voxels, rms, mask, blends, flags = source_mask(pixels, noise, beam, sources, row)
    area = np.pi * beam[0] * beam[1] / (4 * np.log(2))
    # Where every channel has its own beam, each is summed by its own.
    areas = PixelBeam(*beam).area(window[0])
    low = np.array([s.start for s in window])
    out: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan)
    flags |= int(Flag.BLENDED) * bool(blends)
    flags |= int(Flag.MULTI_COMPONENT) * bool(sources.get("n_linked", np.ones(row + 1))[row] > 1)
    out |= {axis: sources[axis][row] for axis in "zyx"} | {"n_blend": blends, "n_voxels": int(mask.sum())}
    where = np.nonzero(mask & np.isfinite(voxels))
    if len(where[0]) < 4:
        centre = {f"{axis}_{end}": round(float(sources[axis][row])) for axis in "zyx" for end in ("min", "max")}
        return {**out, **centre, "flags": flags | int(Flag.FIT_FAILED)}
    for axis, index, start in zip("zyx", where, low, strict=True):
        out[f"{axis}_min"], out[f"{axis}_max"] = int(index.min() + start), int(index.max() + start)
    inside = np.where(mask, np.nan_to_num(voxels), 0.0).astype(float)
    widths = spectral.width(np.arange(window[0].start, window[0].stop))
    per_channel = inside.sum(axis=(1, 2)) / areas
    count = np.maximum(mask.sum(axis=(1, 2)), np.where(mask.any(axis=(1, 2)), areas, 0))
    usable = mask & np.isfinite(rms)
    channel_rms = np.array([np.median(r[m]) if m.any() else 0.0 for r, m in zip(rms, usable, strict=True)])
    flux, variance = (per_channel * widths).sum(), (count / areas * (channel_rms * widths) ** 2).sum()
    out["flux"], out["flux_err"] = flux, np.sqrt(variance)
    out["peak"], out["local_rms"] = inside.max(), float(np.median(rms[usable]))
    out["snr"] = snr = flux / max(out["flux_err"], 1e-30)
    weight = np.clip(inside, 0, None) if flux <= 0 else inside
    total = weight.sum()
    grid = np.ogrid[tuple(slice(0, n) for n in voxels.shape)]
    if total > 0:
        centre = [float((weight * g).sum() / total) for g in grid]
        limits = [(index.min(), index.max()) for index in where]
        for axis, value, start, (first, last) in zip("zyx", centre, low, limits, strict=True):
            out[axis] = float(np.clip(value, first, last) + start)
    strong = max(snr, 1.0)
    profile = _profile(per_channel, mask.any(axis=(1, 2)), strong)
    out["w20"], out["w50"], spread = profile
    out["z_err"] = spread / strong * 1.2
    out["w20_err"], out["w50_err"] = np.hypot(2.5 * spread / strong, 0.5), np.hypot(2.0 * spread / strong, 0.5)
    _shape(out, inside, widths, beam, area, pixel_scale, spectral, strong)
    sky = np.sqrt(out["major"] * out["minor"]) * FWHM_TO_SIGMA if np.isfinite(out["major"]) else np.sqrt(area) * 0.4
    out["x_err"] = out["y_err"] = sky / strong * 1.2
    _kinematics(out, inside, per_channel, spectral, area, channel_rms, strong)
    if not out["major_deconv"] > 0:
        flags |= int(Flag.UNRESOLVED)
    return {**out, "flags": flags}


def _profile(per_channel: np.ndarray, used: np.ndarray, snr: float) -> tuple[float, float, float]:
    """w20, w50 and the emission-weighted dispersion, in channels."""
    z = np.arange(len(per_channel))
    weight = np.where(used, np.clip(ndimage.uniform_filter1d(per_channel, 3, mode="constant"), 0, None), 0)
    total = weight.sum()
    if not total > 0:
        return 1.0, 1.0, 1.0
    mean = (weight * z).sum() / total
    # The boxcar and the channel itself widen a line: 8/12 and 1/12 channels squared.
    spread = float(np.sqrt(max((weight * (z - mean) ** 2).sum() / total - 0.75, 0.1)))
    by_moment = max(SIGMA_TO_W20 * spread, 1.0), max(SIGMA_TO_W50 * spread, 1.0)
    if snr < PROFILE_SNR:
        return *by_moment, spread
    widths = []
    for share in (0.2, 0.5):
        level = share * weight.max()
        above = np.flatnonzero(weight >= level)
        first, last = above[0], above[-1]
        left = first - (weight[first] - level) / max(weight[first] - (weight[first - 1] if first else 0.0), 1e-30)
        right_value = weight[last + 1] if last + 1 < len(weight) else 0.0
        right = last + (weight[last] - level) / max(weight[last] - right_value, 1e-30)
        widths.append(float(np.sqrt(max((right - left) ** 2 - 2.0, 1.0))))
    return widths[0], widths[1], spread


def _shape(
    out: dict[str, Any], inside: np.ndarray, widths: np.ndarray, beam: tuple[float, float, float], area: float,
    pixel_scale: float, spectral: Any, snr: float,
) -> None:  # fmt: skip
    """Ellipse of the moment-0 map with the beam's share taken out, and its diameter at 1 solar mass per pc^2."""
    image = (inside * widths[:, None, None]).sum(axis=0)
    # Noise at the mask's rim has a long lever: shapes come from what stands above it.
    weight = np.where(image > 0.1 * image.max(), image, 0.0)
    total = weight.sum()
    if not total > 0:
        return
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    cx, cy = (weight * x).sum() / total, (weight * y).sum() / total
    xx, yy = (weight * (x - cx) ** 2).sum() / total, (weight * (y - cy) ** 2).sum() / total
    xy = (weight * (x - cx) * (y - cy)).sum() / total
    out["major"], out["minor"], out["theta"] = _ellipse(xx, xy, yy)
    major, minor, theta = (beam[0] * FWHM_TO_SIGMA) ** 2, (beam[1] * FWHM_TO_SIGMA) ** 2, beam[2]
    c, s = np.cos(theta), np.sin(theta)
    own = _ellipse(
        xx - major * c * c - minor * s * s, xy - (major - minor) * c * s, yy - major * s * s - minor * c * c
    )
    error = np.sqrt(beam[0] * beam[1]) / snr
    resolved = own[0] > max(2 * error, 0.3 * np.sqrt(beam[0] * beam[1]))
    out["major_deconv"], out["minor_deconv"] = (own[0], own[1]) if resolved else (0.0, 0.0)
    if spectral.rest_frequency is None:
        return
    per_beam_kms = spectral.velocity_width(out["z"], 1.0) * image
    beam_arcsec2 = beam[0] * beam[1] * pixel_scale**2
    redshift = max(float(spectral.redshift(out["z"])), 0.0)
    column = COLUMN_PER_FLUX * per_beam_kms / beam_arcsec2 * (1 + redshift) ** 2
    pixels = float((column > COLUMN_AT_EDGE).sum())
    ratio = np.clip(out["minor"] / max(out["major"], 1e-6), 0.2, 1.0)
    diameter = 2 * np.sqrt(pixels / (np.pi * ratio))
    out["isophote"] = float(np.sqrt(max(diameter**2 - beam[0] * beam[1], 0.0)))


def _ellipse(xx: float, xy: float, yy: float) -> tuple[float, float, float]:
    """FWHM and angle of a matrix of second moments; 0 for negative axes."""
    middle, half = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    big, small = max(middle + half, 0.0), max(middle - half, 0.0)
    theta = 0.5 * np.arctan2(2 * xy, xx - yy) % np.pi
    return float(np.sqrt(big) / FWHM_TO_SIGMA), float(np.sqrt(small) / FWHM_TO_SIGMA), float(theta)


def _kinematics(
    out: dict[str, Any], inside: np.ndarray, per_channel: np.ndarray, spectral: Any, area: float,
    channel_rms: np.ndarray, snr: float,
) -> None:  # fmt: skip
    """From the centroid of the approaching half of the line to that of the receding half, px."""
    total = per_channel.sum()
    if not total > 0:
        return
    z = np.arange(len(per_channel))
    middle = float(np.interp(0.5, np.clip(np.cumsum(per_channel) / total, 0, 1), z + 0.5)) - 0.0
    y, x = np.ogrid[: inside.shape[1], : inside.shape[2]]
    centres = []
    for side in (z + 0.5 <= middle, z + 0.5 > middle):
        image = inside[side].sum(axis=0)
        weight = np.clip(image, 0, None)
        if not weight.sum() > 0:
            return
        centres.append(((weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()))
    (x0, y0), (x1, y1) = centres
    # The receding side has the lower frequency.
    sign = -1.0 if spectral.increasing else 1.0
    out["kin_dx"], out["kin_dy"] = sign * (x1 - x0), sign * (y1 - y0)
    length = float(np.hypot(x1 - x0, y1 - y0))
    error = np.sqrt(max(out["major"], 1.0) * max(out["minor"], 1.0)) * FWHM_TO_SIGMA * 2.0 / snr
    out["kin_err"] = float(min(np.arctan2(error, max(length, 1e-6)), np.pi / 2))
