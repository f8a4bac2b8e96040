"""The web application: `make_app`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.gzip import GZipMiddleware

from flows.http import changes, cone_search, pages, views
from flows.http.security import Gate, clean_text, confined
from flows.http.site import HERE, Limits, Site, get_site, skysift_version
from pipeline import metrics
from pipeline.survey import SurveyStore, open_store
from survey_io.errors import SkysiftError

__all__ = ["make_app"]

STATIC_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


def make_app(
    store_url: str | Path | SurveyStore | None,
    *,
    token: str | None = None,
    root: str | Path | None = None,
    inbox: str | Path | None = None,
    cache: str | Path | None = None,
    hosts: Iterable[str] = (),
    limits: Limits | None = None,
) -> FastAPI:
    """The survey's pages and interfaces as an ASGI application.

    Parameters
    ----------
    store_url : str, Path, SurveyStore or None
        As in `pipeline.survey.open_store`, or a store that is open.
    token : str, optional
        What a request that changes something must bring; without one all changes are refused.
    root : path-like, optional
        Files of runs are served from beneath this folder only. Default: from the folders that the store names.
    inbox : path-like, optional
        Folder for uploads; without one they are refused.
    cache : path-like, optional
        Folder for tiles and overviews; default: ``previews`` in the survey's folder, or the user's cache.
    hosts : iterable of str
        Host names, besides localhost and plain addresses, under which this server may be asked.
    limits : Limits, optional

    Raises
    ------
    OptionError, StoreError
        When the store cannot be opened.
    """
    store = store_url if isinstance(store_url, SurveyStore) else open_store(store_url)
    if cache is None:
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skysift"
        cache = (store.folder or user) / "previews"
    site = Site(
        store, token=token or None, root=None if root is None else Path(root),
        inbox=None if inbox is None else Path(inbox), cache=Path(cache), limits=limits or Limits(),
    )  # fmt: skip

    if site.inbox is not None:
        changes.drop_remains(site.inbox)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if store is not store_url:
            store.close()

    # FastAPI's own documentation pages load scripts from elsewhere.
    app = FastAPI(title="skysift", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.site = site
    for part in (cone_search, changes, views, pages):
        app.include_router(part.router)
    app.add_api_route("/static/{version}/{name}", static, methods=["GET"])
    app.add_api_route("/metrics", show_metrics, methods=["GET"])
    app.add_api_route("/healthz", healthz, methods=["GET"])
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=4)
    app.add_middleware(Gate, hosts=hosts)
    app.add_exception_handler(StarletteHTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(SkysiftError, _known_problem)
    return app


def static(request: Request, version: str, name: str) -> FileResponse:
    """Scripts and styles of the pages."""
    path = confined(HERE / "static", name)
    if path is None or path.suffix not in STATIC_TYPES:
        raise HTTPException(404, "there is no such file")
    current = version == get_site(request).static_version
    headers = {"cache-control": "public, max-age=31536000, immutable" if current else "no-cache"}
    return FileResponse(path, media_type=STATIC_TYPES[path.suffix], headers=headers)


def show_metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    store = get_site(request).store
    folder = None if store.folder is None else store.folder / "metrics"
    return Response(metrics.render(store, folder=folder), headers={"content-type": metrics.CONTENT_TYPE})


def healthz(request: Request) -> JSONResponse:
    """200 while the store answers, 503 otherwise."""
    site = get_site(request)
    try:
        schema = site.store.schema_version()
    except SkysiftError as error:
        return JSONResponse({"status": "failing", "reason": clean_text(error.message)}, 503)
    return JSONResponse({"status": "ok", "version": skysift_version(), "schema": schema})


def _problem(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    message = clean_text(message)
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        try:
            heading = HTTPStatus(status).phrase
        except ValueError:
            heading = "Error"
        response: Response = get_site(request).page(
            request, "problem.html", status=status, heading=heading, message=message
        )
    else:
        response = JSONResponse({"error": message}, status)
    response.headers.update(headers or {})
    return response


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return _problem(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()[:4])
    return _problem(request, 422, said)


async def _known_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, SkysiftError)
    return _problem(request, 503 if type(error).__name__ == "StoreError" else 400, error.message, {"Retry-After": "10"})
