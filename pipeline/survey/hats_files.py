"""Files of the partitioned Parquet set: links to former ones, metadata and properties, each whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from .hats_plan import Partition
from .hats_rows import SCHEMA, read_fingerprint

__all__ = ["read_properties", "replace_text", "take_file", "write_metadata", "write_properties"]


def take_file(path: str, mark: str, data: Path, others: Iterable[Path]) -> bool:
    """Whether a file with this fingerprint is there, or could be linked from a former state."""
    here = data / path
    if read_fingerprint(here) == mark:
        return True
    for other in others:
        if read_fingerprint(other / path) == mark:
            here.parent.mkdir(parents=True, exist_ok=True)
            here.unlink(missing_ok=True)
            try:
                os.link(other / path, here)
            except OSError:  # a file system without links
                partial = here.with_name(f".{here.name}.{os.getpid()}.part")
                shutil.copyfile(other / path, partial)
                os.replace(partial, here)
            return True
    return False


def write_metadata(folder: Path, cells: list[Partition]) -> list[int]:
    """Write the Parquet set's own metadata; the rows of every file."""
    data, footers = folder / "dataset", []
    wanted = {one.path for one in cells}
    for file in data.glob("Norder=*/Dir=*/Npix=*.parquet"):
        if file.relative_to(data).as_posix() not in wanted:
            file.unlink()
    for one in cells:
        footer = pq.read_metadata(data / one.path)
        footer.set_file_path(one.path)
        footers.append(footer)
    for name, collected in (("_common_metadata", None), ("_metadata", footers)):
        partial = data / f".{name}.part"
        pq.write_metadata(SCHEMA, partial, metadata_collector=collected)
        os.replace(partial, data / name)
    return [footer.num_rows for footer in footers]


def replace_text(path: Path, text: str) -> None:
    """Write a small file, durably, in the place of a former one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_properties(path: Path, title: str, values: dict[str, str]) -> None:
    """Write a file of Java's properties; empty values are left out."""
    lines = [f"#{title}", *(f"{key}={value}" for key, value in values.items() if value)]
    replace_text(path, "\n".join(lines) + "\n")


def read_properties(path: Path) -> dict[str, str]:
    """Values of a file that `write_properties` wrote, none where there is no such file."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
