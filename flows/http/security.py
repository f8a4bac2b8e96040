"""Who may ask, who may change, and which names and paths are let through."""

from __future__ import annotations

import hmac
import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Gate", "clean_name", "clean_text", "confined", "require_token"]

# Nothing but files of this server, no inline script or style, no frame around it, no form elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}
LONGEST_NAME = 200


class Gate:
    """ASGI middleware: refuses foreign host names and adds the security headers.

    A page elsewhere can let its own name point here (DNS rebinding) and then read everything as if it were its own;
    its name stays in ``Host``. An address without a name cannot be rebound and is let through.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self.app = app
        self.hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1 or not self.allows(given[0].decode("latin-1")):
            text = "this host name is not served: open it as localhost, or name it with --host\n"
            await PlainTextResponse(text, status_code=421)(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def allows(self, host: str) -> bool:
        """Whether a ``Host`` header names this server."""
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]@/\s]+)(?::\d{1,5})?", host)
        if match is None:
            return False
        name = match[1].strip("[]").lower().rstrip(".")
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def require_token(request: Request) -> None:
    """Refuse a change without the configured token.

    Only the header counts: a page elsewhere can send forms and cookies here, but no such header.

    Raises
    ------
    HTTPException
        403 when no token is configured, 401 when none or another one came.
    """
    token = request.app.state.site.token
    if not token:
        raise HTTPException(403, "changes are refused: this server was started without a token")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Compared as bytes, and in a time that does not tell how much of it is right.
    same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode("utf-8"))
    if scheme.lower() != "bearer" or not same:
        raise HTTPException(
            401, "expected the header 'Authorization: Bearer TOKEN' with the server's token",
            headers={"WWW-Authenticate": "Bearer"},
        )  # fmt: skip


def clean_text(value: Any) -> Any:
    """Text that can be shown and encoded: control, direction and surrogate characters become U+FFFD.

    Lists and dicts are cleaned throughout, infinite and undefined numbers become None.
    """
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return value
        return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn") else c for c in value)
    if isinstance(value, dict):
        return {clean_text(key): clean_text(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_text(one) for one in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def clean_name(name: str) -> str:
    """A file name from outside as a name within one folder: its last part, letters, digits and ``._+-`` only.

    Raises
    ------
    ValueError
        When nothing is left of it.
    """
    last = re.split(r"[/\\]", name)[-1]
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", plain).lstrip("._-")[-LONGEST_NAME:].lstrip("._-")
    if not re.search(r"[A-Za-z0-9]", plain):
        raise ValueError("expected a file name with letters or digits")
    return plain


def confined(folder: Path, name: str) -> Path | None:
    """A file within a folder; None when there is none, or its place, after all links, lies outside.

    Parameters
    ----------
    folder : Path
    name : str
        Relative to the folder.
    """
    if not name or "\0" in name:
        return None
    try:
        place = folder.resolve()
        path = (place / name).resolve()
        inside = path.is_relative_to(place) and path != place and path.is_file()
    except (OSError, ValueError, RuntimeError):
        return None
    return path if inside else None
