"""Pages, tiles and changes over HTTP: what is shown, what is refused, and that nothing gets out or in by its name."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from astropy.table import Table

from flows.http import make_app
from flows.http.charts import Chart, histogram
from flows.http.positions import parse_position
from flows.http.running import bind, serve_beside
from flows.http.security import Gate, clean_name, clean_text, confined
from pipeline.survey import open_store
from survey_io.image import open_image

TOKEN = "0123456789abcdef0123456789abcdef"


def ask(
    site: Any, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request whose path is sent as it stands."""
    connection = http.client.HTTPConnection(urlsplit(site.address).netloc, timeout=30)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=names)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def page(site: Any, path: str) -> str:
    status, _, body = ask(site, path, accept="text/html")
    assert status == 200, body
    return body.decode()


def decode(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and columns of sources.bin, as the page reads them."""
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length])
    columns: dict[str, Any] = {}
    for one in header["columns"]:
        block = body[one["offset"] : one["offset"] + one["bytes"]]
        columns[one["name"]] = block.decode().split("\n") if one["type"] == "text" else np.frombuffer(
            block, f"<{one['type']}"
        )  # fmt: skip
    return header, columns


def test_the_list_shows_filters_and_finds(survey_site: Any) -> None:
    text = page(survey_site, "/")
    assert "planted.fits" in text and "1 quarantined" not in text and ">quarantined</span> 1<" in text
    assert "planted.fits" not in page(survey_site, "/?state=quarantined")
    found = page(survey_site, "/?q=PLANT")
    assert "planted.fits" in found and "cube.fits" not in found
    # A percent sign is a character of a name, not a wildcard.
    assert "Nothing matches" in page(survey_site, "/?q=%25")
    near = page(survey_site, "/?q=" + quote("53.1 -27.8 0.1d"))
    assert "planted.fits" in near and "cube.fits" not in near and "sources of 2 observations" in near
    assert "Nothing matches" in page(survey_site, "/?q=" + quote("53.1 27.8"))


def test_hostile_names_and_headers_stay_text(survey_site: Any) -> None:
    for path in ("/", "/quarantine", f"/observations/{survey_site.hostile}", f"/observations/{survey_site.quarantined}",
                 f"/observations/{survey_site.hostile}/charts"):  # fmt: skip
        text = page(survey_site, path)
        assert "<img src=x" not in text and "<script>document" not in text and "<b onclick" not in text
    assert "&lt;img src=x onerror=" in page(survey_site, "/")
    hostile = "/?q=" + quote("\"><script>document.title='taken'</script>")
    assert "<script>document" not in page(survey_site, hostile)
    status, headers, body = ask(survey_site, "/observations/<script>alert(1)</script>", accept="text/html")
    assert status == 404 and b"<script>alert" not in body and headers["content-type"].startswith("text/html")
    status, _, body = ask(survey_site, "/observations/<img%20src=x>", accept="text/html")
    assert status == 422 and b"<img src=x" not in body


def test_no_page_names_another_server_and_none_runs_inline_script(survey_site: Any) -> None:
    for path in ("/", "/about", "/quarantine", f"/observations/{survey_site.sky}"):
        status, headers, body = ask(survey_site, path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        text = body.decode().replace(survey_site.address, "")
        assert "http://" not in text and "https://" not in text
        assert " style=" not in text and " onclick=" not in text and "<style" not in text
    folder = Path(__file__).resolve().parents[2] / "flows" / "http" / "static"
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "").replace("://", "§"), path


def test_an_observation_tells_where_it_comes_from(survey_site: Any) -> None:
    text = page(survey_site, f"/observations/{survey_site.sky}")
    with open_store(survey_site.folder / "store") as store:
        (run,) = store.runs(survey_site.sky)
        digest = store.observation(survey_site.sky)["sha256"]
    assert digest in text and run["uid"] in text and "threshold" in text and "planted_cat.fits" in text
    charts = page(survey_site, f"/observations/{survey_site.sky}/charts")
    assert charts.count("<svg") == 8 and "Completeness, measured" in charts and "planted_truth.ecsv" in charts
    none = page(survey_site, f"/observations/{survey_site.hostile}/charts")
    assert "no truth list" in none and "Expected completeness" in none
    cube = page(survey_site, f"/observations/{survey_site.cube}/charts")
    assert "not given for cubes" in cube
    gone = page(survey_site, f"/observations/{survey_site.many}/charts")
    assert "no longer at" in gone


def test_tiles_are_the_image_and_are_cached(survey_site: Any) -> None:
    base = f"/observations/{survey_site.sky}"
    view = json.loads(ask(survey_site, f"{base}/view")[2])
    scale = json.loads(ask(survey_site, f"{base}/planes/image")[2])
    path = f"{base}/tiles/image/0/0/0?v={view['key']}"
    status, headers, body = ask(survey_site, path, accept_encoding="gzip")
    assert status == 200 and headers["content-encoding"] == "gzip" and "immutable" in headers["cache-control"]
    high, low = np.frombuffer(gzip.decompress(body), np.uint8).reshape(2, 256, 256)
    coded = (high.view(np.int8).astype(int) << 8) | low
    image = open_image(survey_site.folder / "planted.fits").pixels.read()
    ny, nx = image.shape
    snr = view["softening"] * np.sinh(coded[:ny, :nx] / view["scale"])
    expected = (image - scale["level"]) / scale["noise"][0]
    assert np.all(np.abs(snr - expected) <= 0.02 + 0.005 * np.abs(expected))
    assert np.all(coded[ny:] == view["blank"]) and np.all(coded[:, nx:] == view["blank"])
    assert ask(survey_site, path)[2] == gzip.decompress(body)
    assert ask(survey_site, path, if_none_match=headers["etag"])[0] == 304
    assert "immutable" not in ask(survey_site, path.split("?")[0])[1]["cache-control"]
    for wrong in ("image/9/0/0", "image/0/1/0", "image/-1/0/0", "0/0/0/0", "..%2f..%2fetc/0/0/0"):
        assert ask(survey_site, f"{base}/tiles/{wrong}")[0] == 404


def test_values_under_the_cursor(survey_site: Any) -> None:
    observation = open_image(survey_site.folder / "planted.fits")
    value = json.loads(ask(survey_site, f"/observations/{survey_site.sky}/probe?plane=image&x=20&y=31")[2])
    ra, dec = (float(np.ravel(one)[0]) for one in observation.pixel_to_sky(20, 31))
    assert (value["ra"], value["dec"]) == pytest.approx((ra, dec))
    pixel = observation.pixels.read((slice(31, 32), slice(20, 21)))[0, 0]
    assert value["value"] == pytest.approx(float(pixel), rel=1e-5)
    place = json.loads(ask(survey_site, f"/observations/{survey_site.sky}/locate?q={quote(f'{ra} {dec}')}")[2])
    assert (place["x"], place["y"]) == pytest.approx((20, 31), abs=1e-3)
    assert ask(survey_site, f"/observations/{survey_site.sky}/locate?q=0+0")[0] == 404
    spectrum = json.loads(ask(survey_site, f"/observations/{survey_site.cube}/spectrum?x=30&y=12&radius=1")[2])
    assert int(np.argmax(spectrum["value"])) == 9 and spectrum["frequency"][9] == pytest.approx(1401.8)


def test_the_catalogue_as_numbers(survey_site: Any) -> None:
    status, headers, body = ask(survey_site, f"/observations/{survey_site.sky}/sources.bin")
    header, columns = decode(body)
    with open_store(survey_site.folder / "store") as store:
        catalogue = store.sources(store.runs(survey_site.sky)[0]["id"])
    assert header["rows"] == header["total"] == len(catalogue)
    order = columns["row"]
    assert list(columns["name"]) == list(np.asarray(catalogue["name"])[order])
    for name in ("ra", "dec", "flux", "p_real"):
        assert np.allclose(columns[name], np.asarray(catalogue[name])[order], rtol=1e-6, equal_nan=True)
    # Where the server draws them is where the pipeline found them.
    assert np.allclose(columns["x"], np.asarray(catalogue["x"])[order], atol=0.01)
    assert ask(survey_site, f"/observations/{survey_site.sky}/sources.bin", if_none_match=headers["etag"])[0] == 304
    source = json.loads(ask(survey_site, f"/observations/{survey_site.sky}/sources/{order[0]}")[2])
    assert {"flux_net", "local_rms"} <= {item["name"] for item in source["items"]}
    assert ask(survey_site, f"/observations/{survey_site.sky}/sources/99999")[0] == 404


def test_a_spectrum_shows_the_pipelines_picture(survey_site: Any) -> None:
    lines = Table({"line_id": [1, 2], "spectrum": ["<i>star", "<i>star"], "frequency": [6e14, 5e14], "snr": [9.0, 12.0],
                   "p_real": [0.9, 0.95], "flux": [-1.0, 2.0]})  # fmt: skip
    (survey_site.folder / "out" / "star_quicklook.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    manifest = {
        "input": {"path": "/data/star.fits", "shape": [900], "sha256": "f" * 64}, "model": {"name": "lines"},
        "options": {}, "versions": {"skysift": "0.1.0"}, "files": {"quicklook": "star_quicklook.png"},
    }  # fmt: skip
    with open_store(survey_site.folder / "store") as store:
        run = store.record(manifest, lines, output=survey_site.folder / "out")
        number = store.run(run)["observation_id"]
    text = page(survey_site, f"/observations/{number}")
    assert "<canvas" not in text and f'<img src="/observations/{number}/files/star_quicklook.png?run={run}"' in text
    status, headers, _ = ask(survey_site, f"/observations/{number}/files/star_quicklook.png?run={run}")
    assert status == 200 and headers["content-type"] == "image/png"
    header, columns = decode(ask(survey_site, f"/observations/{number}/sources.bin")[2])
    assert list(columns["freq"]) == [500.0, 600.0] and columns["name"] == ["<i>star"] * 2
    assert next(one["unit"] for one in header["columns"] if one["name"] == "freq") == "THz"
    charts = page(survey_site, f"/observations/{number}/charts")
    assert "not given for spectra" in charts and "<i>star" not in charts
    assert ask(survey_site, f"/observations/{number}/view")[0] == 404


def test_files_of_a_run_and_no_others(survey_site: Any, tmp_path: Path) -> None:
    base = f"/observations/{survey_site.sky}/files"
    status, headers, body = ask(survey_site, f"{base}/planted_cat.fits")
    assert status == 200 and body[:6] == b"SIMPLE" and headers["content-disposition"].startswith("attachment")
    assert "sandbox" in headers["content-security-policy"]
    output, secret = survey_site.folder / "out", tmp_path / "secret.txt"
    secret.write_text("secret")
    (output / "other.txt").write_text("another run's")
    # A link that a run named leads outside.
    os.replace(output / "planted.reg", tmp_path / "kept.reg")
    (output / "planted.reg").symlink_to(secret)
    try:
        for name in ("planted.reg", "other.txt", "../planted.fits", "..%2fplanted.fits", "%2e%2e/planted.fits",
                     str(secret), "/etc/passwd", "//etc/passwd", "planted_cat.fits%00.txt", ""):  # fmt: skip
            status, _, body = ask(survey_site, f"{base}/{name}")
            assert status in (404, 405) and b"secret" not in body, name
    finally:
        (output / "planted.reg").unlink()
        os.replace(tmp_path / "kept.reg", output / "planted.reg")
    for name in ("../style.css", "..%2f..%2fapp.py", "%2e%2e/app.py"):
        assert ask(survey_site, f"/static/x/{name}")[0] == 404


def test_only_known_host_names_are_answered(survey_site: Any) -> None:
    foreign = ("evil.example", "localhost.evil.example", "", "localhost:1:2", "127.0.0.1.evil.example", "a@localhost")
    for host in foreign:
        assert ask(survey_site, "/", host=host)[0] in (400, 421), host
    for host in ("localhost", "LOCALHOST:99", "127.0.0.1:8", "[::1]:80", "192.168.7.7"):
        assert ask(survey_site, "/healthz", host=host)[0] == 200, host
    assert Gate(None, ["survey.example"]).allows("Survey.Example:80")  # type: ignore[arg-type]


def test_changes_need_the_token(survey_site: Any) -> None:
    before = sorted(survey_site.inbox.iterdir())
    wrong = ("Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer \xff\xfe")
    for headers in ({}, {"cookie": f"token={TOKEN}"}, *({"authorization": value} for value in wrong)):
        for method, path in (("PUT", "/inbox/a.fits"), ("POST", f"/observations/{survey_site.sky}/reprocess"),
                             ("POST", "/runs/1/current")):  # fmt: skip
            status, answer, _ = ask(survey_site, path, method=method, body=b"x", **headers)
            assert status == 401 and answer["www-authenticate"] == "Bearer"
    # A token in the address ends up in logs and histories: it does not count.
    assert ask(survey_site, f"/runs/1/current?token={TOKEN}", method="POST")[0] == 401
    assert sorted(survey_site.inbox.iterdir()) == before
    with open_store(survey_site.folder / "store") as store:
        assert store.observation(survey_site.sky)["state"] == "done"


def test_without_a_configured_token_changes_are_refused(survey_site: Any, tmp_path: Path) -> None:
    # What a killed server left of an upload the day before yesterday goes.
    remains = tmp_path / f".upload-{'0' * 24}.part"
    remains.write_text("half")
    os.utime(remains, (0, 0))
    app = make_app(survey_site.folder / "store", inbox=tmp_path, token="", cache=tmp_path / "cache")
    with serve_beside(app, bind("127.0.0.1:0")) as address:
        site = replace(survey_site, address=address)
        for headers in ({}, {"authorization": "Bearer "}, {"authorization": "Bearer None"}):
            assert ask(site, "/inbox/a.fits", method="PUT", body=b"x", **headers)[0] == 403
        assert ask(site, "/metrics")[0] == 200
    assert list(tmp_path.iterdir()) == []


def test_uploads_land_in_the_inbox_whole(survey_site: Any) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    kept = {
        "plain.fits": "plain.fits", "..%2f..%2fetc%2fpasswd": "passwd", "a/b/..%5c.hidden.fits": "hidden.fits",
        quote("<img src=x>.fits"): "img_src_x_.fits", "-rf.fits": "rf.fits", quote("a\tb;$(rm).fits"): "a_b_rm_.fits",
    }  # fmt: skip
    for name, expected in kept.items():
        status, _, body = ask(survey_site, f"/inbox/{name}", method="PUT", body=b"content", **bearer)
        assert status == 201 and json.loads(body) == {"name": expected, "bytes": 7}, body
        assert (survey_site.inbox / expected).read_bytes() == b"content"
    assert ask(survey_site, "/inbox/plain.fits", method="POST", body=b"again", **bearer)[0] == 409
    assert (survey_site.inbox / "plain.fits").read_bytes() == b"content"
    assert ask(survey_site, "/inbox/..", method="PUT", body=b"x", **bearer)[0] == 422
    assert ask(survey_site, "/inbox/empty.fits", method="PUT", body=b"", **bearer)[0] == 422
    assert ask(survey_site, "/inbox/big.fits", method="PUT", body=bytes(100_001), **bearer)[0] == 413
    # Sent without its length, it is cut off when it has become too long.
    chunks = iter([bytes(60_000), bytes(60_000)])
    connection = http.client.HTTPConnection(urlsplit(survey_site.address).netloc, timeout=30)
    connection.request("PUT", "/inbox/chunked.fits", body=chunks, headers=bearer, encode_chunked=False)
    assert connection.getresponse().status == 413
    connection.close()
    # A sender that goes away in the middle leaves nothing behind.
    connection = http.client.HTTPConnection(urlsplit(survey_site.address).netloc, timeout=30)
    connection.putrequest("PUT", "/inbox/cut.fits")
    for name, value in {**bearer, "content-length": "50000"}.items():
        connection.putheader(name, value)
    connection.endheaders(bytes(20_000))
    connection.close()
    end = time.monotonic() + 10
    while any(path.name.startswith(".") for path in survey_site.inbox.iterdir()) and time.monotonic() < end:
        time.sleep(0.02)
    assert sorted(path.name for path in survey_site.inbox.iterdir()) == sorted(kept.values())


def test_an_observation_can_be_processed_again_and_a_former_run_put_back(survey_site: Any) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    with open_store(survey_site.folder / "store") as store:
        former = store.runs(survey_site.hostile)[0]
        options = {**store.run(former["id"])["options"], "threshold": 0.99}
        manifest = {**store.run(former["id"])["manifest"], "options": options}
        later = store.record(manifest, store.sources(former["id"])[:1], output=survey_site.folder / "hostile")
        path = f"/observations/{survey_site.hostile}"
        assert f"run {later}," in page(survey_site, path)
        assert "superseded" in page(survey_site, f"{path}?run={former['id']}")
        assert ask(survey_site, f"/runs/{former['id']}/current", method="POST", **bearer)[0] == 200
        assert [one["id"] for one in store.runs(survey_site.hostile, current=True)] == [former["id"]]
        assert ask(survey_site, f"/observations/{survey_site.sky}?run={later}")[0] == 404
        assert ask(survey_site, f"{path}/reprocess", method="POST", **bearer)[0] == 202
        assert store.observation(survey_site.hostile)["state"] == "arrived"
        assert ask(survey_site, f"{path}/reprocess", method="POST", **bearer)[0] == 409
        assert store.claim("test")["id"] == survey_site.hostile and store.finish(survey_site.hostile, "test")
        assert ask(survey_site, f"/observations/{survey_site.many}/reprocess", method="POST", **bearer)[0] == 409
        assert ask(survey_site, "/observations/999/reprocess", method="POST", **bearer)[0] == 404


def test_numbers_for_those_who_watch(survey_site: Any) -> None:
    status, headers, body = ask(survey_site, "/metrics")
    assert status == 200 and 'skysift_observations{state="quarantined"} 1' in body.decode()
    assert json.loads(ask(survey_site, "/healthz")[2])["status"] == "ok"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("187.7 12.39", (187.7, 12.39, None)),
        ("-10, +5 30\"", (350.0, 5.0, 30 / 3600)),
        ("12:30:49.4 -12:23:28 5'", (187.705833, -12.391111, 5 / 60)),
        ("12h30m49.4s +12d23m28s", (187.705833, 12.391111, None)),
        ("00 00 01 -00 00 30", (0.0041667, -0.0083333, None)),
        ("SKS J123049.40+122328.0", (187.705833, 12.391111, None)),
        ("image_12 34.fits", None),
        ("25:00:00 +10:00:00", None),
        ("10 95", None),
    ],
)
def test_positions(text: str, expected: tuple[float, float, float | None] | None) -> None:
    found = parse_position(text)
    if expected is None:
        assert found is None
    else:
        assert found is not None and found[:2] == pytest.approx(expected[:2], abs=1e-5)
        assert found[2] == (None if expected[2] is None else pytest.approx(expected[2]))


def test_names_and_texts_are_cleaned(tmp_path: Path) -> None:
    assert clean_name("x/../..\\.a b<c>.fits") == "a_b_c_.fits" and len(clean_name("a" * 900 + ".fits")) == 200
    for name in ("", "..", "///", "\u202e", "...---"):
        with pytest.raises(ValueError, match="letters or digits"):
            clean_name(name)
    assert clean_text("a\udcffb\u202ec\n\0") == "a\ufffdb\ufffdc\ufffd\ufffd" and clean_text("σ ″ é") == "σ ″ é"
    assert clean_text({"a": [float("nan"), 1.5, "x\n"]}) == {"a": [None, 1.5, "x\ufffd"]}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    assert confined(tmp_path / "in", "a") == tmp_path / "in" / "a"
    assert [confined(tmp_path / "in", name) for name in ("../b", "", ".", "a\0", str(tmp_path / "b"))] == [None] * 5


def test_charts_escape_their_texts_and_survive_odd_values() -> None:
    chart = histogram([1.0, 2.0, np.nan, np.inf], title="<b>", label='"&', log=True)
    text = str(chart.svg()) if chart is not None else ""
    assert "<b>" not in text and "&lt;b&gt;" in text and text.count("<rect") == 2
    assert histogram([np.nan, -1.0], title="", label="", log=True) is None
    assert histogram([3.0, 3.0], title="", label="") is not None
    line = Chart("t", "x", "y", (1, 1e4), (0, 1), log=True).line([1, 10, 100, 1000], [0, 0.5, np.nan, 1])
    # The line breaks where a value is missing: two moves of the pen.
    assert str(line.svg()).split('class="line a" d="')[1].split('"')[0].count("M") == 2
    assert ">10⁻⁹<" in str(Chart("", "", "", (1e-9, 1e4), (0, 1), log=True).svg())
