"""Workers of this machine: this process, its threads, or processes beside it.

Each kind has ``results(function, shared, todo)``, which gives finished pieces as they come with a bounded number of
others under way, and ``alone(function, shared, piece)``, which does one piece with nothing beside it. What a piece took
with it, its process or all memory, comes back as `Lost`; every other error is the caller's.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from subprocess import PIPE
from typing import Any

from pipeline.ledger import Arrays
from survey_io.memory import keep_freed_memory
from survey_io.quiet import quiet

# Pieces in flight per worker: enough to keep workers busy, few enough to bound memory.
WINDOW_PER_WORKER = 3
# Helpers that die one after the other, of whatever reason, are not started again for ever.
RESTARTS = 20

Piece = tuple[int, tuple]


@dataclass(frozen=True)
class Lost:
    """In the place of a piece's result: why there is none.

    Attributes
    ----------
    reason : str
    """

    reason: str


Answer = tuple[Piece, "Arrays | Lost"]


def attempt(function: Callable[..., Arrays], shared: tuple, piece: Piece) -> Arrays | Lost:
    """A piece's result, or that memory did not suffice for it."""
    try:
        return function(*shared, *piece[1])
    except MemoryError:
        return Lost("out of memory")


class Here:
    """This thread, one piece after the other."""

    workers = 1

    def results(self, function: Callable[..., Arrays], shared: tuple, todo: Iterator[Piece]) -> Iterator[Answer]:
        """Finished pieces."""
        return ((piece, attempt(function, shared, piece)) for piece in todo)

    def alone(self, function: Callable[..., Arrays], shared: tuple, piece: Piece) -> Arrays | Lost:
        """One piece."""
        return attempt(function, shared, piece)


class Threads(Here):
    """Workers of this process: for work that mostly waits for a network."""

    def __init__(self, workers: int):
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers)

    def results(self, function: Callable[..., Arrays], shared: tuple, todo: Iterator[Piece]) -> Iterator[Answer]:
        """Finished pieces as they come, a bounded number of others under way."""
        waiting: dict[Future[Arrays | Lost], Piece] = {}
        try:
            while True:
                for piece in islice(todo, WINDOW_PER_WORKER * self.workers - len(waiting)):
                    # In a copy of this thread's context, so that what a piece logs carries the ids of its run.
                    waiting[self._pool.submit(copy_context().run, attempt, function, shared, piece)] = piece
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
    threads, and no script is imported a second time. They end with their pipe, however the parent ended. One that dies
    is replaced.
    """

    def __init__(self, workers: int):
        self.workers = workers
        self._restarts, self._closed = RESTARTS, False
        self._helpers = [_start_helper() for _ in range(workers - 1)]

    def results(self, function: Callable[..., Arrays], shared: tuple, todo: Iterator[Piece]) -> Iterator[Answer]:
        """Finished pieces as they come; this process works on some of them itself."""
        lock, answers = threading.Lock(), queue.SimpleQueue()

        def take() -> Piece | None:
            with lock:
                return next(todo, None)

        def feed(number: int) -> None:
            while self._restarts > 0 and not self._closed and (piece := take()) is not None:
                answers.put((piece, self._send(number, function, shared, piece)))
            answers.put(None)

        left = len(self._helpers)
        for number in range(left):
            threading.Thread(target=feed, args=(number,), daemon=True).start()
        while True:
            piece = take()
            if piece is not None:
                yield piece, attempt(function, shared, piece)
            while left and (piece is None or not answers.empty()):
                answer = answers.get()
                if answer is None:
                    left -= 1
                    continue
                if isinstance(answer[1], Exception):
                    raise answer[1]
                yield answer
            if piece is None:
                return

    def alone(self, function: Callable[..., Arrays], shared: tuple, piece: Piece) -> Arrays | Lost:
        """One piece in a helper: what kills its process shall not kill this one."""
        answer = self._send(0, function, shared, piece)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send(self, number: int, function: Callable[..., Arrays], shared: tuple, piece: Piece) -> Any:
        helper = self._helpers[number]
        try:
            pickle.dump((function, shared, piece), helper.stdin, protocol=5)
            helper.stdin.flush()
            return pickle.load(helper.stdout)
        except (OSError, EOFError, pickle.PickleError):
            status = _end(helper)
            self._restarts -= 1
            if not self._closed:
                self._helpers[number] = _start_helper()
            how = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
            return Lost(f"its process ended ({how}; out of memory?)")

    def close(self) -> None:
        """End the helpers."""
        self._closed = True
        for helper in self._helpers:
            # Before its pipes are closed: closing one waits for a thread that reads from it.
            helper.kill()
            _end(helper)


def _start_helper() -> subprocess.Popen:
    code = f"import sys; sys.path[:] = {sys.path!r}; from pipeline.local_workers import serve; serve()"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, env=environment)


def _end(helper: subprocess.Popen) -> int | None:
    status = helper.wait()
    helper.stdout.close()
    with suppress(OSError):
        helper.stdin.close()
    return status


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
            function, shared, piece = pickle.load(source)
        except EOFError:
            return
        try:
            answer: Any = attempt(function, shared, piece)
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
