"""What compose.yaml starts, started here without containers: its commands, checks and stops, with real PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SERVICES = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"]
BIN = Path(sys.executable).parent
PATIENCE = 90


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Stage:
    """Services by their commands, with this machine's folders, ports and databases in place of the containers'."""

    def __init__(self, folder: Path, survey: str, prefect: str):
        self.folder = folder
        self.ports = {"8470": free_port(), "4200": free_port(), "8080": free_port()}
        place = parse_qs(urlsplit(prefect).query)["host"][0]
        self.words = {
            "/run/secrets": f"{folder}/secrets", "/inbox": f"{folder}/inbox", "/survey": f"{folder}/survey",
            "postgresql://skysift@survey-db/skysift": survey,
            "postgresql+asyncpg://prefect@prefect-db/prefect":
                f"postgresql+asyncpg://skysift@/{urlsplit(prefect).path[1:]}?host={place}",
            "prefect-server:4200": f"127.0.0.1:{self.ports['4200']}", "0.0.0.0": "127.0.0.1", "$$": "$",
            **{port: str(here) for port, here in self.ports.items()},
        }  # fmt: skip
        self.running: dict[str, subprocess.Popen] = {}
        for name in ("inbox", "survey/runs", "home", "tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "secrets").mkdir(mode=0o700)
        for name in ("survey_password", "prefect_password", "http_token"):
            (folder / "secrets" / name).write_text(secrets.token_hex(32) + "\n")
        (folder / "secrets" / "prefect_login").write_text(f"admin:{secrets.token_hex(16)}")

    def here(self, text: str) -> str:
        """A text of the file as it is on this machine."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        # Longer ones first: the folders stand in URLs and in each other.
        pattern = "|".join(re.escape(word) for word in sorted(self.words, key=len, reverse=True))
        return re.sub(pattern, lambda one: self.words[one[0]], text)

    def environment(self, name: str) -> dict[str, str]:
        """Nothing of ours comes in but what the file says."""
        ours = ("SKYSIFT_", "PREFECT_", "PG")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        given = {key: self.here(value) for key, value in (SERVICES[name].get("environment") or {}).items()}
        return inherited | {
            "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": f"{self.folder}/home",
            "PREFECT_HOME": f"{self.folder}/home/{name}", "SKYSIFT_CACHE": f"{self.folder}/cache",
            "TMPDIR": f"{self.folder}/tmp", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports["8080"]), "OMP_NUM_THREADS": "1",
        } | given  # fmt: skip

    def command(self, name: str) -> dict[str, Any]:
        service = SERVICES[name]
        place = service.get("working_dir", "/survey")
        return {
            "args": [*service["entrypoint"], *map(self.here, service["command"])],
            "cwd": ROOT if place == "/app" else self.here(place), "env": self.environment(name),
        }  # fmt: skip

    def start(self, name: str) -> None:
        log = open(self.folder / f"{name}.log", "wb")  # noqa: SIM115
        self.running[name] = subprocess.Popen(**self.command(name), stdout=log, stderr=subprocess.STDOUT)
        log.close()

    def healthy(self, name: str) -> bool:
        """Its check, as the container runs it."""
        kind, *test = map(self.here, SERVICES[name]["healthcheck"]["test"])
        words = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        done = subprocess.run(words, env=self.environment(name), capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    def wait(self, what: str, condition: Any) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            ended = {name: one.poll() for name, one in self.running.items() if one.poll() is not None}
            logs = "".join(f"\n{one.name}: {one.read_text()[-1500:]}" for one in sorted(self.folder.glob("*.log")))
            assert not ended, f"{ended} ended while waiting for {what}: {logs}"
            assert time.monotonic() < until, f"{what} did not come{logs}"
            time.sleep(0.3)

    def stop(self) -> dict[str, int]:
        """End as compose does, what was started last first."""
        ends = {}
        for name, process in reversed(self.running.items()):
            process.send_signal(getattr(signal, SERVICES[name].get("stop_signal", "SIGTERM")))
            try:
                ends[name] = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                ends[name] = process.wait()
        self.running.clear()
        return ends


@pytest.fixture
def stage(tmp_path: Path, postgres_server: Any) -> Iterator[Stage]:
    made = Stage(tmp_path, postgres_server.database(), postgres_server.database())
    try:
        yield made
    finally:
        for process in made.running.values():
            process.kill()
            process.wait()


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_order_of_the_services() -> None:
    order = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    assert order["serve"] == order["http"] == {"survey-db"} and order["prefect-server"] == {"prefect-db"}
    assert "prefect-server" in order["prefect-setup"] and "prefect-setup" in order["prefect-worker"]


@pytest.mark.slow
@pytest.mark.flow
def test_the_services_do_their_work(stage: Stage, planted_sky: Any) -> None:
    for name in ("serve", "prefect-server"):
        stage.start(name)
    stage.wait("the service's check", lambda: stage.healthy("serve"))
    stage.start("http")
    pages, prefect = (f"http://127.0.0.1:{stage.ports[port]}" for port in ("8470", "4200"))
    shutil.copy(planted_sky.path, stage.folder / "inbox" / "sky.fits")
    stage.wait("the pages", lambda: stage.healthy("http"))
    stage.wait("Prefect's server", lambda: stage.healthy("prefect-server"))
    # Nobody changes anything without a login or the token.
    assert get(f"{prefect}/api/admin/version")[0] == 401
    login = (stage.folder / "secrets" / "prefect_login").read_text()
    setup = subprocess.run(**stage.command("prefect-setup"), capture_output=True, text=True, timeout=180, check=False)
    assert setup.returncode == 0, setup.stdout + setup.stderr
    stage.start("prefect-worker")
    stage.wait("the worker's check", lambda: stage.healthy("prefect-worker"))
    stage.wait("the image", lambda: 'skysift_observations{state="done"} 1.0' in get(f"{pages}/metrics")[1])
    numbers = get(f"{pages}/metrics")[1]
    # The service's own counters reach the pages by the folder that both know.
    assert 'skysift_pixels_total{kind="image"}' in numbers and "skysift_stage_seconds_bucket" in numbers
    assert get(f"{pages}/runs/1")[0] == 200
    # The doctor, asked where the worker runs, sees all of it.
    environment = stage.environment("prefect-worker") | {"PREFECT_API_AUTH_STRING": login}
    words = [BIN / "skysift", "doctor", "--json", "--inbox", "inbox", "-o", "survey"]
    asked = subprocess.run(words, env=environment, cwd=stage.folder, capture_output=True, text=True, check=False)
    findings = {one["check"]: one for one in json.loads(asked.stdout)["findings"]}
    assert asked.returncode == 0, findings
    assert findings["Prefect"]["status"] == "ok" and findings["work pool skysift"]["status"] == "ok"
    assert findings["work pool gpu-training"]["status"] == "warn" and findings["queue"]["found"] == "1 done"
    journal = (stage.folder / "survey" / "logs" / "skysift.jsonl").read_text().splitlines()
    assert any(json.loads(line).get("observation") == 1 for line in journal)
    for secret in (stage.folder / "secrets").iterdir():
        assert not [one for one in stage.folder.glob("*.log") if secret.read_text().strip() in one.read_text()]
    ends = stage.stop()
    assert ends["serve"] == 0 and ends["http"] in (0, 143, -15), ends
