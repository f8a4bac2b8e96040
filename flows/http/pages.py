"""Pages: the list of observations, the quarantine, one observation, and what else this server offers."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from flows.http.positions import parse_position
from flows.http.security import clean_text, confined
from flows.http.site import Site, get_site
from flows.http.statistics import describe_run
from pipeline.survey.browse import list_observations
from survey_io.errors import SkysiftError

router = APIRouter()
PER_PAGE, MOST_OFFSET = 50, 10**9
STATES = ("arrived", "running", "done", "failed", "quarantined")
# Radius of a position that is searched for without one, and sources that the page then lists.
USUAL_RADIUS, LISTED = 1 / 60, 25


def _size(number: int | None) -> str:
    if number is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.3g} {unit}" if number < 1000 else f"{number:,.0f} {unit}"
        number /= 1000
    return ""


def _time(text: str | None) -> str:
    return "" if not text else text[:19].replace("T", " ")


def _seconds(start: str | None, end: str | None) -> str:
    try:
        passed = datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(start))
    except (TypeError, ValueError):
        return ""
    return f"{passed.total_seconds():,.1f}"


def _row(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": found["id"], "name": found["name"], "kind": found["kind"] or "", "state": found["state"],
        "attempts": found["attempts"], "error": found["error"],
        "sources": "" if found["rows"] is None else f"{found['rows']:,}", "model": found["model"] or "",
        "arrived": _time(found["arrived"]), "seconds": _seconds(found["started"], found["finished"]),
        "size": _size(found["bytes"]),
    }  # fmt: skip


def _near(site: Site, ra: float, dec: float, radius: float) -> tuple[list[dict[str, Any]], list[int], str]:
    """Sources and observations around a position."""
    radius = min(radius, site.limits.radius)
    with site.turn():
        table = site.store.cone(ra, dec, radius, limit=1000)
    ids = sorted({int(one) for one in table["observation_id"]})
    names = {one: site.observation(one)["name"] for one in ids[:200]}

    def number(value: Any, form: str) -> str:
        return format(float(value), form) if math.isfinite(float(value)) else "–"

    rows = [
        {
            "name": str(one["name"]), "row": int(one["row"]), "observation_id": int(one["observation_id"]),
            "distance": f"{3600 * float(one['distance']):.1f}″", "ra": number(one["ra"], ".5f"),
            "dec": number(one["dec"], "+.5f"), "flux": f"{number(one['flux'], '.4g')} {one['flux_unit']}".strip(),
            "snr": number(one["snr"], ".1f"), "p_real": number(one["p_real"], ".3f"),
            "observation": names.get(int(one["observation_id"]), ""),
        }
        for one in table[:LISTED]
    ]  # fmt: skip
    more = "1,000 or more" if len(table) == 1000 else f"{len(table):,}"
    where = f"{60 * radius:g}′ of {ra:.5f} {dec:+.5f}"
    said = f"{more} source{'s' * (len(table) != 1)} of {len(ids):,} observation{'s' * (len(ids) != 1)} within {where}"
    return rows, ids, said + (f"; the nearest {LISTED} are listed." if len(table) > LISTED else ".")


@router.get("/")
def observations(
    request: Request, state: str | None = None, q: str = Query("", max_length=200),
    offset: int = Query(0, ge=0, le=MOST_OFFSET),
) -> HTMLResponse:  # fmt: skip
    """The list of observations, newest first."""
    site = get_site(request)
    if state not in STATES:
        state = None
    counts, found_sources, explanation, problem = site.store.counts(), [], "", ""
    ids, text = None, q.strip()
    position = parse_position(text) if text else None
    if position is not None:
        try:
            found_sources, ids, explanation = _near(site, position[0], position[1], position[2] or USUAL_RADIUS)
        except SkysiftError as error:
            problem = error.message
        text = ""
    rows, matching = list_observations(
        site.store, state=state, text=text or None, ids=ids, limit=PER_PAGE, offset=offset
    )
    base = request.scope.get("root_path", "")

    def link(**change: Any) -> str:
        values = {"state": state, "q": q or None, "offset": offset} | change
        return f"{base}/?{urlencode({key: value for key, value in values.items() if value})}"

    return site.page(
        request, "observations.html", here="observations", query=q, state=state, offset=offset, limit=PER_PAGE,
        rows=[_row(one) for one in rows], matching=matching, found_sources=found_sources, explanation=explanation,
        problem=problem, link=link, total=sum(counts["observations"].values()),
        states={name: counts["observations"].get(name, 0) for name in STATES},
        runs=counts.get("current_runs", counts["runs"]), sources=counts.get("current_sources", counts["sources"]),
    )  # fmt: skip


@router.get("/quarantine")
def quarantine(request: Request, offset: int = Query(0, ge=0, le=MOST_OFFSET)) -> HTMLResponse:
    """Files that could not be read, with the reasons."""
    site = get_site(request)
    rows, matching = list_observations(site.store, state="quarantined", limit=PER_PAGE, offset=offset)
    return site.page(
        request, "quarantine.html", here="quarantine", rows=[_row(one) for one in rows], matching=matching,
        offset=offset, limit=PER_PAGE,
    )  # fmt: skip


@router.get("/about")
def about(request: Request) -> HTMLResponse:
    """Addresses for programs."""
    site = get_site(request)
    return site.page(
        request, "about.html", here="about", address=str(request.base_url).rstrip("/"), limits=site.limits,
        writable=bool(site.token),
    )  # fmt: skip


@router.get("/runs/{number}")
def run(request: Request, number: int) -> RedirectResponse:
    """The page of a run is its observation's."""
    try:
        found = get_site(request).store.run(number)
    except SkysiftError:
        raise HTTPException(404, f"there is no run {number}") from None
    base = request.scope.get("root_path", "")
    return RedirectResponse(f"{base}/observations/{found['observation_id']}?run={number}", 307)


def product_pictures(folder: Path, manifest: dict[str, Any]) -> dict[int, str]:
    """Pictures of a cube's sources by source number, relative to the run's folder."""
    name = (manifest.get("files") or {}).get("products")
    if not isinstance(name, str):
        return {}
    found = {}
    for path in sorted((folder / name).glob("*.png"))[:100_000]:
        number = path.stem.rpartition("_")[2]
        if number.isdecimal():
            found[int(number)] = f"{name}/{path.name}"
    return found


def _files(site: Site, run: dict[str, Any], address: str) -> list[dict[str, str]]:
    folder = site.output(run)
    if folder is None:
        return []
    stem = str((run["manifest"].get("files") or {}).get("fits") or "")
    named = dict((run["manifest"].get("files") or {}).items())
    if stem.endswith("_cat.fits"):
        named["manifest"] = stem.removesuffix("_cat.fits") + "_run.json"
    files = []
    for kind, name in named.items():
        path = confined(folder, str(name))
        if path is not None:
            link = f"{address}/files/{quote(str(name).encode('utf-8', 'surrogateescape'))}?run={run['id']}"
            files.append({"kind": kind, "name": str(name), "href": link, "size": _size(path.stat().st_size)})
    return files


@router.get("/observations/{number}")
def observation(request: Request, number: int, run: int | None = None) -> HTMLResponse:
    """The page of one observation."""
    site = get_site(request)
    found = site.observation(number)
    shown = site.run_of(number, run)
    address = f"{request.scope.get('root_path', '')}/observations/{number}"
    kind = found["kind"] or (str(shown["manifest"].get("kind", "")) if shown else "")
    shape = ((shown or {}).get("manifest") or {}).get("input", {}).get("shape") or []
    files = _files(site, shown, address) if shown else []
    data = {
        "address": address, "observation": number, "run": shown["id"] if shown else None,
        "version": shown["uid"][:12] if shown else "", "has_image": kind not in ("spectrum", "classes"),
        "large": math.prod(shape) > 2e8 if shape else (found["bytes"] or 0) > 8e8,
    }  # fmt: skip
    return site.page(
        request, "observation.html", here="observations", observation=found, run=shown, kind=kind, address=address,
        data=clean_text(data), files=files, picture=next((f["href"] for f in files if f["kind"] == "quicklook"), None),
        runs=[_run_row(one) for one in site.store.runs(number, newest=True, limit=50)],
        arrived=_time(found["arrived"]), size=_size(found["bytes"]), facts=describe_run(found, shown),
        shape=" × ".join(f"{n:,}" for n in shape),
    )  # fmt: skip


def _run_row(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": found["id"], "model": found["model"] or "", "weights": (found["weights_sha256"] or "")[:12],
        "version": found["skysift_version"] or "", "rows": f"{found['rows']:,}", "finished": _time(found["finished"]),
        "seconds": _seconds(found["started"], found["finished"]), "current": found["current"],
    }  # fmt: skip
