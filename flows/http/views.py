"""What the page of an observation asks for: tiles, values, positions, its catalogue as numbers, charts, files."""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response

from flows.http.pages import product_pictures
from flows.http.positions import parse_position
from flows.http.security import clean_text, confined
from flows.http.site import Site, get_site
from flows.http.statistics import depth, distributions
from pipeline.survey.browse import read_source
from survey_io.columns import flags_text
from survey_io.errors import SkysiftError

router = APIRouter(prefix="/observations/{number}")
FOR_EVER = "private, max-age=31536000, immutable"
# What the table shows: name, heading, unit, type on the wire, meaning.
COLUMNS = (
    ("name", "name", "", "text", "IAU style name; a spectrum's name"),
    ("snr", "S/N", "", "f4", "signal-to-noise"),
    ("flux", "flux", "", "f4", "integrated flux, of a line where there are lines"),
    ("p_real", "p_real", "", "f4", "calibrated probability that the source is real"),
    ("ra", "RA", "deg", "f8", "right ascension, ICRS"),
    ("dec", "Dec", "deg", "f8", "declination, ICRS"),
    ("flux_err", "± flux", "", "f4", "standard error of flux"),
    ("maj", "maj", "arcsec", "f4", "major axis through the beam, FWHM"),
    ("min", "min", "arcsec", "f4", "minor axis through the beam, FWHM"),
    ("pa", "PA", "deg", "f4", "position angle, east of north"),
    ("freq", "freq", "MHz", "f8", "frequency of the line"),
    ("w20", "w20", "km/s", "f4", "width of the line at 20% of its peaks"),
    ("flags", "flags", "", "i4", "quality flags, a sum of bits: filter with & 1"),
    ("row", "row", "", "i4", "row of the catalogue, from 0"),
)
SAFE_TYPES = {".png": "image/png", ".json": "application/json", ".reg": "text/plain", ".txt": "text/plain"}


def _json(value: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(clean_text(value), status, headers={"cache-control": "no-cache"})


@router.get("/view")
def view(request: Request, number: int) -> JSONResponse:
    """Size, scale, planes and beam of the image."""
    site = get_site(request)
    return _json(site.preview(site.observation(number)).describe())


@router.get("/planes/{plane}")
def plane(request: Request, number: int, plane: str) -> JSONResponse:
    """Background and noise of a plane; the first question about a large image reads it once."""
    site = get_site(request)
    preview = site.preview(site.observation(number))
    try:
        with site.turn():
            return _json(preview.plane_scale(plane))
    except IndexError as error:
        raise HTTPException(404, str(error)) from None
    except SkysiftError as error:
        raise HTTPException(404, error.message) from None


@router.get("/tiles/{plane}/{level}/{row}/{column}")
def tile(request: Request, number: int, plane: str, level: int, row: int, column: int) -> Response:
    """One tile: 256 x 256 numbers, high bytes first, as gzip."""
    site = get_site(request)
    preview = site.preview(site.observation(number))
    tag = f'"{preview.key}-{quote(plane[:20])}-{level}-{row}-{column}"'
    headers = {"etag": tag, "vary": "accept-encoding", "cache-control": "no-cache"}
    if request.query_params.get("v") == preview.key:
        # The key names the file's content: such an address never changes its answer.
        headers["cache-control"] = FOR_EVER
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = site.tile(preview, plane, level, row, column)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
    else:
        content = gzip.decompress(content)
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.get("/probe")
def probe(request: Request, number: int, x: float, y: float, plane: str = Query(max_length=20)) -> JSONResponse:
    """Position and value of a pixel."""
    site = get_site(request)
    preview = site.preview(site.observation(number))
    if not (abs(x) < 1e9 and abs(y) < 1e9):
        raise HTTPException(422, "x and y are pixels of the image")
    try:
        return _json(preview.probe(plane, x, y))
    except IndexError as error:
        raise HTTPException(404, str(error)) from None


@router.get("/locate")
def locate(request: Request, number: int, q: str = Query(max_length=200)) -> JSONResponse:
    """Pixel of a position that somebody typed."""
    site = get_site(request)
    position = parse_position(q)
    if position is None:
        return _json({"error": "expected a position, such as 12:30:49.4 +12:23:28 or 187.706 12.391"}, 422)
    preview = site.preview(site.observation(number))
    x, y = (float(value[0]) for value in preview.plane.sky_to_pixel(np.array([position[0]]), np.array([position[1]])))
    ny, nx = preview.plane.shape
    if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5):
        return _json({"error": f"{position[0]:.5f} {position[1]:+.5f} lies outside of this image"}, 404)
    return _json({"x": x, "y": y})


@router.get("/spectrum")
def spectrum(request: Request, number: int, x: float, y: float, radius: float = 1.0) -> JSONResponse:
    """Spectrum of a cube around a pixel."""
    site = get_site(request)
    preview = site.preview(site.observation(number))
    try:
        with site.turn():
            return _json(preview.spectrum(x, y, radius))
    except IndexError as error:
        raise HTTPException(404, str(error)) from None


def _run(site: Site, number: int, run: int | None) -> dict[str, Any]:
    found = site.run_of(number, run)
    if found is None:
        raise HTTPException(404, "this observation has no run yet")
    return found


@router.get("/sources.bin")
def sources(request: Request, number: int, run: int | None = None) -> Response:
    """The catalogue's main columns as one block of numbers, sources of highest S/N first."""
    site = get_site(request)
    observation, found = site.observation(number), _run(site, number, run)
    tag = f'"{found["uid"]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    columns, total = site.columns(found["id"])
    placed: dict[str, Any] = {}
    if observation["kind"] not in ("spectrum", "classes"):
        try:
            placed = site.preview(observation).place(*(columns[name] for name in ("ra", "dec", "maj", "min", "pa")))
        except HTTPException:
            # The table is of use without its image.
            placed = {}
    return Response(_pack(columns, placed, total, found), media_type="application/octet-stream", headers=headers)


def _pack(columns: dict[str, Any], placed: dict[str, Any], total: int, run: dict[str, Any]) -> bytes:
    """uint32 length of a JSON header, the header, then each column on a multiple of 8 bytes; little endian."""
    entries, blocks = [], []
    given = {entry["name"]: entry for entry in run["catalogue"]["columns"]}
    shown = [
        (*entry, True) for entry in COLUMNS
        if entry[3] == "text" or entry[0] == "row" or np.isfinite(columns[entry[0]]).any() or not len(columns["row"])
    ]  # fmt: skip
    hidden = [(name, name, "", "f4", "", False) for name in placed]
    # Optical lines have frequencies that nobody reads in MHz.
    high = np.nanmedian(columns["freq"]) > 1e12 if np.isfinite(columns["freq"]).any() else False
    for name, label, unit, kind, meaning, show in (*shown, *hidden):
        values = columns[name] if show else placed[name]
        if kind == "text":
            block = "\n".join(clean_text(str(text)) for text in values).encode()
        elif kind == "i4":
            block = np.nan_to_num(values).astype("<i4").tobytes()
        else:
            scale = 1.0 if name != "freq" else 1e12 if high else 1e6
            block = (values / scale).astype(f"<{kind}").tobytes()
        if name == "freq" and high:
            unit = "THz"
        if name in ("flux", "flux_err"):
            unit = run.get("flux_unit") or ""
        meaning = (given.get(name) or {}).get("description") or meaning
        entries.append({"name": name, "label": label, "unit": unit, "type": kind, "description": meaning,
                        "show": show, "bytes": len(block), "offset": 0})  # fmt: skip
        blocks.append(block)
    header = {"rows": len(columns["row"]), "total": total, "columns": entries}
    # Offsets are part of the header whose length they depend on: numbers of a fixed width.
    width = len(json.dumps(clean_text(header))) + 12 * len(entries) + 16
    start = -(-(4 + width) // 8) * 8
    for entry, block in zip(entries, blocks, strict=True):
        entry["offset"] = start
        start += -(-len(block) // 8) * 8
    head = json.dumps(clean_text(header)).encode().ljust(width)
    parts = [struct.pack("<I", width) + head]
    parts[0] = parts[0].ljust(-(-len(parts[0]) // 8) * 8)
    parts.extend(block.ljust(-(-len(block) // 8) * 8, b"\0") for block in blocks)
    return b"".join(parts)


@router.get("/sources/{row}")
def source(request: Request, number: int, row: int, run: int | None = None) -> JSONResponse:
    """All columns of one source, and where else to read about it."""
    site = get_site(request)
    found = _run(site, number, run)
    try:
        values = read_source(site.store, found["id"], row)
    except SkysiftError:
        raise HTTPException(404, f"run {found['id']} has no row {row}") from None
    base, links = request.scope.get("root_path", ""), []
    known = {item["name"]: item["value"] for item in values["items"]}
    folder = site.output(found)
    picture = product_pictures(folder, found["manifest"]).get(known.get("source_id", -1)) if folder else None
    if picture:
        href = f"{base}/observations/{number}/files/{quote(picture)}?run={found['id']}"
        links.append({"text": "maps and spectrum", "href": href})
    if isinstance(known.get("ra"), float) and isinstance(known.get("dec"), float):
        where = quote(f'{known["ra"]:.6f} {known["dec"]:.6f} 10"')
        links.append({"text": "other observations here", "href": f"{base}/?q={where}"})
    for item in values["items"]:
        if item["name"] == "flags" and isinstance(item["value"], int):
            item["value"] = _flags(item["value"])
    title = known.get("name") or known.get("spectrum") or f"row {row}"
    items = [item for item in values["items"] if item["name"] not in ("name", "spectrum")]
    return _json({"title": title, "items": items, "links": links, "object": values["object_id"]})


def _flags(value: int) -> str:
    try:
        return f"{value} {flags_text(value)}".strip()
    except ValueError:
        # Spectra have flags of their own.
        return str(value)


@router.get("/charts")
def charts(request: Request, number: int, run: int | None = None) -> HTMLResponse:
    """Distributions and completeness, as a part of the page."""
    site = get_site(request)
    observation, found = site.observation(number), _run(site, number, run)
    columns, total = site.columns(found["id"])
    reached, notes = depth(site, observation, found, columns)
    shown = distributions(columns, observation["kind"] or "image", found.get("flux_unit") or "")
    return site.page(
        request, "charts.html", distributions=[chart.svg() for chart in shown], notes=notes,
        depth=[(chart.svg(), text) for chart, text in reached], rows=len(columns["row"]), total=total,
    )  # fmt: skip


@router.get("/files/{name:path}")
def files(request: Request, number: int, name: str, run: int | None = None) -> FileResponse:
    """A file that a run wrote."""
    site = get_site(request)
    found = _run(site, number, run)
    folder = site.output(found)
    path = confined(folder, name) if folder is not None else None
    if folder is None or path is None or not _written(found, path.relative_to(folder).as_posix()):
        raise HTTPException(404, "this run has no such file")
    kind = SAFE_TYPES.get(path.suffix.lower())
    # Only pictures and plain text are shown by the browser; all else is saved.
    return FileResponse(
        path, media_type=kind or "application/octet-stream", filename=clean_text(path.name),
        content_disposition_type="inline" if kind else "attachment",
        headers={"content-security-policy": "default-src 'none'; sandbox", "cache-control": "no-cache"},
    )  # fmt: skip


def _written(run: dict[str, Any], name: str) -> bool:
    """Whether a run wrote the file of this name: other files of a shared folder are not this run's to show."""
    named = {str(one) for one in (run["manifest"].get("files") or {}).values()}
    named |= {one.removesuffix("_cat.fits") + "_run.json" for one in named if one.endswith("_cat.fits")}
    return name in named or any(name.startswith(f"{one}/") for one in named if one)
