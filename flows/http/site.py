"""What all requests share: store, limits, opened observations, tiles on disk, templates."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse
from numpy.typing import NDArray

from flows.http.security import clean_text
from pipeline.preview import Preview, open_preview
from pipeline.survey import SurveyStore
from pipeline.survey.browse import read_columns
from survey_io.errors import SkysiftError

__all__ = ["Limits", "Site", "get_site"]

HERE = Path(__file__).parent
# Observations, and catalogues as columns, that stay open.
OPEN_PREVIEWS, OPEN_TABLES = 8, 6
# Tiles written between two looks at how large the cache has become.
TILES_PER_CHECK = 256


@dataclass(frozen=True)
class Limits:
    """Bounds of a request's work.

    Attributes
    ----------
    rows : int
        Most rows of a cone search.
    radius : float
        Largest radius of a cone search, deg.
    cone_sources : int
        Most sources in the cells of a cone, whatever part of them is asked for.
    table_rows : int
        Rows of a run's table that the page gets.
    upload : int
        Bytes of an uploaded file.
    workers : int
        Requests that read pixels or many rows at the same time.
    wait : float
        Seconds that a request waits for its turn.
    cache : int
        Bytes of tiles and overviews on disk.
    """

    rows: int = 20_000
    radius: float = 10.0
    cone_sources: int = 300_000
    table_rows: int = 200_000
    upload: int = 64_000_000_000
    workers: int = 4
    wait: float = 20.0
    cache: int = 2_000_000_000


class Site:
    """The server's state.

    Parameters
    ----------
    store : SurveyStore
    token : str or None
        What a change must bring; None refuses all changes.
    root : Path or None
        Files of runs are served from beneath this folder only; None takes the store's word.
    inbox : Path or None
        Where uploads go; None refuses them.
    cache : Path
    limits : Limits
    """

    def __init__(
        self, store: SurveyStore, *, token: str | None, root: Path | None, inbox: Path | None, cache: Path,
        limits: Limits,
    ) -> None:  # fmt: skip
        self.store, self.token, self.inbox, self.cache, self.limits = store, token, inbox, cache, limits
        self.root = None if root is None else root.resolve()
        self._previews: OrderedDict[tuple[Any, ...], Preview | None] = OrderedDict()
        self._tables: OrderedDict[int, tuple[dict[str, NDArray[Any]], int]] = OrderedDict()
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(limits.workers)
        self._written = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold one of the places for work on pixels or many rows; 503 when none gets free in time."""
        if not self._turns.acquire(timeout=self.limits.wait):
            raise HTTPException(503, "the server is busy: try again in a moment", headers={"Retry-After": "3"})
        try:
            yield
        finally:
            self._turns.release()

    # ---- observations

    def observation(self, number: int) -> dict[str, Any]:
        """An observation; 404 when there is none."""
        try:
            return self.store.observation(number)
        except SkysiftError:
            raise HTTPException(404, f"there is no observation {number}") from None

    def run_of(self, observation: int, number: int | None) -> dict[str, Any] | None:
        """A run of an observation, the current one by default; None without any, 404 when it is another's."""
        if number is None:
            current = self.store.runs(observation, current=True, limit=1) or self.store.runs(
                observation, limit=1, newest=True
            )
            if not current:
                return None
            number = current[0]["id"]
        try:
            found = self.store.run(number)
        except SkysiftError:
            found = None
        if found is None or found["observation_id"] != observation:
            raise HTTPException(404, f"observation {observation} has no run {number}")
        return found

    def preview(self, observation: dict[str, Any]) -> Preview:
        """An observation opened to look at; 404 with the reason when that cannot be."""
        path = Path(observation["path"])
        try:
            status = path.stat()
            key = (observation["id"], str(path), status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            raise HTTPException(404, f"the observation's file is no longer at {path}: no image to show") from None
        with self._lock:
            known = key in self._previews
            if known:
                self._previews.move_to_end(key)
            found = self._previews.get(key)
        if not known:
            run = self.run_of(observation["id"], None)
            options = (run or {}).get("options") or {}
            try:
                with self.turn():
                    found = open_preview(path, self.cache, hdu=options.get("hdu"), beam=_beam(options.get("beam")))
            except SkysiftError as error:
                raise HTTPException(404, error.message) from None
            with self._lock:
                self._previews[key] = found
                while len(self._previews) > OPEN_PREVIEWS:
                    self._previews.popitem(last=False)
        if found is None:
            raise HTTPException(404, "an observation of spectra has no image")
        return found

    def columns(self, run: int) -> tuple[dict[str, NDArray[Any]], int]:
        """Columns of a run's sources by falling S/N, and how many rows the run has; a run never changes."""
        with self._lock:
            if run in self._tables:
                self._tables.move_to_end(run)
                return self._tables[run]
        with self.turn():
            found = read_columns(self.store, run, limit=self.limits.table_rows)
        with self._lock:
            self._tables[run] = found
            while len(self._tables) > OPEN_TABLES:
                self._tables.popitem(last=False)
        return found

    # ---- tiles

    def tile(self, preview: Preview, plane: str, level: int, row: int, column: int) -> bytes:
        """A tile as gzip, from the cache or the file; 404 when there is no such tile."""
        path = preview.folder / "tiles" / f"{plane[:20]}_{level}_{row}_{column}.gz"
        if plane.isalnum():
            with suppress(OSError):
                return path.read_bytes()
        try:
            with self.turn():
                content = preview.tile(plane, level, row, column)
        except IndexError as error:
            raise HTTPException(404, str(error)) from None
        except SkysiftError as error:
            raise HTTPException(404, error.message) from None
        # A full or read-only disk costs speed, not the tile.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
            temporary.write_bytes(content)
            temporary.replace(path)
        self._written += 1
        if self._written % TILES_PER_CHECK == 1:
            self.shrink_cache()
        return content

    def shrink_cache(self) -> None:
        """Delete the oldest tiles and overviews while the cache is larger than its limit."""
        files = []
        for folder, _, names in os.walk(self.cache):
            for name in names:
                with suppress(OSError):
                    path = os.path.join(folder, name)
                    status = os.stat(path)
                    files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= self.limits.cache:
            return
        for _, size, path in sorted(files):
            if total <= 0.9 * self.limits.cache:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size

    # ---- files of a run

    def output(self, run: dict[str, Any]) -> Path | None:
        """The folder of a run's files; None when there is none, or it lies outside of `root`."""
        if not run.get("output"):
            return None
        try:
            folder = Path(run["output"]).resolve()
            if not folder.is_dir() or (self.root is not None and not folder.is_relative_to(self.root)):
                return None
        except (OSError, ValueError, RuntimeError):
            return None
        return folder

    # ---- pages

    @cached_property
    def static_version(self) -> str:
        """Changes with the static files: their addresses may then be cached for ever."""
        digest = hashlib.sha256()
        for path in sorted((HERE / "static").iterdir()):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:10]

    @cached_property
    def templates(self) -> jinja2.Environment:
        """Every value in a page is escaped, and cleaned of characters that hide or reorder text."""
        return jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
            finalize=lambda value: clean_text(value) if type(value) is str else value, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip

    def page(
        self, request: Request, template: str, *, status: int = 200, here: str = "", **values: Any
    ) -> HTMLResponse:
        """A page from a template."""
        text = self.templates.get_template(template).render(
            base=request.scope.get("root_path", ""), static_version=self.static_version, here=here,
            query=values.pop("query", ""), status=status, **values,
        )  # fmt: skip
        return HTMLResponse(text, status_code=status, headers={"cache-control": "no-cache"})


def get_site(request: Request) -> Site:
    """The state of the server that a request reached."""
    return request.app.state.site


def _beam(option: Any) -> Any:
    if isinstance(option, dict):
        return tuple(option.get(name, 0.0) for name in ("major", "minor", "pa"))
    return tuple(option) if isinstance(option, (list, tuple)) and len(option) == 3 else None


def skysift_version() -> str:
    """The installed version."""
    try:
        return version("skysift")
    except PackageNotFoundError:
        return "0"


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
