"""What is kept, and whether it is whole."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from survey_io.errors import OptionError

from .associate import associate, pending
from .migrations import LATEST, version_of
from .reading import Reading
from .schema import run, source

__all__ = ["Retention"]


class Retention(Reading):
    """Deletes what nobody needs any more, and checks the rest."""

    def forget(
        self, *, before: str | date | datetime, keep_current: bool = True, dry_run: bool = False
    ) -> dict[str, int]:
        """Delete the runs, and their sources, that were recorded before a date.

        Parameters
        ----------
        before : str, date or datetime
            ``YYYY-MM-DD``, or with a time; UTC where it says nothing else.
        keep_current : bool
            Only those that were superseded.
        dry_run : bool
            Only say how many they are.

        Returns
        -------
        dict of int
            ``runs`` and ``sources``.

        Raises
        ------
        OptionError
            When the date is none.
        """
        limit = _stamp(before)
        old = run.c.recorded < limit
        if keep_current:
            old = sa.and_(old, sa.not_(run.c.current))

        def work(connection: Connection) -> dict[str, int]:
            # Whoever makes a run current again waits, or finds it gone: the rows stay locked.
            query = sa.select(run.c.id, run.c.observation_id, run.c.rows).where(old)
            found = connection.execute(query if dry_run else query.with_for_update()).all()
            if not dry_run:
                for one in found:
                    mine = source.c.run_id == one.id
                    connection.execute(sa.update(run).where(run.c.id == one.id).values(current=False))
                    connection.execute(sa.update(source).where(mine, source.c.current).values(current=False))
                    # Sources of others may belong together otherwise without these.
                    associate(connection, one.observation_id)
                    connection.execute(sa.delete(source).where(mine))
                    connection.execute(sa.delete(run).where(run.c.id == one.id))
            return {"runs": len(found), "sources": sum(int(one.rows) for one in found)}

        counts = self.read(work) if dry_run else self.write(work)
        if counts["runs"] and not dry_run and not self.is_postgres:
            # The rows' pages go back to the disk; the transaction before has said which are free.
            self.write(_shrink)
        return counts

    def check(self) -> dict[str, Any]:
        """Whether the store is whole.

        Returns
        -------
        dict
            ``version`` (of the tables), ``latest`` (that this skysift knows), ``database`` (name and version of the
            software), ``problems`` (list of str, empty when all is well).
        """

        def work(connection: Connection) -> dict[str, Any]:
            version = version_of(connection)
            software = "SELECT sqlite_version()" if not self.is_postgres else "SHOW server_version"
            name = "PostgreSQL" if self.is_postgres else "SQLite"
            found = {
                "version": version, "latest": LATEST,
                "database": f"{name} {connection.exec_driver_sql(software).scalar()}", "problems": [],
            }  # fmt: skip
            if version != LATEST:
                found["problems"].append(f"schema version {version} instead of {LATEST}: skysift survey migrate")
                return found
            found["problems"] += _problems(connection)
            return found

        return self.read(work)


def _shrink(connection: Connection) -> None:
    # SQLite frees one page for every step of this statement: all steps have to be asked for.
    connection.connection.driver_connection.execute("PRAGMA incremental_vacuum").fetchall()


def _problems(connection: Connection) -> list[str]:
    problems = []
    if connection.dialect.name == "sqlite":
        said = connection.exec_driver_sql("PRAGMA quick_check(5)").scalars().all()
        problems += [f"SQLite: {line}" for line in said if line != "ok"]
    counted = sa.func.sum(sa.case((source.c.current, 1), else_=0))
    rows = sa.select(source.c.run_id, sa.func.count().label("n"), counted.label("c"))
    rows = rows.group_by(source.c.run_id).subquery()
    query = sa.select(run.c.id, run.c.rows, run.c.current, rows.c.n, rows.c.c)
    for id, wanted, current, count, marked in connection.execute(query.outerjoin(rows, rows.c.run_id == run.c.id)):
        count, marked = int(count or 0), int(marked or 0)
        if count != wanted:
            problems.append(f"run {id}: {wanted} sources were recorded, {count} are there")
        if marked != (count if current else 0):
            word = "does" if current else "does not"
            problems.append(f"run {id}: {marked} of {count} sources count, the run itself {word}")
    problems += [f"observation {one}: its sources are not joined with those of others" for one in pending(connection)]
    return problems


def _stamp(moment: str | date | datetime) -> str:
    """A moment as the store writes times."""
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        if not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day)
    except ValueError:
        raise OptionError(f"expected a date such as 2026-01-31 or 2026-01-31T12:00:00Z, got {moment!r}") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
