"""The current sources as a partitioned Parquet set in the layout HATS, which LSDB opens.

    FOLDER/collection.properties            names the catalogue and its margin that count now
    FOLDER/sources_HASH/                    hats.properties, partition_info.csv,
                                            dataset/{_metadata,_common_metadata,Norder=K/Dir=D/Npix=N.parquet}
    FOLDER/sources_HASH_margin/             the same for the rows around each partition

A state of the survey has its own folders, named by what they hold. Partitions that did not change are the same files
(hard links), so that only changed ones are written; the last step puts the new names into collection.properties. A
reader that has opened the former state keeps it until the one after the next. Whatever stops an export, the set stays
as it was, and the next one goes on from the partitions that are there. Each partition's fingerprint is in its file.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from survey_io.errors import OptionError, OutputError

from .cells import order_of_margin
from .database import Database
from .hats_files import read_properties, replace_text, take_file, write_metadata, write_properties
from .hats_plan import DEEPEST, Partition, Plan, make_plan
from .hats_rows import INDEX, MAIN, SCHEMA, Margin, write_margins, write_partition
from .problems import StoreError

__all__ = ["Export", "export_hats"]

MARGIN = 10.0
MAX_ROWS = 250_000
# Times that a survey which grows in the meantime is followed.
_TRIES = 8
# Columns, their types and their order; a change of this line writes all partitions again.
_LAYOUT = hashlib.sha256(repr([(one.name, str(one.type), one.metadata) for one in SCHEMA]).encode()).hexdigest()[:8]
_OLD = 86_400.0
# Margins that are made at a time: their rows are in memory.
_MARGINS = 64


@dataclass(frozen=True)
class Export:
    """What an export came to.

    Attributes
    ----------
    folder : Path
        Of the set.
    name : str
        Of the catalogue's folder in it.
    partitions, written : int
        Partitions of the set, and how many of those had to be written.
    margins, margins_written : int
        The same for the files of margins.
    rows : int
    published : bool
        False where this was one share of several and others are missing.
    """

    folder: Path
    name: str
    partitions: int
    written: int
    margins: int
    margins_written: int
    rows: int
    published: bool


def export_hats(
    store: Database,
    folder: str | Path,
    *,
    max_rows: int = MAX_ROWS,
    margin: float = MARGIN,
    workers: int = 1,
    share: tuple[int, int] | None = None,
) -> Export:
    """Bring the Parquet set of a survey up to the store.

    Parameters
    ----------
    store : Database
    folder : str or Path
    max_rows : int
        Rows of a partition, at most; one block of 20,000 of them is in memory at a time.
    margin : float
        Width of the margins in arcsec: what a crossmatch by LSDB may use as its radius.
    workers : int
        Processes of this machine that write partitions.
    share : (int, int), optional
        (k, n): write only every n-th partition, from the k-th (1 to n), and publish nothing: n machines that see one
        folder do so at the same time, and an export without share then finds the partitions there and publishes.

    Returns
    -------
    Export

    Raises
    ------
    OptionError
        When a number makes no sense.
    OutputError
        When the folder cannot be written, or holds something else.
    StoreError
        When the store cannot be read, or changes faster than it is written.
    """
    order = order_of_margin(margin / 3600.0)
    if max_rows < 1 or workers < 1 or not 0 < margin <= 600:
        raise OptionError(
            f"expected at least 1 row and 1 worker and a margin above 0 up to 600 arcsec, got {max_rows}, {workers} "
            f"and {margin}"
        )
    if share is not None and not 1 <= share[0] <= share[1]:
        raise OptionError(f"expected a share K/N with K from 1 to N, got {share[0]}/{share[1]}")
    folder = Path(folder)
    try:
        return _Exporter(store, folder, max_rows, margin, order, workers).run(share)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{folder}: the Parquet set cannot be written ({reason}); free space or choose another folder. What was "
            "written so far is kept, and the set is as it was"
        ) from error


class _Exporter:
    def __init__(self, store: Database, folder: Path, max_rows: int, margin: float, order: int, workers: int):
        self.store, self.folder, self.max_rows, self.margin, self.order = store, folder, max_rows, margin, order
        self.workers, self.written, self.margins_written = workers, 0, 0

    def run(self, share: tuple[int, int] | None) -> Export:
        self.folder.mkdir(parents=True, exist_ok=True)
        told = read_properties(self.folder / "collection.properties")
        if not told and any(self.folder.iterdir()) and not list(self.folder.glob("sources_*")):
            raise OutputError(f"{self.folder}: expected an empty folder or a set of skysift, it holds other files")
        for _ in range(_TRIES):
            plan = self.store.read(self._plan)
            name = "sources_" + hashlib.sha256(f"{plan.fingerprint} {self.margin}".encode()).hexdigest()[:12]
            if not self._write(plan, name, share):
                # The survey has grown since the plan was made: what is written already is used by the next plan.
                continue
            if share is not None:
                return self._result(plan, name, 0, False)
            margins = self._write_margins(plan, name)
            if told.get("hats_primary_table_url") != name or self.written or self.margins_written:
                self._publish(plan, name, margins, told)
            return self._result(plan, name, len(margins), True)
        raise StoreError(
            f"{self.store.place}: the survey changed {_TRIES} times while it was exported; export while fewer runs are "
            "recorded, or with more workers",
            passing=True,
        )

    def _plan(self, connection: Connection) -> Plan:
        # A margin's cells lie within the partitions that they border on.
        deepest = min(DEEPEST, self.order - 1)
        return make_plan(connection, max_rows=self.max_rows, layout=_LAYOUT, deepest=deepest)

    def _result(self, plan: Plan, name: str, margins: int, published: bool) -> Export:
        parts = plan.partitions
        return Export(
            self.folder, name, len(parts), self.written, margins, self.margins_written, sum(one.rows for one in parts),
            published,
        )  # fmt: skip

    def _others(self, ending: str = "") -> list[Path]:
        """Folders of this and former states, the latest first."""
        found = [one for one in self.folder.glob(f"sources_*{ending}") if one.name.endswith("_margin") == bool(ending)]
        return sorted(found, key=lambda one: one.stat().st_mtime, reverse=True)

    def _write(self, plan: Plan, name: str, share: tuple[int, int] | None) -> bool:
        """Write or link all partitions; False when the store has changed since the plan was made."""
        data = self.folder / name / "dataset"
        data.mkdir(parents=True, exist_ok=True)
        others = [one / "dataset" for one in self._others() if one.name != name]
        missing = [one for one in plan.partitions if not take_file(one.path, one.fingerprint, data, others)]
        if share is not None:
            missing = missing[share[0] - 1 :: share[1]]
        jobs = [(self.store, one, data / one.path, _LAYOUT) for one in missing]
        good = self._each(_write_one, jobs)
        self.written += sum(good)
        return all(good)

    def _write_margins(self, plan: Plan, name: str) -> list[Partition]:
        """Write or link the margins; the cells that have one, with their rows."""
        own, data = self.folder / f"{name}_margin", self.folder / name / "dataset"
        others = [one for one in self._others("_margin") if one.name != own.name]
        empty = {}
        for other in reversed([own, *others]):
            with suppress(OSError):
                empty |= dict(line.split(" ") for line in (other / "empty").read_text("ascii").splitlines())
        found, waiting, none = [], [], {}
        for cell, near in sorted(plan.around().items()):
            parts = "".join(f"{one.path}:{one.fingerprint}" for one in near)
            mark = hashlib.sha256(f"{cell.path} {self.margin} {_LAYOUT} {parts}".encode()).hexdigest()
            if not near or empty.get(cell.path) == mark:
                none[cell.path] = mark
            elif take_file(cell.path, mark, own / "dataset", [one / "dataset" for one in others]):
                found.append(cell)
            else:
                waiting.append(Margin(cell, tuple(near), own / "dataset" / cell.path, mark))
        (own / "dataset").mkdir(parents=True, exist_ok=True)
        # Cells near to each other read the same files.
        waiting.sort(key=lambda one: one.cell.first)
        size = max(1, min(_MARGINS, -(-len(waiting) // self.workers)))
        jobs = [(waiting[at : at + size], data, self.order) for at in range(0, len(waiting), size)]
        counts = [rows for part in self._each(_margins_of, jobs) for rows in part]
        for one, rows in zip(waiting, counts, strict=True):
            if rows:
                found.append(one.cell)
                self.margins_written += 1
            else:
                none[one.cell.path] = one.mark
        replace_text(own / "empty", "".join(f"{path} {mark}\n" for path, mark in sorted(none.items())))
        return sorted(found)

    def _each(self, work: Callable, jobs: list[tuple]) -> list:
        if self.workers == 1 or len(jobs) < 2:
            return [work(job) for job in jobs]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.workers, len(jobs)), mp_context=context) as pool:
            return list(pool.map(work, jobs))

    def _publish(self, plan: Plan, name: str, margins: list[Partition], told: dict[str, str]) -> None:
        edge = f"{name}_margin"
        stamp = time.strftime("%Y-%m-%dT%H:%MUTC", time.gmtime())
        built = {"hats_builder": "skysift", "hats_creation_date": stamp, "hats_version": "v1.0"}
        place = {
            "hats_col_ra": "ra", "hats_col_dec": "dec", "hats_col_healpix": INDEX, "hats_col_healpix_order": "29",
            "hats_npix_suffix": ".parquet", "hats_cols_default": " ".join(MAIN),
        }  # fmt: skip
        for folder, cells, own in (
            (name, plan.partitions, {"dataproduct_type": "source"}),
            (edge, margins, {"dataproduct_type": "margin", "hats_primary_table_url": name,
                             "hats_margin_threshold": str(self.margin)}),
        ):  # fmt: skip
            rows = write_metadata(self.folder / folder, cells)
            replace_text(self.folder / folder / "partition_info.csv",
                     "Norder,Npix\n" + "".join(f"{one.order},{one.pixel}\n" for one in cells))  # fmt: skip
            sky = sum(4.0**-one.order for one in cells) / 12.0
            values = {
                "obs_collection": folder, **own, "hats_nrows": str(sum(rows)), **place,
                "hats_max_rows": str(max(rows, default=0)),
                "hats_order": str(max((one.order for one in cells), default=0)),
                "moc_sky_fraction": f"{sky:.6g}", **built,
            }  # fmt: skip
            for file in ("properties", "hats.properties"):
                write_properties(self.folder / folder / file, "HATS catalog", values)
        former = told.get("hats_primary_table_url", "")
        former = told.get("skysift_former", "") if former == name else former
        write_properties(
            self.folder / "collection.properties", "HATS Collection",
            {"obs_collection": "skysift", "hats_primary_table_url": name, "all_margins": edge, "default_margin": edge,
             "skysift_former": former, **built},
        )  # fmt: skip
        kept = {name, edge, former, f"{former}_margin"}
        for other in (*self._others(), *self._others("_margin")):
            # One that was never published may be another export's that runs now.
            if other.name not in kept and ((other / "hats.properties").exists() or _age(other) > _OLD):
                shutil.rmtree(other, ignore_errors=True)


def _write_one(job: tuple) -> bool:
    store, partition, path, layout = job
    return write_partition(store, partition, path, layout=layout)


def _margins_of(job: tuple) -> list[int]:
    margins, data, order = job
    return write_margins(margins, data, order=order)


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime
