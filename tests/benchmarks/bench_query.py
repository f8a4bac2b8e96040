"""How long questions to a survey of a million sources take: query, crossmatch, the Parquet set, and LSDB on it.

    python tests/benchmarks/bench_query.py [--rows 1000000] [--run 20000] [--outside 100000] [--workers 2]

A field of 20 by 20 degrees, in observations side by side of which each overlaps its neighbour by a tenth; recorded with
association into SQLite. Times are the median of five questions at different places, with everything that the command
does but its start. LSDB is measured where it is installed (extra hats). bench_store.py measures the store by itself.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from astropy.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pipeline.join_catalogues import join_positions, join_tables  # noqa: E402
from pipeline.survey import SurveyStore, open_store  # noqa: E402
from pipeline.survey.hats import export_hats  # noqa: E402
from pipeline.survey.near import rows_near  # noqa: E402
from pipeline.survey.places import Box, Cone  # noqa: E402
from pipeline.survey.query import query_objects, query_sources  # noqa: E402
from survey_io.columns import IMAGE_COLUMNS, make_table  # noqa: E402
from survey_io.outside import find_positions  # noqa: E402

SIDE = 20.0
LABEL = 44


def catalogue(count: int, ra: tuple[float, float], seed: int) -> Table:
    """An image's catalogue with every column, on a strip of the field; strips that overlap see the same sources."""
    rng = np.random.default_rng(seed)
    values = {}
    for column in IMAGE_COLUMNS:
        if column.dtype.startswith("U"):
            values[column.name] = np.array([f"J{seed:05d}{number:06d}" for number in range(count)])
        elif column.dtype.startswith("int"):
            values[column.name] = rng.integers(0, 2, count)
        else:
            values[column.name] = rng.lognormal(0, 1, count)
    # A grid of sources that every look at the same place finds again, a little displaced.
    sky = np.random.default_rng(0)
    density = count / ((ra[1] - ra[0]) * SIDE)
    total = int(density * SIDE * SIDE * 1.05)
    x, y, flux = sky.uniform(0, SIDE * 1.05, total), sky.uniform(-SIDE / 2, SIDE / 2, total), sky.lognormal(0, 1, total)
    inside = np.flatnonzero((x >= ra[0]) & (x < ra[1]))
    values["ra"] = x[inside] + rng.normal(0, 0.2 / 3600, len(inside))
    values["dec"] = y[inside] + rng.normal(0, 0.2 / 3600, len(inside))
    values = {name: np.resize(value, len(inside)) for name, value in values.items()}
    values["flux"], values["flux_err"] = flux[inside], flux[inside] * 0.1
    values["ra_err"] = values["dec_err"] = np.full(len(inside), 0.2)
    return make_table(values)


def manifest(number: int) -> dict:
    """Manifest of the run of an observation."""
    return {
        "input": {"path": f"/data/{number}.fits", "sha256": f"{number:064d}", "shape": [1, 1],
                  "beam": {"major": 6.0, "minor": 6.0, "pa": 0.0}},
        "model": {"name": "light", "sha256": "1" * 64}, "options": {}, "versions": {"skysift": "0.1.0"},
    }  # fmt: skip


def show(label: str, work: Callable[[int], int], *, times: int = 5) -> None:
    """Print the median time of some work, and the rows of its last result."""
    took = []
    for turn in range(times):
        start = time.perf_counter()
        rows = work(turn)
        took.append(time.perf_counter() - start)
    print(f"{label:<{LABEL}} {median(took) * 1e3:>10.1f} ms {rows:>10} rows", flush=True)


def fill(store: SurveyStore, rows: int, run: int) -> int:
    """Record observations side by side until there are as many rows; how many observations."""
    count = -(-rows // run)
    width = SIDE / count
    took, done = 0.0, 0
    for number in range(count):
        table = catalogue(run, (number * width, (number + 1.1) * width), number)
        start = time.perf_counter()
        store.record(manifest(number), table)
        took += time.perf_counter() - start
        done += len(table)
    label = "record and associate a run"
    print(f"{label:<{LABEL}} {took / count * 1e3:>10.1f} ms {done:>10} rows in {count} runs", flush=True)
    return count


def ask(store: SurveyStore, outside: int) -> None:
    """Query and crossmatch."""
    rng = np.random.default_rng(5)
    places = list(zip(rng.uniform(2, 18, 5), rng.uniform(-8, 8, 5), strict=True))
    for name, radius in (("1 arcmin", 1 / 60), ("6 arcmin", 0.1), ("1 deg", 1.0)):
        cones = [Cone(*place, radius) for place in places]
        show(f"query, cone of {name}", lambda k, cones=cones: len(query_sources(store, cone=cones[k])))
    boxes = [Box(ra - 1, ra + 1, dec - 1, dec + 1) for ra, dec in places]
    both = "p_real > 1 and snr > 1"
    show("query, box of 2 by 2 deg and a condition", lambda k: len(query_sources(store, box=boxes[k], where=both)))
    show("query, condition over all, 100 rows", lambda k: len(query_sources(store, where="snr > 20", limit=100)))
    show("query, condition in details over all", lambda k: len(query_sources(store, where="local_rms > 50")), times=1)
    show("query, objects in 1 deg", lambda k: len(query_objects(store, cone=Cone(*places[k], 1.0))))
    every = query_sources(store, columns=["ra", "dec"], where="id % 2 = 0")
    for count, times in ((1000, 3), (outside, 1)):
        rows = rng.choice(len(every), min(count, len(every)), replace=False)
        other = every[rows]
        other["dec"] += 0.5 / 3600

        def match(turn: int, other: Table = other) -> int:
            mine = find_positions(other)
            second, known = rows_near(store, mine, 5.0)
            joined = join_positions(mine, find_positions(second), radius=5.0, known=known)
            return len(join_tables(other, second, joined))

        show(f"crossmatch, file of {count} rows, 5 arcsec", match, times=times)


def export(store: SurveyStore, folder: Path, workers: int, runs: int) -> None:
    """The Parquet set, whole and after one more observation."""
    for label in ("export of the set", "export again, nothing new"):
        start = time.perf_counter()
        done = export_hats(store, folder, max_rows=100_000, workers=workers)
        took = time.perf_counter() - start
        said = f"{done.rows:>10} rows, {done.written} of {done.partitions} partitions written"
        print(f"{label:<{LABEL}} {took:>10.2f} s  {said}", flush=True)
    store.record(manifest(runs), catalogue(2000, (3.0, 3.05), 1))
    start = time.perf_counter()
    done = export_hats(store, folder, max_rows=100_000, workers=workers)
    took = time.perf_counter() - start
    print(f"{'export after one more observation':<{LABEL}} {took:>10.2f} s  {done.rows:>10} rows, {done.written} of "
          f"{done.partitions} partitions written", flush=True)  # fmt: skip


def with_lsdb(store: SurveyStore, folder: Path) -> None:
    """Cones by LSDB on the set, compared with the store's."""
    try:
        import lsdb
    except ImportError:
        print("LSDB is not installed: pip install 'skysift[hats]'")
        return
    start = time.perf_counter()
    opened = lsdb.open_catalog(folder)
    print(f"{'LSDB, open':<{LABEL}} {(time.perf_counter() - start) * 1e3:>10.1f} ms")
    for radius in (0.1, 1.0):
        def cone(turn: int, radius: float = radius) -> int:
            return len(opened.cone_search(5.0 + turn, 0.0, radius * 3600).compute(progress_bar=False))

        show(f"LSDB, cone of {radius:g} deg", cone)
        assert cone(0) == len(store.cone(5.0, 0.0, radius))
    def match(turn: int) -> int:
        pairs = opened.crossmatch(opened, radius_arcsec=5.0, suffixes=("_a", "_b"), suffix_method="all_columns")
        return len(pairs.compute(progress_bar=False))

    show("LSDB, the survey with itself, 5 arcsec", match, times=1)


def main() -> None:
    """Fill a store and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--run", type=int, default=20_000, help="rows of an observation")
    parser.add_argument("--outside", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-query-") as name, open_store(name) as store:
        runs = fill(store, given.rows, given.run)
        ask(store, given.outside)
        export(store, Path(name) / "parquet", given.workers, runs)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"{'peak memory, this process and its workers':<{LABEL}} {peak:>10.0f} MB {children:>9.0f} MB")
        with_lsdb(store, Path(name) / "parquet")


if __name__ == "__main__":
    main()
