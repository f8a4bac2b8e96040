"""Imports go one way between the packages, and each heavy library has one owner."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("survey_io", "models", "pipeline", "flows")
# Library (or dotted part of one) to the places that may import it: folders or files, relative to the root.
OWNERS = {
    "astropy.io": ("survey_io",),
    "fitsio": ("survey_io",),
    "spectral_cube": ("survey_io",),
    "PIL": ("survey_io", "models"),
    "specutils": ("survey_io/spectra_library.py",),
    "astropy": ("survey_io", "pipeline"),
    "torch": ("models", "pipeline/train.py"),
    "onnx": ("models/engines", "models/export.py"),
    "onnxscript": ("models/engines", "models/export.py"),
    "onnxruntime": ("models/engines",),
    "openvino": ("models/engines",),
    "nncf": ("models/engines",),
    "tensorrt": ("models/engines",),
    "tensorrt_rtx": ("models/engines",),
    "dask": ("survey_io", "pipeline/dask_workers.py", "flows/runners.py"),
    "distributed": ("survey_io", "pipeline/dask_workers.py", "flows/runners.py", "flows/gpu_cluster.py"),
    "sqlalchemy": ("pipeline/survey",),
    "psycopg": ("pipeline/survey",),
    "astropy_healpix": ("pipeline/survey",),
    "prefect": ("flows",),
    "prometheus_client": ("pipeline/metrics.py", "pipeline/metric_families.py", "pipeline/gpu_use.py"),
    "fastapi": ("flows/http",),
    "starlette": ("flows/http",),
    "uvicorn": ("flows/http",),
    "jinja2": ("flows/http",),
    "typer": ("flows",),
    "rich": ("flows",),
}
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Give every absolute module name that a file imports, with its line; type-checking imports included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # "from astropy import io" reaches astropy.io too.
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")


def owned_by(place: str, owners: tuple[str, ...]) -> bool:
    return any(place == owner or place.startswith(owner + "/") for owner in owners)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    layer = LAYERS.index(place.split("/")[0])
    wrong = []
    for name, line in imported(path):
        if any(within(name, above) for above in LAYERS[layer + 1 :]):
            wrong.append(f"{place}:{line} imports {name}, which lies above it")
        if within(name, "tests"):
            wrong.append(f"{place}:{line} imports the tests")
        library = max((key for key in OWNERS if within(name, key)), key=len, default=None)
        if library is not None and not owned_by(place, OWNERS[library]):
            wrong.append(f"{place}:{line} imports {name}, which belongs to {', '.join(OWNERS[library])}")
    assert not wrong, "\n".join(wrong)


def test_no_file_in_flows_bears_a_package_name() -> None:
    names = {path.stem for path in (ROOT / "flows").rglob("*.py")}
    assert not names & set(LAYERS)


def test_no_package_files_under_tests() -> None:
    # A tests/models/__init__.py would hide the package "models".
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_reader_sees_nested_and_relative_imports(tmp_path: Path) -> None:
    code = "def f():\n    from astropy import io\n    import pipeline.detect\nfrom . import flows\n"
    (tmp_path / "x.py").write_text(code, encoding="utf-8")
    assert [name for name, _ in imported(tmp_path / "x.py")] == ["astropy.io", "pipeline.detect"]
    assert within("astropy.io.fits", "astropy.io") and not within("onnxruntime", "onnx")
