"""IVOA Simple Cone Search 1.03 over the current catalogue, with the two documents that a registry asks for (VOSI)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from xml.sax.saxutils import escape

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from flows.http.site import Limits, Site, get_site, now
from pipeline.survey.browse import count_cone, read_position
from pipeline.survey.simple_cone import CONE_FORMATS, cone_answer, cone_error
from survey_io.errors import SkysiftError

router = APIRouter()
# What clients write for RESPONSEFORMAT, besides the short names.
ALIASES = {
    "application/x-votable+xml": "votable", "text/xml": "votable", "application/fits": "fits", "text/csv": "csv",
    "text/xml;content=x-votable": "votable", "application/x-votable+xml;serialization=binary2": "votable",
}  # fmt: skip
DEFAULT_ROWS = 10_000


class _ProblemError(Exception):
    """What the standard's error document says."""


def _read(request: Request) -> dict[str, str]:
    """Parameters by their names in capitals; the standard's names have no case."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        key = name.upper()
        if key in found and key in ("RA", "DEC", "SR", "VERB", "MAXREC", "RESPONSEFORMAT"):
            raise _ProblemError(f"{key} is given more than once")
        found[key] = value.strip()
    return found


def _number(values: Mapping[str, str], name: str, low: float, high: float) -> float:
    if not values.get(name):
        raise _ProblemError(f"{name} is missing: RA, DEC and SR are needed, in degrees")
    try:
        number = float(values[name])
    except ValueError:
        raise _ProblemError(f"{name}: expected a number of degrees, got {values[name][:60]!r}") from None
    if not (math.isfinite(number) and low <= number <= high):
        raise _ProblemError(f"{name}: expected {low:g} to {high:g} degrees, got {values[name][:60]}")
    return number


def _count(values: Mapping[str, str], name: str, usual: int, highest: int | None) -> int:
    if not values.get(name):
        return usual
    try:
        number = int(values[name])
        if number < 0:
            raise ValueError
    except ValueError:
        raise _ProblemError(f"{name}: expected a whole number of 0 or more, got {values[name][:60]!r}") from None
    return number if highest is None else min(number, highest)


def _answer(site: Site, values: Mapping[str, str]) -> tuple[bytes, str]:
    limits = site.limits
    ra, dec = _number(values, "RA", 0, 360), _number(values, "DEC", -90, 90)
    radius = _number(values, "SR", 0, 180)
    verbosity = _count(values, "VERB", 2, None)
    if verbosity not in (1, 2, 3):
        raise _ProblemError(f"VERB: expected 1, 2 or 3, got {verbosity}")
    rows = _count(values, "MAXREC", min(DEFAULT_ROWS, limits.rows), limits.rows)
    form = values.get("RESPONSEFORMAT", "").lower() or "votable"
    form = ALIASES.get(form.replace("; ", ";"), form)
    if form not in CONE_FORMATS:
        raise _ProblemError(f"RESPONSEFORMAT: expected one of {', '.join(CONE_FORMATS)}, got {form[:60]!r}")
    if radius > limits.radius:
        raise _ProblemError(f"SR: this service searches at most {limits.radius:g} degrees, got {radius:g}")
    with site.turn():
        if rows and radius and count_cone(site.store, ra, dec, radius, limits.cone_sources + 1) > limits.cone_sources:
            raise _ProblemError(
                f"SR: more than {limits.cone_sources} sources lie around this cone; ask for a smaller one"
            )
        document, _, _ = cone_answer(site.store, ra, dec, radius, verbosity=verbosity, limit=rows, form=form)
    return document, CONE_FORMATS[form][0]


@router.get("/cone")
def cone(request: Request) -> Response:
    """Sources around a position: RA, DEC, SR in degrees; VERB, MAXREC, RESPONSEFORMAT."""
    # An error, too, is a VOTable with status 200: clients of this standard read the document, not the status.
    try:
        content, media = _answer(get_site(request), _read(request))
    except _ProblemError as problem:
        content, media = cone_error(str(problem)), CONE_FORMATS["votable"][0]
    except SkysiftError as error:
        content, media = cone_error(error.message), CONE_FORMATS["votable"][0]
    except HTTPException as busy:
        return Response(cone_error(str(busy.detail)), busy.status_code, busy.headers, CONE_FORMATS["votable"][0])
    return Response(content, media_type=media, headers={"cache-control": "no-cache"})


STARTED = now()


@router.get("/availability")
def availability(request: Request) -> Response:
    """VOSI: whether the service works."""
    try:
        get_site(request).store.schema_version()
        state, note = "true", "accepting queries"
    except SkysiftError as error:
        state, note = "false", error.message
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">\n'
        f" <vosi:available>{state}</vosi:available>\n <vosi:upSince>{STARTED}</vosi:upSince>\n"
        f" <vosi:note>{escape(note)}</vosi:note>\n</vosi:availability>\n"
    )
    return Response(text, media_type="text/xml")


@router.get("/capabilities")
def capabilities(request: Request) -> Response:
    """VOSI: what the service can do, as a registry record has it."""
    site = get_site(request)
    text = _capabilities(str(request.base_url).rstrip("/"), site.limits, read_position(site.store))
    return Response(text, media_type="text/xml")


def _capabilities(base: str, limits: Limits, position: tuple[float, float] | None) -> str:
    base = escape(base)
    ra, dec = position or (0.0, 0.0)
    parameters = "".join(
        f'   <param use="{use}" std="true">\n    <name>{name}</name>\n    <description>{meaning}</description>\n'
        f"    <dataType>{kind}</dataType>\n   </param>\n"
        for name, use, kind, meaning in (
            ("RA", "required", "real", "right ascension of the centre, ICRS degrees"),
            ("DEC", "required", "real", "declination of the centre, ICRS degrees"),
            ("SR", "required", "real", "radius, degrees; 0 for the columns only"),
            ("VERB", "optional", "integer", "1, 2 or 3: how many columns"),
            ("MAXREC", "optional", "integer", f"most rows, at most {limits.rows}"),
            ("RESPONSEFORMAT", "optional", "string", "votable, fits or csv"),
        )
    )
    vosi = "".join(
        f' <capability standardID="ivo://ivoa.net/std/VOSI#{name}">\n'
        '  <interface xsi:type="vs:ParamHTTP" role="std">\n'
        f'   <accessURL use="full">{base}/{name}</accessURL>\n  </interface>\n </capability>\n'
        for name in ("capabilities", "availability")
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0"\n'
        '  xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" xmlns:cs="http://www.ivoa.net/xml/ConeSearch/v1.0"\n'
        '  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
        ' <capability standardID="ivo://ivoa.net/std/ConeSearch" xsi:type="cs:ConeSearch">\n'
        '  <interface xsi:type="vs:ParamHTTP" role="std" version="1.03">\n'
        f'   <accessURL use="base">{base}/cone?</accessURL>\n   <queryType>GET</queryType>\n'
        f"   <resultType>application/x-votable+xml</resultType>\n{parameters}  </interface>\n"
        f"  <maxSR>{limits.radius:g}</maxSR>\n  <maxRecords>{limits.rows}</maxRecords>\n"
        "  <verbosity>true</verbosity>\n"
        f"  <testQuery>\n   <ra>{ra:.5f}</ra>\n   <dec>{dec:.5f}</dec>\n   <sr>0.01</sr>\n  </testQuery>\n"
        " </capability>\n"
        f"{vosi}</vosi:capabilities>\n"
    )
