"""Headers and truth tables of simulated skies, in the conventions of the SKA Data Challenge 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from ..catalogue import SDC1_COLUMNS

if TYPE_CHECKING:
    from .continuum import Simulation, Sources

def image_header(
    shape: tuple[int, int],
    beam: tuple[float, float, float],
    *,
    pixel_scale: float,
    frequency: float,
    centre: tuple[float, float],
) -> fits.Header:
    """SIN-projected ICRS header with beam, unit and frequency; ``beam`` in px and pixel-frame rad."""
    ny, nx = shape
    header = fits.Header()
    header["BUNIT"] = "JY/BEAM"
    for axis, kind, value, step, size in (
        (1, "RA---SIN", centre[0], -pixel_scale / 3600, nx),
        (2, "DEC--SIN", centre[1], pixel_scale / 3600, ny),
    ):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = kind, "deg"
        header[f"CRVAL{axis}"], header[f"CDELT{axis}"], header[f"CRPIX{axis}"] = value, step, (size + 1) / 2
    header["RADESYS"] = "ICRS"
    header["BMAJ"], header["BMIN"] = beam[0] * pixel_scale / 3600, beam[1] * pixel_scale / 3600
    # RA grows towards -x, so an angle theta from +x towards +y lies at theta - 90 deg east of north.
    header["BPA"] = float(np.mod(np.degrees(beam[2]) - 90, 180))
    header["RESTFRQ"], header["FREQ"] = frequency, frequency
    return header


def truth_table(
    sources: Sources, header: fits.Header, shape: tuple[int, int], *, rms: float, pixel_scale: float
) -> Table:
    """Truth of the sources whose centroid lies in the image; the first 12 columns are the challenge's."""
    ny, nx = shape
    inside = (sources.x > -0.5) & (sources.x < nx - 0.5) & (sources.y > -0.5) & (sources.y < ny - 0.5)
    index = np.flatnonzero(inside)
    ra, dec = WCS(header).pixel_to_world_values(sources.x[index], sources.y[index])
    pa_sky = np.mod(np.degrees(sources.theta[index]) - 90, 180)
    major, minor = sources.major[index] * pixel_scale, sources.minor[index] * pixel_scale
    kind = sources.kind[index]
    # Size types of the challenge: 1 largest angular size, 2 Gaussian FWHM, 3 exponential scale length.
    size = np.select([kind == 3, kind == 2], [1, 3], 2)
    factor = np.select([kind == 3, kind == 2], [5 / 2.355, 1 / np.sqrt(2.0)], 1.0)
    source_class = np.select([kind == 3, kind == 0], [1, 2], 3)
    # As in the challenge's truth: galaxies within -90..90, active nuclei anywhere in 0..360.
    pa = 90 - pa_sky
    turned = np.where(source_class == 3, np.mod(pa + 90, 180) - 90, np.mod(pa, 360))
    columns = [
        np.arange(1, len(index) + 1), ra, dec, ra, dec,
        sources.flux[index] * rms, sources.core_fraction[index],
        major * factor, minor * factor, turned, size, source_class,
    ]  # fmt: skip
    table = Table(columns, names=SDC1_COLUMNS)
    table["x"], table["y"] = sources.x[index], sources.y[index]
    table["peak_snr"], table["snr"] = sources.peak[index], sources.flux[index]
    table["maj"], table["min"], table["pa_sky"], table["kind"] = major, minor, pa_sky, kind
    return table


def write_simulation(simulation: Simulation, folder: Path, *, stem: str = "sky") -> dict[str, Path]:
    """Write image, truth (SDC1 text and ECSV) and primary beam; returns the paths by name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"image": folder / f"{stem}.fits", "truth": folder / f"{stem}_truth.ecsv"}
    fits.writeto(paths["image"], simulation.image, simulation.header, overwrite=True)
    simulation.truth.write(paths["truth"], overwrite=True)
    paths["truth_sdc1"] = folder / f"{stem}_truth_sdc1.txt"
    formats = {"flux": "%.8e"} | dict.fromkeys(("ra_core", "dec_core", "ra_cent", "dec_cent"), "%.9f")
    simulation.truth[list(SDC1_COLUMNS)].write(
        paths["truth_sdc1"], format="ascii.basic", overwrite=True, formats=formats
    )
    if simulation.primary_beam is not None:
        paths["primary_beam"] = folder / f"{stem}_primary_beam.fits"
        fits.writeto(paths["primary_beam"], simulation.primary_beam, simulation.header, overwrite=True)
    return paths
