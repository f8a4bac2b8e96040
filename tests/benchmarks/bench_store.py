"""How fast the survey's store takes catalogues in and answers cone searches, on SQLite and on PostgreSQL.

    python tests/benchmarks/bench_store.py [--rows 1000000] [--catalogue 50000] [--databases sqlite,postgresql]

Catalogues have all columns of an image's catalogue. PostgreSQL is a temporary server of this machine, with the settings
of a new installation (it waits for the disk at each commit, as SQLite does here).
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

import numpy as np
from astropy.table import Table

from pipeline.survey import SurveyStore, open_store
from survey_io.columns import IMAGE_COLUMNS, make_table

RADII = (("1 arcsec", 1 / 3600), ("1 arcmin", 1 / 60), ("6 arcmin", 0.1), ("1 deg", 1.0), ("5 deg", 5.0))


def catalogue(count: int, seed: int) -> Table:
    """An image's catalogue with sources all over the sky."""
    rng = np.random.default_rng(seed)
    values = {}
    for column in IMAGE_COLUMNS:
        if column.dtype.startswith("U"):
            values[column.name] = np.array([f"J{number:010d}" for number in range(count)])
        elif column.dtype.startswith("int"):
            values[column.name] = rng.integers(0, 4096, count)
        else:
            values[column.name] = rng.lognormal(0, 2, count)
    values["ra"] = rng.uniform(0, 360, count)
    values["dec"] = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    return make_table(values)


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


def timed(work, *arguments, **options) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - began


def bench(store: SurveyStore, table: Table, rows: int) -> None:
    """Print what one database does."""
    count = len(table)
    seconds = [timed(store.record, manifest(number), table) for number in range(rows // count)]
    total = sum(seconds)
    print(f"  record {len(seconds)} catalogues of {count} rows: {total:.1f} s, {rows / total:,.0f} rows/s")
    print(f"  read one back: {timed(store.sources, 1):.2f} s; supersede one: "
          f"{timed(store.record, manifest(0, '2'), table):.2f} s")  # fmt: skip
    rng = np.random.default_rng(5)
    for name, radius in RADII:
        times, found = [], []
        for _ in range(10):
            ra, dec = rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-1, 1)))
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
