"""Many small pieces of work: here, in threads, in processes or on Dask, each finished piece in a ledger.

A kill at any moment loses at most the pieces under way: what the ledger holds is not done again.
"""

from __future__ import annotations

import io
import os
import pickle
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from itertools import islice
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np

from survey_io.errors import OutputError, SkysiftError
from survey_io.memory import keep_freed_memory
from survey_io.quiet import quiet

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


Piece = tuple[int, tuple]


class Threads:
    """Workers of this process: for work that mostly waits for a network."""

    def __init__(self, workers: int):
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers)

    def results(self, function: Callable[..., Arrays], todo: Iterator[Piece]) -> Iterator[tuple[int, Arrays]]:
        """Finished pieces as they come, a bounded number of others under way."""
        waiting: dict[Future[Arrays], int] = {}
        try:
            while True:
                for number, arguments in islice(todo, WINDOW_PER_WORKER * self.workers - len(waiting)):
                    # In a copy of this thread's context, so that what a piece logs carries the ids of its run.
                    waiting[self._pool.submit(copy_context().run, function, *arguments)] = number
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Wait for what is under way and end."""
        self._pool.shutdown()


class Processes:
    """This process and helpers beside it: for many small numpy calls, which in threads wait for each other.

    Helpers are interpreters of their own that take pickled pieces from a pipe: nothing is forked from a process with
    threads, and no script is imported a second time. They end with their pipe, however the parent ended.
    """

    def __init__(self, workers: int):
        code = f"import sys; sys.path[:] = {sys.path!r}; from pipeline.tasks import serve; serve()"
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._helpers = [
            subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, env=environment)
            for _ in range(workers - 1)
        ]

    def results(self, function: Callable[..., Arrays], todo: Iterator[Piece]) -> Iterator[tuple[int, Arrays]]:
        """Finished pieces as they come; this process works on some of them itself."""
        lock, answers = threading.Lock(), queue.SimpleQueue()

        def take() -> Piece | None:
            with lock:
                return next(todo, None)

        def feed(helper: subprocess.Popen) -> None:
            try:
                while (piece := take()) is not None:
                    pickle.dump((function, piece[1]), helper.stdin, protocol=5)
                    helper.stdin.flush()
                    answers.put((piece[0], pickle.load(helper.stdout)))
                answers.put(None)
            except (OSError, EOFError, pickle.PickleError) as error:
                answers.put(SkysiftError(f"a helper process ended early ({error!r}; out of memory?): use --workers 1"))

        feeders = [threading.Thread(target=feed, args=(h,), daemon=True) for h in self._helpers]
        for feeder in feeders:
            feeder.start()
        left = len(feeders)
        while True:
            piece = take()
            if piece is not None:
                yield piece[0], function(*piece[1])
            while left and (piece is None or not answers.empty()):
                answer = answers.get()
                if answer is None:
                    left -= 1
                    continue
                if isinstance(answer, Exception):
                    raise answer
                if isinstance(answer[1], Exception):
                    raise answer[1]
                yield answer
            if piece is None:
                return

    def close(self) -> None:
        """End the helpers."""
        for helper in self._helpers:
            # Before its pipes are closed: closing one waits for a thread that reads from it.
            helper.kill()
            helper.wait()
            helper.stdout.close()
            with suppress(OSError):
                helper.stdin.close()


def serve() -> None:
    """Work of a helper process: pieces from standard input, their results to standard output, until that closes."""
    # The terminal's interrupt reaches the parent too, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    source, target = sys.stdin.buffer, sys.stdout.buffer
    # What a library prints must not get among the results.
    sys.stdout = sys.stderr
    while True:
        try:
            function, arguments = pickle.load(source)
        except EOFError:
            return
        try:
            answer: Any = function(*arguments)
        except Exception as error:
            answer = error
        pickle.dump(answer, target, protocol=5)
        target.flush()


@contextmanager
def local_workers(kind: type[Threads] | type[Processes], workers: int) -> Iterator[Threads | Processes | None]:
    """Workers of this machine; None for one, who needs no others."""
    if workers <= 1:
        yield None
        return
    with quiet():
        # Its filter is in place before a library in one of the threads makes its own copy of the list without it.
        pass
    made = kind(workers)
    try:
        yield made
    finally:
        made.close()


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
    client : Threads, Processes or dask.distributed.Client, optional
        None runs serially.
    advance : callable, optional
        Told the number of pieces that were finished.
    """
    finished = ledger.done(stage)
    todo = (piece for piece in pieces if piece[0] not in finished)
    if advance and finished:
        advance(len(finished))
    if client is None:
        results = ((number, function(*arguments)) for number, arguments in todo)
    elif isinstance(client, Threads | Processes):
        results = client.results(function, todo)
    else:
        results = _dask_results(stage, function, todo, client)
    for number, arrays in results:
        ledger.put(stage, number, arrays)
        if advance:
            advance(1)


def _dask_results(
    stage: str, function: Callable[..., Arrays], todo: Iterator[Piece], client: Any
) -> Iterator[tuple[int, Arrays]]:
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
            arrays = future.result()
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
        yield number, arrays
        for piece in islice(todo, 1):
            waiting.add(submit(*piece))
