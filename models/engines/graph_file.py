"""Exported graphs: made from a network once, kept by the hash of what they were made from."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from survey_io.quiet import quiet as no_warnings

if TYPE_CHECKING:
    from torch import nn

_KEPT_GRAPHS = 16


def cached_graph(
    module: nn.Module, suffix: str, write: Callable[[nn.Module, Path], None], *, writer: str = ""
) -> Path:
    """Path of the network's exported graph, written on the first call for these weights and this code.

    Parameters
    ----------
    module : nn.Module
        As the engine will run it: folded, float32, in evaluation mode.
    suffix : str
        ".onnx" or ".xml".
    write : callable
        ``write(module, path)`` makes the file, and those beside it with the same stem.
    writer : str
        Library and version that write it: a graph of another version is not used.

    Returns
    -------
    Path
        In ``$SKYSIFT_CACHE``, else ``$XDG_CACHE_HOME/skysift``, else ``~/.cache/skysift``; in a temporary
        folder where that cannot be written.
    """
    folder = cache_folder()
    target = folder / f"{fingerprint(module, writer)[:32]}{suffix}"
    if target.exists():
        with contextlib.suppress(OSError):
            os.utime(target)
        return target
    with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as scratch:
        write(module, Path(scratch) / target.name)
        # The file that is looked for comes last: whoever sees it sees the ones beside it too.
        for made in sorted(Path(scratch).iterdir(), key=lambda file: file.suffix == suffix):
            os.replace(made, folder / made.name)
    forget_oldest(folder, suffix)
    return target


def fingerprint(module: nn.Module, writer: str = "") -> str:
    """SHA-256 over a network's weights and structure, its classes' code and what will write its graph."""
    digest = hashlib.sha256()
    for part in (version("torch"), writer, repr(module)):
        digest.update(part.encode() + b"\0")
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for name, part in sorted(module.named_modules()):
        plain = [item for item in vars(part).items() if isinstance(item[1], int | float | str | tuple)]
        digest.update(f"{name} {sorted(plain)}".encode())
    for source in sorted(_source_files(module)):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def _source_files(module: nn.Module) -> set[str]:
    own = {type(part) for part in module.modules() if not type(part).__module__.startswith("torch.")}
    files = {__file__}
    for kind in own:
        with contextlib.suppress(TypeError, OSError):
            files.add(inspect.getfile(kind))
    return {file for file in files if os.path.isfile(file)}


def cache_folder() -> Path:
    """Where graphs are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("SKYSIFT_CACHE") or Path(base) / "skysift") / "graphs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    fallback = Path(tempfile.gettempdir()) / f"skysift-graphs-{os.getuid()}"
    fallback.mkdir(mode=0o700, exist_ok=True)
    return fallback


def forget_oldest(folder: Path, suffix: str) -> None:
    """Keep the newest graphs only: every checkpoint that is tried leaves one of up to 50 MB."""
    with contextlib.suppress(OSError):
        graphs = sorted(folder.glob(f"*{suffix}"), key=lambda file: file.stat().st_mtime)
        for old in graphs[:-_KEPT_GRAPHS]:
            for file in folder.glob(f"{old.stem}.*"):
                file.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters warn about their own insides and about packages that are not used here."""
    import torch

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with no_warnings(), torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
