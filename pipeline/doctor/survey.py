"""The survey's catalogue: does it answer, is it of this version and whole, does its queue move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from survey_io.errors import SkysiftError

from .finding import FAIL, OK, WARN, Finding, Place
from .machine import check_clock, check_places

# Seconds after which a queue that nobody works on is stuck, and to wait for a server.
STUCK, PATIENCE = 3600.0, 3.0


def check_catalogue(url: str | None) -> Iterator[Finding]:
    """Look at the catalogue without making or changing it.

    Parameters
    ----------
    url : str or None
        As `pipeline.survey.open_store` takes it; None is no catalogue, which is no fault.
    """
    from pipeline.survey.database import FILE
    from pipeline.survey.health import look_at

    if url is None:
        yield Finding("catalogue", OK, "none named (--catalogue, SKYSIFT_CATALOGUE)")
        return
    if "://" not in url:
        folder = Path(url).parent if Path(url).is_file() else Path(url)
        yield from check_places([Place("catalogue", folder)])
        if not Path(url).is_file() and not (folder / FILE).is_file():
            yield Finding("catalogue", OK, f"{url}: none there yet, the first run makes it")
            return
    try:
        health = look_at(url, patience=PATIENCE)
    except SkysiftError as error:
        text, _, advice = error.message.rpartition("; ")
        yield Finding("catalogue", FAIL, text or advice, advice if text else "see Restore in deploy/README.md")
        return
    text = f"{health.place}: schema version {health.version}"
    if health.damage:
        advice = "stop the service and put back a copy"
        yield Finding("catalogue", FAIL, f"{text}, damaged: {health.damage}", advice)
    elif health.version == 0:
        yield Finding("catalogue", OK, f"{text}: empty, the first run makes its tables")
    elif health.version < health.latest:
        advice = "back up, then 'skysift survey migrate'; a run does it by itself"
        yield Finding("catalogue", WARN, f"{text}, this skysift has {health.latest}", advice)
    else:
        yield Finding("catalogue", OK, text)
    yield from check_clock({"the catalogue's database": health.ahead})
    if health.states is None:
        return
    if health.silent:
        advice = "a running service takes them over by itself: start 'skysift serve'"
        names = ", ".join(health.silent[:5])
        yield Finding("queue", WARN, f"{len(health.silent)} whose worker is silent: {names}", advice)
    if health.waits > STUCK and not health.busy:
        advice = "start 'skysift serve', or read its log: nothing is being worked on"
        count = health.states["arrived"]
        yield Finding("queue", FAIL, f"stuck: the oldest of {count} waits since {health.oldest}", advice)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(health.states.items())) or "no observation yet"
    if health.states.get("failed", 0) + health.states.get("quarantined", 0):
        advice = "the reasons are in the catalogue, and beside the files that were put aside"
        yield Finding("queue", WARN, counts, advice)
    else:
        yield Finding("queue", OK, counts)
