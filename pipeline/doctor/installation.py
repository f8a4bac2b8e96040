"""Versions, and how Python is set up."""

from __future__ import annotations

import codecs
import locale
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from .finding import FAIL, OK, WARN, Finding

REINSTALL = "install again: sh deploy/setup.sh"
_UMLAUT = "skysift-été-☄"


def check_versions(distribution: str = "skysift") -> Iterator[Finding]:
    """What is installed against what this version asks for."""
    from packaging.requirements import Requirement

    python = ".".join(map(str, sys.version_info[:3]))
    try:
        asked = [Requirement(text) for text in metadata.requires(distribution) or ()]
    except metadata.PackageNotFoundError:
        yield Finding("installation", WARN, f"Python {python}, skysift runs from a folder", "pip install it: versions")
        return
    wrong = []
    for one in asked:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(version, prereleases=True):
            wrong.append(f"{one.name} {version} is not {one.specifier}")
    ours = f"Python {python}, skysift {metadata.version(distribution)}"
    if wrong:
        reason = " (Prefect 3.8 dies with later FastAPI)" if any(one.startswith("fastapi") for one in wrong) else ""
        yield Finding("installation", FAIL, f"{ours}: {'; '.join(wrong)}{reason}", REINSTALL)
    else:
        yield Finding("installation", OK, f"{ours}, {len(asked)} requirements hold")


def check_torchvision() -> Iterator[Finding]:
    """A torchvision that does not fit torch breaks whatever imports it; skysift itself does not."""
    if util.find_spec("torchvision") is None:
        yield Finding("torchvision", OK, "not installed, not needed")
        return
    done = subprocess.run(
        [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, timeout=30, check=False
    )
    versions = f"torchvision {metadata.version('torchvision')} beside torch {metadata.version('torch')}"
    if done.returncode == 0:
        yield Finding("torchvision", OK, versions)
        return
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    yield Finding(
        "torchvision", WARN, f"{versions}: {last[:200]}", "pip uninstall torchvision, or install the one of this torch"
    )


def check_encoding() -> Iterator[Finding]:
    """Names of files are of any language."""
    filesystem, preferred = sys.getfilesystemencoding(), locale.getpreferredencoding(False)
    try:
        good = codecs.lookup(filesystem).name == codecs.lookup(preferred).name == "utf-8"
    except LookupError:
        good = False
    chosen = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or "none set"
    text = f"file names {filesystem}, texts {preferred}, locale {chosen}"
    if not good:
        yield Finding("encoding", FAIL, text, "set PYTHONUTF8=1, or LC_ALL=C.UTF-8")
        return
    try:
        with tempfile.TemporaryDirectory(prefix=_UMLAUT) as folder:
            (Path(folder) / _UMLAUT).touch()
    except OSError as error:
        yield Finding("encoding", WARN, f"{text}; {tempfile.gettempdir()}: {error.strerror}", "set TMPDIR elsewhere")
        return
    yield Finding("encoding", OK, text)


def check_user() -> Iterator[Finding]:
    """A service needs no rights over the machine."""
    if os.geteuid() == 0:
        yield Finding("user", WARN, "root", "run the service as an ordinary user (containers and units here do)")
    else:
        yield Finding("user", OK, f"uid {os.geteuid()}")
