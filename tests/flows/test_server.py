"""Is a Prefect server configured, and is none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.server import configured_api_url

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
FLOW = """
from flows import environment
from flows.server import exit_on_sigterm
exit_on_sigterm()
import time
from prefect import flow
@flow
def wait():
    print("running", flush=True)
    time.sleep(120)
wait()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


def test_no_server_is_configured_by_default(home: Path) -> None:
    assert configured_api_url() is None
    (home / "profiles.toml").write_text("not toml [", encoding="utf-8")
    assert configured_api_url() is None


def test_environment_over_active_profile(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "profiles.toml").write_text(
        'active = "b"\n[profiles.a]\nPREFECT_API_URL = "http://a/api"\n'
        '[profiles.b]\nPREFECT_API_URL = "http://b/api"\n[profiles.empty]\n',
        encoding="utf-8",
    )
    assert configured_api_url() == "http://b/api"
    monkeypatch.setenv("PREFECT_PROFILE", "a")
    assert configured_api_url() == "http://a/api"
    monkeypatch.setenv("PREFECT_PROFILE", "empty")
    assert configured_api_url() is None
    monkeypatch.setenv("PREFECT_API_URL", "http://c/api")
    assert configured_api_url() == "http://c/api"


@pytest.mark.flow
@pytest.mark.slow
def test_sigterm_takes_the_temporary_server_along(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", FLOW],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "running\n"
            servers = [
                one
                for one in psutil.Process(process.pid).children(recursive=True)
                if "uvicorn" in one.cmdline()
            ]
            assert servers, "Prefect started no temporary server: this test has lost its subject"
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    deadline = time.monotonic() + 10
    while any(server.is_running() for server in servers):
        assert time.monotonic() < deadline, "the temporary server is still there"
        time.sleep(0.1)
