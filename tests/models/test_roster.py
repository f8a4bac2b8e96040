"""Listing the models tells the same with and without loading them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models import roster
from models.registry import get_model, list_models

ROOT = Path(__file__).resolve().parents[2]


def test_the_source_tells_what_the_registry_does() -> None:
    found = roster.read_roster()
    assert [one.name for one in found] == list_models()
    assert found == [roster._loaded(name) for name in list_models()]
    assert {one.name: one.summary for one in found}["light"] == get_model("light").summary != ""


def test_nothing_is_loaded_for_it() -> None:
    code = "import sys; from models.roster import read_roster; read_roster(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("line", ['register_model("x")(dict)', '@register_model(NAME)\ndef build():\n    """X."""\n'])
def test_what_cannot_be_read_is_loaded(tmp_path: Path, line: str) -> None:
    (tmp_path / "odd.py").write_text(line, encoding="utf-8")
    with pytest.raises(ValueError):
        roster._read(tmp_path / "odd.py")
