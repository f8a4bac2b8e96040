"""SExtractor 2 (Debian: source-extractor), driven through its command line."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
from common import Image, beam_kernel, isophotal, write_plane

SETTINGS = [
    {"threshold": t, "minarea": m, "filter": f}
    for t, m, f in [(t, 1, False) for t in (2.75, 3.0, 3.25, 3.5, 3.75, 4.0, 4.25, 4.5)]
    + [(3.0, 5, True), (2.5, 3, False), (3.0, 3, False), (3.5, 3, False), (4.0, 3, False)]
]
COLUMNS = [
    "X_IMAGE",
    "Y_IMAGE",
    "A_IMAGE",
    "B_IMAGE",
    "THETA_IMAGE",
    "FLUX_MAX",
    "THRESHOLD",
    "FLUX_AUTO",
    "FLUX_ISO",
    "FLUX_APER",
    "BACKGROUND",
]


def run(image: Image, setting: dict, folder: Path) -> dict:
    binary = shutil.which("source-extractor") or shutil.which("sex")
    if binary is None:
        raise SystemExit("SExtractor is missing: install the package source-extractor")
    plane, catalogue = folder / "plane.fits", folder / "sextractor.cat"
    write_plane(image, plane)
    (folder / "columns.param").write_text("\n".join(COLUMNS) + "\n")
    kernel = beam_kernel(image)
    rows = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in kernel)
    (folder / "beam.conv").write_text(f"CONV NORM\n# beam\n{rows}\n")
    (folder / "default.nnw").write_text("NNW\n")
    options = {
        "CATALOG_NAME": catalogue, "CATALOG_TYPE": "ASCII", "PARAMETERS_NAME": folder / "columns.param",
        "DETECT_THRESH": setting["threshold"], "ANALYSIS_THRESH": setting["threshold"], "THRESH_TYPE":
        "RELATIVE",
        "DETECT_MINAREA": setting["minarea"], "FILTER": "Y" if setting["filter"] else "N",
        "FILTER_NAME": folder / "beam.conv", "DEBLEND_NTHRESH": 32, "DEBLEND_MINCONT": 0.005, "BACK_SIZE": 64,
        "BACK_FILTERSIZE": 3, "CLEAN": "N", "PHOT_APERTURES": 2 * image.beam_pixels[0], "WEIGHT_TYPE": "NONE",
        "SATUR_LEVEL": 1e10, "MEMORY_PIXSTACK": max(300_000, image.data.size // 4), "VERBOSE_TYPE": "QUIET",
        "CHECKIMAGE_TYPE": "BACKGROUND_RMS", "CHECKIMAGE_NAME": folder / "rms.fits", "MEMORY_OBJSTACK":
        30_000,
    }  # fmt: skip
    arguments = [str(part) for key, value in options.items() for part in (f"-{key}", value)]
    (folder / "empty.sex").write_text("")
    subprocess.run([binary, str(plane), "-c", str(folder / "empty.sex"), *arguments], check=True)
    values = dict(zip(COLUMNS, np.loadtxt(catalogue, ndmin=2).T, strict=True))
    from astropy.io import fits

    x, y = values["X_IMAGE"] - 1, values["Y_IMAGE"] - 1
    rms = fits.getdata(folder / "rms.fits")
    local = rms[
        np.clip(np.rint(y).astype(int), 0, rms.shape[0] - 1),
        np.clip(np.rint(x).astype(int), 0, rms.shape[1] - 1),
    ]
    return isophotal(
        image, x=x, y=y, a=values["A_IMAGE"], b=values["B_IMAGE"], theta=np.radians(values["THETA_IMAGE"]),
        peak=values["FLUX_MAX"], threshold=setting["threshold"] * local, rms=local,
        fluxes={
            "auto": values["FLUX_AUTO"], "iso": values["FLUX_ISO"], "aperture": values["FLUX_APER"] / (1 -
            2.0**-4),
        },
    )  # fmt: skip
