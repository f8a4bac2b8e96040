"""Unpacks compressed images once, to a folder where they can be memory-mapped."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import InputError, OutputError

__all__ = ["decompressor", "scratch_copy"]

_MAGIC: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_BLOCK = 2**22
# What unpacking leaves to others on the disk, in bytes.
_LEAST_FREE = 2**29


def decompressor(path: Path) -> Callable[..., Any] | None:
    """The function that opens a compressed file, told by its first bytes; None when it is not compressed."""
    with open(path, "rb") as file:
        start = file.read(6)
    return next((opener for magic, opener in _MAGIC.items() if start.startswith(magic)), None)


def unpack_stream(path: Path, opener: Callable[..., Any], scratch: Path | None) -> Path:
    """Decompress a whole file to the scratch folder; an earlier copy of the same file is used again.

    Raises
    ------
    InputError
        When the compressed file is damaged or ends early.
    OutputError
        When the scratch folder cannot hold it.
    """

    def fill(target: IO[bytes]) -> None:
        try:
            source = opener(path, "rb")
            block = source.read(_BLOCK)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise _damaged(path, error) from error
        with source:
            while block:
                target.write(block)
                if shutil.disk_usage(target.fileno()).free < _LEAST_FREE:
                    # A few megabytes can be made to unpack to terabytes, and others need the disk too.
                    raise OutputError(
                        f"{path}: unpacked it would fill the disk of the scratch folder, less than "
                        f"{_LEAST_FREE / 2**30:g} GiB are left of it; make room, or choose another with TMPDIR"
                    )
                try:
                    block = source.read(_BLOCK)
                except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
                    raise _damaged(path, error) from error
                except Exception as error:
                    if type(error).__module__ != "zlib":
                        raise
                    raise _damaged(path, error) from error

    return scratch_copy(path, "fits", fill, scratch)


def scratch_copy(path: Path, kind: str, fill: Callable[[IO[bytes]], None], scratch: Path | None) -> Path:
    """A file in the scratch folder that ``fill`` writes, unless it is there already.

    Parameters
    ----------
    path : Path
        The file that it is made from; name, size and time of change make the key.
    kind : str
        Says what the copy holds; it ends the name.
    fill : callable
        Writes the copy to the binary file that it is given.
    scratch : Path or None
        Folder; None for one of this user in the system's temporary folder. Workers on other machines need a
        folder that they see too.
    """
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_mtime_ns}|{stat.st_size}|{kind}".encode()
    with _writable(scratch) as folder:
        target = folder / f"{path.name}.{hashlib.sha256(key).hexdigest()[:16]}.{kind}"
        if target.exists():
            os.utime(target)
            return target
        handle, partial = tempfile.mkstemp(prefix=target.name, suffix=".part", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
            os.replace(partial, target)
        finally:
            if os.path.exists(partial):
                os.unlink(partial)
    return target


@contextmanager
def _writable(scratch: Path | None) -> Iterator[Path]:
    folder = Path(scratch) if scratch is not None else Path(tempfile.gettempdir()) / f"skysift-{os.getuid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if scratch is None and folder.stat().st_uid != os.getuid():
            # The name can be guessed: another user's folder there would feed us other pixels.
            folder = Path(tempfile.mkdtemp(prefix="skysift-"))
        yield folder
    except OSError as error:
        free = shutil.disk_usage(folder).free / 2**30 if folder.exists() else 0.0
        raise OutputError(
            f"cannot unpack to the scratch folder {folder} ({error.strerror or error}, {free:.1f} GiB free); "
            f"choose another with --scratch or TMPDIR",
            folder=str(folder),
        ) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: expected a complete compressed file, got one that is damaged or cut short ({error}); "
        f"fetch it again",
        path=str(path),
    )
