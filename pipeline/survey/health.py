"""What there is to see of a store's health without opening it for work: nothing is made, migrated or changed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from .database import Database
from .migrations import LATEST, require_known
from .queue import LEASE
from .schema import observation

__all__ = ["Health", "look_at"]


@dataclass(frozen=True)
class Health:
    """How a store is.

    Attributes
    ----------
    place : str
        The database, without a password.
    version, latest : int
        Of its tables, 0 for none; and that this skysift knows. What follows is only known where they are the same.
    damage : str
        What SQLite finds wrong in its file; a server looks after its own.
    ahead : float
        Seconds by which this machine's clock is ahead of the database's.
    states : dict
        Number of observations by state.
    silent : list of str
        Observations that are worked on by somebody who has given no sign of life for too long: id and worker.
    busy : int
        Observations that are really worked on.
    oldest : str or None
        Since when the first observation of the queue waits.
    waits : float
        Seconds of that.
    """

    place: str
    version: int
    latest: int = LATEST
    damage: str = ""
    ahead: float = 0.0
    states: dict[str, int] | None = None
    silent: tuple[str, ...] = ()
    busy: int = 0
    oldest: str | None = None
    waits: float = 0.0


def look_at(url: str, *, patience: float = 3.0) -> Health:
    """Look at a store that is there.

    Parameters
    ----------
    url : str
        As `open_store` takes it.
    patience : float
        Seconds to wait for a server that is away.

    Raises
    ------
    OptionError, StoreError
        When there is no such database, it is damaged too much to be opened, or a newer skysift's.
    """
    with Database(url, patience=patience) as database:
        version = database.schema_version()
        require_known(version, database.place)
        damage = database.read(_damage)
        ahead = database.read(lambda connection: _ahead(connection, database))
        if version != LATEST or damage:
            return Health(database.place, version, damage=damage, ahead=ahead)
        return database.read(lambda connection: _queue(connection, database, ahead))


def _damage(connection: Connection) -> str:
    if connection.dialect.name != "sqlite":
        return ""
    said = connection.exec_driver_sql("PRAGMA quick_check(3)").scalars().all()
    return "" if said == ["ok"] else "; ".join(map(str, said))


def _ahead(connection: Connection, database: Database) -> float:
    before = time.time()
    theirs = datetime.fromisoformat(database.now(connection)).timestamp()
    return (before + time.time()) / 2 - theirs


def _queue(connection: Connection, database: Database, ahead: float) -> Health:
    o = observation.c
    counted = connection.execute(sa.select(o.state, sa.func.count()).group_by(o.state))
    states = {state: count for state, count in counted}
    now = database.now(connection)
    running = connection.execute(sa.select(o.id, o.worker, o.heartbeat).where(o.state == "running")).all()
    silent = tuple(
        f"{one.id} ({one.worker})" for one in running if one.heartbeat and _seconds(one.heartbeat, now) > LEASE
    )
    oldest = connection.execute(sa.select(sa.func.min(o.arrived)).where(o.state == "arrived")).scalar()
    return Health(
        database.place, LATEST, ahead=ahead, states=states, silent=silent, busy=len(running) - len(silent),
        oldest=oldest, waits=0.0 if oldest is None else _seconds(oldest, now),
    )  # fmt: skip


def _seconds(since: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()
