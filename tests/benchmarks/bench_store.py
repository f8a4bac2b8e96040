"""How fast the survey's store takes catalogues in and answers cone searches, on SQLite and on PostgreSQL.

    python tests/benchmarks/bench_store.py [--rows 1000000] [--catalogue 50000] [--databases sqlite,postgresql]

Catalogues have all columns of an image's catalogue, each over a field of 5 degrees. The store is filled without joining
sources of different observations; then one more catalogue is recorded whole, and superseded. The wall's seconds and the
processor's (of this process) are printed: on a busy machine only the latter mean anything. PostgreSQL is a temporary
server of this machine that waits for the disk at each commit, as SQLite does here.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
from astropy.table import Table

from pipeline.survey import SurveyStore, open_store
from survey_io.columns import IMAGE_COLUMNS, make_table

RADII = (("1 arcsec", 1 / 3600), ("1 arcmin", 1 / 60), ("6 arcmin", 0.1), ("1 deg", 1.0), ("5 deg", 5.0))


def catalogue(count: int, seed: int) -> Table:
    """An image's catalogue."""
    rng = np.random.default_rng(seed)
    values = {}
    for column in IMAGE_COLUMNS:
        if column.dtype.startswith("U"):
            values[column.name] = np.array([f"J{number:010d}" for number in range(count)])
        elif column.dtype.startswith("int"):
            values[column.name] = rng.integers(0, 4096, count)
        else:
            values[column.name] = rng.lognormal(0, 2, count)
    values["ra_err"] = values["dec_err"] = np.full(count, 0.1)
    return make_table(values)


def move(table: Table, number: int) -> Table:
    """The same catalogue somewhere else."""
    rng = np.random.default_rng(number)
    table["ra"] = number * 36.7 % 350 + rng.uniform(0, 5, len(table))
    table["dec"] = number * 17.3 % 160 - 80 + rng.uniform(0, 5, len(table))
    return table


def manifest(number: int, weights: str = "1") -> dict:
    """Manifest of the run of an observation."""
    return {
        "input": {"path": f"/data/{number}.fits", "sha256": f"{number:064d}", "shape": [1, 1]},
        "model": {"name": "light", "sha256": weights * 64}, "options": {}, "versions": {"skysift": "0.1.0"},
    }  # fmt: skip


@contextlib.contextmanager
def address(kind: str) -> Iterator[str]:
    """URL of a new store."""
    if kind == "sqlite":
        folder = tempfile.mkdtemp(prefix="bench-store-")
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
        return
    spec = importlib.util.spec_from_file_location("postgres", Path(__file__).parents[1] / "postgres.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.serve_postgres(fsync="on") as server:
        yield server.database()


def timed(work, *arguments) -> np.ndarray:
    """Seconds that a call takes: the wall's, the processor's."""
    began = time.perf_counter(), time.process_time()
    work(*arguments)
    return np.array([time.perf_counter() - began[0], time.process_time() - began[1]])


def bench(store: SurveyStore, table: Table, rows: int) -> None:
    """Print what one database does."""
    count = len(table)
    with mock.patch("pipeline.survey.store.associate"):
        seconds = [timed(store.record, manifest(number), move(table, number)) for number in range(rows // count - 1)]
    wall, cpu = sum(seconds)
    rows -= count
    print(f"  fill with {rows} rows: {wall:.1f} s, {rows / wall:,.0f} rows/s (processor {cpu:.1f} s)")
    for name, work, *arguments in (
        (f"record {count} rows, joined", store.record, manifest(999), move(table, 3)),
        ("supersede them", store.record, manifest(999, "2"), move(table, 3)), ("read them back", store.sources, 1),
    ):  # fmt: skip
        wall, cpu = timed(work, *arguments)
        print(f"  {name}: {wall:.2f} s (processor {cpu:.2f} s)")
    rng = np.random.default_rng(5)
    for name, radius in RADII:
        times, found = [], []
        for _ in range(10):
            ra, dec = 3 * 36.7 + rng.uniform(0, 5), 3 * 17.3 - 80 + rng.uniform(0, 5)
            began = time.perf_counter()
            found.append(len(store.cone(ra, dec, radius)))
            times.append(time.perf_counter() - began)
        print(f"  cone {name:8}: median {1000 * median(times):7.2f} ms, {median(found):g} rows")
    began = time.perf_counter()
    for number in range(200):
        store.enqueue(f"/in/{number}", sha256=f"new {number}")
    while (claimed := store.claim("bench")) is not None:
        store.renew(claimed["id"], "bench")
        store.finish(claimed["id"], "bench")
    each = 1000 * (time.perf_counter() - began) / 200
    print(f"  queue: enqueue, claim, renew and finish {each:.2f} ms per observation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--catalogue", type=int, default=50_000, help="rows of one catalogue")
    parser.add_argument("--databases", default="sqlite,postgresql")
    given = parser.parse_args()
    table = catalogue(given.catalogue, 1)
    for kind in given.databases.split(","):
        with address(kind) as url, open_store(url) as store:
            print(store.check()["database"])
            bench(store, table, given.rows)


if __name__ == "__main__":
    main()
