"""The cone search as its clients see it: pyvo on a real server, errors in the standard's form, other formats."""

from __future__ import annotations

import io
import urllib.parse
import urllib.request
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import pyvo
from astropy.io import votable
from astropy.table import Table
from pyvo.dal import DALQueryError
from pyvo.io import vosi

from pipeline.survey import open_store


@pytest.fixture
def service(survey_site: Any) -> pyvo.dal.SCSService:
    return pyvo.dal.SCSService(f"{survey_site.address}/cone?")


def get(site: Any, **values: Any) -> bytes:
    with urllib.request.urlopen(f"{site.address}/cone?{urllib.parse.urlencode(values)}", timeout=20) as answer:
        assert answer.status == 200
        return answer.read()


def error_of(document: bytes) -> str:
    """The message of an error document: an INFO named Error below the root, the only one."""
    parsed = votable.parse(io.BytesIO(document), verify="exception")
    (info,) = [info for info in parsed.infos if info.name == "Error"]
    return info.value


def test_pyvo_finds_the_planted_sources(survey_site: Any, service: pyvo.dal.SCSService) -> None:
    with open_store(survey_site.folder / "store") as store:
        (run,) = store.runs(survey_site.sky)
        catalogue = store.sources(run["id"])
    found = service.search(pos=(53.1, -27.8), radius=0.2, verbosity=3)
    ours = found.to_table()[np.asarray(found.to_table()["observation_id"]) == survey_site.sky]
    assert sorted(ours["name"]) == sorted(catalogue["name"]) and len(ours) > 5
    assert np.all(np.diff(found["distance"]) >= 0)
    record = found[0]
    assert record.pos.ra.deg == found["ra"][0] and record.id == found["source_id"][0]
    # The same record by the names of the standard.
    assert found.fieldname_with_ucd("POS_EQ_DEC_MAIN") == "dec"
    assert found.getdesc("flux").ucd == "phot.flux" and set(found["flux_unit"]) == {"Jy", "beam"}
    assert found.getdesc("ra").unit == "deg" and found.getdesc("maj").unit == "arcsec"


def test_the_document_says_its_frame_units_and_main_columns(survey_site: Any) -> None:
    # Astropy takes the UCDs that this standard demands, of the first generation, for errors when it is strict.
    parsed = votable.parse(io.BytesIO(get(survey_site, RA=53.1, DEC=-27.8, SR=0.2, VERB=1)), verify="ignore")
    table = parsed.get_first_table()
    assert [field.name for field in table.fields] == ["source_id", "name", "ra", "dec"]
    by_ucd = {field.ucd: field for field in table.fields}
    assert by_ucd["ID_MAIN"].datatype == "char"
    for ucd in ("POS_EQ_RA_MAIN", "POS_EQ_DEC_MAIN"):
        assert by_ucd[ucd].datatype == "double" and str(by_ucd[ucd].unit) == "deg"
        assert parsed.get_coosys_by_id(by_ucd[ucd].ref).system == "ICRS"


@pytest.mark.parametrize("values", [{"SR": 0}, {"SR": 0.5, "MAXREC": 0}])
def test_columns_only(survey_site: Any, values: dict[str, Any]) -> None:
    table = votable.parse(io.BytesIO(get(survey_site, RA=10.5, DEC=5.5, **values))).get_first_table()
    assert len(table.array) == 0 and "p_real" in table.array.dtype.names


def test_a_longer_answer_is_cut_to_the_nearest_and_says_so(survey_site: Any, service: pyvo.dal.SCSService) -> None:
    def status(found: pyvo.dal.SCSResults) -> str:
        return {info.name: info.value for info in found.votable.resources[0].infos}["QUERY_STATUS"]

    cut, whole = (service.search(pos=(10.5, 5.5), radius=0.05, **given) for given in ({"MAXREC": 7}, {}))
    assert len(cut) == 7 and len(whole) > 100
    assert (status(cut), status(whole)) == ("OVERFLOW", "OK")
    assert list(cut["source_id"]) == list(whole["source_id"][:7])
    # Nobody gets more than the server's own limit.
    wide = service.search(pos=(10.5, 5.5), radius=0.3, MAXREC=10**6)
    assert (len(wide), status(wide)) == (5000, "OVERFLOW")


def test_other_formats(survey_site: Any) -> None:
    values = {"RA": 10.5, "DEC": 5.5, "SR": 0.01}
    reference = votable.parse(io.BytesIO(get(survey_site, **values))).get_first_table().to_table()
    table = Table.read(io.BytesIO(get(survey_site, **values, RESPONSEFORMAT="fits")), format="fits")
    assert list(table["source_id"]) == list(reference["source_id"]) and str(table["ra"].unit) == "deg"
    text = Table.read(get(survey_site, **values, responseformat="text/csv").decode(), format="ascii.csv")
    assert np.allclose(text["ra"], reference["ra"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"DEC": 0, "SR": 1}, "RA is missing"),
        ({"RA": "as3f", "DEC": 0, "SR": 1}, "RA: expected a number of degrees, got 'as3f'"),
        ({"RA": 1, "DEC": 91, "SR": 1}, "DEC: expected -90 to 90"),
        ({"RA": 1, "DEC": "nan", "SR": 1}, "DEC: expected -90 to 90"),
        ({"RA": 1, "DEC": 0, "SR": 30}, "at most 10 degrees"),
        ({"RA": 1, "DEC": 0, "SR": 1, "VERB": 4}, "VERB: expected 1, 2 or 3"),
        ({"RA": 1, "DEC": 0, "SR": 1, "MAXREC": -1}, "MAXREC"),
        ({"RA": 1, "DEC": 0, "SR": 1, "RESPONSEFORMAT": "<x>"}, "RESPONSEFORMAT"),
        ({"RA": "1' OR 1=1 --", "DEC": 0, "SR": 1}, "RA: expected a number"),
    ],
)
def test_errors_have_the_form_of_the_standard(survey_site: Any, values: dict[str, Any], words: str) -> None:
    assert words in error_of(get(survey_site, **values))


def test_pyvo_raises_what_the_service_says(service: pyvo.dal.SCSService) -> None:
    with pytest.raises(DALQueryError, match="at most 10 degrees"):
        service.search(pos=(1, 2), radius=50)


def test_names_of_parameters_have_no_case_and_come_once(survey_site: Any) -> None:
    assert b"BINARY2" in get(survey_site, ra=10, Dec=5, sr=0.01)
    with urllib.request.urlopen(f"{survey_site.address}/cone?RA=1&ra=2&DEC=0&SR=1", timeout=20) as answer:
        assert "more than once" in error_of(answer.read())


def test_a_registry_can_read_what_the_service_offers(survey_site: Any) -> None:
    with urllib.request.urlopen(f"{survey_site.address}/availability", timeout=20) as answer:
        assert vosi.parse_availability(io.BytesIO(answer.read()), pedantic=True).available
    with urllib.request.urlopen(f"{survey_site.address}/capabilities", timeout=20) as answer:
        root = ElementTree.parse(answer).getroot()
    capability = next(one for one in root if one.get("standardID") == "ivo://ivoa.net/std/ConeSearch")
    assert (capability.findtext("maxSR"), capability.findtext("maxRecords")) == ("10", "5000")
    access = capability.findtext("interface/accessURL")
    assert access == f"{survey_site.address}/cone?"
    ra, dec, radius = (float(capability.findtext(f"testQuery/{name}")) for name in ("ra", "dec", "sr"))
    assert len(pyvo.dal.SCSService(access).search(pos=(ra, dec), radius=radius)) > 0
