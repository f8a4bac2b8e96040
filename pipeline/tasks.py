"""Many small pieces of work: serially or on Dask in a bounded window, each finished piece in a ledger.

A kill at any moment loses at most the pieces under way: what the ledger holds is not done again.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from survey_io.errors import OutputError, SkysiftError

# Pieces in flight per worker: enough to keep workers busy, few enough to bound memory.
WINDOW_PER_WORKER = 3

Arrays = dict[str, np.ndarray]


class Ledger:
    """Results of finished pieces in a SQLite file, by stage and index.

    Parameters
    ----------
    path : Path or None
        None keeps the ledger in memory: nothing to resume from.
    key : str
        Identity of the run (inputs, weights, options); a file with another key is emptied.
    """

    def __init__(self, path: Path | None, key: str):
        self.path = path
        try:
            self._db = sqlite3.connect(":memory:" if path is None else path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._prepare(key)
        except sqlite3.DatabaseError as error:
            raise OutputError(
                f"{path}: cannot use the ledger of an interrupted run ({error}); delete it or give --fresh"
            ) from None

    def _prepare(self, key: str) -> None:
        self._db.execute("CREATE TABLE IF NOT EXISTS run (key TEXT)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS piece (stage TEXT, number INTEGER, data BLOB, PRIMARY KEY (stage, number))"
        )
        row = self._db.execute("SELECT key FROM run").fetchone()
        if row is None or row[0] != key:
            self._db.execute("DELETE FROM piece")
            self._db.execute("DELETE FROM run")
            self._db.execute("INSERT INTO run VALUES (?)", (key,))

    def done(self, stage: str) -> set[int]:
        """Indices of the stage's finished pieces."""
        return {row[0] for row in self._db.execute("SELECT number FROM piece WHERE stage = ?", (stage,))}

    def put(self, stage: str, number: int, arrays: Arrays) -> None:
        """Store a finished piece."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        self._db.execute("INSERT OR REPLACE INTO piece VALUES (?, ?, ?)", (stage, number, buffer.getvalue()))

    def get(self, stage: str) -> Iterator[tuple[int, Arrays]]:
        """All finished pieces of a stage in the order of their index."""
        rows = self._db.execute("SELECT number, data FROM piece WHERE stage = ? ORDER BY number", (stage,))
        for number, data in rows:
            with np.load(io.BytesIO(data)) as arrays:
                yield number, {name: arrays[name] for name in arrays.files}

    def close(self, *, delete: bool = False) -> None:
        """Close the file; ``delete`` removes it with its side files, as at the end of a finished run."""
        self._db.close()
        if delete and self.path is not None:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)


@contextmanager
def local_client(workers: int) -> Iterator[Any]:
    """A Dask client with threads in this process; None for one worker, which needs no scheduler."""
    if workers <= 1:
        yield None
        return
    import dask
    from dask.distributed import Client, LocalCluster

    quiet = {"distributed.worker.memory.target": False, "distributed.worker.memory.spill": False}
    quiet |= {"distributed.worker.memory.pause": False, "distributed.worker.memory.terminate": False}
    with (
        dask.config.set(quiet),
        LocalCluster(
            n_workers=1, threads_per_worker=workers, processes=False, dashboard_address="127.0.0.1:0", silence_logs=40
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def remote_client(address: str) -> Iterator[Any]:
    """A Dask client of a running scheduler (tcp://host:port)."""
    from dask.distributed import Client

    try:
        client = Client(address, set_as_default=False, timeout=20)
    except (OSError, ValueError) as error:
        raise SkysiftError(f"cluster {address}: no Dask scheduler answers there ({error}); start it first") from None
    with client:
        yield client


def run_stage(
    stage: str,
    function: Callable[..., Arrays],
    pieces: Iterable[tuple[int, tuple]],
    ledger: Ledger,
    *,
    client: Any = None,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Do what is not yet in the ledger.

    Parameters
    ----------
    stage : str
        Name in the ledger.
    function : callable
        Called as ``function(*arguments)``; returns arrays. Must be importable on the workers.
    pieces : iterable of (index, arguments)
    ledger : Ledger
    client : dask.distributed.Client, optional
        None runs serially.
    advance : callable, optional
        Told the number of pieces that were finished.
    """
    finished = ledger.done(stage)
    todo = (piece for piece in pieces if piece[0] not in finished)
    if advance and finished:
        advance(len(finished))
    if client is None:
        for number, arguments in todo:
            ledger.put(stage, number, function(*arguments))
            if advance:
                advance(1)
        return
    _run_on_dask(stage, function, todo, ledger, client, advance)


def _run_on_dask(stage, function, todo, ledger, client, advance) -> None:
    from dask.distributed import as_completed
    from distributed.scheduler import KilledWorker

    threads = sum(w["nthreads"] for w in client.scheduler_info(n_workers=-1)["workers"].values())
    if threads == 0:
        raise SkysiftError("the Dask cluster has no workers: start some, or leave --cluster out")
    window = WINDOW_PER_WORKER * threads
    numbers: dict[Any, tuple[int, tuple, int]] = {}

    def submit(number: int, arguments: tuple, tries: int = 0):
        # pure=False: equal arguments of an earlier run must not be answered from the scheduler's memory.
        future = client.submit(function, *arguments, pure=False)
        numbers[future.key] = (number, arguments, tries)
        return future

    first = [submit(*piece) for piece in islice(todo, window)]
    waiting = as_completed(first, loop=client.loop)
    for future in waiting:
        number, arguments, tries = numbers.pop(future.key)
        try:
            ledger.put(stage, number, future.result())
        except KilledWorker:
            # The piece may only have been beside the one that killed the worker: it gets one more chance.
            if tries:
                raise SkysiftError(
                    f"{stage}: piece {number} kills its worker each time (out of memory?): use a smaller --tile"
                ) from None
            waiting.add(submit(number, arguments, tries + 1))
            continue
        finally:
            future.release()
        if advance:
            advance(1)
        for piece in islice(todo, 1):
            waiting.add(submit(*piece))
