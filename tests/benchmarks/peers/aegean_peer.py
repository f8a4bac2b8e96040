"""Aegean with the background and noise maps of BANE."""

import logging
from pathlib import Path

import numpy as np
from AegeanTools import BANE
from AegeanTools.source_finder import SourceFinder
from common import Image, fitted, write_plane

SETTINGS = [
    {"inner": i, "outer": o}
    for i, o in [
        (5.0, 4.0),
        (4.25, 3.5),
        (4.0, 3.5),
        (3.75, 3.5),
        (3.5, 3.25),
        (3.25, 3.0),
        (3.0, 3.0),
        (3.0, 2.5),
    ]
]


def run(image: Image, setting: dict, folder: Path) -> dict:
    plane = folder / "plane.fits"
    write_plane(image, plane)
    BANE.filter_image(str(plane), str(folder / "maps"), cores=1, nslice=1)
    logger = logging.getLogger("aegean")
    logger.setLevel(logging.CRITICAL)
    found = SourceFinder(log=logger).find_sources_in_image(
        str(plane), rmsin=str(folder / "maps_rms.fits"), bkgin=str(folder / "maps_bkg.fits"),
        innerclip=setting["inner"], outerclip=setting["outer"], cores=1, nonegative=True, progress=False,
    )  # fmt: skip
    value = {
        name: np.array([getattr(one, key) for one in found], dtype=float)
        for name, key in {
            "ra": "ra", "dec": "dec", "peak": "peak_flux", "flux": "int_flux", "rms": "local_rms",
            "major": "a", "minor": "b", "pa": "pa",
        }.items()
    }  # fmt: skip
    return fitted(image, **value)
