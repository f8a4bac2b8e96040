"""The main job as a user meets it: one image in, one catalogue out, the same whatever the way it was computed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from scipy.spatial import cKDTree

from pipeline.detect import analyse, detect
from pipeline.options import DetectOptions
from survey_io import open_image
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation

ROOT = Path(__file__).resolve().parents[1]
# Beam sizes are the natural unit of an error in a size: a minor axis may be near 0.
SIZES = {"maj", "min", "maj_err", "min_err", "maj_deconv", "min_deconv", "maj_net", "min_net", "maj_best", "min_best"}


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """Non-square sky with an elliptical tilted beam, a blank border and a hole; its path and truth."""
    sim = simulate_continuum(
        (460, 380), beam_pixels=(3.4, 2.6, 0.6), seed=5, model=SkyModel(density=0.012), centre=(187.3, 41.2)
    )
    sim.image[:21] = np.nan
    sim.image[200:230, 150:190] = np.nan
    folder = tmp_path_factory.mktemp("sky")
    return write_simulation(sim, folder)["image"], sim.truth


# arcsec, of the simulated images.
PIXEL = 0.6


def assert_same(table: Table, reference: Table, beam: float) -> None:
    """Same rows, values to 1e-4: relative, of the beam for positions and sizes, of a half turn for angles."""
    assert len(table) == len(reference)
    for name in reference.colnames:
        new, old = table[name], reference[name]
        if old.dtype.kind != "f":
            assert np.array_equal(new, old), name
            continue
        new, old = np.asarray(new, float), np.asarray(old, float)
        assert np.array_equal(np.isfinite(new), np.isfinite(old)), name
        if name in ("pa", "pa_net", "pa_deconv", "pa_best"):
            # A network's angle comes from two numbers near 0 where a source looks round.
            error = np.abs((new - old + 90) % 180 - 90) / 90 / (10 if name in ("pa_net", "pa_best") else 1)
        elif name in ("x", "y"):
            error = np.abs(new - old) * PIXEL / beam
        elif name in ("ra", "dec"):
            error = np.abs(new - old) * 3600 / beam
        else:
            error = np.abs(new - old) / (beam if name in SIZES else np.maximum(np.abs(old), 1e-30))
        assert np.nanmax(error, initial=0.0) < 1e-4, (name, np.nanmax(error))


@pytest.mark.parametrize("model", ["light", "threshold"])
def test_same_catalogue_for_any_tiling_batch_workers_and_engine(sky, model):
    observation = open_image(sky[0])
    common = {"model": model, "threshold": 0.3}
    reference = analyse(observation, DetectOptions(**common, engine="torch", workers=1)).table
    assert len(reference) > 50
    ways = [
        {"tile": 64, "batch": 5}, {"tile": 100, "batch": 2, "workers": 3}, {"tile": 236, "workers": 2},
        {"tile": 1000, "engine": "openvino"}, {"tile": 128, "batch": 3, "workers": 2, "engine": "onnx"},
    ]  # fmt: skip
    for way in ways:
        other = analyse(observation, DetectOptions(**{"engine": "torch", "workers": 1, **common, **way})).table
        assert_same(other, reference, observation.beam.major)


def test_finds_and_measures_what_is_there(sky):
    path, truth = sky
    table = analyse(open_image(path), DetectOptions()).table
    # Blank areas hold no sources that could be found.
    visible = (truth["y"] > 24) & ~((abs(truth["y"] - 215) < 18) & (abs(truth["x"] - 170) < 23))
    bright = truth[visible & (truth["peak_snr"] > 12) & (truth["kind"] != 3)]
    distance, row = cKDTree(np.c_[table["x"], table["y"]]).query(np.c_[bright["x"], bright["y"]])
    found = distance < 1.0
    assert found.mean() > 0.93
    ratio = table["flux_best"][row[found]] / bright["flux"][found]
    assert abs(np.median(ratio) - 1) < 0.06
    assert np.median(np.abs(np.log(ratio))) < 0.15
    assert np.nanmedian(table["p_real"][row[found]]) > 0.95
    assert (table["dec"] > 41.0).all() and (abs(table["ra"] - 187.3) < 0.1).all()


def test_units_scale_but_do_not_matter(sky, tmp_path):
    path, _ = sky
    image, header = fits.getdata(path), fits.getheader(path)
    header["BUNIT"] = "mJy/beam"
    other = tmp_path / "milli.fits"
    fits.writeto(other, (image * 1000).astype(np.float32)[None, None], header)
    first = analyse(open_image(path), DetectOptions(model="threshold")).table
    second = analyse(open_image(other), DetectOptions(model="threshold")).table
    assert len(first) == len(second)
    np.testing.assert_allclose(second["flux"], first["flux"], rtol=1e-3)
    assert second["flux"].unit == first["flux"].unit == "Jy"


def test_sources_do_not_move_when_a_wide_beam_is_binned(tmp_path):
    sim = simulate_continuum((700, 640), beam_pixels=13.0, seed=8, model=SkyModel(density=0.01))
    path = write_simulation(sim, tmp_path)["image"]
    result = analyse(open_image(path), DetectOptions())
    assert result.manifest["model"]["binning"] == 3
    bright = sim.truth[(sim.truth["peak_snr"] > 15) & (sim.truth["kind"] != 3)]
    distance, row = cKDTree(np.c_[result.table["x"], result.table["y"]]).query(np.c_[bright["x"], bright["y"]])
    found = distance < 6
    assert found.mean() > 0.8
    shift = np.c_[result.table["x"][row] - bright["x"], result.table["y"][row] - bright["y"]][found]
    assert np.abs(np.median(shift, axis=0)).max() < 0.5
    assert abs(np.median(result.table["flux_best"][row][found] / bright["flux"][found]) - 1) < 0.12


def test_missing_beam_is_estimated_and_flagged(sky, tmp_path):
    path, _ = sky
    header = fits.getheader(path)
    for key in ("BMAJ", "BMIN", "BPA"):
        del header[key]
    nameless = tmp_path / "nobeam.fits"
    fits.writeto(nameless, fits.getdata(path), header)
    result = analyse(open_image(nameless), DetectOptions(model="threshold"))
    assert result.observation.beam.origin == "estimated"
    true = 0.6 * np.sqrt(3.4 * 2.6)
    assert abs(result.observation.beam.major / true - 1) < 0.25
    assert (result.table["flags"] & 64 > 0).all()


def test_nothing_found_is_a_result(tmp_path):
    rng = np.random.default_rng(3)
    sim = simulate_continuum((256, 256), beam_pixels=3.0, seed=1)
    path = tmp_path / "noise.fits"
    fits.writeto(path, rng.normal(0, 1e-6, (256, 256)).astype(np.float32), sim.header)
    result = detect(path, DetectOptions(model="threshold", threshold=0.99999, output=tmp_path / "out"))
    assert len(result.table) == 0
    assert len(Table.read(result.files["fits"])) == 0


def _start(path: Path, output: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "flows.cli", "detect", str(path), "-o", str(output), "--tile", "64"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def test_killed_run_continues_and_ends_with_the_same_catalogue(sky, tmp_path):
    path, _ = sky
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert _start(path, whole).wait(240) == 0
    ledger = cut / f".{path.stem}_skysift.ledger"
    process = _start(path, cut)
    began = time.monotonic()
    while not ledger.exists() and process.poll() is None and time.monotonic() - began < 120:
        time.sleep(0.02)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (cut / f"{path.stem}_run.json").exists()
    assert _start(path, cut).wait(240) == 0
    assert not ledger.exists()
    names = [f"{path.stem}{end}" for end in ("_cat.fits", ".reg", "_quicklook.png", "_run.json")]
    assert all((cut / name).stat().st_size > 0 for name in names)
    first, second = (Table.read(folder / names[0]) for folder in (whole, cut))
    assert_same(second, first, 2.0)
    manifest = json.loads((cut / names[3]).read_text())
    assert manifest["counts"]["sources"] == len(first)
    assert len(manifest["input"]["sha256"]) == 64
