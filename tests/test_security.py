"""What comes from others cannot do harm: names, headers, tables, packed files, weights, and what is read by the code.

Pages, uploads and the cone search are in tests/flows/test_http_pages.py, conditions of queries in
tests/flows/test_query_command.py, links in an inbox in tests/pipeline/test_inbox.py.
"""

from __future__ import annotations

import ast
import gzip
import json
import logging
import os
import pickle
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from astropy.io import fits
from astropy.table import Table

from models.checkpoints import load_checkpoint
from models.weights import load_weights
from pipeline.detect import detect
from pipeline.journal import LOGGERS, read_journal, start_journal
from pipeline.options import DetectOptions, read_option_values
from pipeline.survey import open_store
from survey_io import open_image
from survey_io.catalogue import read_catalogue, write_catalogue
from survey_io.columns import make_table
from survey_io.errors import InputError, OptionError, OutputError, SkysiftError
from survey_io.spectra import open_spectra

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("survey_io", "models", "pipeline", "flows")
# Each is the name of a file and the value of header keywords; "/" cannot stand in a name, the rest can.
NASTY = (
    "'; DROP TABLE source; --<script>alert(1)<img src=x onerror=alert(2)>",
    "=cmd|' C calc'!A0$(touch pwned)`touch pwned`;touch pwned&$\\frac{1${0}%s%n{x} # text={y}",
    "..\nskysift: error: forged\r\x1b[2J\x1b]0;title\x07\u202egnp\u2028-o\x85",
    "b\udcffytes \udc80 that are no UTF-8",
)


@pytest.fixture
def hostile(planted_sky: Any, tmp_path: Path) -> list[Path]:
    """The planted sky under each of the names, which are also what its header says."""
    folder, paths = tmp_path / "hostile", []
    folder.mkdir()
    with fits.open(planted_sky.path) as hdus:
        for name in NASTY:
            text = name.encode("ascii", "replace").decode()
            for key in ("OBJECT", "TELESCOP", "OBSERVER", "INSTRUME"):
                hdus[0].header[key] = "".join(one for one in text if one.isprintable())[:60]
            paths.append(folder / f"{name}.fits")
            hdus.writeto(paths[-1])
    return paths


@pytest.fixture(autouse=True)
def _nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands in names and pickles make a file where they run."""
    monkeypatch.chdir(tmp_path)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(one, one.handlers[:], one.propagate, one.level) for one in loggers]
    yield
    for one, one.handlers[:], one.propagate, level in before:
        one.setLevel(level)
    assert not list(tmp_path.rglob("pwned*")) and not list(ROOT.glob("pwned*"))


def test_names_and_headers_stay_text(
    hostile: list[Path], tmp_path: Path, store_url: str, capsys: pytest.CaptureFixture
) -> None:
    out, formats = tmp_path / "out", ("fits", "votable", "ecsv", "csv", "parquet")
    before = set(tmp_path.parent.iterdir())
    start_journal(tmp_path / "logs")
    with open_store(store_url) as store:
        for path in hostile:
            result = detect(path, DetectOptions(output=out, model="threshold", formats=formats))
            assert all(file.parent == out and file.is_file() for file in result.files.values())
            for name in formats:
                assert len(read_catalogue(result.files[name])) == 12
            assert json.loads(result.files["manifest"].read_text())["input"]["path"] == str(path)
            regions = result.files["regions"].read_text().splitlines()
            assert len(regions) == 15 and all(one.startswith(("ellipse(", "point(")) for one in regions[3:])
            run = store.record(result)
            assert Path(store.run(run)["output"]) == out
            observation = store.observation(store.run(run)["observation_id"])
            assert Path(observation["path"]) == path
            logging.getLogger("pipeline").warning("%s: seen", path)
        assert store.counts()["sources"] == 12 * len(hostile) and store.check()["problems"] == []
    assert len(list(read_journal(tmp_path / "logs"))) == len(hostile)
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == len(hostile) and "\x1b" not in shown
    assert set(tmp_path.parent.iterdir()) == before


def test_the_command_shows_such_names_as_text(hostile: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / f"{NASTY[2]}.fits"
    broken.write_bytes(b"SIMPLE")
    words = [*hostile[2:], broken, "-o", tmp_path / "out", "--model", "threshold"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "detect", *words], capture_output=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    for text in (done.stdout.decode(), done.stderr.decode()):
        assert "\x1b" not in text and "\u202e" not in text and "\r" not in text
        assert not [line for line in text.splitlines() if line.startswith("skysift: error: forged")]
    assert len(done.stderr.splitlines()) == 1


def test_spreadsheets_find_no_formulas(tmp_path: Path) -> None:
    names = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd|'x'!A0", "\tx", "-12.5+30", "+1.5", "SKY J1", "a=b"]
    table = Table({"name": np.array(names), "flux": np.arange(9.0) - 4})
    write_catalogue(table, tmp_path / "t.csv")
    cells = [line.rpartition(",")[0].strip('"') for line in (tmp_path / "t.csv").read_text().splitlines()[1:]]
    assert [cell.startswith("'") for cell in cells] == [True] * 5 + [False] * 4
    assert list(table["name"]) == names
    assert (tmp_path / "t.csv").read_text().splitlines()[1].endswith(",-4")


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield path.relative_to(ROOT).as_posix(), node


def test_the_code_loads_no_pickles_and_runs_no_shell() -> None:
    # Between this program and helpers that it has started itself, over pipes that nobody else has.
    own_pipes = {"pipeline/local_workers.py", "pipeline/service/helper.py"}
    banned = {
        "eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "joblib.load",
        "dill.load", "cloudpickle.load", "cloudpickle.loads", "marshal.load", "marshal.loads", "shelve.open",
        "pd.read_pickle", "np.fromregex", "tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive", "mktemp",
    }  # fmt: skip
    wrong = []
    for place, node in nodes():
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if any(name.split(".")[0] in ("pickle", "cloudpickle", "dill", "marshal", "shelve") for name in names):
                wrong += [] if place in own_pipes else [f"{place}:{node.lineno} imports what loads code"]
        if not isinstance(node, ast.Call):
            continue
        name, words = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in banned or words.get("shell") == "True" or words.get("allow_pickle") == "True":
            wrong.append(f"{place}:{node.lineno} calls {name}")
        if name.endswith("torch.load") and words.get("weights_only") != "True":
            wrong.append(f"{place}:{node.lineno} loads a whole pickle")
    assert not wrong, "\n".join(wrong)


class Evil:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def test_pickles_of_others_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_weights(tmp_path / "evil.safetensors")
    torch.save({"model": {}, "average": {}, "optimiser": {}, "step": Evil()}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    # It would, for whoever loads it without care.
    torch.load(tmp_path / "last.pt", weights_only=False)
    assert (tmp_path / "pwned").exists()
    (tmp_path / "pwned").unlink()
    (tmp_path / "evil.yaml").write_text("model: !!python/object/apply:os.system ['touch pwned']\n")
    with pytest.raises(OptionError):
        read_option_values(DetectOptions, tmp_path / "evil.yaml")
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load((tmp_path / "evil.yaml").read_text())


def votable(entities: str, text: str) -> str:
    return (
        f'<?xml version="1.0"?>\n<!DOCTYPE VOTABLE [{entities}]>\n'
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
        '<FIELD name="ra" datatype="double"/><FIELD name="s" datatype="char" arraysize="*"/><DATA><TABLEDATA>'
        f"<TR><TD>1</TD><TD>{text}</TD></TR></TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )


def test_entities_of_votables(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    outside = f'<!ENTITY x SYSTEM "file://{tmp_path}/secret">'
    (tmp_path / "outside.vot").write_text(votable(outside, "&x;"))
    assert "secret" not in str(read_catalogue(tmp_path / "outside.vot")["s"][0])
    layers = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 20}">' for i in range(8))
    (tmp_path / "bomb.vot").write_text(votable(f'<!ENTITY e0 "{"A" * 1000}">{layers}', "&e8;"))
    for read in (read_catalogue, open_spectra):
        with pytest.raises(InputError, match="amplification"):
            read(tmp_path / "bomb.vot")


def test_packed_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: list[Path]) -> None:
    from survey_io import scratch, spectra

    packed = tmp_path / "spectrum.csv.gz"
    packed.write_bytes(gzip.compress(b"wavelength,flux\n" + b"1,1\n" * 1_000_000))
    assert packed.stat().st_size < 50_000
    monkeypatch.setattr(spectra, "_MOST_UNPACKED", 2**20)
    with pytest.raises(InputError, match="unpacks to more than"):
        open_spectra(packed)
    image = tmp_path / "image.fits.gz"
    image.write_bytes(gzip.compress(hostile[0].read_bytes()))
    monkeypatch.setattr(scratch, "_LEAST_FREE", 2**60)
    with pytest.raises(OutputError, match="would fill the disk"):
        open_image(image, scratch=tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_pictures_that_unpack_to_gigabytes(tmp_path: Path) -> None:
    from pipeline.classify import classify
    from pipeline.classify_options import ClassifyOptions

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + chunk(b"IEND", b"")
    (tmp_path / "big.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(InputError, match="decompression bomb"):
        classify([tmp_path / "big.png"], ClassifyOptions(output=tmp_path / "out", model="gz2-classes"))


def header(*cards: str, data: int = 0) -> bytes:
    text = "".join(card.ljust(80) for card in (*cards, "END"))
    return text.ljust(-(-len(text) // 2880) * 2880).encode() + b"\0" * data


def card(key: str, value: object) -> str:
    return f"{key:<8}= {value:>20}"


FIRST = (card("SIMPLE", "T"), card("BITPIX", -32))
NO_PIXELS = header(card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", 0))
TABLE = ("XTENSION= 'BINTABLE'", card("BITPIX", 8), card("NAXIS", 2), card("NAXIS1", 8), card("NAXIS2", 1))
ABSURD: dict[str, Callable[[], bytes]] = {
    "axes": lambda: header(*FIRST, card("NAXIS", 999999999)),
    "sides": lambda: header(*FIRST, card("NAXIS", 2), card("NAXIS1", 999999999), card("NAXIS2", 999999999), data=2880),
    "cube": lambda: header(*FIRST, card("NAXIS", 3), *(card(f"NAXIS{i}", 10**9) for i in (1, 2, 3)), data=2880),
    "columns": lambda: NO_PIXELS + header(*TABLE, card("TFIELDS", 999999999), data=2880),
    "heap": lambda: NO_PIXELS + header(
        *TABLE, card("PCOUNT", 10**17), card("GCOUNT", 1), card("TFIELDS", 1), "TFORM1  = '1PE(10)'", data=2880
    ),
    "packed axes": lambda: NO_PIXELS + header(
        *TABLE, card("PCOUNT", 0), card("GCOUNT", 1), card("TFIELDS", 1), "TFORM1  = '1PB(10)'", card("ZIMAGE", "T"),
        "ZCMPTYPE= 'RICE_1'", card("ZBITPIX", -32), card("ZNAXIS", 999999999), data=2880,
    ),
    "packed sides": lambda: NO_PIXELS + header(
        *TABLE, card("PCOUNT", 0), card("GCOUNT", 1), card("TFIELDS", 1), "TFORM1  = '1PB(10)'", card("ZIMAGE", "T"),
        "ZCMPTYPE= 'RICE_1'", card("ZBITPIX", -32), card("ZNAXIS", 2), card("ZNAXIS1", 10**9), card("ZNAXIS2", 10**9),
        card("ZTILE1", 10**9), card("ZTILE2", 10**9), data=2880,
    ),
    "no end": lambda: (card("SIMPLE", "T").ljust(80) + card("BITPIX", 8).ljust(80)).encode() * 60_000,
}  # fmt: skip


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_headers_get_one_line_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.fits"
    path.write_bytes(ABSURD[name]())
    began, before = time.process_time(), peak()
    with pytest.raises(SkysiftError) as said:
        detect(path, DetectOptions(output=tmp_path / "out", model="threshold"))
    assert path.name in str(said.value) and "\n" not in str(said.value)
    assert time.process_time() - began < 10 and peak() - before < 400


def peak() -> float:
    """Most memory of this process so far, MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_names_of_models_and_folders_stay_in_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.store import get_version
    from pipeline.service.quarantine import put_aside, safe_name
    from pipeline.service.results import folder_name

    monkeypatch.setenv("SKYSIFT_MODELS", str(tmp_path / "models"))
    for name in ("../../etc/passwd@1", "..@1", "a/b@1", "light@../../x", "light@-1", "\0@1"):
        with pytest.raises(SkysiftError):
            load_weights(name)
    with pytest.raises(SkysiftError):
        get_version("..", 1)
    for name in (*NASTY, "..", ".", "a/../b", "\0", "", "x" * 400):
        safe = safe_name(name)
        assert "/" not in safe and "\0" not in safe and safe.isprintable() and len(safe.encode()) <= 255
        folder = folder_name(Path(name or "x"), "0" * 64)
        assert Path(folder).name == folder and not folder.startswith(".")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.fits").symlink_to("/etc/hostname")
    moved = put_aside(tmp_path / "in" / "link.fits", tmp_path / "aside", "a link\nforged: line")
    assert moved.is_symlink() and moved.parent == tmp_path / "aside"
    assert len(Path(f"{moved}.reason.txt").read_text().splitlines()) == 3


def test_clusters_of_this_machine_listen_to_it_alone() -> None:
    """Dask's schedulers take pickles from whoever reaches them: those that are started here listen to localhost."""
    from flows.runners import read_cluster

    for name in ("local", "threads", "adaptive", "gpu"):
        given = read_cluster(name)["cluster_kwargs"]
        assert "host" not in given and str(given.get("dashboard_address", "127.0.0.1:")).startswith("127.0.0.1:"), name
        assert "0.0.0.0" not in json.dumps(given)


def test_an_encrypted_cluster_wants_certificates() -> None:
    from pipeline.dask_workers import remote_workers
    from survey_io.errors import WorkError

    with pytest.raises(WorkError, match="expected the certificates of TLS"), remote_workers("tls://127.0.0.1:9"):
        pass


def test_tables_with_nothing_are_fine(tmp_path: Path) -> None:
    write_catalogue(make_table({"ra": np.empty(0), "dec": np.empty(0)}), tmp_path / "empty.csv")
    assert (tmp_path / "empty.csv").read_text().count("\n") == 1
