"""``skysift serve`` as it is called: files dropped while it runs, its pages beside it, signals."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.journal import LOGGERS, read_journal
from pipeline.survey import open_store
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation

ROOT = Path(__file__).resolve().parents[2]


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    ours = ("SKYSIFT_", "PREFECT_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "serve", *options], cwd=folder, text=True,
        env=inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def loggers() -> Iterator[None]:
    """Loggers as they were: the command sends them to its journal."""
    found = [logging.getLogger(name) for name in LOGGERS]
    before = [(one.handlers[:], one.level, one.propagate) for one in found]
    yield
    for one, (handlers, level, propagate) in zip(found, before, strict=True):
        for handler in one.handlers:
            if handler not in handlers:
                handler.close()
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.mark.slow
def test_serve_until_a_signal_comes(tmp_path: Path) -> None:
    sky = simulate_continuum((90, 100), seed=3, model=SkyModel(density=0.01))
    image = write_simulation(sky, tmp_path, stem="sky")["image"]
    (tmp_path / "inbox").mkdir()
    options = ("--inbox", "inbox", "--interval", "0.1", "--model", "threshold", "--http", "--listen", "127.0.0.1:0")
    with start(tmp_path, *options) as service:
        assert service.stdout is not None
        assert "serving" in service.stdout.readline()
        address = service.stdout.readline().rpartition(" ")[2].strip()
        image.rename(tmp_path / "inbox" / "sky.fits")
        until = time.monotonic() + 120
        with open_store(tmp_path / "skysift_survey") as store:
            while store.counts()["observations"]["done"] < 1:
                assert service.poll() is None and time.monotonic() < until
                time.sleep(0.1)
        with urllib.request.urlopen(f"{address}/", timeout=60) as page:
            assert "sky.fits" in page.read().decode()
        service.send_signal(signal.SIGTERM)
        said, complaints = service.communicate(timeout=60)
    assert service.returncode == 0, complaints
    assert said.splitlines()[-1].startswith("1 arrived, 1 done (")
    lines = [line for line in read_journal(tmp_path / "skysift_survey" / "logs") if "rows" in line]
    assert [line["observation"] for line in lines] == [1] and lines[0]["run"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "0"), "nothing to do"),
        (("--inbox", "nothing"), "expected a folder"),
        (("--inbox", ".",), "lies in it"),
        (("--listen", "127.0.0.1:0"), "--http"),
    ],
)
@pytest.mark.usefixtures("loggers")
def test_what_cannot_be_served(
    tmp_path: Path, options: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.cli import app
    from survey_io.errors import OptionError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=said):
        app(args=["serve", *options], standalone_mode=False)
