"""The table that answers an IVOA Simple Cone Search, and its forms on the wire.

Simple Cone Search 1.03 (https://www.ivoa.net/documents/REC/DAL/ConeSearch-20080222.html, with its errata): the three
main columns carry the UCD1 that it names, all others UCD1+.
"""

from __future__ import annotations

import io
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from astropy.table import Column, Table

from survey_io.table_formats import write_csv, write_fits, write_votable

from .store import SurveyStore

__all__ = ["CONE_FORMATS", "cone_answer", "cone_error"]

# Column of the store's cone, name in the answer, verbosity from which it is shown, UCD, meaning.
_COLUMNS = (
    ("id", "source_id", 1, "ID_MAIN", "identifier of the source in this store; of one measurement, not of an object"),
    ("name", "name", 1, "meta.id", "IAU style name, coordinates truncated"),
    ("ra", "ra", 1, "POS_EQ_RA_MAIN", "right ascension, ICRS"),
    ("dec", "dec", 1, "POS_EQ_DEC_MAIN", "declination, ICRS"),
    ("distance", "distance", 2, "pos.angDistance", "from the centre of the cone"),
    ("flux", "flux", 2, "phot.flux", "integrated flux density of an image's source, line flux of a cube's"),
    ("flux_err", "flux_err", 2, "stat.error;phot.flux", "standard error of flux"),
    ("flux_unit", "flux_unit", 2, "meta.unit", "unit of flux and flux_err in this row"),
    ("snr", "snr", 2, "stat.snr", "signal-to-noise of the detection"),
    ("p_real", "p_real", 2, "stat.probability", "calibrated probability that the source is real"),
    ("maj", "maj", 2, "phys.angSize.smajAxis", "fitted major axis, FWHM, as seen through the beam"),
    ("min", "min", 2, "phys.angSize.sminAxis", "fitted minor axis, FWHM, as seen through the beam"),
    ("pa", "pa", 2, "pos.posAng", "position angle of maj, east of north"),
    ("freq", "freq", 2, "em.freq", "frequency of the line; images have none"),
    ("w20", "w20", 2, "spect.line.width", "width of the line at 20% of its peaks"),
    ("flags", "flags", 3, "meta.code.qual", "quality flags of the catalogue, a sum of bits"),
    ("kind", "kind", 3, "meta.code.class", "image, cube or spectrum"),
    ("object_id", "object_id", 3, "meta.id.assoc", "object that several measurements belong to; 0 for none"),
    ("observation_id", "observation_id", 3, "meta.id;obs", "number of the observation"),
    ("run_id", "run_id", 3, "meta.id;meta.dataset", "number of the run"),
    ("row", "row", 3, "meta.record", "row of the run's catalogue, from 0"),
)
CONE_FORMATS = {
    "votable": ("application/x-votable+xml", write_votable),
    "fits": ("application/fits", write_fits),
    "csv": ("text/csv; charset=utf-8; header=present", write_csv),
}
"""Media type and writer by the short name of RESPONSEFORMAT."""


def cone_answer(
    store: SurveyStore, ra: float, dec: float, radius: float, *, verbosity: int = 2, limit: int, form: str = "votable"
) -> tuple[bytes, int, bool]:
    """Answer a cone search.

    Parameters
    ----------
    store : SurveyStore
    ra, dec, radius : float
        ICRS degrees. Radius 0 asks for the columns alone, as the standard has it.
    verbosity : {1, 2, 3}
    limit : int
        Most rows; 0 asks for the columns alone.
    form : {"votable", "fits", "csv"}

    Returns
    -------
    (bytes, int, bool)
        The document, its rows, and whether there were more than `limit`.
    """
    wanted = 0 if radius == 0 else limit
    # Columns alone need no search.
    found = store.cone(ra, dec, radius if wanted else 0.0, limit=wanted + 1 if wanted else 0)
    overflow = wanted > 0 and len(found) > wanted
    table = _dress(found[:wanted], verbosity)
    status = "OVERFLOW" if overflow else "OK"
    parameters: dict[str, Any] = {"RA": ra, "DEC": dec, "SR": radius, "VERB": verbosity, "MAXREC": limit}
    buffer = io.BytesIO()
    if form == "votable":
        write_votable(table, parameters, buffer, closing={"QUERY_STATUS": status})
    else:
        CONE_FORMATS[form][1](table, {**parameters, "QUERY_STATUS": status}, buffer)
    return buffer.getvalue(), len(table), overflow


def _dress(found: Table, verbosity: int) -> Table:
    """The columns of a verbosity with units, UCDs and meanings."""
    table = Table()
    for source, name, shown, ucd, meaning in _COLUMNS:
        if shown > verbosity:
            continue
        values, unit = found[source], found[source].unit
        if source == "id":
            values = np.array([str(value) for value in np.asarray(values)], dtype="U20")
        elif source == "object_id":
            values = np.ma.filled(np.ma.asarray(values), 0)
        elif source == "flags":
            values = np.ma.filled(np.ma.asarray(values), 0).astype(np.int32)
        elif values.dtype.kind == "f" and source not in ("ra", "dec", "distance", "freq"):
            values = np.asarray(values, np.float32)
        column = Column(np.asarray(values), name=name, unit=unit, description=meaning)
        column.meta["ucd"] = ucd
        table.add_column(column)
    return table


def cone_error(message: str) -> bytes:
    """The standard's form of an error: an INFO named Error below the root, and DALI's within the results."""
    text = quoteattr(" ".join(message.split()))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
        f' <INFO ID="Error" name="Error" value={text}/>\n'
        f' <RESOURCE type="results">\n  <INFO name="QUERY_STATUS" value="ERROR">{_content(message)}</INFO>\n'
        " </RESOURCE>\n</VOTABLE>\n"
    ).encode("utf-8", "replace")


def _content(text: str) -> str:
    from xml.sax.saxutils import escape

    return escape(" ".join(text.split()))
