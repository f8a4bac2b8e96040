"""A PostgreSQL server for tests: a temporary cluster of the Debian package's programs, gone when the tests end.

``with serve_postgres(folder) as server: server.database()`` gives the URL of a new, empty database.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER = "postgres"


def find_programs() -> Path | None:
    """Folder of ``initdb`` and ``postgres``, None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


class PostgresServer:
    """A server with its own folder, reached by a Unix socket in it, so that no port is taken.

    Parameters
    ----------
    folder : Path
        New and short: a socket's path has 107 characters at most.
    fsync : str
        "on" to wait for the disk, as a survey's server must.
    """

    def __init__(self, folder: Path, *, fsync: str = "off"):
        programs = find_programs()
        assert programs is not None
        self.folder, self._programs, self._fsync = folder, programs, fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        # The server refuses root: it runs as the account of Debian's package. It dies with whoever started it.
        self._prefix: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(folder, OWNER, OWNER)
            self._prefix = ["setpriv", "--reuid", OWNER, "--regid", OWNER, "--init-groups"]
        command = [programs / "initdb", "-D", folder / "data", "-U", "skysift", "-A", "trust", "-E", "UTF8", "-N"]
        options = ["--locale=C"]
        subprocess.run([*self._prefix, *map(str, command), *options], check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = {"fsync": self._fsync, "listen_addresses": "", "max_connections": "60"}
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder, *given]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, *map(str, command)], stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        ready = [str(self._programs / "pg_isready"), "-q", "-h", str(self.folder), "-U", "skysift"]
        until = time.monotonic() + 30
        while subprocess.run(ready).returncode:
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        """Stop at once (fast shutdown), or as a crash: the parent process by SIGKILL."""
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._process = None

    def database(self) -> str:
        """URL of a new, empty database."""
        name = f"survey{next(self._numbers)}"
        createdb = [str(self._programs / "createdb"), "-h", str(self.folder), "-U", "skysift", "-T", "template0", name]
        subprocess.run(createdb, check=True, capture_output=True)
        return f"postgresql://skysift@/{name}?host={self.folder}"


@contextmanager
def serve_postgres(*, fsync: str = "off") -> Iterator[PostgresServer]:
    """A running server in a folder of its own, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        server = PostgresServer(folder, fsync=fsync)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
