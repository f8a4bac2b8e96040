"""The run-book's commands of operation do what they say: a catalogue is backed up, lost, restored; alarms are known."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline import metrics
from pipeline.survey import open_store
from pipeline.survey.migrations import LATEST
from survey_io.columns import make_table

ROOT = Path(__file__).resolve().parents[1]
RUN_BOOK = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
ALARMS = yaml.safe_load((ROOT / "deploy" / "alarms.yaml").read_text(encoding="utf-8"))
BIN = Path(sys.executable).parent


def block(section: str, number: int) -> str:
    """The indented lines of the n-th block of commands of a section."""
    text = RUN_BOOK.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n?)+", text, re.M)
    return re.sub(r"^    ", "", blocks[number], flags=re.M)


def run(script: str, folder: Path, **environment: str) -> str:
    """Run commands of the run-book with a folder in place of the machine's own."""
    for place in ("/srv", "/backup"):
        script = script.replace(place, f"{folder}{place}")
    done = subprocess.run(
        ["sh", "-euc", script], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def fill(url: str | Path, names: str) -> None:
    with open_store(url) as store:
        for name in names:
            said = {"input": {"path": f"/inbox/{name}.fits", "shape": [9, 9], "sha256": name * 64}, "options": {}}
            store.record(said, make_table({"ra": np.array([10.0]), "dec": np.array([-30.0])}))


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    for place in ("srv/survey", "srv/inbox", "backup"):
        (tmp_path / place).mkdir(parents=True)
    return tmp_path


def test_an_sqlite_catalogue_is_backed_up_and_restored(machine: Path) -> None:
    place = machine / "srv" / "survey"
    fill(place, "ab")
    with open_store(place) as store:
        # The service runs on, with work in its log that is not in the file yet.
        assert (place / "survey.db-wal").exists()
        run(block("Back up and restore", 0), machine)
        assert store.counts()["runs"] == 2
    fill(place, "c")
    (place / "survey.db").write_bytes(b"broken" * 1000)
    said = run(block("Back up and restore", 1), machine)
    assert "runs: 2, of which 2 count" in said and "problem" not in said


def test_a_postgresql_catalogue_is_backed_up_and_restored(machine: Path, postgres_server: Any) -> None:
    url = postgres_server.database()
    fill(url, "ab")
    backup, restore = block("Back up and restore", 2).splitlines()
    tools = str(Path(postgres_server._programs))
    environment = {"SKYSIFT_CATALOGUE": url, "PATH": f"{tools}:{BIN}:{os.environ['PATH']}"}
    run(backup, machine, **environment)
    fill(url, "c")
    with open_store(url) as store:
        store.forget(before="2999-01-01", keep_current=False)
        assert store.counts()["runs"] == 0
    run(restore, machine, **environment)
    with open_store(url) as store:
        assert store.counts()["runs"] == 2 and store.check()["problems"] == []


def test_the_schema_goes_back_and_forward(machine: Path) -> None:
    place = machine / "srv" / "survey"
    fill(place, "a")
    lines = [line for line in block("Upgrade, roll back", 1).splitlines() if line.startswith("skysift")]
    environment = {"SKYSIFT_CATALOGUE": str(place)}
    said = run("\n".join(lines), machine, **environment)
    assert f"schema version {LATEST}" in said
    forward = [line for line in block("Upgrade, roll back", 0).splitlines() if line.startswith("skysift survey")]
    run("\n".join(forward), machine, **environment)
    with open_store(place) as store:
        assert store.schema_version() == LATEST and store.counts()["runs"] == 1


def test_logs_and_retention(machine: Path) -> None:
    from pipeline.journal import JsonLines, SharedFile, observation_context

    place = machine / "srv" / "survey"
    fill(place, "a")
    (place / "logs").mkdir()
    file = SharedFile(place / "logs")
    for number in (1, 12, 120):
        with observation_context(observation=number):
            file.emit(logging.LogRecord("pipeline", logging.INFO, "", 0, f"begun {number}", (), None))
    file.close()
    assert isinstance(file.formatter, JsonLines)
    said = run(block("Watch", 0), machine)
    assert said.count("\n") == 1 and "begun 12" in said
    assert "removed 0" in run(block("Retention", 0), machine)
    for words in re.findall(r"`(skysift (?:clean|survey) [^`]*)`", RUN_BOOK.partition("\n## Retention\n")[2]):
        if "<" not in words:
            run(words, machine, SKYSIFT_CATALOGUE=str(place))


def test_secrets_are_made_as_the_run_book_says(machine: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    script = block("Run a survey", 1).replace("/etc/skysift", f"{machine}/skysift")
    run("\n".join(line for line in script.splitlines() if "docker" not in line), machine)
    made = {one.name: one.read_text().strip() for one in (machine / "skysift" / "secrets").iterdir()}
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    assert made.keys() == compose["secrets"].keys()
    assert len(set(made.values())) == 4 and min(len(one) for one in made.values()) > 30
    assert (machine / "skysift" / "secrets").stat().st_mode & 0o77 == 0


def test_alarms_name_what_is_measured_and_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.gpu_use import FAMILIES

    monkeypatch.setattr(metrics, "_meter", None)
    metrics.start()
    metrics.stage_done("detect", 1.0)
    metrics.observation_done({"input": {"shape": [10, 10]}, "counts": {"sources": 1}}, 1.0)
    metrics.observation_failed("input")
    with open_store(tmp_path) as store:
        known = set(re.findall(r"^(skysift_\w+)", metrics.render(store).decode(), re.M))
    known |= {family[0] for family in FAMILIES}
    rules = [rule for group in ALARMS["groups"] for rule in group["rules"]]
    for rule in rules:
        names = re.findall(r"\bskysift_\w+", rule["expr"])
        assert names and set(names) <= known, rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
    explained = re.findall(r"^\| (Skysift\w+) \|", RUN_BOOK, re.M)
    assert explained == [rule["alert"] for rule in rules]
    for name in re.findall(r"`(skysift_[a-z_]+[a-z])(?:\{\w+\})?`", RUN_BOOK):
        # The folder bears such a name too.
        assert name == "skysift_survey" or any(one.startswith(name) for one in known), name
