"""Retrained weights by name and version: what is kept, which one is in use, and how that came to be.

A folder per name and version, which is written once and never changed::

    NAME/3/NAME.safetensors    the weights, with NAME.json, their card
    NAME/3/record.json         hashes of all files of the version, and when it was added
    NAME/3/evaluation.json     and whatever else came with it: data_report.json, options.yaml, ...
    NAME/in_use.json           the version that NAME stands for, and the history of promotions

Processes take version numbers and change ``in_use.json`` one after the other, by a lock on ``NAME/.lock``. Nothing here
needs torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from survey_io.errors import InputError, OptionError, OutputError

SHIPPED = "shipped"
RECORD = "record.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PASSING = ".new-"
# What a killed process left is taken away after so many seconds.
_STALE = 86_400.0


@dataclass(frozen=True)
class StoredVersion:
    """One version in the store.

    Attributes
    ----------
    name : str
    version : int
        From 1.
    folder : Path
    added : str
        Time, ISO 8601, UTC.
    files : dict of str
        SHA-256 of each file by its name.
    """

    name: str
    version: int
    folder: Path
    added: str
    files: dict[str, str]

    @property
    def weights(self) -> Path:
        """The safetensors file; its card lies beside it as JSON."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def label(self) -> str:
        """Name and version as they are asked for: ``light@3``."""
        return f"{self.name}@{self.version}"

    def verify(self) -> None:
        """Compare every file with the hash that was written down when it was added.

        Raises
        ------
        InputError
            When a file is gone or differs.
        """
        for name in self.files:
            self.verify_file(name)

    def verify_file(self, name: str) -> None:
        """As `verify`, one file."""
        path = self.folder / name
        try:
            digest = _sha256(path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}: {self.label} is damaged; {self._remedy()}") from None
        if digest != self.files.get(name):
            raise InputError(
                f"{path}: SHA-256 {digest[:12]}... is not the {self.files.get(name, '')[:12]}... that was written down "
                f"when {self.label} was added: the file is damaged; {self._remedy()}"
            )

    def _remedy(self) -> str:
        return f"go back with 'skysift models rollback {self.name}' or name another version"


def store_folder() -> Path:
    """Where retrained weights are kept: $SKYSIFT_MODELS, else skysift/models in the user's folder of data."""
    own = os.environ.get("SKYSIFT_MODELS")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "skysift" / "models"


def split_name(text: str) -> tuple[str, int | str | None]:
    """Name and version of ``NAME``, ``NAME@3`` or ``NAME@shipped``; None where no version is named.

    Raises
    ------
    OptionError
        For a name that can be no folder's, and a version that is neither a number nor "shipped".
    """
    name, at, version = text.partition("@")
    if not _NAME.fullmatch(name):
        raise OptionError(f"model {text!r}: expected a name of letters, digits, '.', '_' and '-'")
    if not at:
        return name, None
    if version == SHIPPED:
        return name, SHIPPED
    if not version.isdecimal() or int(version) < 1:
        raise OptionError(f"model {text!r}: expected a version as {name}@3 or {name}@{SHIPPED}, got {version!r}")
    return name, int(version)


def list_stored() -> dict[str, list[int]]:
    """Versions in the store by name, both sorted; empty where there is no store."""
    try:
        names = sorted(path.name for path in store_folder().iterdir() if _NAME.fullmatch(path.name))
    except OSError:
        return {}
    found = {name: list_versions(name) for name in names}
    return {name: versions for name, versions in found.items() if versions}


def list_versions(name: str) -> list[int]:
    """Versions of a name, oldest first."""
    try:
        entries = os.listdir(store_folder() / name)
    except OSError:
        return []
    return sorted(int(entry) for entry in entries if entry.isdecimal())


def get_version(name: str, version: int) -> StoredVersion:
    """Find a version.

    Raises
    ------
    OptionError
        When there is none of that name or number; the message lists those that there are.
    InputError
        When its record cannot be read.
    """
    folder = store_folder() / name / str(version)
    known = list_versions(name)
    if version not in known:
        has = f"it has versions {', '.join(map(str, known))}" if known else "no version of it was registered"
        raise OptionError(f"model {name}@{version}: {has}; see 'skysift models'")
    record = read_record(folder)
    if record is None:
        raise InputError(f"{folder / RECORD}: expected the record of {name}@{version}, found none: it is damaged")
    return record


def read_record(folder: Path) -> StoredVersion | None:
    """The version that a folder of the store holds; None for any other folder.

    Raises
    ------
    InputError
        For a record that cannot be read.
    """
    path = folder / RECORD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return StoredVersion(
            str(values["name"]), int(values["version"]), folder, str(values["added"]), dict(values["files"])
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: unreadable record of a version ({error}): it is damaged") from None


def add_version(name: str, weights: Path, files: Mapping[str, Path | bytes]) -> StoredVersion:
    """Keep weights as the next version of a name; weights that are kept already stay the version that they are.

    Parameters
    ----------
    name : str
    weights : Path
        Safetensors file with its card in a JSON of the same name beside it.
    files : mapping
        What else belongs to the version, by file name: a path or the content.

    Raises
    ------
    OutputError
        When the store cannot be written.
    """
    from models.in_use import usage

    split_name(name)
    home = store_folder() / name
    contents: dict[str, Path | bytes] = {
        f"{name}.safetensors": weights, f"{name}.json": weights.with_suffix(".json"), **files
    }  # fmt: skip
    try:
        home.mkdir(parents=True, exist_ok=True)
        _clear_passing(home)
        scratch = Path(tempfile.mkdtemp(prefix=_PASSING, dir=home))
        try:
            hashes = {file: write_synced(content, scratch / file) for file, content in contents.items()}
            with locked(home):
                for version in list_versions(name):
                    known = read_record(home / str(version))
                    if known and known.files.get(f"{name}.safetensors") == hashes[f"{name}.safetensors"]:
                        return known
                used = [entry["version"] or 0 for entry in usage(name).history]
                version = max([0, *list_versions(name), *used]) + 1
                added = now()
                record = {"name": name, "version": version, "added": added, "files": hashes}
                write_synced(to_json(record), scratch / RECORD)
                scratch.chmod(0o755)
                # A folder cannot take the place of another that holds files: even without the lock nothing is lost.
                os.rename(scratch, home / str(version))
                sync_folder(home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{home}: cannot register a version: {error.strerror or error}") from error
    return StoredVersion(name, version, home / str(version), added, hashes)


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Let one process at a time in; the lock goes with a process that dies."""
    with open(home / ".lock", "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _clear_passing(home: Path) -> None:
    for left in home.glob(f"{_PASSING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)


def write_synced(content: Path | bytes, target: Path, *, mode: int = 0o444) -> str:
    """Write a file so that it survives a power cut; return its SHA-256."""
    digest = hashlib.sha256()
    with open(target, "wb") as out:
        if isinstance(content, bytes):
            digest.update(content)
            out.write(content)
        else:
            with open(content, "rb") as source:
                while block := source.read(1 << 22):
                    digest.update(block)
                    out.write(block)
        out.flush()
        os.fsync(out.fileno())
    target.chmod(mode)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def to_json(values: Any) -> bytes:
    """Values as a JSON file's content."""
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


def now() -> str:
    """The time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
