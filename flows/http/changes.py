"""What changes state: uploads, new runs, another run that counts. Each needs the token."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from flows.http.security import clean_name, clean_text, require_token
from flows.http.site import get_site
from survey_io.errors import SkysiftError

router = APIRouter(dependencies=[Depends(require_token)])
# Bytes that are collected before they are written.
BLOCK = 4_000_000


# Uploads that a killed server left behind, by their age in seconds.
REMAINS = 24 * 3600


def drop_remains(inbox: Path) -> None:
    """Delete what is left of uploads whose server was killed; none goes on for a day."""
    for path in inbox.glob(".upload-*.part"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > REMAINS:
                path.unlink()


@router.post("/observations/{number}/reprocess")
def reprocess(request: Request, number: int) -> JSONResponse:
    """Put an observation back into the queue."""
    site = get_site(request)
    found = site.observation(number)
    if found["state"] in ("arrived", "running"):
        raise HTTPException(409, f"observation {number} is {found['state']}: it is in the queue already")
    if not Path(found["path"]).is_file():
        raise HTTPException(409, clean_text(f"the observation's file is no longer at {found['path']}: upload it again"))
    site.store.requeue(number)
    return JSONResponse({"observation": number, "state": "arrived"}, 202)


@router.post("/runs/{number}/current")
def make_current(request: Request, number: int) -> JSONResponse:
    """Let a former run count instead of the one that does now."""
    try:
        rows = get_site(request).store.make_current(number)
    except SkysiftError as error:
        raise HTTPException(404, error.message) from None
    return JSONResponse({"run": number, "current": True, "sources": rows})


@router.put("/inbox/{name:path}")
@router.post("/inbox/{name:path}")
async def upload(request: Request, name: str) -> JSONResponse:
    """Receive a file: the request's body is its content.

    It grows under a hidden name, which the inbox does not look at, and gets its own when it is whole.
    """
    site = get_site(request)
    if site.inbox is None:
        raise HTTPException(403, "this server has no inbox: start it with one")
    try:
        target = site.inbox / clean_name(name)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    try:
        announced = int(request.headers.get("content-length", "0"))
    except ValueError:
        raise HTTPException(400, "content-length is no number") from None
    too_large = HTTPException(413, f"expected at most {site.limits.upload:,} bytes")
    if announced > site.limits.upload:
        raise too_large
    partial = site.inbox / f".upload-{secrets.token_hex(12)}.part"
    received = 0
    try:
        # Nobody else's file, and no link to elsewhere, is written to.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        with open(descriptor, "wb") as file:
            block = bytearray()
            async for chunk in request.stream():
                received += len(chunk)
                if received > site.limits.upload:
                    raise too_large
                block += chunk
                if len(block) >= BLOCK:
                    await asyncio.to_thread(file.write, bytes(block))
                    block.clear()
            file.write(block)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        if not received:
            raise HTTPException(422, "expected a file as the body of the request, got nothing")
        # A link, unlike a rename, never takes the place of a file that is there.
        os.link(partial, target)
    except ClientDisconnect:
        raise HTTPException(400, "the upload ended early: nothing was kept") from None
    except FileExistsError:
        said = f"{target.name} is in the inbox already: wait until it is taken, or rename yours"
        raise HTTPException(409, said) from None
    except OSError as error:
        status = 507 if error.errno in (28, 122) else 500
        raise HTTPException(status, f"the inbox does not take the file: {error.strerror}") from None
    finally:
        with suppress(OSError):
            partial.unlink()
    return JSONResponse({"name": target.name, "bytes": received}, 201)
