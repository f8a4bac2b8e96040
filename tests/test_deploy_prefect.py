"""Prefect for real: a server, the deployments, workers that run them, and the automation that tells of failures."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.survey import open_store
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(600)]


def settings(folder: Path) -> dict[str, str]:
    ours = ("SKYSIFT_", "PREFECT_", "SLURM_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return inherited | {
        "PATH": f"{folder / 'bin'}:{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(folder / ".prefect"),
        "SKYSIFT_MODELS": str(folder / "models"),
        "OMP_NUM_THREADS": "1",
        "DO_NOT_TRACK": "1",
    }


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def commands_of_run_book(section: str) -> list[str]:
    """The indented lines of a section of the run-book, and of those below it."""
    text = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    level, body = re.search(rf"^(#+) {re.escape(section)}\n(.*?)(?=^##? |\Z|^\1 )", text, re.M | re.S).groups()
    assert level
    return [line.strip() for line in body.splitlines() if line.startswith("    ")]


@contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A process in the background whose output goes to a file named after it; gives that."""
    log = folder / f"{'-'.join(command[1:5:2])}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=folder, env=environment, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield log
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(condition: Callable[[], Any], log: Path, seconds: float = 150.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, log.read_text(encoding="utf-8")[-5000:]
        time.sleep(0.5)


class Server:
    """A Prefect server with the deployments, as the run-book makes them."""

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url
        self.environment = settings(folder) | {"PREFECT_API_URL": url, "PREFECT_WORKER_QUERY_SECONDS": "2"}

    def prefect(self, line: str, *more: str) -> str:
        done = subprocess.run(
            [str(BIN / "prefect"), *line.split()[1:], *more], cwd=ROOT, env=self.environment,
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from flows.server import require_server
    from survey_io.errors import OptionError

    folder, port = tmp_path_factory.mktemp("prefect"), free_port()
    made = Server(folder, f"http://127.0.0.1:{port}/api")

    def answers() -> bool:
        try:
            require_server(made.url)
        except OptionError:
            return False
        return True

    # A busy machine locks the server's database for longer than its usual 10 s, and its events are lost then.
    patient = made.environment | {"PREFECT_SERVER_DATABASE_TIMEOUT": "120"}
    start = ["prefect", "server", "start", "--port", str(port), "--no-ui"]
    with running(start, folder, patient) as log:
        wait_for(answers, log)
        said = ""
        for line in commands_of_run_book("Run as Prefect deployments"):
            if re.match(r"prefect (work-pool create|--no-prompt deploy|automation create)", line):
                said += made.prefect(line)
        named = (ROOT / "deploy" / "prefect.yaml").read_text(encoding="utf-8").count("\n  - name: ")
        assert said.count("successfully created") == named and said.count("Created automation") == 1
    # As the run-book says: a busy server was seen not to act on automations made together, until it starts again.
    with running(start, folder, patient) as log:
        wait_for(answers, log)
        yield made


@pytest.fixture
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address that takes messages, and those that came."""
    came: list[dict[str, Any]] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Take) as place:
        thread = threading.Thread(target=place.serve_forever)
        thread.start()
        yield f"json://127.0.0.1:{place.server_port}", came
        place.shutdown()
        thread.join()


def test_the_watch_finds_what_arrived_and_tells_what_failed(
    server: Server, told: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """A file and a bad one in the inbox, a minute's schedule, one worker: half a minute of a processor."""
    inbox = tmp_path / "inbox"
    sky = simulate_continuum((90, 100), seed=3, model=SkyModel(density=0.01))
    write_simulation(sky, tmp_path, stem="sky")["image"].rename(tmp_path / "sky.part")
    inbox.mkdir()
    (tmp_path / "sky.part").rename(inbox / "sky.fits")
    (inbox / "letter.fits").write_text("Dear Sir or Madam, this is not an image.")
    worker = server.environment | {"SKYSIFT_RUNS": str(tmp_path), "SKYSIFT_NOTIFY": told[0]}
    with running(["prefect", "worker", "start", "--pool", "skysift"], tmp_path, worker) as log:
        # At once; the schedule's own runs are left out while this one is at work, or this one while one of them is.
        server.prefect("prefect deployment run watch/watch --param", 'detection={"model":"threshold"}')
        # A server that is short of time may lose an event: then there is another failure at the next look.
        for number in range(4):
            try:
                wait_for(lambda: told[1], log, 60)
                break
            except AssertionError:
                assert number < 3
                (inbox / f"letter{number}.fits").write_text(f"Dear Sir or Madam, no image either: {number}.")
    message = told[1][0]
    assert re.fullmatch(r"skysift: run \S+ of watch is Failed", message["title"])
    assert re.fullmatch(r"1 files failed or were put aside, [01] done", message["message"])
    with open_store(tmp_path / "skysift_survey") as store:
        counts = store.counts()["observations"]
    assert counts["done"] == 1 and counts["quarantined"] >= 1 and counts["arrived"] == counts["running"] == 0
    assert (tmp_path / "skysift_survey" / "quarantine" / "letter.fits.reason.txt").is_file()
    # The schedule itself: runs are laid out ahead, which SQLAlchemy 2.1 keeps this server from.
    later = server.ask("flow_runs/filter", flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}})
    assert len([one for one in later if one["auto_scheduled"]]) > 10
    (event,) = server.ask("events/filter", filter={"event": {"name": ["skysift.observation.arrived"]}})["events"]
    assert event["payload"]["path"] == str(inbox / "sky.fits") and event["payload"]["kind"] == "image"
    artifacts = {one["key"]: one for one in server.ask("artifacts/filter")}
    rows = json.loads(artifacts["skysift-watch"]["data"])
    assert rows and {row["state"] for row in rows} <= {"done", "put aside"} and "letter" in str(rows)
    assert "data:image/png;base64," in artifacts["skysift-watch-pictures"]["data"]


def test_a_worker_of_the_pool_trains_what_the_deployment_says(server: Server, tmp_path: Path, tiny_recipe: str) -> None:
    """The run-book's own commands, from the queue to the report: half a minute of a processor."""
    (tmp_path / "tiny.yaml").write_text(tiny_recipe, encoding="utf-8")
    pool = commands_of_run_book("Prefect: a pool of GPU nodes")
    line = next(line for line in pool if line.startswith("prefect worker start"))
    worker = server.environment | {"SKYSIFT_RUNS": str(tmp_path), "SKYSIFT_MODELS": str(tmp_path / "models")}
    with running(line.split(), tmp_path, worker) as log:
        run = "prefect deployment run retrain/train --param recipe="
        assert any(line.startswith(run) for line in pool)
        said = server.prefect(f'{run}{tmp_path / "tiny.yaml"} --param changes=["seed=3"] --watch')
        assert "Flow run finished successfully" in said, log.read_text(encoding="utf-8")
    # Not the printed events: a server short of time loses some of them, but no artifact.
    assert "skysift-train" in {one["key"] for one in server.ask("artifacts/filter")}
    report = json.loads((tmp_path / "training" / "tiny" / "report.json").read_text(encoding="utf-8"))
    assert report["registered"]["label"] == "tiny@1" and (tmp_path / "models" / "tiny" / "1" / "record.json").is_file()
