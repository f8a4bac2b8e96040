"""One worker: takes an observation from the queue, has it processed, records what came of it, takes the next."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline import metrics
from pipeline.classify_options import ClassifyOptions
from pipeline.journal import observation_context
from pipeline.options import DetectOptions
from pipeline.runs import describe_missing
from pipeline.service import results
from pipeline.service.helper import Answer, Helper, Job
from pipeline.service.options import ServeOptions
from pipeline.service.quarantine import put_aside
from pipeline.service.seen import Seen
from survey_io.errors import OutputError, SkysiftError

logger = logging.getLogger("skysift")
T = TypeVar("T")
# Seconds between two signs of life; the catalogue gives an observation to another worker after 60 s without.
BEAT = 10.0
# Failures after which the same work may succeed. What is wrong with the input, or with skysift, stays wrong.
_PASSING = ("lost", "memory", "system", "work")
# State, id of the run, rows, folder of results, error: as `Done`.
Ending = tuple[str, int | None, int, Path | None, str | None]


@dataclass(frozen=True)
class Done:
    """What became of one observation.

    Attributes
    ----------
    observation : dict
        As claimed.
    state : str
        "done", "failed", "quarantined" or "handed back".
    run : int or None
        Id of the recorded run.
    rows : int
        Of its catalogue.
    folder : Path or None
        Of its results.
    error : str or None
        One line.
    seconds : float
        From the claim to here.
    """

    observation: dict[str, Any]
    state: str
    run: int | None
    rows: int
    folder: Path | None
    error: str | None
    seconds: float


class Worker:
    """A thread's work. Everything that may hang or die happens in its `Helper`.

    Parameters
    ----------
    name : str
        Unique among the workers of all services on the catalogue.
    store : pipeline.survey store
    options : ServeOptions
    detect, classify : DetectOptions, ClassifyOptions
        What is done with an observation; their folders of results are replaced.
    seen : Seen, optional
        The inbox's record, which knows where else a file lies.
    helper : Helper
        May be shared by two workers: while one records what came of an observation, the other has the next processed.
    turn : Lock
        Held from the claim to the end of the processing, so that observations are begun in order of arrival.
    """

    def __init__(
        self,
        name: str,
        store: Any,
        options: ServeOptions,
        *,
        detect: DetectOptions,
        classify: ClassifyOptions,
        seen: Seen | None = None,
        helper: Helper,
        turn: threading.Lock,
    ):
        self.name, self._store, self._options = name, store, options
        self._detect, self._classify, self._seen = detect, classify, seen
        self.helper, self._turn, self._mine = helper, turn, False
        # Take nothing more; and: end what is under way.
        self.stopping, self.handing_back = threading.Event(), threading.Event()

    def step(self) -> Done | None:
        """Claim one observation and see it through; None when there is none to claim.

        Raises
        ------
        OutputError
            With ``once``, when catalogue or results cannot be written; the observation is handed back.
        """
        try:
            if not self._take_turn():
                return None
            began = time.monotonic()
            claimed = self._patiently(lambda: self._store.claim(self.name))
            return None if claimed is None else self._see_through(claimed, began)
        finally:
            self._give_turn()

    def _take_turn(self, claimed: dict[str, Any] | None = None) -> bool:
        """Wait for the helper; false when the service is to stop, or the observation has become another worker's."""
        while not self._mine:
            if (self.stopping if claimed is None else self.handing_back).is_set():
                return False
            self._mine = self._turn.acquire(timeout=1.0)
            if not self._mine and claimed is not None and not self._alive(claimed["id"]):
                return False
        return True

    def _give_turn(self) -> None:
        if self._mine:
            self._mine = False
            self._turn.release()

    def _see_through(self, claimed: dict[str, Any], began: float) -> Done:
        with observation_context(observation=claimed["id"], worker=self.name):
            try:
                state, run, rows, folder, error = self._process(claimed)
            except SkysiftError:
                self._hand_back()
                raise
            except Exception as defect:
                logger.error("a defect of skysift's service", exc_info=True)
                text = " ".join(str(defect).split())
                text = f"{claimed['path']}: {text} ({type(defect).__name__}; a defect of skysift)"
                state, run, rows, folder, error = self._failed(claimed, text, "defect")
            done = Done(claimed, state, run, rows, folder, error, time.monotonic() - began)
            self._tell(done)
        return done

    def close(self) -> None:
        """End the helper."""
        self.helper.close()

    def _process(self, claimed: dict[str, Any]) -> Ending:
        path = self._place(claimed)
        if path is None:
            error = f"{claimed['path']}: it has gone before it was processed; put it into the inbox again"
            return self._failed(claimed, error, "gone")
        name = results.folder_name(path, claimed["sha256"])
        staging = results.staging_folder(self._options.results_folder, name)
        spectra = claimed["kind"] == "spectrum" and self._options.task == "classify"
        work = (self._classify if spectra else self._detect).with_changes(output=staging, fresh=False)
        attempt, pause = 0, self._options.pause
        while True:
            attempt += 1
            answer = self._run(Job(path, work, claimed["id"])) if self._take_turn(claimed) else None
            if answer is None:
                return self._hand_back()
            if answer.result is not None:
                if answer.result.manifest["input"].get("sha256") != claimed["sha256"]:
                    results.forget(staging)
                    error = f"{path}: changed while it was processed; its new content is an observation of its own"
                    return self._failed(claimed, error, "changed")
                lacking = describe_missing(answer.result.manifest)
                if lacking is not None and claimed["attempts"] + attempt - 1 < self._options.attempts:
                    answer = Answer(None, "work", f"{path}: {lacking}", answer.seconds)
                else:
                    answer = self._publish(claimed, answer, staging, name)
            if answer.result is not None:
                return self._record(claimed, answer, staging)
            number = claimed["attempts"] + attempt - 1
            logger.warning("%s (try %d)", answer.error, number, extra={"failure": answer.kind})
            metrics.observation_failed(answer.kind)
            if answer.kind in ("memory", "work"):
                # The next try, and the next observation, get a process that has all its memory.
                self.helper.kill()
            if answer.kind == "input":
                return self._quarantined(claimed, path, staging, answer)
            tries = attempt if answer.kind == "output" else number
            if answer.kind not in (*_PASSING, "output") or tries >= self._options.attempts:
                if answer.kind not in ("timeout", "work"):
                    results.forget(staging)
                return self._failed(claimed, answer.error or answer.kind, answer.kind)
            metrics.observation_retried()
            trouble = self._wait_for_output(claimed) if answer.kind == "output" else None
            if trouble is not None:
                # Not this observation's fault: its tries are not counted.
                attempt = 0
            if self._pause(claimed, pause):
                return self._hand_back()
            pause = min(2 * pause, self._options.longest_pause)

    def _place(self, claimed: dict[str, Any]) -> Path | None:
        """Where the file lies: where it was seen first, or under another name that the inbox has seen since."""
        there = [Path(claimed["path"])]
        if self._seen is not None:
            there += self._seen.places(claimed["sha256"])
        return next((path for path in there if path.is_file() and self._within(path)), None)

    def _within(self, path: Path) -> bool:
        """Whether what is to be opened lies in the inbox, if it is named there: it may be a link by now."""
        inbox = self._options.inbox
        if inbox is None or not path.is_relative_to(inbox.resolve()):
            return True
        return path.resolve().is_relative_to(inbox.resolve())

    def _run(self, job: Job) -> Answer | None:
        """The helper's answer; None when the work was stopped or has become another worker's."""
        began = beat = time.monotonic()
        self.helper.submit(job)
        limit = self._options.timeout
        while True:
            answer = self.helper.wait(0.5)
            if answer is not None:
                return answer
            now = time.monotonic()
            if limit and now - began > limit:
                self.helper.kill()
                error = (
                    f"{job.path}: not finished within {limit:g} s (timeout); what is done is kept, and "
                    "'skysift serve --retry' goes on with it: give it longer"
                )
                return Answer(None, "timeout", error, now - began)
            if self.handing_back.is_set():
                self.helper.kill()
                return None
            if now - beat > BEAT:
                beat = now
                if not self._alive(job.observation):
                    self.helper.kill()
                    return None

    def _alive(self, observation: int) -> bool:
        """Give a sign of life; a catalogue that is away does not stop the work."""
        try:
            return self._store.renew(observation, self.name)
        except SkysiftError as error:
            logger.warning("no sign of life given: %s", error)
            return True

    def _publish(self, claimed: dict[str, Any], answer: Answer, staging: Path, name: str) -> Answer:
        """The answer with its results in their place, or what was wrong, as if the helper could not write them."""
        self._give_turn()
        runs = self._patiently(lambda: self._store.runs(observation_id=claimed["id"]))
        known, folder = [run["output"] for run in runs], self._options.results_folder
        try:
            return replace(answer, result=results.publish(answer.result, staging, folder, name, known=known))
        except OutputError as error:
            return Answer(None, "output", error.message, answer.seconds)

    def _record(self, claimed: dict[str, Any], answer: Answer, staging: Path) -> Ending:
        result = answer.result
        assert result is not None
        target = result.files["manifest"].parent
        try:
            run = self._patiently(lambda: self._store.record(result, output=target))
        except OutputError:
            raise
        except SkysiftError as error:
            return self._failed(claimed, error.message, "record")
        kept = Path(self._patiently(lambda: self._store.run(run))["output"])
        if kept != target and kept.is_dir():
            # The same run was recorded before, of this or by another worker: one folder is enough.
            results.forget(target)
        lacking = describe_missing(result.manifest)
        if lacking is not None:
            results.keep_ledger(target, staging)
            metrics.observation_failed("work")
            return "failed", run, len(result.table), kept, f"{claimed['path']}: {lacking}; all are in its manifest"
        if not self._patiently(lambda: self._store.finish(claimed["id"], self.name)):
            logger.warning("recorded, though another worker had taken it over meanwhile")
        metrics.observation_done(result.manifest, answer.seconds)
        return "done", run, len(result.table), kept, None

    def _quarantined(self, claimed: dict[str, Any], path: Path, staging: Path, answer: Answer) -> Ending:
        error = answer.error or "cannot be read"
        self._patiently(lambda: self._store.quarantine(claimed["id"], error))
        results.forget(staging)
        inbox = self._options.inbox
        if inbox is not None and path.is_relative_to(inbox.resolve()):
            try:
                put_aside(path, self._options.quarantine_folder, error)
            except OutputError as trouble:
                logger.error("%s", trouble)
        return "quarantined", None, 0, None, error

    def _failed(self, claimed: dict[str, Any], error: str, kind: str) -> Ending:
        self._patiently(lambda: self._store.fail(claimed["id"], self.name, error, retry=False))
        if kind in ("gone", "changed"):
            metrics.observation_failed(kind)
        return "failed", None, 0, None, error

    def _hand_back(self) -> Ending:
        """Give the observation back to the queue, where it keeps its place; its finished pieces stay."""
        try:
            self._store.release(self.name)
        except SkysiftError as error:
            logger.warning("not handed back, another worker takes it over in a minute: %s", error)
        return "handed back", None, 0, None, None

    def _wait_for_output(self, claimed: dict[str, Any]) -> str | None:
        """Wait until results can be written; returns what was wrong, None where nothing was.

        Raises
        ------
        OutputError
            With ``once``.
        """
        pause, said = self._options.pause, None
        while (trouble := results.output_trouble(self._options.results_folder)) is not None:
            if self._options.once:
                raise OutputError(f"{trouble}: results cannot be written; mend that and run again, which goes on")
            if trouble != said:
                logger.error("%s: results cannot be written; waiting until they can", trouble)
            said = trouble
            if self._pause(claimed, pause):
                break
            pause = min(2 * pause, self._options.longest_pause)
        return said

    def _pause(self, claimed: dict[str, Any], seconds: float) -> bool:
        """Wait, with signs of life; true when the service is to stop, or the observation is another worker's by now."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.stopping.wait(min(left, BEAT)) or not self._alive(claimed["id"]):
                return True
        return self.stopping.is_set()

    def _patiently(self, work: Callable[[], T]) -> T:
        """Ask the catalogue until it answers: it waits 30 s itself for a server that is away.

        Raises
        ------
        OutputError
            With ``once`` after some tries, or when the service is to stop.
        """
        pause, tries = self._options.pause, 0
        while True:
            try:
                return work()
            except OutputError as error:
                tries += 1
                if self.stopping.is_set() or (self._options.once and tries >= self._options.attempts):
                    raise
                logger.error("%s; trying again in %g s", error, pause)
            self.stopping.wait(pause)
            pause = min(2 * pause, self._options.longest_pause)

    def _tell(self, done: Done) -> None:
        name = Path(done.observation["path"]).name
        if done.state == "done":
            found = "source" if done.observation["kind"] in ("image", "cube", None) else "row"
            text = f"{name}: {done.rows} {found}{'' if done.rows == 1 else 's'} in {done.seconds:.1f} s, {done.folder}"
            logger.info("%s", text, extra={"run": done.run, "rows": done.rows, "seconds": round(done.seconds, 3)})
        elif done.state == "handed back":
            logger.info("%s: handed back to the queue", name)
        else:
            logger.error("%s: %s: %s", name, done.state, done.error, extra={"state": done.state})
