"""From one opened spectrum to its lines: continuum, search in tiles, suppression, measurement, table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Table

from models.detections import Detections
from pipeline.measure_spectrum import measure_spectrum_lines
from pipeline.merge import owned, suppress_overlaps
from pipeline.reliability import Calibration
from pipeline.spectrum_finders import SpectrumFinderSpec
from survey_io.channels import Channels, lay_out_channels
from survey_io.continuum import estimate_continuum
from survey_io.line_columns import make_line_table
from survey_io.spectrum import Spectrum
from survey_io.tiles import Tile, plan_tiles, round_up

# Windows given to a finder at once, and the shortest core of a window.
BATCH, LEAST_CORE = 16, 256


@dataclass(frozen=True)
class Prepared:
    """A spectrum in channels, ready to be searched.

    Attributes
    ----------
    channels : Channels
    flux, level, rms : ndarray, shape (count,)
        In the unit of the flux; NaN where blank, or without noise.
    """

    channels: Channels
    flux: np.ndarray
    level: np.ndarray
    rms: np.ndarray

    @property
    def snr(self) -> np.ndarray:
        """float32, NaN where blank."""
        with np.errstate(invalid="ignore", divide="ignore"):
            snr = (self.flux - self.level) / self.rms
        return np.where(np.isfinite(snr), snr, np.nan).astype(np.float32)


def prepare_spectrum(spectrum: Spectrum) -> Prepared:
    """Lay a spectrum out in channels and estimate its continuum and noise."""
    channels = lay_out_channels(spectrum)
    flux = channels.fill(spectrum.flux)
    error = None if spectrum.error is None else channels.fill(spectrum.error)
    if error is not None and np.isfinite(error[np.isfinite(flux)]).mean() < 0.5:
        error = None
    return Prepared(channels, flux, *estimate_continuum(flux, error=error))


def search_spectra(prepared: list[Prepared], finder: SpectrumFinderSpec, *, tile: int) -> Iterator[Detections]:
    """Lines of each spectrum, suppressed and sorted, in the order given; the same for any tile.

    Parameters
    ----------
    prepared : list of Prepared
    finder : SpectrumFinderSpec
    tile : int
        Channels of a tile's core.
    """
    queues: dict[int, list[_Waiting]] = {}
    found: dict[int, list[Detections]] = {number: [] for number in range(len(prepared))}
    for number, one in enumerate(prepared):
        snr = one.snr
        noise = finder.noise(snr)
        core = round_up(_core(len(snr), tile), finder.stride)
        for piece in plan_tiles(snr.shape, tile=core, halo=finder.halo, stride=finder.stride):
            window = _window(snr, piece, core + 2 * round_up(finder.halo, finder.stride))
            queue = queues.setdefault(len(window), [])
            queue.append(_Waiting(number, piece, window, noise))
            if len(queue) == BATCH:
                _empty(queue, finder, found)
    for queue in queues.values():
        _empty(queue, finder, found)
    for number in range(len(prepared)):
        yield suppress_overlaps(Detections.concatenate(found[number]))


@dataclass(frozen=True)
class _Waiting:
    """A window that waits for its batch."""

    number: int
    tile: Tile
    window: np.ndarray
    noise: np.ndarray


def _core(count: int, tile: int) -> int:
    """Length of a core for a spectrum of so many channels: the tile halved and halved, so that few are compiled."""
    while tile >= 2 * LEAST_CORE and tile // 2 >= count:
        tile //= 2
    return tile


def _window(snr: np.ndarray, tile: Tile, length: int) -> np.ndarray:
    """So many channels from where a tile begins, blank beyond the spectrum."""
    start = tile.origin[0]
    window = np.full(length, np.nan, np.float32)
    low, high = max(start, 0), min(start + length, len(snr))
    window[low - start : high - start] = snr[low:high]
    return window


def _empty(queue: list[_Waiting], finder: SpectrumFinderSpec, found: dict[int, list[Detections]]) -> None:
    """Search all windows that wait and clear the queue."""
    if not queue:
        return
    # Blank windows make up the number: as with lengths, few sizes of a batch are compiled.
    extra = (1 << (len(queue) - 1).bit_length()) - len(queue)
    windows = np.stack([one.window for one in queue] + extra * [np.full_like(queue[0].window, np.nan)])
    noise = np.stack([one.noise for one in queue] + extra * [queue[0].noise])
    for one, part in zip(queue, finder.find(windows, noise), strict=False):
        found[one.number].append(owned(part.shifted(one.tile.origin), one.tile.core))
    queue.clear()


def catalogue_lines(
    prepared: list[Prepared], found: list[Detections], calibration: Calibration, threshold: float, *, has_network: bool
) -> Table:
    """Measure the likely lines of all spectra of a file and put them in one table.

    Parameters
    ----------
    prepared, found : list
        Spectra and their detections. All spectra have units that convert to those of the first.
    calibration : Calibration
    threshold : float
        Lowest p_real of a row.
    has_network : bool
        Whether the detector's own estimates are worth columns.

    Returns
    -------
    Table
        Columns of `survey_io.line_columns.LINE_COLUMNS`, by spectrum and centre.
    """
    first = prepared[0].channels.spectrum
    parts = []
    for one, lines in zip(prepared, found, strict=True):
        p_real = calibration.probability(lines.logit)
        keep = p_real >= threshold
        parts.append(_rows(one, lines[keep], p_real[keep], first, has_network=has_network))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["line_id"] = np.arange(1, len(columns["centre"]) + 1)
    return make_line_table(columns, first.unit, first.flux_unit)


def _rows(
    one: Prepared, lines: Detections, p_real: np.ndarray, first: Spectrum, *, has_network: bool
) -> dict[str, Any]:
    channels, spectrum = one.channels, one.channels.spectrum
    # Engines and tilings differ in the last digits; what starts from rounded numbers starts from the same.
    z, width = (np.rint(np.asarray(a[:, 0], float) * 1024) / 1024 for a in (lines.centre, lines.size))
    sign = np.asarray(lines.params["sign"], float) if len(lines) else np.empty(0)
    m = measure_spectrum_lines(one.flux, one.level, one.rms, {"z": z, "width": width, "sign": sign})
    count, at = len(z), m["z"]
    step = channels.width(at) * spectrum.unit.to(first.unit, equivalencies=u.spectral())
    scale = spectrum.flux_unit.to(first.flux_unit)
    rms = one.rms[np.clip(np.rint(z).astype(int), 0, channels.count - 1)]
    columns: dict[str, Any] = {
        "spectrum": np.full(count, spectrum.name), "row": np.full(count, -1 if spectrum.row is None else spectrum.row),
        "kind": np.where(sign > 0, "emission", "absorption"),
        "centre": channels.axis(at) * spectrum.unit.to(first.unit), "centre_err": m["z_err"] * step,
        "channel": channels.bin(at), "channel_err": m["z_err"], "frequency": channels.frequency(at),
        "velocity": channels.velocity(at), "fwhm": m["width"] * step, "fwhm_err": m["width_err"] * step,
        "fwhm_channels": m["width"], "fwhm_kms": channels.speed(at, m["width"]), "flux": m["flux"] * step * scale,
        "flux_err": m["flux_err"] * step * scale, "peak": m["peak"] * scale, "local_rms": m["rms"] * scale,
        "continuum": m["level"] * scale, "equivalent_width": m["lost"] * step,
        "equivalent_width_err": m["lost_err"] * step, "snr": m["snr"],
        "first": np.rint(channels.bin(m["first"])), "last": np.rint(channels.bin(m["last"])),
        "score": lines.score, "p_real": p_real, "flags": m["flags"],
    }  # fmt: skip
    columns["wavelength"] = 299_792_458.0 / columns["frequency"] * 1e10
    blank = np.full(count, np.nan)
    net = {"flux_net": blank, "flux_net_err": blank, "fwhm_net": blank, "fwhm_net_err": blank}
    if has_network and count:
        net["flux_net"] = lines.params["flux_snr"] * rms * step * scale
        net["flux_net_err"] = lines.params["flux_error"] * rms * step * scale
        net["fwhm_net"], net["fwhm_net_err"] = lines.size[:, 0] * step, lines.params["width_error"] * step
    return columns | net
