"""The container's lock files hold every package that pyproject.toml asks for, in a version it allows, with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "deploy").glob("*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# The container is a service: with the extras that one needs.
EXTRAS = ("postgres",)


def locked(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by the package's name."""
    found = {}
    for entry in re.split(r"\n(?=[a-z])", re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M)):
        name, _, rest = entry.strip().partition("==")
        version, *hashes = rest.replace("\\", " ").split()
        found[canonicalize_name(name)] = (version, hashes)
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_has_one_version_and_hashes(path: Path) -> None:
    packages = locked(path)
    assert packages
    for name, (version, hashes) in packages.items():
        assert re.fullmatch(r"[0-9][\w.+!]*", version), name
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), name
    # No index, no path, no machine.
    assert not re.search(r"://|\bfile:|--index|--find-links|^-e|/opt/|/home/", path.read_text(encoding="utf-8"), re.M)


def test_what_the_package_asks_for_is_locked() -> None:
    everything = locked(ROOT / "deploy" / "requirements.lock")
    asked = [*PROJECT["dependencies"], *(one for extra in EXTRAS for one in PROJECT["optional-dependencies"][extra])]
    for one in map(Requirement, asked):
        if canonicalize_name(one.name) == "torch":
            for build in ("torch-cuda.lock", "torch-cpu.lock"):
                assert locked(ROOT / "deploy" / build)["torch"][0].partition("+")[0] in one.specifier
            continue
        assert canonicalize_name(one.name) in everything, f"{one.name}: run sh deploy/lock.sh"
        assert everything[canonicalize_name(one.name)][0] in one.specifier, f"{one.name}: run sh deploy/lock.sh"
    assert "torch" not in everything and not [name for name in everything if name.startswith("nvidia")]


def test_files_that_are_installed_together_agree() -> None:
    everything = locked(ROOT / "deploy" / "requirements.lock")
    for other in ("torch-cuda.lock", "tensorrt.lock", "build.lock"):
        for name, (version, _) in locked(ROOT / "deploy" / other).items():
            assert everything.get(name, (version,))[0] == version, f"{other}: {name}"
