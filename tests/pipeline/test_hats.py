"""The partitioned Parquet set: what is in it, that only what changed is written, and that LSDB opens it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from pipeline.crossmatch import pairs_within, unit_vectors
from pipeline.survey import SurveyStore, open_store
from pipeline.survey.hats import export_hats
from pipeline.survey.sky import healpix_number
from survey_io.columns import make_table
from survey_io.cube_columns import make_cube_table
from survey_io.errors import OptionError, OutputError


def catalogue(n: int, seed: int, *, centre: tuple[float, float] = (0.0, 41.8), spread: float = 0.4) -> Table:
    """Sources around a place, by default across 0h where HEALPix's faces meet."""
    rng = np.random.default_rng(seed)
    ra = (centre[0] + rng.normal(0, spread, n) / np.cos(np.radians(centre[1]))) % 360
    return make_table({
        "source_id": np.arange(1, n + 1), "name": [f"S{seed}-{k}" for k in range(n)], "ra": ra,
        "dec": np.clip(centre[1] + rng.normal(0, spread, n), -90, 90), "ra_err": np.full(n, 0.3),
        "dec_err": np.full(n, 0.3), "flux": rng.lognormal(-7, 1, n), "flux_err": np.full(n, 1e-5),
        "p_real": rng.random(n), "snr": rng.uniform(4, 40, n), "local_rms": rng.random(n),
        "n_blend": rng.integers(0, 4, n),
    })  # fmt: skip


def manifest(number: int, **options: Any) -> dict[str, Any]:
    return {
        "input": {"path": f"/data/{number}.fits", "sha256": f"{number:064x}", "shape": [300, 300],
                  "beam": {"major": 6.0, "minor": 5.0, "pa": 0.0}},
        "model": {"name": "light", "sha256": "ab"}, "options": options, "versions": {"skysift": "0.1"},
    }  # fmt: skip


def filled(url: str | Path) -> SurveyStore:
    store = open_store(url)
    store.record(manifest(1), catalogue(900, 1))
    store.record(manifest(2), catalogue(300, 2, centre=(120.0, -89.5)))
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SurveyStore]:
    with filled(tmp_path / "survey") as store:
        yield store


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def read(folder: Path) -> tuple[pa.Table, Path, Path]:
    """All rows of the published set, and the folders of its catalogue and margin."""
    told = properties(folder / "collection.properties")
    main, margin = (folder / told[key] for key in ("hats_primary_table_url", "default_margin"))
    lines = (main / "partition_info.csv").read_text().split()
    assert lines[0] == "Norder,Npix"
    tables = []
    for order, pixel in (map(int, line.split(",")) for line in lines[1:]):
        file = main / f"dataset/Norder={order}/Dir={pixel // 10000 * 10000}/Npix={pixel}.parquet"
        tables.append(pq.read_table(file, partitioning=None))
        number = tables[-1]["_healpix_29"].to_numpy()
        assert np.all(number >> (2 * (29 - order)) == pixel) and np.all(np.diff(number) >= 0)
    assert len(list((main / "dataset").rglob("*.parquet"))) == len(lines) - 1
    return pa.concat_tables(tables), main, margin


def test_the_set_holds_every_current_source_with_its_values(store_url: str, tmp_path: Path) -> None:
    store = filled(store_url)
    cube = make_cube_table({"source_id": [7], "name": ["HI"], "ra": [10.0], "dec": [10.0], "z": [3.0],
                            "frequency": [1.4e9], "line_flux": [40.0], "w20": [200.0], "hi_mass": [1e9]})  # fmt: skip
    store.record(manifest(3) | {"input": {**manifest(3)["input"], "shape": [9, 9, 9]}}, cube)
    lost = catalogue(4, 9)
    lost["ra"][0] = np.nan
    store.record(manifest(4), lost)
    done = export_hats(store, tmp_path / "set", max_rows=200, margin=30.0)
    rows, main, _ = read(tmp_path / "set")
    assert (done.rows, done.published) == (1204, True) and done.partitions == done.written >= 8
    told = properties(main / "hats.properties")
    assert int(told["hats_nrows"]) == rows.num_rows == 1204 and int(told["hats_max_rows"]) <= 200
    assert (main / "properties").read_text() == (main / "hats.properties").read_text()
    expected = store.cone(0, 0, 180)
    found = {one["id"]: one for one in rows.to_pylist()}
    for row in expected:
        one = found[row["id"]]
        for name in ("ra", "dec", "snr", "flux", "object_id", "name", "kind", "run_id", "flux_unit"):
            assert one[name] == row[name] or (one[name] is None and np.isnan(row[name])), name
    assert np.array_equal(rows["_healpix_29"], healpix_number(rows["ra"].to_numpy(), rows["dec"].to_numpy()))
    run = store.sources(1)
    by_row = {one["row"]: one for one in found.values() if one["run_id"] == 1}
    assert [by_row[k]["local_rms"] for k in range(900)] == [float(value) for value in run["local_rms"]]
    assert [by_row[k]["n_blend"] for k in range(900)] == run["n_blend"].tolist()
    galaxy = next(one for one in found.values() if one["kind"] == "cube")
    assert (galaxy["freq"], galaxy["flux"], galaxy["hi_mass"], galaxy["peak_flux"]) == (1.4e9, 40.0, 1e9, None)
    store.close()
    field = rows.schema.field("local_rms")
    assert field.metadata[b"ucd"] == b"instr.det.noise" and rows.schema.field("ra").metadata[b"unit"] == b"deg"
    whole = pq.read_metadata(main / "dataset" / "_metadata")
    assert whole.num_rows == 1204 and pq.read_schema(main / "dataset" / "_common_metadata").names == rows.schema.names


def test_margins_hold_what_lies_around_each_partition(store: SurveyStore, tmp_path: Path) -> None:
    export_hats(store, tmp_path / "set", max_rows=100, margin=90.0)
    rows, main, margin = read(tmp_path / "set")
    vectors = unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    i, j, _ = pairs_within(vectors, vectors, np.full(len(vectors), np.radians(90 / 3600)))
    ids, number = rows["id"].to_numpy(), rows["_healpix_29"].to_numpy()
    checked = 0
    for file in (main / "dataset").rglob("Npix=*.parquet"):
        order, pixel = int(file.parts[-3].split("=")[1]), int(file.stem.split("=")[1])
        inside = number >> (2 * (29 - order)) == pixel
        needed = set(ids[j[inside[i] & ~inside[j]]].tolist())
        around = margin / file.relative_to(main)
        has = set(pq.read_table(around, partitioning=None)["id"].to_pylist()) if around.exists() else set()
        assert needed <= has and not has & set(ids[inside].tolist())
        checked += len(needed)
    assert checked > 50
    told = properties(margin / "hats.properties")
    assert told["hats_primary_table_url"] == main.name and float(told["hats_margin_threshold"]) == 90.0


def inodes(folder: Path) -> dict[str, int]:
    return {file.relative_to(folder).as_posix(): file.stat().st_ino for file in folder.rglob("Npix=*.parquet")}


def test_only_changed_partitions_are_written(store: SurveyStore, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    first = export_hats(store, folder, max_rows=200, margin=60.0)
    _, main, margin = read(folder)
    again = export_hats(store, folder, max_rows=200, margin=60.0)
    assert (again.written, again.margins_written, again.name) == (0, 0, first.name)
    # A new run at the south pole leaves the files of the north as they are.
    store.record(manifest(2, again=True), catalogue(350, 12, centre=(120.0, -89.5)))
    second = export_hats(store, folder, max_rows=200, margin=60.0)
    rows, later, later_margin = read(folder)
    assert rows.num_rows == 1250 and second.name != first.name and 0 < second.written < first.partitions / 2
    before, after = inodes(main), inodes(later)
    same = [path for path in after if before.get(path) == after[path]]
    assert len(same) == second.partitions - second.written
    assert any(inodes(margin).get(path) == inode for path, inode in inodes(later_margin).items())
    # The former state stays for those who have opened it, the one before goes.
    assert main.exists()
    store.record(manifest(5), catalogue(5, 5))
    export_hats(store, folder, max_rows=200, margin=60.0)
    assert not main.exists() and not margin.exists() and later.exists()


@pytest.mark.slow
def test_a_stopped_or_shared_export_publishes_nothing_and_goes_on(store: SurveyStore, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for k in (1, 2):
        part = export_hats(store, folder, max_rows=300, share=(k, 3))
        assert not part.published and 0 < part.written < part.partitions
        assert not (folder / "collection.properties").exists()
    victim = next((folder / part.name).rglob("Npix=*.parquet"))
    victim.write_bytes(victim.read_bytes()[:1000])
    last = export_hats(store, folder, max_rows=300, workers=2)
    assert last.published and 1 < last.written < last.partitions
    assert read(folder)[0].num_rows == 1200
    single = export_hats(store, tmp_path / "single", max_rows=300)
    assert single.name == last.name
    assert read(folder)[0].equals(read(tmp_path / "single")[0])
    left = [one for one in folder.rglob("*") if one.name.endswith(".part")]
    assert not left


def test_an_empty_survey_is_an_empty_set(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        done = export_hats(store, tmp_path / "set")
        assert (done.rows, done.partitions, done.published) == (0, 0, True)
        store.record(manifest(1), catalogue(3, 1))
        assert export_hats(store, tmp_path / "set").rows == 3


def test_details_of_other_types_do_not_stop_it(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        table = catalogue(3, 1)
        table.replace_column("local_rms", ["a", "b", "c"])
        table["background"] = np.array([np.inf, -np.inf, 1.0])
        table["n_blend"] = [1.0, 2.0, np.nan]
        store.record(manifest(1), table)
        export_hats(store, tmp_path / "set")
        rows = read(tmp_path / "set")[0].sort_by("row")
        assert rows["local_rms"].to_pylist() == [None] * 3
        assert rows["background"].to_pylist() == [np.inf, -np.inf, 1.0]
        assert rows["n_blend"].to_pylist() == [1, 2, None]


def test_bad_requests_get_one_line(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        for wrong in ({"max_rows": 0}, {"margin": 0.0}, {"workers": 0}, {"share": (3, 2)}):
            with pytest.raises(OptionError, match="expected"):
                export_hats(store, tmp_path / "set", **wrong)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.tex").write_text("x")
        with pytest.raises(OutputError, match="other files"):
            export_hats(store, tmp_path / "full")
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match="cannot be written"):
            export_hats(store, tmp_path / "file" / "set")
        assert os.listdir(tmp_path / "full") == ["thesis.tex"]


@pytest.mark.filterwarnings("ignore")
def test_lsdb_opens_the_set_and_finds_what_the_store_does(tmp_path: Path) -> None:
    lsdb = pytest.importorskip("lsdb", reason="LSDB is not installed: pip install 'skysift[hats]'")
    from hats.io.validation import is_valid_catalog

    with open_store(tmp_path / "s") as store:
        store.record(manifest(1), catalogue(1500, 1))
        export_hats(store, tmp_path / "set", max_rows=200, margin=60.0)
        assert is_valid_catalog(tmp_path / "set", strict=True)
        opened = lsdb.open_catalog(tmp_path / "set")
        found = opened.cone_search(0.1, 41.7, 900.0).compute()
        expected = store.cone(0.1, 41.7, 0.25)
        assert 50 < len(expected) < 1000 and sorted(found["id"]) == sorted(expected["id"])
        rows = read(tmp_path / "set")[0]
    vectors = unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    pairs = len(pairs_within(vectors, vectors, np.full(len(vectors), np.radians(55 / 3600)))[0])
    matched = opened.crossmatch(opened, radius_arcsec=55.0, n_neighbors=100, suffixes=("_a", "_b"),
                                suffix_method="all_columns")  # fmt: skip
    assert len(matched.compute()) == pairs
