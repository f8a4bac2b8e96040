"""What the doctor says of a survey's catalogue: none, empty, older, newer, damaged, stuck, out of reach."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline.doctor import FAIL, OK, WARN, survey
from pipeline.doctor.survey import check_catalogue
from pipeline.survey import open_store
from pipeline.survey.database import Database
from pipeline.survey.migrations import LATEST
from pipeline.survey.schema import observation


def look(url: str | None) -> dict[str, list]:
    found: dict[str, list] = {}
    for one in check_catalogue(url):
        found.setdefault(one.check, []).append(one)
    return found


def change(url: str, **values: object) -> None:
    with Database(url) as database:
        database.write(lambda connection: connection.execute(sa.update(observation).values(**values)))


def test_no_catalogue_and_none_yet(tmp_path: Path) -> None:
    assert look(None)["catalogue"][0].status == OK
    assert "none there yet" in look(str(tmp_path / "survey"))["catalogue"][0].found
    assert list(tmp_path.iterdir()) == []


def test_a_catalogue_at_work(store_url: str) -> None:
    with open_store(store_url) as store:
        assert look(store_url)["queue"][0].found == "no observation yet"
        first, _ = store.enqueue("a.fits", sha256="a")
        store.enqueue("b.fits", sha256="b")
        store.claim("worker 1")
    found = look(store_url)
    assert f"schema version {LATEST}" in found["catalogue"][0].found
    assert [one.status for one in found["clock"]] == [OK] and found["queue"][0].status == OK
    # Its worker has died, hours ago, and nobody works on the next.
    change(store_url, heartbeat="2026-01-01T00:00:00.000Z", arrived="2026-01-01T00:00:00.000Z")
    silent, stuck, counts = look(store_url)["queue"]
    assert silent.status == WARN and f"{first} (worker 1)" in silent.found
    assert stuck.status == FAIL and "stuck" in stuck.found and "skysift serve" in stuck.advice
    assert counts.found == "1 arrived, 1 running"
    with open_store(store_url) as store:
        store.quarantine(first, "no header")
    assert look(store_url)["queue"][-1].status == WARN


def test_other_versions_of_the_schema(store_url: str) -> None:
    open_store(store_url).close()
    with Database(store_url) as database:
        database.migrate(LATEST - 1)
    found = look(store_url)["catalogue"][-1]
    assert found.status == WARN and f"version {LATEST - 1}, this skysift has {LATEST}" in found.found
    with Database(store_url) as database:
        assert database.schema_version() == LATEST - 1
        database.migrate()
        mark = sa.text("INSERT INTO schema_version (version, applied) VALUES (99, 'tomorrow')")
        database.write(lambda connection: connection.execute(mark))
    found = look(store_url)["catalogue"][-1]
    assert found.status == FAIL and "version 99" in found.found and "skysift" in found.advice


def test_a_damaged_file(tmp_path: Path) -> None:
    folder = tmp_path / "survey"
    with open_store(folder) as store:
        for number in range(3000):
            store.enqueue(f"{number}.fits", sha256=str(number)) if number % 1000 == 0 else None
        fill = sa.text(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) INSERT INTO observation "
            "(sha256, name, path, arrived) SELECT 'x' || i, 'name', 'path', '2026-01-01T00:00:00.000Z' FROM n"
        )
        store.write(lambda connection: connection.execute(fill))
    file = folder / "survey.db"
    whole = file.read_bytes()
    middle = len(whole) // 2 // 4096 * 4096
    file.write_bytes(whole[:middle] + b"\x07" * 8192 + whole[middle + 8192 :])
    found = look(str(folder))["catalogue"][-1]
    assert found.status == FAIL and "damaged" in found.found and "copy" in found.advice
    file.write_bytes(b"not a database, but long enough to be looked at" * 100)
    found = look(str(folder))["catalogue"][-1]
    assert found.status == FAIL and "not a database" in found.found


def test_a_database_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "PATIENCE", 0.2)
    found = look("postgresql://nobody:secret@127.0.0.1:9/none")["catalogue"][-1]
    assert found.status == FAIL and "secret" not in found.found + found.advice
    assert look("mysql://here")["catalogue"][-1].status == FAIL


def test_it_leaves_a_catalogue_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "survey"
    open_store(folder).close()
    shutil.copytree(folder, tmp_path / "copy")
    look(str(folder))
    assert {one.name for one in folder.iterdir()} == {one.name for one in (tmp_path / "copy").iterdir()}
    assert (folder / "survey.db").read_bytes() == (tmp_path / "copy" / "survey.db").read_bytes()
