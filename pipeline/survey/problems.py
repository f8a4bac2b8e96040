"""What can go wrong with a database, in one line each, and which of it passes by itself."""

from __future__ import annotations

import sqlite3
from typing import Any

from survey_io.errors import OutputError

__all__ = ["StoreError", "explain", "is_passing"]


class StoreError(OutputError):
    """The survey's store cannot be used, or not now.

    ``fields["passing"]`` is True where trying again later can help: the database is away or busy.
    """


# SQLSTATE classes and codes of PostgreSQL after which the whole transaction may be tried again: connection lost, server
# stops or starts, too many connections, serialisation, deadlock, lock not available.
_PASSING = ("08", "57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03")
# Refusals that come without a code, at the door: no time heals them.
_REFUSED = (
    "authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied", "could not translate",
    "failed to resolve", "not known", "permission denied for database", "invalid connection option",
)  # fmt: skip


def _driver_error(error: BaseException) -> Any:
    return getattr(error, "orig", None) or error


def is_passing(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is tried again."""
    driver = _driver_error(error)
    if isinstance(driver, sqlite3.Error):
        return str(getattr(driver, "sqlite_errorname", "")).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
    state = getattr(driver, "sqlstate", None)
    if state:
        return state.startswith(_PASSING)
    # Without a code the connection itself is lost or did not come about.
    text = str(driver).lower()
    return type(driver).__name__ in ("OperationalError", "InterfaceError", "ConnectionTimeout") and not any(
        word in text for word in _REFUSED
    )


def explain(error: BaseException, place: str) -> StoreError:
    """One line for what a database said.

    Parameters
    ----------
    error : Exception
        Of SQLAlchemy or of the driver.
    place : str
        The database, without a password.
    """
    driver = _driver_error(error)
    said = " ".join(str(driver).split())[:300]
    passing = is_passing(error)
    if isinstance(driver, sqlite3.Error):
        what = _sqlite_words(str(getattr(driver, "sqlite_errorname", "")), said)
    else:
        what = _postgres_words(getattr(driver, "sqlstate", None) or "", said, passing)
    return StoreError(f"{place}: {what}", passing=passing)


def _sqlite_words(name: str, said: str) -> str:
    known = {
        "SQLITE_NOTADB": "expected a survey's store (SQLite), got a file that is not a database; give another with "
        "--catalogue",
        "SQLITE_CORRUPT": "the database is damaged; put back a copy, or record the observations again into a new one",
        "SQLITE_FULL": "the disk is full: nothing of this was recorded; make room and run again",
        "SQLITE_READONLY": "expected a store that can be written, it is read-only; check its permissions and its disk",
        "SQLITE_PERM": "no permission to use the database; check who owns its folder",
        "SQLITE_CANTOPEN": "the database cannot be opened or made; check that its folder exists and can be written",
        "SQLITE_BUSY": "the database is locked by another process for too long; stop what holds it, then run again",
        "SQLITE_LOCKED": "the database is locked by another process for too long; stop what holds it, then run again",
        "SQLITE_IOERR": "the disk does not read or write (full, a quota, or broken): nothing of this was recorded; "
        "check it and run again",
    }
    for code, words in known.items():
        if name.startswith(code):
            return words
    return f"the database refused: {said}"


def _postgres_words(state: str, said: str, passing: bool) -> str:
    if state.startswith(("53100",)):
        return "the database's disk is full: nothing of this was recorded; make room and run again"
    if state == "25006" or "during recovery" in said:
        return "expected a database that can be written, it is read-only; give the address of the primary server"
    if state == "42501":
        return f"this account may not do that ({said}); grant it the rights on the schema"
    if state in ("28P01", "28000", "3D000"):
        return f"the database let nobody in ({said}); check user, password and database in the URL"
    if passing:
        return f"the database is away or busy ({said}); check that its server runs, then run again"
    if not state:
        return f"the database cannot be reached ({said}); check host, user, password and database in the URL"
    return f"the database refused ({state}): {said}"
