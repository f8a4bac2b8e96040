"""Puts files aside with the reason beside them."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pipeline.journal import printable
from survey_io.errors import OutputError

REASON = ".reason.txt"
_LONGEST_NAME = 200


def put_aside(path: Path, folder: Path, reason: str) -> Path | None:
    """Move a file (or link) to a folder and write ``NAME.reason.txt`` beside it.

    Nothing there is ever replaced: a name that is taken gets a number. A folder on another file system gets a copy, and
    the original goes when that is complete.

    Parameters
    ----------
    path : Path
        A link is moved itself, not what it leads to.
    folder : Path
        Made when missing.
    reason : str
        One line.

    Returns
    -------
    Path or None
        Where it lies now; None when it has gone meanwhile (another process was faster, or its owner took it back).

    Raises
    ------
    OutputError
        When it cannot be moved; it lies where it was, without a reason beside it.
    """
    note: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target = _reserve(folder, safe_name(path.name))
        note = Path(f"{target}{REASON}")
        _move(path, target)
        moment = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        note.write_text(f"{printable(reason)}\nfrom: {printable(str(path))}\nat: {moment}\n", encoding="utf-8")
    except FileNotFoundError:
        if note is not None:
            note.unlink(missing_ok=True)
        return None
    except OSError as error:
        if note is not None and not os.path.lexists(target):
            note.unlink(missing_ok=True)
        raise OutputError(
            f"{printable(str(path))}: cannot be moved to {folder} ({error.strerror or error}): "
            "let the service write in both folders, or move it yourself"
        ) from None
    return target


def safe_name(name: str) -> str:
    """A file name of what prints, that is short enough to get endings."""
    text = "".join(one if one.isprintable() and one not in "/\\" else "_" for one in name)
    # Surrogates stand for bytes that are no UTF-8; they do not print either.
    stem, dot, ending = text.rpartition(".")
    if len(text.encode()) > _LONGEST_NAME and dot:
        return f"{stem.encode()[: _LONGEST_NAME - 20].decode(errors='ignore')}.{ending[:15]}"
    return text.encode()[:_LONGEST_NAME].decode(errors="ignore")


def _reserve(folder: Path, name: str) -> Path:
    """A name in the folder that nothing has; its note is made, so that no other process takes it."""
    number = 0
    while True:
        target = folder / (f"{name}.{number}" if number else name)
        number += 1
        if os.path.lexists(target):
            continue
        with suppress(FileExistsError):
            os.close(os.open(f"{target}{REASON}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
            return target


def _move(path: Path, target: Path) -> None:
    try:
        os.rename(path, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    part = target.with_name(f".{target.name}.part")
    try:
        if path.is_symlink():
            os.symlink(os.readlink(path), part)
        else:
            shutil.copyfile(path, part)
            shutil.copystat(path, part)
            with open(part, "rb") as file:
                os.fsync(file.fileno())
        os.rename(part, target)
    finally:
        part.unlink(missing_ok=True)
    path.unlink()
