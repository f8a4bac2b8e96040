"""A server for the application: in this thread until it is told to stop, or beside other work."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from survey_io.errors import OptionError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

__all__ = ["DEFAULT_LISTEN", "bind", "read_token", "run_server", "serve_beside"]

DEFAULT_LISTEN = "127.0.0.1:8470"
SHORTEST_TOKEN = 16
# Connections at the same time, and seconds that an idle one stays and that requests get to end at a stop.
CONNECTIONS, IDLE, LAST_SECONDS = 256, 20, 5


def bind(listen: str | None = None) -> socket.socket:
    """Open the address that is listened at.

    Parameters
    ----------
    listen : str, optional
        ``HOST:PORT``, ``[IPv6]:PORT`` or ``PORT``; this machine only (127.0.0.1) by default. Port 0 takes a free one.

    Raises
    ------
    OptionError
        When it is no address, or cannot be listened at.
    """
    listen = listen or DEFAULT_LISTEN
    match = re.fullmatch(r"(?:(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s/]+)):)?(\d{1,5})", listen)
    if match is None or int(match[3]) > 65535:
        raise OptionError(f"--listen: expected HOST:PORT, such as {DEFAULT_LISTEN}, got {listen!r}")
    host, port = match[1] or match[2] or "127.0.0.1", int(match[3])
    made = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        # Whoever asks from now on waits for the server instead of being sent away.
        made.listen(CONNECTIONS)
    except OSError as error:
        if made is not None:
            made.close()
        reason = error.strerror or str(error)
        raise OptionError(f"--listen: cannot listen at {listen} ({reason}); is it in use? give another") from None
    return made


def address_of(bound: socket.socket) -> str:
    """What a browser on this machine opens."""
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def read_token(file: str | Path | None = None) -> str | None:
    """The token for changes: from a file, else the environment variable SKYSIFT_TOKEN; None when there is neither.

    Raises
    ------
    OptionError
        When the file cannot be read, or the token is shorter than 16 characters.
    """
    if file is not None:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise OptionError(f"{file}: the token cannot be read ({reason}); give a text file with one line") from None
    else:
        token = os.environ.get("SKYSIFT_TOKEN", "").strip()
        if not token:
            return None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        where = f"{file}" if file is not None else "SKYSIFT_TOKEN"
        raise OptionError(
            f"{where}: expected a token of at least {SHORTEST_TOKEN} ASCII characters on one line, got {len(token)}; "
            "make one with 'openssl rand -hex 32'"
        )
    return token


def _server(app: FastAPI) -> uvicorn.Server:
    import uvicorn

    # Its own setting of logging closes every handler that there is, the service's journal among them.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE, timeout_graceful_shutdown=LAST_SECONDS, ws="none", log_config=None,
    )  # fmt: skip
    return uvicorn.Server(config)


def run_server(app: FastAPI, bound: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    with bound:
        _server(app).run(sockets=[bound])


@contextmanager
def serve_beside(app: FastAPI, bound: socket.socket) -> Iterator[str]:
    """Answer in a thread while the block lasts; gives the address.

    Raises
    ------
    OptionError
        When the server does not come up.
    """
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="skysift-http", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise OptionError(f"--http: the pages at {address_of(bound)} do not come up")
            thread.join(0.02)
        yield address_of(bound)
    finally:
        server.should_exit = True
        thread.join(LAST_SECONDS + 5)
        bound.close()
