"""A survey to look at: a real run on a planted sky, a cube, hostile names, and a catalogue of many rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

MANY = 100_000
HOSTILE = "<img src=x onerror=document.title='taken'>.fits"
SCRIPT = "<script>document.title='taken'</script>"
TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class SurveySite:
    """A survey's folder and the numbers of its observations.

    Attributes
    ----------
    folder, inbox : Path
    sky, cube, hostile, quarantined, many : int
        Observations: a planted sky with its truth list; a cube; an image whose name and header are HTML; a file that
        could not be read; `MANY` rows without a file.
    address : str
        Of the server.
    """

    folder: Path
    inbox: Path
    sky: int
    cube: int
    hostile: int
    quarantined: int
    many: int
    address: str


def write_cube(path: Path, shape: tuple[int, int, int] = (24, 30, 44)) -> None:
    """A cube in frequency with one line at (channel 9, y 12, x 30)."""
    rng = np.random.default_rng(3)
    data = rng.normal(0, 1e-3, shape).astype(np.float32)
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    data += 0.02 * np.exp(-0.5 * (((z - 9) / 1.5) ** 2 + ((y - 12) / 1.4) ** 2 + ((x - 30) / 1.4) ** 2))
    header = fits.Header()
    for axis, (kind, value, step, unit) in enumerate(
        (("RA---SIN", 180.0, -2e-3, "deg"), ("DEC--SIN", -30.0, 2e-3, "deg"), ("FREQ", 1.4e9, 2e5, "Hz")), start=1
    ):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"], header[f"CDELT{axis}"] = kind, value, step
        header[f"CRPIX{axis}"], header[f"CUNIT{axis}"] = 1.0, unit
    header["RESTFRQ"], header["BUNIT"] = 1420405751.768, "Jy/beam"
    header["BMAJ"], header["BMIN"], header["BPA"] = 6e-3, 6e-3, 0.0
    fits.PrimaryHDU(data, header).writeto(path)


@pytest.fixture(scope="session")
def survey_site(tmp_path_factory: pytest.TempPathFactory, plant_sky: Callable[..., Any]) -> Iterator[SurveySite]:
    """The survey, and a real server that shows it."""
    from flows.http import Limits, make_app
    from flows.http.running import bind, serve_beside
    from pipeline.detect import detect
    from pipeline.options import DetectOptions
    from pipeline.survey import open_store
    from survey_io.columns import make_table
    from survey_io.cube_columns import make_cube_table

    folder = tmp_path_factory.mktemp("survey")
    store, options = open_store(folder / "store"), DetectOptions(model="threshold", output=folder / "out", workers=1)
    sky = plant_sky(folder / "planted.fits")
    sky.truth.write(folder / "planted_truth.ecsv", format="ascii.ecsv")
    store.record(detect(sky.path, options))
    shutil.copy(sky.path, folder / HOSTILE)
    with fits.open(folder / HOSTILE, mode="update") as hdus:
        hdus[0].header["BUNIT"], hdus[0].header["OBJECT"] = "<b onclick=1>Jy", SCRIPT
    store.record(detect(folder / HOSTILE, options.model_copy(update={"output": folder / "hostile"})))
    write_cube(folder / "cube.fits")
    ra, dec = 180.0 - 30 * 2e-3 / np.cos(np.radians(30)), -30.0 + 12 * 2e-3
    line = {
        "source_id": [1], "name": ["SKS J115946.00-295840.8"], "ra": [ra], "dec": [dec], "x": [30.0], "y": [12.0],
        "z": [9.0], "frequency": [1.4e9 + 9 * 2e5], "line_flux": [5e4], "line_flux_err": [1e3], "snr": [50.0],
        "p_real": [0.99], "w20": [120.0], "maj": [25.0], "min": [22.0], "pa": [10.0],
    }  # fmt: skip
    manifest = {
        "input": {"path": str(folder / "cube.fits"), "shape": [24, 30, 44], "sha256": "c" * 64},
        "model": {"name": "light3d", "sha256": "1" * 64}, "options": {}, "versions": {"skysift": "0.1.0"}, "files": {},
    }  # fmt: skip
    store.record(manifest, make_cube_table(line), output=folder / "out")
    rng = np.random.default_rng(5)
    names = np.array([f"SKS J{one:08d}.0-000000.0" for one in range(MANY)])
    rows = {
        "source_id": np.arange(1, MANY + 1), "name": names, "ra": 10 + rng.random(MANY), "dec": 5 + rng.random(MANY),
        "flux": rng.lognormal(-9, 1, MANY), "snr": 5 + rng.pareto(1.5, MANY), "p_real": rng.random(MANY),
        "maj": 3 + rng.random(MANY), "min": np.full(MANY, 3.0), "pa": 180 * rng.random(MANY),
    }  # fmt: skip
    gone = {"path": str(folder / "gone.fits"), "shape": [9000, 9000], "sha256": "d" * 64}
    store.record(json.loads(json.dumps(manifest)) | {"input": gone}, make_table(rows), output=folder / "out")
    bad, _ = store.enqueue(folder / "in" / HOSTILE, sha256="e" * 64, kind="image", bytes=12)
    store.quarantine(bad, f"{HOSTILE}: no FITS file {SCRIPT}")
    numbers = {row["sha256"][0] if row["sha256"][0] * 64 == row["sha256"] else row["name"]: row["id"]
               for row in store.observations()}  # fmt: skip
    (folder / "inbox").mkdir()
    app = make_app(store, token=TOKEN, inbox=folder / "inbox", limits=Limits(upload=100_000, rows=5000, wait=60))
    with serve_beside(app, bind("127.0.0.1:0")) as address:
        yield SurveySite(
            folder, folder / "inbox", numbers["planted.fits"], numbers["c"], numbers[HOSTILE], numbers["e"],
            numbers["d"], address,
        )  # fmt: skip
    store.close()
