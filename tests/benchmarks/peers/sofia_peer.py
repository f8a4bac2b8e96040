"""SoFiA-2 (Westmeier et al. 2021, MNRAS 506, 3962), driven through its command line, where `sofia` is on the PATH.

Its catalogue becomes a list in the columns of SDC2: fluxes in Jy Hz, w20 in km/s, sizes without the beam.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
from astropy.table import Table

SETTINGS = [
    {"threshold": t, "reliability": r, "link": 1}
    for t, r in ((3.8, 0.1), (3.8, 0.9), (4.0, 0.5), (4.5, None), (4.5, 0.5), (5.0, None), (5.5, None))
]
REST, LIGHT = 1.420405752e9, 299792.458


def find_sofia() -> str | None:
    """The executable, None where there is none."""
    return shutil.which("sofia") or shutil.which("sofia2")


def run_sofia(cube: Path, folder: Path, setting: dict, *, beam: float = 7.0, pixel: float = 2.8) -> Table:
    """Sources of a cube with a frequency axis.

    Parameters
    ----------
    cube, folder : Path
        FITS cube; folder for the results.
    setting : dict
        One of `SETTINGS`: S+C threshold in sigma, reliability threshold or None, linking radius.
    beam, pixel : float
        arcsec.
    """
    reliability = setting["reliability"]
    options = {
        "pipeline.verbose": "false", "pipeline.threads": 2, "input.data": cube, "scaleNoise.enable": "true",
        "scaleNoise.mode": "spectral", "scfind.enable": "true", "scfind.kernelsXY": "0, 3, 6",
        "scfind.kernelsZ": "0, 3, 7, 15, 31", "scfind.threshold": setting["threshold"], "linker.enable": "true",
        "linker.radiusXY": setting["link"], "linker.radiusZ": setting["link"], "linker.minSizeXY": 3,
        "linker.minSizeZ": 3, "reliability.enable": "false" if reliability is None else "true",
        "reliability.threshold": reliability or 0.5, "reliability.scaleKernel": 0.3, "dilation.enable": "true",
        "parameter.enable": "true", "parameter.wcs": "true", "parameter.physical": "true",
        "output.directory": folder, "output.filename": "sofia", "output.writeCatXML": "true",
        "output.writeCatASCII": "false", "output.overwrite": "true",
    }  # fmt: skip
    parameters = folder / "sofia.par"
    parameters.write_text("".join(f"{name} = {value}\n" for name, value in options.items()))
    done = subprocess.run([find_sofia() or "sofia", str(parameters)], cwd=folder, capture_output=True, text=True)
    made = folder / "sofia_cat.xml"
    if not made.is_file():
        # It ends with an error where nothing is found, or where too few negatives tell the reliability.
        tail = done.stdout.strip().splitlines()[-1:] + done.stderr.strip().splitlines()[-1:]
        print(f"  SoFiA-2 {setting}: no catalogue ({' '.join(tail)})")
        return Table(names=("id", "ra", "dec", "hi_size", "line_flux_integral", "central_freq", "pa", "i", "w20"))
    return as_sdc2(Table.read(made, format="votable"), beam=beam, pixel=pixel)


def as_sdc2(rows: Table, *, beam: float, pixel: float) -> Table:
    """SoFiA-2's columns as those of SDC2."""
    get = {name: np.asarray(rows[name], float) for name in ("ra", "dec", "freq", "f_sum", "w20", "ell_maj", "ell_min")}
    per_hz = LIGHT * REST / get["freq"] ** 2
    axes = [np.sqrt(np.clip((get[name] * pixel) ** 2 - beam**2, 0, None)) for name in ("ell_maj", "ell_min")]
    ratio = np.clip(axes[1] / np.maximum(axes[0], 1e-6), 0.05, 1)
    inclination = np.where(axes[0] > 0.3 * beam, np.degrees(np.arccos(ratio)), 60.0)
    angle = "kin_pa" if "kin_pa" in rows.colnames else "ell_pa"
    pa = np.asarray(rows[angle], float)
    return Table({
        "id": np.arange(1, len(rows) + 1), "ra": get["ra"], "dec": get["dec"],
        "hi_size": np.maximum(2 * axes[0], 1.0), "line_flux_integral": get["f_sum"], "central_freq": get["freq"],
        "pa": np.where(np.isfinite(pa) & (pa >= 0), pa % 360, 0.0), "i": inclination, "w20": get["w20"] * per_hz,
    })  # fmt: skip
