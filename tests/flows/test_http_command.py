"""``skysift http`` as a user starts it: where it listens, where its token comes from, how it stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from flows.http.running import bind, read_token
from survey_io.errors import OptionError

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef0123456789abcdef"


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen:
    given = {name: value for name, value in os.environ.items() if not name.startswith("SKYSIFT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "http", *arguments], cwd=cwd, text=True,
        env=given | {"PYTHONPATH": str(ROOT), **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_it_serves_this_machine_and_stops_when_told(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    process = start("--listen", "0", "--inbox", "inbox", cwd=tmp_path, SKYSIFT_TOKEN=TOKEN)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+$", line.strip())
        assert address is not None and "skysift_survey" in line
        with urllib.request.urlopen(f"{address[0]}/", timeout=30) as answer:
            assert "No observation has arrived yet" in answer.read().decode()
        request = urllib.request.Request(f"{address[0]}/inbox/a.fits", data=b"SIMPLE", method="PUT")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request, timeout=30)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 201
        assert [path.name for path in (tmp_path / "inbox").iterdir()] == ["a.fits"]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert "Traceback" not in errors and process.returncode in (0, 143, -signal.SIGTERM)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_a_token_on_the_command_line_is_refused(tmp_path: Path) -> None:
    _, errors = (process := start("--token", TOKEN, cwd=tmp_path)).communicate(timeout=60)
    assert process.returncode == 2 and len(errors.splitlines()) == 1 and "--token-file" in errors
    assert TOKEN not in errors


def test_tokens_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKYSIFT_TOKEN", raising=False)
    assert read_token() is None
    monkeypatch.setenv("SKYSIFT_TOKEN", f" {TOKEN}\n")
    assert read_token() == TOKEN
    path = tmp_path / "token"
    path.write_text(f"{TOKEN[::-1]}\n")
    assert read_token(path) == TOKEN[::-1]
    for wrong in ("", "short", f"{TOKEN} {TOKEN}", f"{TOKEN}\nsecond line", "ü" * 20):
        path.write_text(wrong)
        with pytest.raises(OptionError, match="at least 16") as raised:
            read_token(path)
        assert not wrong or wrong not in str(raised.value)
    path.write_bytes(b"\xff\xfe" * 20)
    for unreadable in (path, tmp_path / "gone"):
        with pytest.raises(OptionError, match="cannot be read"):
            read_token(unreadable)


def test_addresses() -> None:
    with bind("0") as bound, pytest.raises(OptionError, match="is it in use"):
        assert bound.getsockname()[0] == "127.0.0.1"
        bound.listen()
        bind(f"127.0.0.1:{bound.getsockname()[1]}")
    for wrong in ("localhost", "127.0.0.1:", "127.0.0.1:99999", "::1:80", "http://localhost:80", "a b:80"):
        with pytest.raises(OptionError, match="--listen"):
            bind(wrong)
