"""PyBDSF: islands fitted with Gaussians."""

import os
from pathlib import Path

import bdsf
import numpy as np
from astropy.io import fits
from common import Image, fitted, write_plane

SETTINGS = [
    {"pixel": p, "island": i, "minpix": m}
    for p, i, m in [
        (5.0, 3.0, None),
        (4.0, 3.0, None),
        (4.0, 3.0, 3),
        (3.75, 3.0, 3),
        (3.5, 3.0, 3),
        (3.25, 3.0, 3),
    ]
    + [(3.75, 3.25, 3), (3.5, 2.5, 3), (3.25, 2.5, 3), (3.0, 2.5, 3), (3.25, 3.0, 1), (3.5, 3.0, 1)]
]


def run(image: Image, setting: dict, folder: Path) -> dict:
    plane, catalogue = folder / "plane.fits", folder / "pybdsf.fits"
    write_plane(image, plane)
    # Its log goes beside the image and its scratch files to the working directory.
    os.chdir(folder)
    options = {} if setting["minpix"] is None else {"minpix_isl": setting["minpix"]}
    result = bdsf.process_image(
        str(plane), thresh_pix=setting["pixel"], thresh_isl=setting["island"], quiet=True, ncores=1,
        frequency=1.4e9, **options,
    )  # fmt: skip
    result.write_catalog(outfile=str(catalogue), format="fits", catalog_type="srl", clobber=True)
    rows = fits.getdata(catalogue)
    columns = {
        name: np.asarray(rows[key], dtype=float)
        for name, key in {
            "ra": "RA", "dec": "DEC", "peak": "Peak_flux", "flux": "Total_flux", "rms": "Isl_rms",
            "major": "Maj", "minor": "Min", "pa": "PA",
        }.items()
    }  # fmt: skip
    columns["major"], columns["minor"] = columns["major"] * 3600, columns["minor"] * 3600
    table = fitted(image, **columns)
    own = {name: np.asarray(rows[key], dtype=float) for name, key in
           {"omaj": "DC_Maj", "omin": "DC_Min", "opa": "DC_PA"}.items()}  # fmt: skip
    table["omaj"], table["omin"], table["opa"] = own["omaj"] * 3600, own["omin"] * 3600, own["opa"]
    table["flux_island"] = np.asarray(rows["Isl_Total_flux"], dtype=float)
    return table
