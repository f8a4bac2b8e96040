"""Speed and peak memory of ``skysift detect`` on cubes of growing size: what is needed must not grow with the cube.

    python tests/benchmarks/bench_cube_memory.py --sizes 256 1024 4096
    python tests/benchmarks/bench_cube_memory.py --large 40960
    python tests/benchmarks/bench_cube_memory.py --sizes 1024 -- --passes 1    after --: options of detect

Cubes are a block of simulated sky, repeated; sizes are in MiB. ``--large`` makes a sparse file of that apparent size:
its first channels hold the block, the others are holes in the file, which read as channels without noise. Each cube is
searched by the whole command, in a process of its own; the time of its stages is that of its manifest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

from survey_io.simulate.hi import HiModel, simulate_hi

BLOCK = (256, 256, 256)
STAGES = ("noise", "finder", "detect", "negative", "merge", "link", "measure", "picture")


def main() -> None:
    """Print a row per cube."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 1024, 4096], help="MiB")
    parser.add_argument("--large", type=int, default=0, help="MiB of a sparse cube; 0 for none")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--density", type=float, default=2.0, help="galaxies per million voxels")
    parser.add_argument("--folder", type=Path, default=None, help="where the cubes are made [default: a temporary one]")
    parser.add_argument("extra", nargs="*", help="after --: further options of skysift detect")
    given = parser.parse_args()
    model = HiModel(shape=BLOCK, first_frequency=1.0e9, density=given.density, rms=2.0e-5)
    block, _ = simulate_hi(model, seed=7)
    head = f"{'cube':>20}{'MiB':>8}{'rows':>7}{'s':>8}{'Mvox/s':>8}{'to table':>10}{'peak MiB':>10}"
    print(head + "".join(f"{name:>10}" for name in STAGES), flush=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for size in given.sizes:
            _report(_write(Path(folder), model, block, size, share=1.0), given)
        if given.large:
            _report(_write(Path(folder), model, block, given.large, share=0.05), given)


def _write(folder: Path, model: HiModel, block: np.ndarray, size: int, *, share: float) -> Path:
    """A cube of about ``size`` MiB; voxels in the given share of its channels."""
    # Twice as long as it is wide, in whole blocks on the sky.
    side = max(1, round((size * 2**18 / 2 / BLOCK[1] ** 3) ** (1 / 3)))
    nx = side * BLOCK[2]
    channels = max(16, round(size * 2**18 / nx**2))
    header = fits.Header([
        ("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 3), ("NAXIS1", nx), ("NAXIS2", nx), ("NAXIS3", channels),
        ("CTYPE1", "RA---SIN"), ("CRVAL1", 180.0), ("CRPIX1", nx / 2), ("CDELT1", -model.pixel_scale / 3600),
        ("CTYPE2", "DEC--SIN"), ("CRVAL2", -30.0), ("CRPIX2", nx / 2), ("CDELT2", model.pixel_scale / 3600),
        ("CTYPE3", "FREQ"), ("CRVAL3", 0.95e9), ("CRPIX3", 1.0), ("CDELT3", 3e4), ("CUNIT3", "Hz"),
        ("RESTFRQ", 1420405751.768), ("BUNIT", "Jy/beam"), ("BMAJ", model.beam / 3600), ("BMIN", model.beam / 3600),
        ("BPA", 0.0),
    ])  # fmt: skip
    path = folder / f"cube_{channels}x{nx}x{nx}.fits"
    with open(path, "wb") as file:
        file.write(header.tostring().encode("ascii"))
        start = file.tell()
        for channel in range(math.ceil(share * channels)):
            file.write(np.tile(block[channel % BLOCK[0]], (side, side)).astype(">f4").tobytes())
        length = channels * nx * nx * 4
        file.truncate(start + length + -length % 2880)
    return path


def _report(path: Path, given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "flows.cli", "detect", str(path), "-o", output, "--model", given.model]
        command += given.extra
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status:
            raise SystemExit(f"{path}: the command failed")
        manifest = json.loads((Path(output) / f"{path.stem}_run.json").read_text())
    voxels = math.prod(manifest["input"]["shape"])
    timings = manifest["timings"]
    # The picture is drawn after the table is written.
    to_table = sum(value for name, value in timings.items() if name != "picture")
    print(
        f"{path.stem.removeprefix('cube_'):>20}{voxels * 4 / 2**20:>8.0f}{manifest['counts']['sources']:>7}"
        f"{seconds:>8.1f}{voxels / 1e6 / seconds:>8.2f}{voxels / 1e6 / to_table:>10.2f}{usage.ru_maxrss / 1024:>10.0f}"
        + "".join(f"{timings.get(name, 0.0):>10.1f}" for name in STAGES),
        flush=True,
    )
    path.unlink()


if __name__ == "__main__":
    main()
