"""Memory while results come faster than they are taken in: what is under way is bounded, however long the run.

    python tests/benchmarks/bench_backpressure.py             400 results of 2 MB, 10 ms for each

Prints the largest resident memory of this process (client and scheduler) and of its two workers, for a run and for one
of a quarter of its length, and what all results together would have taken.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]


def large_piece(size: int, number: int) -> dict[str, np.ndarray]:
    """A result of so many bytes, at once."""
    return {"values": np.full(size, number % 251, np.uint8)}


def main() -> None:
    """Run both and print the peaks."""
    from distributed import Client, LocalCluster

    from flows import environment as environment
    from pipeline.dask_workers import DaskWorkers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--size", type=int, default=2_000_000)
    arguments = parser.parse_args()
    own = psutil.Process()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster.scheduler_address, set_as_default=False) as client,
    ):
        workers = DaskWorkers(client)
        for count in (arguments.count // 4, arguments.count):
            peaks = {"client and scheduler": 0.0, "both workers": 0.0}
            pieces = iter([(number, (number,)) for number in range(count)])
            for _ in workers.results(large_piece, (arguments.size,), pieces):
                time.sleep(0.01)
                family = [child for child in own.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
                peaks["client and scheduler"] = max(peaks["client and scheduler"], own.memory_info().rss / 1e6)
                peaks["both workers"] = max(peaks["both workers"], sum(c.memory_info().rss for c in family) / 1e6)
            told = ", ".join(f"{name} {peak:.0f} MB" for name, peak in peaks.items())
            print(f"{count} results, together {count * arguments.size / 1e6:.0f} MB: {told}", flush=True)


if __name__ == "__main__":
    main()
