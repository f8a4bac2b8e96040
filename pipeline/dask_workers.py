"""Workers of a Dask cluster: a bounded number of pieces under way, and an answer for each, whatever dies.

What all pieces of a stage need (background, network) goes to each worker once, as a plugin, also to workers that come
later; a piece's own message stays small.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from operator import length_hint
from typing import Any

from distributed import Client, WorkerPlugin, as_completed, get_worker
from distributed.client import CancelledError
from distributed.scheduler import KilledWorker
from distributed.security import Security

from pipeline.ledger import Arrays
from pipeline.local_workers import WINDOW_PER_WORKER, Answer, Lost, Piece, attempt
from survey_io.errors import OptionError, SkysiftError, WorkError

logger = logging.getLogger("skysift.dask")

# Pieces under way at least: an adaptive cluster starts workers for the work that it sees waiting. Dask keeps what its
# workers have no room for on the scheduler, where a dying worker does not take it along.
LEAST_WINDOW = 32
# Pieces go together until a task takes so long, while each worker still has so many shares of the rest before it, and
# no more than so many: the pieces of one task die together.
TASK_SECONDS, TASK_BYTES, SHARES, MOST_AT_ONCE = 2.0, 2e6, 4, 16
# Between looks at how many workers there are, which may come and go.
REFRESH_SECONDS = 5.0
# A batch system may bring a lost worker back; after so long without any, a run ends and says so.
PATIENCE = "SKYSIFT_WORKER_PATIENCE"
PATIENCE_SECONDS = 300.0
CONNECT_SECONDS, GATHER_SECONDS = 30.0, 30.0


class SharedInputs(WorkerPlugin):
    """What the pieces of a stage have in common, on every worker, with its network loaded before the first piece."""

    def __init__(self, inputs: tuple):
        self.inputs = inputs

    async def setup(self, worker: Any) -> None:
        """Load the networks, beside the loop that answers the scheduler."""
        for one in self.inputs:
            if hasattr(one, "warm_up"):
                await asyncio.to_thread(one.warm_up)


def _perform(function: Callable[..., Arrays], token: str, pieces: list[Piece]) -> tuple[float, list[Arrays | Lost]]:
    """On a worker: some pieces one after the other, and their seconds."""
    plugin = get_worker().plugins.get(token)
    if plugin is None:
        raise WorkError("a Dask worker did not receive what its pieces need: restart the cluster's workers")
    began = time.perf_counter()
    try:
        answers = [attempt(function, plugin.inputs, piece) for piece in pieces]
        return time.perf_counter() - began, answers
    except Exception as error:
        if _travels(error):
            raise
        # The client could not read it, and would wait for ever.
        logger.exception("a piece of work failed")
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} ({str(error)[:200]}) in {frame.name}, line {frame.lineno} of {frame.filename}"
    # Outside of the handler: what is raised within holds the other exception.
    raise WorkError(
        f"a Dask worker failed with {what}: an error of skysift, please report it; the worker's log has all of it"
    )


def _travels(error: Exception) -> bool:
    """Whether an exception arrives whole at the client: others may not be made again there, and deep ones not sent."""
    own = isinstance(error, SkysiftError) or type(error).__module__ == "builtins"
    return own and not isinstance(error, RecursionError)


class DaskWorkers:
    """The workers of a running scheduler.

    Parameters
    ----------
    client : distributed.Client
    resources : mapping, optional
        What a worker must offer to run a network's pieces, such as {"GPU": 1}.
    """

    def __init__(self, client: Client, resources: Mapping[str, float] | None = None):
        self.client, self.resources = client, dict(resources or {})
        self._looked, self._threads = -REFRESH_SECONDS, 0
        self._shared: tuple | None = None
        self._token = ""

    def require(self) -> None:
        """Refuse a cluster without workers, or without one that offers the resources: its pieces would wait for ever.

        Raises
        ------
        WorkError, OptionError
        """
        deadline = time.monotonic() + min(_patience(), CONNECT_SECONDS)
        while True:
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
            able = [one for one in workers.values() if _offers(one.get("resources", {}), self.resources)]
            if able or (workers and time.monotonic() > deadline - 0.8 * CONNECT_SECONDS):
                break
            if time.monotonic() > deadline:
                raise WorkError("the Dask cluster has no workers: start some, or leave --cluster out")
            time.sleep(0.1)
        if not able:
            wanted = ", ".join(f"{name}={amount:g}" for name, amount in self.resources.items())
            offers = {
                ", ".join(f"{name}={amount:g}" for name, amount in sorted(one.get("resources", {}).items())) or "none"
                for one in workers.values()
            }
            raise OptionError(
                f"resources: expected a worker that offers {wanted}, the {len(workers)} of the cluster offer "
                f"{'; '.join(sorted(offers))}: start workers with --resources {wanted!r}, or leave --resources out"
            )

    @property
    def threads_per_worker(self) -> int:
        """Cores that a network may use in each worker: the pieces of one worker share it."""
        return min(self.client.nthreads().values(), default=1)

    @property
    def workers(self) -> int:
        """Pieces that can be worked on at the same time, as last seen."""
        if time.monotonic() - self._looked > REFRESH_SECONDS:
            with contextlib.suppress(OSError):
                self._threads = sum(self.client.nthreads().values())
            self._looked = time.monotonic()
        return self._threads

    def results(
        self, function: Callable[..., Arrays], shared: tuple, todo: Iterator[Piece], *, network: bool = False
    ) -> Iterator[Answer]:
        """Finished pieces as they come; ``network`` ones on workers that offer the resources."""
        resources = self.resources if network else {}
        again: deque[Piece] = deque()
        under_way: dict[str, list[Piece]] = {}
        token, seconds, size = self._share(shared), 0.0, 0.0
        done = as_completed([], loop=self.client.loop)
        while True:
            # Tasks bound to a resource are all handed to workers at once, and a dying worker takes them along.
            window = max(WINDOW_PER_WORKER * self.workers, 0 if resources else LEAST_WINDOW)
            while len(under_way) < window:
                pieces = [again.popleft()] if again else list(islice(todo, self._at_once(todo, seconds, size)))
                if not pieces:
                    break
                # pure=False: equal arguments of an earlier run must not be answered from the scheduler's memory.
                future = self.client.submit(
                    _perform, function, token, pieces, pure=False, resources=resources or None
                )
                under_way[future.key] = pieces
                done.add(future)
            if not under_way:
                return
            for future in self._wait(done, resources):
                try:
                    answer = _answer(future)
                except TimeoutError:
                    if future.status == "error":
                        raise
                    # Its worker died with the result, which is made again.
                    done.add(future)
                    continue
                pieces = under_way.pop(future.key)
                future.release()
                if answer is None:
                    again += pieces
                elif isinstance(answer, Lost):
                    yield from ((piece, answer) for piece in pieces)
                else:
                    seconds = 0.7 * (seconds or answer[0] / len(pieces)) + 0.3 * answer[0] / len(pieces)
                    size = max(size, *(_bytes(one) for one in answer[1]), 1.0)
                    yield from zip(pieces, answer[1], strict=True)
            if again:
                self._reconnected(token, shared)

    def _at_once(self, todo: Iterator[Piece], seconds: float, size: float) -> int:
        """Pieces of one task: the scheduler's and the client's 2 to 3 ms are for each task, however short it is."""
        if not seconds:
            return 1
        left = length_hint(todo)
        wanted = min(left // (SHARES * max(self.workers, 1)), round(TASK_SECONDS / seconds), MOST_AT_ONCE)
        # The window bounds tasks: their results, not taken in yet, must not fill the workers.
        return max(1, min(wanted, int(TASK_BYTES / size)))

    def alone(
        self, function: Callable[..., Arrays], shared: tuple, piece: Piece, *, network: bool = False
    ) -> Arrays | Lost:
        """One piece with none of this run beside it."""
        return next(self.results(function, shared, iter([piece]), network=network))[1]

    def _wait(self, done: Any, resources: dict[str, float]) -> list[Any]:
        """What has ended, at least one; an error when no worker is left to end anything."""
        alive = looked = time.monotonic()
        while not done.has_ready():
            time.sleep(0.002)
            now = time.monotonic()
            if now - looked > REFRESH_SECONDS:
                looked = now
                with contextlib.suppress(OSError):
                    workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
                    if any(_offers(one.get("resources", {}), resources) for one in workers):
                        alive = now
            if now - alive > _patience():
                raise WorkError(
                    f"the Dask cluster has had no worker for {_patience():.0f} s: see to its workers, then run the "
                    "same command again; what was done is kept"
                )
        return done.next_batch(block=False)

    def _reconnected(self, token: str, shared: tuple) -> None:
        """Wait for a scheduler that went away; a new one knows nothing of the stage."""
        deadline = time.monotonic() + 2 * CONNECT_SECONDS
        while self.client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.client.status != "running":
            raise WorkError(
                "the Dask scheduler went away and did not come back: start it and its workers, then run the same "
                "command again; what was done is kept"
            )
        self._looked = -REFRESH_SECONDS
        self.client.register_plugin(SharedInputs(shared), name=token)
        self.require()

    def _share(self, shared: tuple) -> str:
        """Name under which the workers have what the pieces share; sent unless they have it already."""
        if shared is not self._shared:
            self.close()
            self._shared, self._token = shared, f"skysift-{uuid.uuid4().hex}"
            with contextlib.suppress(OSError):
                # A worker that dies of loading the network is replaced, and the plugin is there for its successor.
                self.client.register_plugin(SharedInputs(shared), name=self._token)
        return self._token

    def close(self) -> None:
        """Let the workers forget what the pieces of the last stage shared."""
        if self._shared is not None and self.client.status == "running":
            with contextlib.suppress(Exception):
                self.client.unregister_worker_plugin(self._token)
        self._shared = None


def _answer(future: Any) -> tuple[float, list[Arrays | Lost]] | Lost | None:
    """A task's answer; None when its scheduler was lost with it."""
    try:
        # Gathered here and not by as_completed, which waits for ever when a worker dies between task and result.
        return future.result(timeout=GATHER_SECONDS)
    except KilledWorker as error:
        return Lost(f"its worker ended each time, {error.allowed_failures + 1} times (out of memory?)")
    except CancelledError:
        return None


def _bytes(answer: Arrays | Lost) -> int:
    return 0 if isinstance(answer, Lost) else sum(array.nbytes for array in answer.values())


def _offers(offered: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    return all(offered.get(name, 0) >= amount for name, amount in wanted.items())


def _patience() -> float:
    return float(os.environ.get(PATIENCE, PATIENCE_SECONDS))


@contextlib.contextmanager
def remote_workers(address: str, resources: Mapping[str, float] | None = None) -> Iterator[DaskWorkers]:
    """The workers of a running scheduler (tcp://host:port).

    Raises
    ------
    WorkError
        When no scheduler answers, it has no workers, or none offers the resources.
    """
    if address.startswith("tls://") and Security().get_connection_args("client").get("ssl_context") is None:
        # Dask would say so too, and then keep the process for ever.
        raise WorkError(
            f"cluster {address}: expected the certificates of TLS, there are none; name them in variables "
            "DASK_DISTRIBUTED__COMM__TLS__..., as deploy/README.md tells"
        )
    try:
        client = Client(address, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise WorkError(f"cluster {address}: no Dask scheduler answers there ({error}); start it first") from None
    with client:
        workers = DaskWorkers(client, resources)
        workers.require()
        try:
            yield workers
        finally:
            workers.close()
