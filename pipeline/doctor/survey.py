"""The survey's catalogue: does it answer, is it of this version and whole, does its queue move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from survey_io.errors import SkysiftError

from .finding import FAIL, OK, WARN, Finding, Place
from .machine import check_clock, check_places

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Seconds without a sign of life after which a worker's observation is another's, and after which a queue is stuck.
LEASE, STUCK = 60.0, 3600.0
_PATIENCE = 3.0


def check_catalogue(url: str | None) -> Iterator[Finding]:
    """Look at the catalogue without making or changing it.

    Parameters
    ----------
    url : str or None
        As `pipeline.survey.open_store` takes it; None is no catalogue, which is no fault.
    """
    from pipeline.survey.database import FILE, Database

    if url is None:
        yield Finding("catalogue", OK, "none named (--catalogue, SKYSIFT_CATALOGUE)")
        return
    if "://" not in url:
        yield from check_places([Place("catalogue", Path(url) if not Path(url).is_file() else Path(url).parent)])
        if not Path(url).is_file() and not (Path(url) / FILE).is_file():
            yield Finding("catalogue", OK, f"{url}: none there yet, the first run makes it")
            return
    try:
        with Database(url, patience=_PATIENCE) as database:
            yield from _look(database)
    except SkysiftError as error:
        text, _, advice = error.message.rpartition("; ")
        yield Finding("catalogue", FAIL, text or advice, advice if text else "see deploy/README.md, Restore")


def _look(database: Any) -> Iterator[Finding]:
    from pipeline.survey.migrations import LATEST, require_known

    version = database.schema_version()
    require_known(version, database.place)
    text = f"{database.place}: schema version {version}"
    if version == 0:
        yield Finding("catalogue", OK, f"{text}: empty, the first run makes its tables")
        return
    if version < LATEST:
        advice = "back up, then 'skysift survey migrate'; a run does it by itself"
        yield Finding("catalogue", WARN, f"{text}, this skysift has {LATEST}", advice)
    else:
        yield Finding("catalogue", OK, text)
    fault = database.read(_fault)
    if fault:
        advice = "stop the service and put back a copy"
        yield Finding("catalogue", FAIL, f"{database.place} is damaged: {fault}", advice)
        return
    yield from check_clock({"the catalogue's database": database.read(lambda connection: _ahead(connection, database))})
    yield from database.read(lambda connection: list(_queue(connection, database)))


def _fault(connection: Connection) -> str:
    """What SQLite finds wrong in its file; a server looks after its own."""
    if connection.dialect.name != "sqlite":
        return ""
    rows = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
    return "" if rows == ["ok"] else "; ".join(map(str, rows))


def _ahead(connection: Connection, database: Any) -> float:
    """Seconds by which this machine's clock is ahead of the database's."""
    import time
    from datetime import datetime

    before = time.time()
    theirs = datetime.fromisoformat(database.now(connection)).timestamp()
    return (before + time.time()) / 2 - theirs


def _queue(connection: Connection, database: Any) -> Iterator[Finding]:
    import sqlalchemy as sa

    from pipeline.survey.schema import observation

    columns = observation.c
    counted = sa.select(columns.state, sa.func.count()).group_by(columns.state)
    states = {state: count for state, count in connection.execute(counted)}
    text = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no observation yet"
    now = database.now(connection)
    beats = sa.select(columns.id, columns.heartbeat, columns.worker).where(columns.state == "running")
    running = connection.execute(beats).all()
    silent = [one for one in running if one.heartbeat and _seconds(one.heartbeat, now) > LEASE]
    if silent:
        names = ", ".join(f"{one.id} ({one.worker})" for one in silent[:5])
        advice = "a running service takes them over by itself: start 'skysift serve'"
        yield Finding("queue", WARN, f"{len(silent)} observations whose worker is silent: {names}", advice)
    oldest = connection.execute(sa.select(sa.func.min(columns.arrived)).where(columns.state == "arrived")).scalar()
    waits = 0.0 if oldest is None else _seconds(oldest, now)
    if waits > STUCK and len(running) == len(silent):
        advice = "start 'skysift serve', or read its log: nothing is being worked on"
        yield Finding("queue", FAIL, f"stuck: the oldest of {states['arrived']} waits since {oldest}", advice)
    failed = states.get("failed", 0) + states.get("quarantined", 0)
    if failed:
        advice = "the reasons are in the catalogue and beside the files in the quarantine folder"
        yield Finding("queue", WARN, text, advice)
    else:
        yield Finding("queue", OK, text)


def _seconds(since: str, now: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()
