"""What the pages' server does under load, on this machine alone: cone searches of 10 to 10,000 rows, tiles, tables.

    python tests/benchmarks/bench_http.py [--rows 300000] [--clients 20] [--seconds 4] [--side 4096] [--json FILE]

The server is a process of its own (skysift http); the clients are threads of this one, so that on a small machine they
take a part of what they measure. With --side 32768 the image is 4 GiB, which shows what a first look at such costs.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from astropy.io import fits
from astropy.io.votable import parse

from pipeline.survey import open_store
from survey_io.columns import make_table

ROOT = Path(__file__).resolve().parents[2]
FIELD = 10.0  # side of the patch of sky that the sources lie in, deg


def write_image(path: Path, side: int) -> None:
    """Noise with a source every 97 pixels, written in bands: memory does not grow with the side."""
    rng = np.random.default_rng(1)
    header = fits.Header()
    header["SIMPLE"], header["BITPIX"], header["NAXIS"] = True, -32, 2
    header["NAXIS1"], header["NAXIS2"] = side, side
    for axis, (kind, value, step) in enumerate((("RA---SIN", 30.0, -3e-4), ("DEC--SIN", -30.0, 3e-4)), start=1):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"], header[f"CDELT{axis}"] = kind, value, step
        header[f"CRPIX{axis}"] = side / 2
    header["BUNIT"], header["BMAJ"], header["BMIN"], header["BPA"] = "Jy/beam", 1.2e-3, 1.2e-3, 0.0
    band = rng.normal(0, 1e-4, (256, side)).astype(np.float32)
    band[::97, ::97] += 5e-3
    content = band.astype(">f4").tobytes()
    with open(path, "wb") as file:
        file.write(header.tostring().encode())
        for first in range(0, side, 256):
            file.write(content[: min(256, side - first) * side * 4])
        file.write(b"\0" * (-file.tell() % 2880))


def fill(folder: Path, rows: int, side: int) -> None:
    """A store with one run of many rows on one image."""
    rng = np.random.default_rng(2)
    image = folder / "image.fits"
    write_image(image, side)
    values = {
        "source_id": np.arange(rows), "name": np.array([f"SKS J{one:09d}" for one in range(rows)]),
        "ra": 30 + FIELD * (rng.random(rows) - 0.5) / np.cos(np.radians(30)),
        "dec": -30 + FIELD * (rng.random(rows) - 0.5),
        "flux": rng.lognormal(-9, 1, rows), "snr": 5 + rng.pareto(1.5, rows), "p_real": rng.random(rows),
        "maj": 4 + rng.random(rows), "min": np.full(rows, 4.0), "pa": 180 * rng.random(rows),
    }  # fmt: skip
    manifest = {
        "input": {"path": str(image), "shape": [side, side], "sha256": "a" * 64},
        "model": {"name": "none", "sha256": "1" * 64}, "options": {}, "versions": {"skysift": "0"}, "files": {},
    }  # fmt: skip
    with open_store(folder / "store") as store:
        store.record(manifest, make_table(values), output=folder)


class Client:
    """One connection that is kept open."""

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        self.connection.request("GET", path, headers={"accept-encoding": "gzip", **headers})
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def load(address: str, paths: list[str], clients: int, seconds: float, **headers: str) -> dict[str, Any]:
    """Ask for paths in turn from several clients at once."""
    times: list[float] = []
    wrong: list[int] = []
    stop, lock, turn = time.monotonic() + seconds, threading.Lock(), iter(range(10**9))

    def work() -> None:
        client = Client(address)
        while time.monotonic() < stop:
            with lock:
                path = paths[next(turn) % len(paths)]
            begin = time.monotonic()
            status, _ = client.get(path, **headers)
            passed = time.monotonic() - begin
            with lock:
                times.append(passed)
                if status not in (200, 304):
                    wrong.append(status)

    begin = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.monotonic() - begin
    median, late = np.percentile(times, [50, 95])
    return {
        "clients": clients, "requests": len(times), "errors": len(wrong), "per_second": round(len(times) / passed, 1),
        "median_ms": round(1e3 * float(median), 1), "p95_ms": round(1e3 * float(late), 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results: dict[str, Any] = {"rows": given.rows, "side": given.side, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="bench_http_") as name:
        folder = Path(name)
        fill(folder, given.rows, given.side)
        command = [sys.executable, "-m", "flows.cli", "http", "--catalogue", str(folder / "store"), "--listen", "0"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = re.search(r"http://\S+", server.stdout.readline())[0]  # type: ignore[index]
            measure(address, server.pid, given, results)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def measure(address: str, pid: int, given: argparse.Namespace, results: dict[str, Any]) -> None:
    """All measurements, printed as they come."""
    client, process = Client(address), psutil.Process(pid)
    while True:
        try:
            client.get("/healthz")
            break
        except OSError:
            time.sleep(0.1)
            client = Client(address)
    density = given.rows / FIELD**2
    print(f"{'cone':>8} {'clients':>8} {'median ms':>10} {'95% ms':>8} {'per s':>8} {'errors':>7}")
    for rows in (10, 1000, 10_000):
        radius = float(np.sqrt(rows / density / np.pi))
        if radius > FIELD / 2:
            continue  # more than the patch of sky holds
        path = f"/cone?RA=30&DEC=-30&SR={radius:.6f}&MAXREC=20000"
        got = len(parse(io.BytesIO(_plain(address, path)), verify="ignore").get_first_table().array)
        for clients in (1, given.clients):
            found = load(address, [path], clients, given.seconds)
            results[f"cone_{rows}_{clients}"] = {**found, "rows": got}
            print(f"{got:>8} {clients:>8} {found['median_ms']:>10} {found['p95_ms']:>8} {found['per_second']:>8} "
                  f"{found['errors']:>7}", flush=True)  # fmt: skip
    client = Client(address)
    begin = time.monotonic()
    _, view = client.get("/observations/1/view")
    key = json.loads(view)["key"]
    client.get("/observations/1/planes/image")
    results["overview_s"] = round(time.monotonic() - begin, 2)
    print(f"overview of {given.side} x {given.side} pixels: {results['overview_s']} s")
    tiles = -(-given.side // 256)
    fine = [f"/observations/1/tiles/image/0/{r}/{c}?v={key}" for r in range(tiles) for c in range(tiles)][:256]
    for title, paths, headers in (
        ("tiles, new", fine, {}), ("tiles, kept", fine, {}),
        ("tiles, unchanged", fine[:1], {"if-none-match": f'"{key}-image-0-0-0"'}),
    ):  # fmt: skip
        seconds = given.seconds if title != "tiles, new" else min(given.seconds, len(paths) / 300)
        found = load(address, paths, 6, seconds, **headers)
        results[title] = found
        print(f"{title:<18} 6 clients {found['median_ms']:>8} ms {found['per_second']:>8} per s, "
              f"errors {found['errors']}", flush=True)  # fmt: skip
    begin = time.monotonic()
    _, table = client.get("/observations/1/sources.bin?run=1")
    results["table_s"], results["table_mb"] = round(time.monotonic() - begin, 2), round(len(table) / 1e6, 1)
    print(f"table of up to 200,000 rows: {results['table_s']} s, {results['table_mb']} MB")
    results["server_mb"] = round(process.memory_info().rss / 1e6)
    print(f"server's memory at the end: {results['server_mb']} MB")


def _plain(address: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)
    connection.request("GET", path)
    return connection.getresponse().read()


if __name__ == "__main__":
    main()
