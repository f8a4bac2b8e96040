"""The folder of each observation's results: equal names do not collide, and what is there is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.service.quarantine import safe_name
from survey_io.errors import OutputError
from survey_io.names import file_stem

AnyResult = TypeVar("AnyResult")
_LONGEST = 80


def folder_name(path: Path, sha256: str) -> str:
    """Name of an observation's folder: its file's, with the start of its content's hash."""
    stem = safe_name(file_stem(path)).encode()[:_LONGEST].decode(errors="ignore").lstrip(".")
    return f"{stem}-{sha256[:12]}"


def staging_folder(results: Path, name: str) -> Path:
    """Where an observation's results are written until they are all there; an interrupted run goes on in it."""
    return results / f".{name}.work"


def publish(result: AnyResult, staging: Path, results: Path, name: str, *, known: Iterable[str | None]) -> AnyResult:
    """Move finished results to their place in one step, safe from a power cut; returns the result with its new paths.

    Parameters
    ----------
    result : DetectResult or ClassifyResult
        Its manifest is mended: results lie elsewhere than where they were written.
    staging, results : Path
    name : str
        Of the folder; it gets a number where a former run of the observation has it.
    known : iterable of str
        Folders of the observation's recorded runs. One that is not among them was left by a service that died before it
        could record it, and is replaced.

    Raises
    ------
    OutputError
    """
    taken = {Path(one).name for one in known if one}
    number, target = 1, results / name
    while target.name in taken:
        number += 1
        target = results / f"{name}-run{number}"
    moved = {kind: target / path.relative_to(staging) for kind, path in result.files.items()}
    result.manifest["options"]["output"] = str(target)
    try:
        _rewrite(result.files["manifest"], str(target))
        _to_disk(staging)
        if target.exists():
            shutil.rmtree(target)
        os.rename(staging, target)
        _sync(results)
    except OSError as error:
        raise OutputError(f"{target}: results cannot be put there ({error.strerror or error})") from None
    return replace(result, files=moved)


def keep_ledger(target: Path, staging: Path) -> None:
    """Take what is done of an incomplete run from its results back to where the next try goes on with it."""
    try:
        for ledger in target.glob(".*.ledger*"):
            staging.mkdir(exist_ok=True)
            os.rename(ledger, staging / ledger.name)
    except OSError as error:
        raise OutputError(f"{staging}: cannot be written ({error.strerror or error})") from None


def forget(staging: Path) -> None:
    """Remove what an observation that failed for good has left."""
    shutil.rmtree(staging, ignore_errors=True)


def output_trouble(results: Path) -> str | None:
    """Why nothing can be written there now: one line; None where it can."""
    probe = results / f".skysift_probe_{os.getpid()}"
    try:
        results.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(1 << 20))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return f"{results}: {error.strerror or error}"
    return None


def _rewrite(manifest: Path, output: str) -> None:
    content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    content["options"]["output"] = output
    part = manifest.with_suffix(".json.part")
    part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    part.replace(manifest)


def _to_disk(folder: Path) -> None:
    for where, _, files in os.walk(folder):
        for name in files:
            _sync(Path(where, name))
        _sync(Path(where))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
