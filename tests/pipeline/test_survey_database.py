"""What goes wrong with databases, each for real: one clear line, or the work done after all."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from pipeline.survey import StoreError, SurveyStore, migrations, open_store
from pipeline.survey.migrations import LATEST, MIGRATIONS, Migration
from pipeline.survey.schema import metadata
from survey_io.errors import OptionError
from tests.forks import fork, wait

# Forked children are cheap; later Pythons warn of forking beside threads, of which these do nothing.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def store(store_url: str) -> SurveyStore:
    with open_store(store_url) as store:
        yield store


def columns(store: SurveyStore) -> dict[str, set[str]]:
    def work(connection: sa.Connection) -> dict[str, set[str]]:
        inspector = sa.inspect(connection)
        return {name: {one["name"] for one in inspector.get_columns(name)} for name in inspector.get_table_names()}

    return store.read(work)


def test_the_migrations_make_the_tables_of_the_schema(store: SurveyStore) -> None:
    wanted = {table.name: {column.name for column in table.columns} for table in metadata.tables.values()}
    assert columns(store) == wanted | {"schema_version": {"version", "applied"}}
    assert [step.version for step in MIGRATIONS] == list(range(1, LATEST + 1))


def test_back_and_forward_keeps_what_was_recorded(store: SurveyStore) -> None:
    number, _ = store.enqueue("/in/a", sha256="a")
    assert store.migrate(1) == list(range(LATEST - 1, 0, -1))
    assert "object" not in columns(store)
    assert "object_id" not in columns(store)["source"]
    with open_store(store.url) as again:
        # Opened by this version it comes forward by itself.
        assert again.schema_version() == LATEST
        assert again.observation(number)["path"] == "/in/a"
        assert again.migrate() == []
        assert again.check()["problems"] == []
    with pytest.raises(OptionError, match="holds observations"):
        store.migrate(0)
    store.write(lambda connection: connection.exec_driver_sql("DELETE FROM observation"))
    assert store.migrate(0) == list(range(LATEST - 1, -1, -1))
    assert set(columns(store)) == {"schema_version"}
    assert store.migrate() == list(range(1, LATEST + 1))


def test_a_migration_that_fails_leaves_the_version_before(store: SurveyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.enqueue("/in/a", sha256="a")
    before = columns(store)
    bad = Migration(LATEST + 1, ("ALTER TABLE observation ADD COLUMN extra TEXT", "CREATE TABLE nonsense ("), ())
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, bad))
    monkeypatch.setattr(migrations, "LATEST", LATEST + 1)
    with pytest.raises(StoreError, match="the database refused"):
        store.migrate(LATEST + 1)
    assert store.schema_version() == LATEST
    assert columns(store) == before


def test_a_newer_skysifts_store_is_refused(store: SurveyStore) -> None:
    newer = "INSERT INTO schema_version VALUES (99, '2030-01-01T00:00:00.000Z')"
    store.write(lambda connection: connection.exec_driver_sql(newer))
    with pytest.raises(StoreError, match=f"version {LATEST} or older, got version 99, which a newer skysift made"):
        open_store(store.url)
    with pytest.raises(StoreError, match=f"migrate --to {LATEST}"):
        store.migrate()


def test_somebody_elses_tables_are_left_alone(store_url: str, tmp_path: Path) -> None:
    with SurveyStore(store_url) as store:
        store.require_place(create=True)
        store.write(lambda connection: connection.exec_driver_sql("CREATE TABLE observation (name TEXT)"))
        with pytest.raises(StoreError, match="got one with other tables"):
            open_store(store_url)
        assert columns(store) == {"observation": {"name"}}


def test_processes_that_open_a_new_store_at_once(store_url: str) -> None:
    assert wait([fork(_open, store_url) for _ in range(4)]) == [0] * 4
    with open_store(store_url, create=False) as store:
        assert store.check()["problems"] == []


def _open(url: str) -> None:
    with open_store(url) as store:
        assert store.schema_version() == LATEST


def test_addresses_that_are_none(tmp_path: Path) -> None:
    for url, words in (
        ("mysql://user@host/db", "expected a folder, sqlite:///FILE or postgresql"),
        ("://", "expected a folder"), ("sqlite://", "got no file"), ("sqlite:///:memory:", "got no file"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=words):
            open_store(url)
    with pytest.raises(StoreError, match="there is none"):
        open_store(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be made: Not a directory"):
        open_store(tmp_path / "file" / "store")


def test_the_default_is_a_folder_or_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKYSIFT_CATALOGUE", raising=False)
    with open_store() as store:
        assert (store.place, store.folder) == (str(tmp_path / "skysift_survey/survey.db"), tmp_path / "skysift_survey")
    monkeypatch.setenv("SKYSIFT_CATALOGUE", f"sqlite:///{tmp_path}/other/mine.db")
    with open_store() as store:
        assert (store.place, store.folder) == (str(tmp_path / "other/mine.db"), tmp_path / "other")


def test_files_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to look like a file of some kind\n" * 40)
    with pytest.raises(StoreError, match="text.db: expected a survey's store .SQLite., got a file that is not"):
        open_store(tmp_path / "text.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreError, match="cannot be opened or made"):
        open_store(f"sqlite:///{tmp_path}/folder.db")


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for number in range(300):
            store.enqueue("/in/" + "x" * 300, sha256=str(number))
    with open(tmp_path / "survey.db", "r+b") as file:
        file.seek(8192)
        file.write(b"\x5a" * 60_000)
    with pytest.raises(StoreError, match="damaged"):
        open_store(tmp_path).observations()


def test_a_full_disk_records_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        # SQLite's own limit gives the error of a full disk, without one.
        full = event.listens_for(store._engine, "begin")
        full(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 60"))
        with pytest.raises(StoreError, match="the disk is full: nothing of this was recorded"):
            store.write(lambda connection: [_add(connection, number) for number in range(2000)])
        assert store.counts()["observations"]["arrived"] == 0
        assert store.enqueue("/in/a", sha256="a") == (1, True)


def _add(connection: sa.Connection, number: int) -> None:
    row = {"sha256": str(number), "name": "n" * 500, "path": "p" * 500, "arrived": "t"}
    connection.execute(sa.text("INSERT INTO observation (sha256, name, path, arrived) "
                               "VALUES (:sha256, :name, :path, :arrived)"), row)  # fmt: skip


def test_a_lock_that_is_held_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.survey.database.BUSY", 0.1)
    with open_store(tmp_path, patience=0.5) as store:
        holder = sqlite3.connect(tmp_path / "survey.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another process for too long") as caught:
            store.enqueue("/in/a", sha256="a")
        assert caught.value.fields["passing"]
        # Who reads waits for nobody.
        assert store.counts()["observations"]["arrived"] == 0
        holder.rollback()
        holder.close()
        assert store.enqueue("/in/a", sha256="a") == (1, True)


def test_a_forked_child_has_connections_of_its_own(store: SurveyStore) -> None:
    store.enqueue("/in/a", sha256="a")
    children = [fork(_child, store, number) for number in range(2)]
    store.enqueue("/in/b", sha256="b")
    assert wait(children) == [0, 0]
    assert store.counts()["observations"]["arrived"] == 4


def _child(store: SurveyStore, number: int) -> None:
    store.enqueue(f"/in/child{number}", sha256=f"child{number}")


def test_a_server_that_dies_in_the_middle_comes_back(postgres_server: Any, postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        store.enqueue("/in/a", sha256="a")
        tries = []

        def work(connection: sa.Connection) -> int:
            connection.execute(sa.text("UPDATE observation SET state = 'done'"))
            tries.append(time.monotonic())
            if len(tries) == 1:
                postgres_server.stop(kill=True)
                threading.Timer(0.5, postgres_server.start).start()
            return connection.execute(sa.text("UPDATE observation SET attempts = attempts + 1")).rowcount

        assert store.write(work) == 1
        assert len(tries) == 2
        seen = store.observation(1)
        # Once: the first try went with the server.
        assert (seen["state"], seen["attempts"]) == ("done", 1)


def test_a_server_that_restarts_between_two_uses(postgres_server: Any, postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        store.enqueue("/in/a", sha256="a")
        postgres_server.stop()
        postgres_server.start()
        assert store.claim("w")["id"] == 1


def test_a_server_that_stays_away_is_said_in_time(postgres_server: Any, postgres_url: str) -> None:
    with open_store(postgres_url, patience=1.0) as store:
        postgres_server.stop()
        try:
            began = time.monotonic()
            with pytest.raises(StoreError, match="the database is away or busy .*check that its server runs") as caught:
                store.enqueue("/in/a", sha256="a")
            assert caught.value.fields["passing"]
            with pytest.raises(StoreError, match="away or busy"):
                open_store(postgres_url, patience=0.3)
            assert time.monotonic() - began < 8
        finally:
            postgres_server.start()
        assert store.enqueue("/in/a", sha256="a") == (1, True)


def test_a_server_that_lets_nobody_in(postgres_url: str) -> None:
    for url, words in (
        (postgres_url.replace("skysift@", "nobody:secret@"), 'role "nobody" does not exist'),
        (postgres_url.replace("/survey", "/other"), "does not exist"),
    ):
        began = time.monotonic()
        with pytest.raises(StoreError, match=words) as caught:
            open_store(url)
        # No patience with what does not pass, and no passwords in messages.
        assert time.monotonic() - began < 5
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_account_that_may_only_read(postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        role = f"reader_of_{sa.make_url(postgres_url).database}"

        def work(connection: sa.Connection) -> None:
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
            connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")

        store.write(work)
    with open_store(postgres_url.replace("skysift@", f"{role}@")) as store:
        assert store.counts()["runs"] == 0
        with pytest.raises(StoreError, match="this account may not do that .*permission denied for table observation"):
            store.enqueue("/in/a", sha256="a")
