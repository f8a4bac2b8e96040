"""The service: looks at the inbox, queues what has arrived, and keeps workers at it until it is told to stop."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import metrics
from pipeline.classify_options import ClassifyOptions
from pipeline.options import DetectOptions
from pipeline.service.helper import Helper
from pipeline.service.inbox import Arrived, Inbox, Refused, check_apart
from pipeline.service.options import ServeOptions
from pipeline.service.quarantine import put_aside
from pipeline.service.results import output_trouble
from pipeline.service.seen import Seen
from pipeline.service.slots import shared_cores, worker_environments
from pipeline.service.takeover import take_back, worker_name
from pipeline.service.work import Done, Worker
from survey_io.errors import OptionError, OutputError, SkysiftError

logger = logging.getLogger("skysift")
# A look at a large folder may take long: so many times as long is waited until the next one.
_REST = 5.0


@dataclass
class Tally:
    """What a service has done.

    Attributes
    ----------
    arrived, duplicates, refused : int
        New files; copies of known ones; those put aside at their arrival.
    done, failed, quarantined : int
        Observations by what became of them.
    rows : int
        Of their catalogues.
    waiting : int
        Files that are cut short, and may still grow.
    outcomes : list of Done
        In the order in which they ended; kept only with ``once``.
    refusals : list of Refused
        What was put aside at its arrival; kept only with ``once``.
    """

    arrived: int = 0
    duplicates: int = 0
    refused: int = 0
    done: int = 0
    failed: int = 0
    quarantined: int = 0
    rows: int = 0
    waiting: int = 0
    outcomes: list[Done] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)


class Service:
    """The inbox's watcher, in the thread that calls `run`, and the workers' threads and processes.

    Parameters
    ----------
    options : ServeOptions
    store : pipeline.survey store
    detect, classify : DetectOptions, ClassifyOptions, optional
        What is done with an observation.
    arrived : callable, optional
        Told of each new observation, as ``arrived(id, Arrived)``.

    Raises
    ------
    OptionError, OutputError
        For an inbox that is none or in which the service would write, and for folders that cannot be written.
    """

    def __init__(
        self,
        options: ServeOptions,
        store: Any,
        *,
        detect: DetectOptions | None = None,
        classify: ClassifyOptions | None = None,
        arrived: Callable[[int, Arrived], None] | None = None,
    ):
        # Absolute: the catalogue keeps paths for whoever reads it, wherever that is started.
        folders = {name: _absolute(getattr(options, name)) for name in ("inbox", "quarantine")}
        self.options = options.with_changes(**folders, output=options.home.absolute())
        self.store, self.tally = store, Tally()
        self._announce, self._lock = arrived, threading.Lock()
        home = self.options.home
        trouble = output_trouble(self.options.results_folder)
        if trouble is not None:
            raise OutputError(f"{trouble}: expected a folder that can be written; give another with --output")
        detect, classify = detect or DetectOptions(), classify or ClassifyOptions()
        metrics.start(home / "metrics", worker="service")
        self._seen, self._inbox = None, None
        if self.options.inbox is not None:
            check_apart(self.options.inbox, self.options.results_folder, self.options.quarantine_folder, home / "logs")
            self._seen = Seen(home / "inbox.db")
            self._inbox = Inbox(
                self.options.inbox, looks=options.looks, patience=options.patience, skip=self._known,
                waiting=self._seen.waiting, hdu=detect.hdu,
            )  # fmt: skip
        elif options.workers == 0:
            raise OptionError("nothing to do: give an inbox to watch, or at least one worker")
        environments = worker_environments(options.workers, detect.engine, detect.device)
        shared = shared_cores(detect, len(environments))
        self.helpers = [
            Helper(worker_name(number), journal=home / "logs", metrics=home / "metrics", environment=environment)
            for number, environment in enumerate(environments)
        ]
        # Two for each process, which take turns: its next observation begins while the last one is recorded.
        self.workers = [
            Worker(
                f"{helper.name}{half}", store, self.options, detect=shared, classify=classify, seen=self._seen,
                helper=helper, turn=turn,
            )
            for helper in self.helpers for turn in [threading.Lock()] for half in "ab"
        ]  # fmt: skip
        self._stopping, self._drained, self._wake = threading.Event(), threading.Event(), threading.Condition()
        self._asked = False
        self._errors: list[SkysiftError] = []

    def run(self) -> Tally:
        """Serve until `stop`, or with ``once`` until all that was there is dealt with.

        Raises
        ------
        OutputError
            With ``once``, when the catalogue or the folder of results cannot be written; a later call goes on.
        """
        try:
            take_back(self.store)
        except OutputError as error:
            # The catalogue is away: what its lease gives back comes a minute later.
            logger.warning("%s", error)
        # Log lines of a worker belong to whatever this thread is doing, such as the run of a flow.
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(self._work, worker), daemon=True)
            for worker in self.workers
        ]
        for helper in self.helpers:
            # Libraries take seconds to load: they are there when the first file is.
            helper.start()
        for thread in threads:
            thread.start()
        try:
            self._watch()
        except BaseException:
            # Such as Prefect's own signal: there is no time for the rest of the queue.
            self.stop()
            raise
        finally:
            self._drained.set()
            with self._wake:
                self._wake.notify_all()
            self._leave(threads)
        if self._errors and not self._asked:
            raise self._errors[0]
        return self.tally

    def stop(self) -> None:
        """Take no more work; what is under way may take its grace. Called again: hand it back at once."""
        if self._asked:
            for worker in self.workers:
                worker.handing_back.set()
        self._asked = True
        self._end()

    def _end(self) -> None:
        self._stopping.set()
        for worker in self.workers:
            worker.stopping.set()

    def _watch(self) -> None:
        while not self._stopping.is_set() and not self._errors:
            began = time.monotonic()
            if self._inbox is None:
                if self.options.once:
                    return
            else:
                self._look()
                if self.options.once and not self._inbox.unsettled:
                    self.tally.waiting = self._inbox.waiting
                    return
            self._stopping.wait(max(self.options.interval, _REST * (time.monotonic() - began)))

    def _look(self) -> None:
        assert self._inbox is not None
        try:
            for found in self._inbox.look():
                if self._stopping.is_set():
                    self._inbox.forget(found.path)
                    return
                try:
                    self._receive(found)
                except SkysiftError:
                    self._inbox.forget(found.path)
                    raise
        except OutputError as error:
            logger.error("%s; looking again in a moment", error)
            if self.options.once:
                self._errors.append(error)

    def _receive(self, found: Arrived | Refused) -> None:
        if isinstance(found, Refused):
            self._refuse(found)
            return
        path, store = found.path, self.store
        identity, new = store.enqueue(path, sha256=found.sha256, kind=found.kind, bytes=found.mark.size)
        if new:
            self.tally.arrived += 1
            self._note(found, "new", identity)
            logger.info("%s: arrived, observation %d", path.name, identity, extra={"observation": identity})
            if self._announce is not None:
                self._announce(identity, found)
            with self._wake:
                self._wake.notify()
            return
        known = store.observation(identity)
        if known["state"] == "quarantined":
            self._refuse(Refused(path, found.mark, known["error"] or "was put aside before", found.sha256))
        elif Path(known["path"]) == path:
            # Nothing but its name's time, or this service's record, has changed.
            self._note(found, "new", identity)
        else:
            self.tally.duplicates += 1
            self._note(found, "duplicate", identity, known["path"])
            logger.info(
                "%s: the same content as %s, observation %d; not processed again", path.name, known["path"], identity,
                extra={"observation": identity},
            )  # fmt: skip

    def _refuse(self, found: Refused) -> None:
        place, identity = found.path, None
        try:
            moved = put_aside(found.path, self.options.quarantine_folder, found.reason)
            if moved is None:
                return
            place = moved
        except OutputError as error:
            logger.error("%s", error)
        if found.sha256 is not None:
            identity, new = self.store.enqueue(place, sha256=found.sha256, bytes=found.mark.size)
            if new:
                self.store.quarantine(identity, found.reason)
        self.tally.refused += 1
        if self.options.once:
            self.tally.refusals.append(found)
        metrics.observation_failed("refused")
        self._note(found, "refused", identity, found.reason)
        logger.error("%s; put aside as %s", found.reason, place, extra={"observation": identity})

    def _note(self, found: Arrived | Refused, outcome: str, identity: int | None, note: str = "") -> None:
        assert self._seen is not None
        try:
            self._seen.note(
                found.path, found.mark, outcome, sha256=found.sha256, observation=identity, note=note
            )
        except (OutputError, UnicodeError) as error:
            # It costs reading the file again after a restart, no more.
            logger.warning("%s", error)

    def _known(self, path: Path, mark: Any) -> bool:
        """Whether this state of a file was dealt with by an earlier service on the same catalogue."""
        assert self._seen is not None
        entry = self._seen.find(path, mark)
        if entry is None or entry.observation is None:
            return entry is not None
        try:
            return self.store.observation(entry.observation)["sha256"] == entry.sha256
        except OutputError:
            raise
        except SkysiftError:
            # The record is another catalogue's.
            return False

    def _work(self, worker: Worker) -> None:
        try:
            while not worker.stopping.is_set():
                done = worker.step()
                if done is not None:
                    self._count(done)
                elif self._drained.is_set():
                    return
                else:
                    with self._wake:
                        self._wake.wait(self.options.interval)
        except SkysiftError as error:
            self._errors.append(error)
            logger.error("%s", error)
        except Exception as error:
            logger.error("worker %s has ended by a defect of skysift", worker.name, exc_info=True)
            self._errors.append(SkysiftError(f"worker {worker.name} has ended: {error!r} (a defect of skysift)"))

    def _count(self, done: Done) -> None:
        with self._lock:
            if done.state in ("done", "failed", "quarantined"):
                setattr(self.tally, done.state, getattr(self.tally, done.state) + 1)
            self.tally.rows += done.rows
            if self.options.once:
                self.tally.outcomes.append(done)

    def _leave(self, threads: list[threading.Thread]) -> None:
        """Wait for what is under way: with ``once`` for all of it, after `stop` for as long as its grace is."""
        while any(thread.is_alive() for thread in threads) and not self._stopping.wait(0.1):
            if self._errors:
                self._end()
        until = time.monotonic() + self.options.grace
        while any(thread.is_alive() for thread in threads):
            if time.monotonic() > until:
                for worker in self.workers:
                    worker.handing_back.set()
            time.sleep(0.05)
        for worker in self.workers:
            worker.close()
        metrics.snapshot()
        if self._seen is not None:
            self._seen.close()


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()
