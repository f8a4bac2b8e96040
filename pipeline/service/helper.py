"""A process that does the work on one observation after the other, with the networks kept loaded, and can be killed."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.options import DetectOptions
from survey_io.errors import InputError, OptionError, OutputError, SkysiftError, WorkError, machine_trouble

if TYPE_CHECKING:
    from pipeline.classify import ClassifyResult
    from pipeline.classify_options import ClassifyOptions
    from pipeline.runs import DetectResult

# Seconds in which a helper that was told to end does so; it has nothing to save.
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """Work on one file.

    Attributes
    ----------
    path : Path
    options : DetectOptions or ClassifyOptions
        With the folder of results of this job.
    observation : int
        Its id, for the log.
    """

    path: Path
    options: DetectOptions | ClassifyOptions
    observation: int


@dataclass(frozen=True)
class Answer:
    """What came of a job.

    Attributes
    ----------
    result : DetectResult, ClassifyResult or None
        None where it failed.
    kind : str
        "done", or what was wrong: "input", "option", "output", "system" (the file could not be read), "memory",
        "work" (pieces or workers were lost), "defect", "lost" (the helper died), "timeout".
    error : str or None
        One line.
    seconds : float
        Wall time of the work.
    """

    result: DetectResult | ClassifyResult | None
    kind: str
    error: str | None
    seconds: float


class Helper:
    """The process, from this side.

    Parameters
    ----------
    name : str
        Of the worker, for logs and metrics.
    journal, metrics : Path or None
        Folders for the process's log lines and numbers.
    environment : mapping, optional
        Variables beside those of this process, such as CUDA_VISIBLE_DEVICES.
    """

    def __init__(
        self,
        name: str,
        *,
        journal: Path | None = None,
        metrics: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        self.name = name
        self._setting = {"name": name, "journal": journal, "metrics": metrics}
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._began = 0.0

    @property
    def pid(self) -> int | None:
        """Id of the process; None where there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process, if there is none; it loads its libraries while this one goes on."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.kill()
        code = f"import sys; sys.path[:] = {sys.path!r}; from pipeline.service.helper import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, **self._environment},
        )  # fmt: skip
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self._process, self._answers), daemon=True).start()
        with contextlib.suppress(OSError):
            _send(self._process.stdin, self._setting)

    def submit(self, job: Job) -> None:
        """Hand a job over; `wait` gives its answer."""
        self.start()
        assert self._process is not None
        self._began = time.monotonic()
        # A process that has died is told by `wait`.
        with contextlib.suppress(OSError):
            _send(self._process.stdin, job)

    def wait(self, seconds: float) -> Answer | None:
        """The answer, or None when it takes longer than so many seconds."""
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            return None
        if answer is not None:
            return answer
        lasted, status = time.monotonic() - self._began, self.kill()
        return Answer(None, "lost", f"the process that worked on it died ({_ending(status)})", lasted)

    def kill(self) -> int | None:
        """End the process at once; returns its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        status = process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        return status

    def close(self) -> None:
        """End the process when it has nothing to do."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            self.kill()


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return f"{name}; out of memory?" if name == "SIGKILL" else name
    return f"status {status}"


def _send(stream: BinaryIO, message: Any) -> None:
    pickle.dump(message, stream, protocol=5)
    stream.flush()


def _listen(process: subprocess.Popen[bytes], answers: queue.SimpleQueue[Answer | None]) -> None:
    """Put the process's answers into the queue, and None at its end."""
    try:
        while True:
            answers.put(pickle.load(process.stdout))
    except (OSError, EOFError, ValueError, pickle.PickleError):
        answers.put(None)


def main() -> None:
    """Work of the process: settings, then jobs, from standard input; answers to standard output; until the input ends.

    It ends with its parent, whatever became of that one: nothing that it does outside of a job's own folder would have
    to be undone.
    """
    # The parent decides what a signal to the group means; it closes the pipe, or kills.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a library prints must not get among the answers.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    setting = pickle.load(source)
    _set_up(**setting)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(source, jobs), daemon=True).start()
    _warm_up()
    while True:
        _send(target, _answer(jobs.get(), setting["name"]))


def _take(source: BinaryIO, jobs: queue.SimpleQueue[Job]) -> None:
    try:
        while True:
            jobs.put(pickle.load(source))
    except (OSError, EOFError, pickle.PickleError):
        # At once, in the middle of a job too: somebody else may be working on it already.
        os._exit(0)


def _set_up(name: str, journal: Path | None, metrics: Path | None) -> None:
    from pipeline.journal import start_journal

    start_journal(journal)
    if metrics is not None:
        from pipeline.metrics import start

        start(metrics, worker=name)


def _warm_up() -> None:
    """Import what every job needs, before the first comes."""
    import pipeline.detect
    import pipeline.outputs
    import pipeline.quicklook  # noqa: F401


def _answer(job: Job, worker: str) -> Answer:
    from pipeline.journal import observation_context
    from pipeline.metrics import snapshot

    began = time.perf_counter()
    with observation_context(observation=job.observation, worker=worker):
        result, kind, error = _attempt(job)
    # The stages were timed here, and this process may be killed at any time.
    snapshot()
    return Answer(result, kind, error, time.perf_counter() - began)


def _classify(job: Job) -> ClassifyResult:
    """A file's spectra by their classes; the manifest says which content they were of, as that of a detection."""
    from pipeline.classify import classify
    from pipeline.runs import file_hash

    result = classify([job.path], job.options)
    if result.errors and not len(result.table):
        raise InputError(result.errors[0])
    result.manifest["input"] |= {"path": str(job.path), "sha256": file_hash(job.path)}
    return result


def _attempt(job: Job) -> tuple[DetectResult | ClassifyResult | None, str, str | None]:
    try:
        if isinstance(job.options, DetectOptions):
            from pipeline.detect import detect

            return detect(job.path, job.options), "done", None
        return _classify(job), "done", None
    except SkysiftError as error:
        trouble = machine_trouble(error)
        if trouble is not None and isinstance(error, InputError):
            # Such as a good file that cannot be read without memory: it is not put aside.
            return None, trouble, error.message
        kinds = {InputError: "input", OptionError: "option", OutputError: "output", WorkError: "work"}
        return None, next((word for kind, word in kinds.items() if isinstance(error, kind)), "defect"), error.message
    except MemoryError as error:
        return None, "memory", f"{job.path}: not enough memory: {error}"
    except OSError as error:
        # Of the input file, or of the results: the names tell, and both may pass.
        inside = error.filename is not None and Path(os.fsdecode(error.filename)) == job.path
        what = f"{error.filename or job.path}: {error.strerror or error}"
        return None, "system" if inside else "output", what
    except Exception as error:
        if (trouble := machine_trouble(error)) is not None:
            return None, trouble, f"{job.path}: {' '.join(str(error).split())}"
        import logging

        logging.getLogger("skysift").error("%s: a defect of skysift", job.path, exc_info=True)
        text = " ".join(str(error).split())
        return None, "defect", f"{job.path}: {text} ({type(error).__name__}; a defect of skysift)"
