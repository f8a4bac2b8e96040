"""Log lines carry the ids of what they are about, whoever writes them, and cannot be forged or fill the disk."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline import journal
from pipeline.journal import (
    LOGGERS,
    SharedFile,
    current_context,
    observation_context,
    printable,
    prune_journal,
    read_journal,
    start_journal,
)
from pipeline.ledger import Ledger
from pipeline.local_workers import Threads, local_workers
from pipeline.runs import Clock
from pipeline.tasks import run_stage
from survey_io.errors import InputError, OptionError, OutputError

logger = logging.getLogger("pipeline.test")
NASTY = "a\nerror: all is well\x1b[2J\u202etxt.\u2028x\x85\udc80.fits"


@pytest.fixture(autouse=True)
def _give_back() -> Iterator[None]:
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in LOGGERS}
    yield
    for name, (handlers, level) in before.items():
        one = logging.getLogger(name)
        for handler in one.handlers:
            if handler not in handlers:
                handler.close()
        one.handlers[:], one.propagate = handlers, True
        one.setLevel(level)


def test_lines_carry_ids_and_fields(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = start_journal(tmp_path / "logs")
    with observation_context(run="r7", observation=12, worker="w1"):
        logger.info("begun %s", "sky.fits", extra={"rows": 3})
        with observation_context(stage="detect"):
            logger.warning("slow")
        logger.debug("not written")
        try:
            raise InputError("sky.fits: expected a beam", shape=(3, 4))
        except InputError:
            logger.exception("failed")
    logger.info("after")
    begun, slow, failed, after = (json.loads(line) for line in path.read_text().splitlines())
    assert begun["message"] == "begun sky.fits" and begun["rows"] == 3 and begun["level"] == "info"
    assert begun["run"] == "r7" and begun["observation"] == 12 and begun["worker"] == "w1" and "stage" not in begun
    assert slow["stage"] == "detect" and slow["observation"] == 12
    assert failed["exception"] == "InputError" and failed["fields"] == {"shape": [3, 4]} and "trace" in failed
    assert "observation" not in after and current_context() == {}
    assert begun["time"].endswith("Z") and len(begun["time"]) == len("2026-01-02T03:04:05.678Z")
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 4 and "warning [observation 12 run r7 detect] slow" in shown[1]
    assert [line["message"] for line in read_journal(tmp_path / "logs", observation=12, level="info")] == [
        "begun sky.fits"
    ]


def piece(number: int) -> dict[str, np.ndarray]:
    time.sleep(0.01)
    logger.info("piece", extra={"piece": number})
    return {"n": np.array(number)}


def test_threads_of_a_stage_carry_the_context(tmp_path: Path) -> None:
    start_journal(tmp_path, readable=False)
    clock = Clock(None)
    with local_workers(Threads, 2) as threads:
        for observation in (1, 2):
            ledger = Ledger(None, "")
            with observation_context(observation=observation), clock.stage("search"):
                run_stage("search", piece, [(i, (i,)) for i in range(4)], ledger, client=threads)
    lines = list(read_journal(tmp_path, stage="search"))
    assert [sum(line["observation"] == one for line in lines) for one in (1, 2)] == [4, 4]


def test_names_cannot_forge_lines_or_steer_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = start_journal(tmp_path)
    with observation_context(observation=NASTY):
        logger.warning("%s: cannot be read", NASTY)
    raw = path.read_bytes()
    assert raw.count(b"\n") == 1 and raw.isascii()
    assert json.loads(raw)["message"] == f"{NASTY}: cannot be read"
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1 and "\x1b" not in shown and "\u202e" not in shown
    assert printable("été ☄ m 31.fits") == "été ☄ m 31.fits"


def test_processes_share_one_file_and_set_it_aside(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from pipeline.journal import start_journal\n"
        "start_journal(sys.argv[1], megabytes=0.02, keep=1000, readable=False)\n"
        "for i in range(300): logging.getLogger('pipeline.x').info('line', extra={'who': sys.argv[2], 'i': i})\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(who)], cwd=Path(__file__).parents[2])
        for who in range(3)
    ]
    assert [one.wait(60) for one in started] == [0, 0, 0]
    files = sorted(tmp_path.glob("*.jsonl"))
    assert len(files) > 3 and max(one.stat().st_size for one in files) <= 20_000
    seen = [(line["who"], line["i"]) for line in read_journal(tmp_path)]
    assert sorted(seen) == [(str(who), i) for who in range(3) for i in range(300)]


def test_old_files_go_by_number_and_age(tmp_path: Path) -> None:
    now = 1_800_000_000
    for day in range(6):
        path = tmp_path / f"skysift-2026010{6 - day}T000000000Z.jsonl"
        path.write_text("{}\n")
        os.utime(path, (now - day * 86400, now - day * 86400))
    (tmp_path / "skysift-notes.jsonl").write_text("mine\n")
    (tmp_path / "skysift.jsonl").write_text("")
    os.utime(tmp_path / "skysift.jsonl", (0, 0))
    removed = prune_journal(tmp_path, keep=5, days=3.5, now=now)
    assert sorted(one.name[:16] for one in removed) == ["skysift-20260101", "skysift-20260102"]
    assert (tmp_path / "skysift-notes.jsonl").exists() and (tmp_path / "skysift.jsonl").exists()


def test_a_full_disk_costs_lines_only(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    (tmp_path / "skysift.jsonl").symlink_to("/dev/full")
    start_journal(tmp_path, readable=False)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(logger.info, ["one", "two", "three"]))
    shown = capsys.readouterr().err
    assert shown.count("log lines are lost") == 1 and "No space left" in shown


def test_bad_settings_get_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="expected one of debug, info, warning, error, got 'loud'"):
        start_journal(None, level="loud")
    with pytest.raises(OutputError, match="expected a folder for logs"):
        start_journal(tmp_path / "file")


def test_a_file_that_another_process_sets_aside_meanwhile_costs_no_line(tmp_path: Path, monkeypatch) -> None:
    handler = SharedFile(tmp_path, megabytes=1.0)
    handler.handle(logging.LogRecord("pipeline.x", logging.INFO, "", 0, "first", (), None))
    lock, aside = journal.fcntl.flock, tmp_path / "skysift-20260101T000000000Z-1.jsonl"

    def late(file: int, how: int) -> None:
        # The other one was quicker: it has renamed the file, and nobody has begun the next.
        if not aside.exists():
            handler.path.rename(aside)
        lock(file, how)

    monkeypatch.setattr(journal.fcntl, "flock", late)
    handler.handle(logging.LogRecord("pipeline.x", logging.INFO, "", 0, "second", (), None))
    handler.close()
    assert [line["message"] for line in read_journal(tmp_path)] == ["first", "second"]
    assert handler.lost == 0 and len(aside.read_text().splitlines()) == 1
