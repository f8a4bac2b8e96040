"""One source of a cube on one page: moment maps, integrated spectrum and the slice along its rotation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from scipy.ndimage import map_coordinates

from pipeline.drawing import DPI, INK, MUTED, PAPER, save_figure
from survey_io.names import printable
from survey_io.quiet import quiet

if TYPE_CHECKING:
    from pipeline.cube_products import Source
    from survey_io.cubelet import Cubelet, Moments

BLANK = "#1b2029"
ACCENT, SECOND = "#ffae3d", "#38c6ff"
# The lowest contour of moment 0 in sigma of the map, and the factor from one to the next.
CONTOUR_SIGMA, CONTOUR_STEP = 3.0, 2.0
FONT = 10


def write_product_picture(
    cubelet: Cubelet, moments: Moments, spectrum: Table, source: Source, beam: tuple[float, float, float], path: Path
) -> Path:
    """Draw one source and save it as PNG.

    Parameters
    ----------
    cubelet : Cubelet
    moments : Moments
    spectrum : Table
        `pipeline.cube_products.line_spectrum`.
    source : Source
    beam : (major, minor, theta)
        FWHM in px, angle from +x towards +y in rad.
    path : Path
        An existing file is replaced.
    """
    figure = Figure(figsize=(15, 9.2), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    at = (float(source.row["x"]) - cubelet.window[2].start, float(source.row["y"]) - cubelet.window[1].start)
    velocity = moments.unit.to_string()
    name = "optical velocity (km/s)" if velocity == "km / s" else "frequency (Hz)"
    maps = (
        ("moment 0", moments.flux, "viridis", _short(moments.flux_unit.to_string())),
        ("moment 1", moments.velocity, "RdBu_r", name),
        ("moment 2", moments.dispersion, "magma", f"dispersion ({_short(velocity)})"),
    )
    for column, (title, data, colours, label) in enumerate(maps):
        left = 0.055 + 0.325 * column
        axis = WCSAxes(figure, (left, 0.50, 0.24, 0.37), wcs=cubelet.wcs)
        figure.add_axes(axis)
        _draw_map(axis, title, data, colours, _limits(column, data, spectrum, moments), left_label=column == 0)
        bar = figure.colorbar(axis.images[0], cax=figure.add_axes((left + 0.245, 0.50, 0.008, 0.37)))
        _style_bar(bar, label)
        _contours(axis, cubelet, moments, beam, alone=column == 0)
        _draw_beam(axis, beam)
        if column < 2:
            _draw_direction(axis, at, source, cubelet.mask.any(axis=0))
    _draw_spectrum(figure.add_axes((0.055, 0.075, 0.40, 0.33)), cubelet, spectrum, source)
    _draw_slice(figure, cubelet, source, at, beam)
    _head(figure, cubelet, source)
    with quiet(UserWarning):
        # A map without a single value has no contours and no limits.
        return save_figure(figure, path)


def _limits(column: int, data: np.ndarray, spectrum: Table, moments: Moments) -> tuple[float, float]:
    finite = data[np.isfinite(data)]
    if not finite.size:
        return 0.0, 1.0
    if column == 0:
        return 0.0, max(float(finite.max()), 1e-30)
    low, high = np.percentile(finite, (3, 97))
    if column == 1:
        # The colours' middle is the middle of the field, so that both sides show alike.
        middle = float(np.median(finite))
        half = max(high - middle, middle - low, 1e-9 * abs(middle) + 1e-9)
        return middle - half, middle + half
    return 0.0, max(float(high), 1e-9)


def _draw_map(
    axis: WCSAxes, title: str, data: np.ndarray, colours: str, limits: tuple[float, float], *, left_label: bool
) -> None:
    axis.set_facecolor(BLANK)
    shown = np.ma.masked_invalid(data)
    axis.imshow(shown, origin="lower", cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axis.set_title(title, fontsize=FONT + 1, color=INK)
    for coordinate, kind in zip(axis.coords, axis.wcs.wcs.ctype, strict=False):
        word = {"RA": "RA", "DEC": "Dec", "GLON": "l", "GLAT": "b"}.get(kind.split("-")[0], kind.split("-")[0])
        coordinate.set_axislabel(word, color=MUTED, fontsize=FONT, minpad=0.6)
        coordinate.set_ticklabel(color=MUTED, fontsize=FONT - 2, exclude_overlapping=True)
        coordinate.set_ticks(color=MUTED, number=4)
    if not left_label:
        axis.coords[1].set_axislabel("")
    axis.coords.frame.set_color(MUTED)


def _style_bar(bar: Any, label: str) -> None:
    bar.set_label(label, color=MUTED, fontsize=FONT - 1)
    bar.ax.tick_params(colors=MUTED, labelsize=FONT - 2)
    bar.outline.set_edgecolor(PAPER)


def _contours(axis: Axes, cubelet: Cubelet, moments: Moments, beam: tuple[float, float, float], *, alone: bool) -> None:
    """Contours of moment 0 on a map, in steps of two from three sigma of a typical line of sight."""
    depth = cubelet.mask.sum(axis=0)
    rms = np.nanmedian(cubelet.rms) if np.isfinite(cubelet.rms).any() else 0.0
    finite = moments.flux[np.isfinite(moments.flux)]
    if not finite.size or not depth.any():
        return
    # Moment 0 over the sum of its voxels is one voxel's share of the integral.
    sums = np.where(cubelet.mask, np.nan_to_num(cubelet.voxels.astype(float)), 0.0).sum(axis=0)
    strongest = np.unravel_index(int(np.abs(sums).argmax()), sums.shape)
    per_voxel = abs(moments.flux[strongest] / sums[strongest]) if sums[strongest] else 0.0
    level = CONTOUR_SIGMA * rms * per_voxel * np.sqrt(np.median(depth[depth > 0]))
    top = float(finite.max())
    if not 0 < level < top:
        level = 0.3 * top
    if not level > 0:
        return
    levels = level * CONTOUR_STEP ** np.arange(int(np.log2(top / level)) + 1)
    axis.contour(
        np.nan_to_num(moments.flux), levels=levels, colors="white" if alone else INK, linewidths=0.9,
        alpha=0.9 if alone else 0.5,
    )  # fmt: skip


def _draw_beam(axis: Axes, beam: tuple[float, float, float]) -> None:
    major, minor, theta = beam[:3]
    place = (-0.5 + 0.75 * major, -0.5 + 0.75 * major)
    axis.add_patch(Ellipse(place, major, minor, angle=np.degrees(theta), fc=INK, ec=PAPER, lw=0.8, zorder=5))


def _draw_direction(axis: Axes, at: tuple[float, float], source: Source, outline: np.ndarray) -> None:
    """The line of the slice through the centre, its arrow on the receding side."""
    unit = np.array(source.direction) / np.hypot(*source.direction)
    # The arrow's head must not lie off the map.
    room = [(side - 0.5 - place if step > 0 else place + 0.5) / abs(step)
            for place, step, side in zip(at, unit, reversed(outline.shape), strict=True) if step]  # fmt: skip
    reach = min(_reach(at, unit, outline), 0.97 * min(room))
    ends = np.array([np.array(at) - reach * unit, np.array(at) + reach * unit])
    stroke = [withStroke(linewidth=3.0, foreground=PAPER)]
    axis.plot(*ends.T, color=ACCENT, lw=1.3, ls="--", path_effects=stroke)
    axis.plot(*at, marker="+", ms=9, mew=1.5, color=ACCENT, path_effects=stroke)
    if source.rotates:
        axis.annotate(
            "", xy=ends[1], xytext=ends[1] - 0.02 * reach * unit,
            arrowprops={"arrowstyle": "-|>", "color": ACCENT, "mutation_scale": 16},
        )  # fmt: skip
    axis.set(xlim=(-0.5, outline.shape[1] - 0.5), ylim=(-0.5, outline.shape[0] - 0.5))


def _reach(at: tuple[float, float], unit: np.ndarray, outline: np.ndarray) -> float:
    """Half length in px of a slice that covers the source."""
    y, x = np.nonzero(outline)
    if not len(x):
        return 3.0
    along = (x - at[0]) * unit[0] + (y - at[1]) * unit[1]
    return float(np.abs(along).max()) + 2.0


def _spectral_values(cubelet: Cubelet) -> tuple[np.ndarray, str]:
    spectral = cubelet.cube.spectral
    if spectral.rest_frequency is None:
        return spectral.frequency(cubelet.channels) / 1e6, "frequency (MHz)"
    return spectral.velocity_optical(cubelet.channels), "optical velocity (km/s)"


def _draw_spectrum(axis: Axes, cubelet: Cubelet, spectrum: Table, source: Source) -> None:
    values, label = _spectral_values(cubelet)
    unit = spectrum["flux_density"].unit
    scale, name = (1e3, "mJy") if str(unit) == "Jy" else (1.0, str(unit or "cube's unit, in beams"))
    outline, line = (np.asarray(spectrum[f"flux_{part}"], float) * scale for part in ("outline", "density"))
    error = np.asarray(spectrum["flux_outline_err"], float) * scale
    axis.set_facecolor(BLANK)
    axis.fill_between(values, outline - error, outline + error, step="mid", color=MUTED, alpha=0.25, lw=0)
    axis.step(values, outline, where="mid", color=MUTED, lw=1.0, label="within the outline")
    used = np.asarray(spectrum["n_pixels"]) > 0
    shown = np.where(used, line, np.nan)
    axis.step(values, shown, where="mid", color=SECOND, lw=1.6, label="voxels of the source")
    axis.axhline(0, color=MUTED, lw=0.7)
    _mark_widths(axis, cubelet, source, float(np.nanmax(shown, initial=0.0)))
    low, high = axis.get_ylim()
    axis.set(xlim=(values.min(), values.max()), ylim=(low, high + 0.15 * (high - low)))
    axis.set(xlabel=label, ylabel=f"flux density ({name})")
    _style(axis)
    axis.legend(fontsize=FONT - 2, frameon=False, labelcolor=MUTED, loc="upper right")


def _mark_widths(axis: Axes, cubelet: Cubelet, source: Source, top: float) -> None:
    """Systemic velocity, w20 and w50; widths are drawn about the middle of the line's channels at their height."""
    spectral = cubelet.cube.spectral
    z = float(source.row["z"])
    if spectral.rest_frequency is None:
        axis.axvline(float(spectral.frequency(z)) / 1e6, color=ACCENT, lw=1.2, ls=":")
        return
    centre = float(spectral.velocity_optical(z))
    axis.axvline(centre, color=ACCENT, lw=1.2, ls=":")
    for name, share in (("w20", 0.2), ("w50", 0.5)):
        width, height = float(source.row[name]), share * top
        if not (np.isfinite(width) and width > 0 and top > 0):
            continue
        axis.plot([centre - width / 2, centre + width / 2], [height, height], color=ACCENT, lw=1.2, marker="|", ms=9)
        axis.annotate(f"{name} {width:.0f}" if width >= 10 else f"{name} {width:.2f}", (centre + width / 2, height),
                      xytext=(5, 2), textcoords="offset points", color=ACCENT, fontsize=FONT - 2,
                      path_effects=[withStroke(linewidth=2.5, foreground=BLANK)])  # fmt: skip


def _draw_slice(
    figure: Figure, cubelet: Cubelet, source: Source, at: tuple[float, float], beam: tuple[float, float, float]
) -> None:
    axis = figure.add_axes((0.535, 0.075, 0.40, 0.33))
    unit = np.array(source.direction) / np.hypot(*source.direction)
    image, offset = slice_along(cubelet.voxels, at, unit, _reach(at, unit, cubelet.mask.any(axis=0)), beam)
    masked, _ = slice_along(cubelet.mask.astype(np.float32), at, unit, offset[-1], beam)
    values, label = _spectral_values(cubelet)
    arcsec = offset * cubelet.cube.plane.pixel_scale * _stretch(cubelet, at, unit)
    finite = image[np.isfinite(image)]
    low, high = (np.percentile(finite, 10), finite.max()) if finite.size else (0.0, 1.0)
    axis.set_facecolor(BLANK)
    mesh = axis.pcolormesh(arcsec, values, np.ma.masked_invalid(image), cmap="viridis", vmin=low, vmax=high,
                           shading="nearest")  # fmt: skip
    if masked.size and masked.max() > 0.02:
        axis.contour(arcsec, values, masked, levels=[min(0.5, 0.5 * float(masked.max()))], colors="white",
                     linewidths=0.9, alpha=0.8)  # fmt: skip
    spectral = cubelet.cube.spectral
    z = float(source.row["z"])
    systemic = spectral.frequency(z) / 1e6 if spectral.rest_frequency is None else spectral.velocity_optical(z)
    axis.axhline(float(systemic), color=ACCENT, lw=1.0, ls=":")
    axis.axvline(0, color=ACCENT, lw=1.0, ls=":")
    towards = "towards the receding side" if source.rotates else "along the major axis"
    axis.set(xlabel=f"offset {towards} (arcsec)", ylabel=label, ylim=(values.min(), values.max()))
    _style(axis)
    bar = figure.colorbar(mesh, cax=figure.add_axes((0.94, 0.075, 0.008, 0.33)))
    unit_name = cubelet.cube.plane.unit
    _style_bar(bar, "" if unit_name is None else _short(unit_name.to_string()))


def _stretch(cubelet: Cubelet, at: tuple[float, float], unit: np.ndarray) -> float:
    """arcsec per px along a direction over the mean scale: pixels need not be square."""
    plane = cubelet.cube.plane
    jacobian = plane.jacobian(at[0] + cubelet.window[2].start, at[1] + cubelet.window[1].start)
    return float(np.hypot(*(jacobian @ unit))) / plane.pixel_scale


def slice_along(
    voxels: np.ndarray, at: tuple[float, float], unit: np.ndarray, reach: float, beam: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Position-velocity slice, averaged over one beam across.

    Parameters
    ----------
    voxels : ndarray, shape (nchan, ny, nx)
    at : (x, y)
        px; offset 0.
    unit : (dx, dy)
        Direction of positive offsets, of length 1.
    reach : float
        Largest offset, px.
    beam : (major, minor, theta)
        px.

    Returns
    -------
    image : ndarray, shape (nchan, n)
        NaN off the box.
    offset : ndarray, shape (n,)
        px, steps of one.
    """
    offset = np.arange(-int(np.ceil(reach)), int(np.ceil(reach)) + 1, dtype=float)
    half = 0.5 * float(np.sqrt(beam[0] * beam[1]))
    across = np.linspace(-half, half, max(3, int(np.ceil(2 * half)) | 1))
    x = at[0] + offset[None] * unit[0] - across[:, None] * unit[1]
    y = at[1] + offset[None] * unit[1] + across[:, None] * unit[0]
    finite = np.isfinite(voxels)
    filled = np.where(finite, voxels, 0)
    image = np.full((len(voxels), len(offset)), np.nan)
    inside = ((x > -0.5) & (x < voxels.shape[2] - 0.5) & (y > -0.5) & (y < voxels.shape[1] - 0.5)).any(axis=0)
    for channel, (plane, good) in enumerate(zip(filled, finite, strict=True)):
        weight = map_coordinates(good.astype(float), [y, x], order=1, mode="constant").sum(axis=0)
        total = map_coordinates(plane.astype(float), [y, x], order=1, mode="constant").sum(axis=0)
        usable = inside & (weight > 0.3 * len(across))
        image[channel, usable] = total[usable] / weight[usable]
    return image, offset


def _style(axis: Axes) -> None:
    axis.tick_params(colors=MUTED, labelsize=FONT - 1)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_color(MUTED)
        label.set_fontsize(FONT)
    for spine in axis.spines.values():
        spine.set_color(MUTED)


def _short(unit: str) -> str:
    """A unit as one writes it beside an axis."""
    spelled = {"Jy km / (beam s)": "Jy/beam km/s", "Hz Jy / beam": "Jy/beam Hz", "Hz Jy": "Jy Hz", "K km / s": "K km/s"}
    return spelled.get(unit, unit.replace(" / ", "/"))


def _head(figure: Figure, cubelet: Cubelet, source: Source) -> None:
    row = source.row
    options = {"va": "center", "parse_math": False}
    title = f"{source.number}   {row['name']}"
    figure.text(0.055, 0.965, title, color=INK, fontsize=15, weight="bold", **options)
    texts = [printable(cubelet.cube.path.name), f"S/N {float(row['snr']):.1f}", f"p_real {float(row['p_real']):.2f}"]
    flux = float(row["line_flux_kms"])
    if np.isfinite(flux):
        texts += [
            f"flux {flux:.4g} {_short(source.flux_units[1])}", f"v_opt {float(row['v_opt']):.1f} km/s",
            f"w20 {float(row['w20']):.3g} km/s", f"w50 {float(row['w50']):.3g} km/s",
        ]  # fmt: skip
    else:
        texts.append(f"flux {float(row['line_flux']):.4g} {_short(source.flux_units[0])}")
        texts.append(f"frequency {float(row['frequency']) / 1e6:.4f} MHz")
    if source.rotates:
        texts.append(f"kinematic PA {float(row['kin_pa']):.0f} ± {max(float(row['kin_pa_err']), 1):.0f}°")
    if int(row["flags"]):
        texts.append(f"flags {int(row['flags'])}")
    figure.text(0.055, 0.93, "    ".join(texts), color=MUTED, fontsize=FONT, **options)
