"""``skysift serve``: an inbox that is watched, a queue, and workers that empty it."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pipeline.service.serve import Service, Tally


def serve(
    inbox: Path | None = typer.Option(
        None, metavar="DIR", help="Folder that is watched, with its subfolders [default: none, work on the queue only]."
    ),
    catalogue: str | None = typer.Option(
        None, metavar="URL",
        help="Survey's catalogue: a folder, or postgresql://... [default: $SKYSIFT_CATALOGUE, else skysift_survey].",
    ),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for results, quarantine and logs [default: the catalogue's folder]."
    ),
    quarantine: Path | None = typer.Option(
        None, metavar="DIR", help="Where unreadable files are moved [default: OUTPUT/quarantine]."
    ),
    workers: int | None = typer.Option(
        None, help="Observations worked on at the same time; 0 only watches [default: 1]."
    ),
    once: bool = typer.Option(False, "--once", help="Work on what is there and leave."),
    retry: bool = typer.Option(False, "--retry", help="First put what has failed back into the queue."),
    http: bool = typer.Option(False, "--http", help="Show the survey's pages beside the work, as 'skysift http' does."),
    listen: str | None = typer.Option(
        None, metavar="HOST:PORT", help="Where the pages are [default: 127.0.0.1:8470, this machine only]."
    ),
    token_file: Path | None = typer.Option(
        None, metavar="FILE", help="Token that changes need [default: SKYSIFT_TOKEN; without one changes are refused]."
    ),
    host: list[str] = typer.Option(
        [], metavar="NAME", help="Name under which the pages may be asked for, besides localhost. May be repeated."
    ),
    model: str | None = typer.Option(None, help="As of 'skysift detect'."),
    engine: str | None = typer.Option(None, help="As of 'skysift detect'."),
    threshold: float | None = typer.Option(None, help="As of 'skysift detect'."),
    formats: str | None = typer.Option(None, "--format", help="As of 'skysift detect'."),
    detect_config: Path | None = typer.Option(
        None, "--detect", metavar="FILE.yaml", help="Options of detection, all of them."
    ),
    classify: bool = typer.Option(False, "--classify", help="Name the classes of spectra instead of finding lines."),
    classify_config: Path | None = typer.Option(
        None, "--classify-config", metavar="FILE.yaml", help="Options of classification."
    ),
    looks: int | None = typer.Option(None, help="Looks at which an arrived file must have been the same [default: 3]."),
    interval: float | None = typer.Option(None, help="Seconds between two looks [default: 1]."),
    patience: float | None = typer.Option(
        None, help="Seconds until a file that is cut short is put aside [default: 600]."
    ),
    timeout: float | None = typer.Option(
        None, help="Seconds after which work on one observation is ended; 0: never [default: 14400]."
    ),
    attempts: int | None = typer.Option(None, help="Tries of an observation whose worker died [default: 3]."),
    grace: float | None = typer.Option(
        None, help="Seconds that work may go on for after a signal to stop [default: 30]."
    ),
    config: Path | None = typer.Option(None, metavar="FILE.yaml", help="Read options of the service from this file."),
) -> int:
    """Process files as they arrive in a folder, each once, into the survey's catalogue.

    A file has arrived when it stays the same and is as long as its header says. What cannot be read is moved to the
    quarantine, with the reason beside it. Stop with Ctrl-C or SIGTERM: work under way is finished, or handed back to
    the queue; the next call goes on. Options may also stand in the environment, as SKYSIFT_SERVE_WORKERS=2 and
    SKYSIFT_DETECT_MODEL=light.
    """
    from flows.settings import resolve_options
    from pipeline.classify_options import ClassifyOptions
    from pipeline.options import DetectOptions
    from pipeline.service.options import ServeOptions
    from survey_io.errors import OptionError

    given = {
        "inbox": inbox, "catalogue": catalogue, "output": output, "quarantine": quarantine, "workers": workers,
        "once": once or None, "task": "classify" if classify else None, "looks": looks, "interval": interval,
        "patience": patience, "timeout": timeout, "attempts": attempts, "grace": grace,
    }  # fmt: skip
    options = resolve_options(ServeOptions, given, config=config)
    asked = {"model": model, "engine": engine, "threshold": threshold, "formats": formats}
    detection = resolve_options(DetectOptions, asked, config=detect_config)
    classification = resolve_options(ClassifyOptions, {}, config=classify_config)
    if not http and (listen or token_file or host):
        raise OptionError("--listen, --token-file and --host are about the pages: give --http too")
    pages = {"listen": listen, "token_file": token_file, "hosts": host} if http else None
    return run_service(options, detection, classification, retry=retry, pages=pages)


def run_service(
    options: Any, detection: Any, classification: Any, *, retry: bool = False, pages: dict[str, Any] | None = None
) -> int:
    """Open the catalogue and serve until the work is done or a signal comes; returns the exit status."""
    from flows.runners import scheduler_address
    from pipeline.journal import start_journal
    from pipeline.service.serve import Service
    from pipeline.survey import open_store

    start_journal(options.home / "logs")
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(open_store(options.catalogue))
        address = stack.enter_context(scheduler_address(detection.cluster))
        if retry:
            print(f"{requeue_failed(store)} failed observations are queued again", flush=True)
        service = Service(
            options, store, detect=detection.with_changes(cluster=address), classify=classification
        )  # fmt: skip
        _stop_on_signals(service)
        _say_start(service)
        if pages is not None:
            print(f"the survey's pages: {stack.enter_context(_show_pages(service, **pages))}", flush=True)
        tally = service.run()
    print(describe(tally), flush=True)
    return 2 if tally.failed + tally.quarantined + tally.refused and options.once else 0


def _show_pages(
    service: Service, *, listen: str | None, token_file: Path | None, hosts: list[str]
) -> contextlib.AbstractContextManager[str]:
    from flows.http import make_app
    from flows.http.running import bind, read_token, serve_beside

    secret, bound = read_token(token_file), bind(listen)
    app = make_app(service.store.url, token=secret, inbox=service.options.inbox, hosts=hosts)
    return serve_beside(app, bound)


def requeue_failed(store: Any) -> int:
    """Put all failed observations back into the queue; returns how many."""
    failed = store.observations(state="failed")
    for observation in failed:
        store.requeue(observation["id"])
    return len(failed)


def describe(tally: Tally) -> str:
    """One line on what was done."""
    counts = {
        "failed": tally.failed, "put aside": tally.quarantined + tally.refused, "known already": tally.duplicates,
        "cut short that may still grow": tally.waiting,
    }  # fmt: skip
    more = [f"{count} {name}" for name, count in counts.items() if count]
    return ", ".join([f"{tally.arrived} arrived", f"{tally.done} done ({tally.rows} rows)", *more])


def _stop_on_signals(service: Service) -> None:
    def stop(number: int, frame: Any) -> None:
        print("skysift: stopping: what is under way is finished first; once more to hand it back", file=sys.stderr)
        service.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _say_start(service: Service) -> None:
    options, number = service.options, len(service.helpers)
    watched = "the queue only" if options.inbox is None else str(options.inbox)
    print(
        f"serving {watched} with {number} worker{'' if number == 1 else 's'}; catalogue {service.store.place}; "
        f"results in {options.results_folder}; stop with Ctrl-C",
        flush=True,
    )
