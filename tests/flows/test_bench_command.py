"""``skysift bench`` prints a table, and JSON for machines."""

from __future__ import annotations

import json

import pytest

from flows.cli import main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["bench", *arguments])
    return left.value.code


def test_table_and_json(tmp_path, capsys) -> None:
    common = ("--engine", "torch", "--precision", "f32", "--size", "32", "--seconds", "0.1", "--threads", "1")
    path = tmp_path / "bench.json"
    assert run(*common, "--device", "cpu", "-o", str(path)) == 0
    table = capsys.readouterr().out
    assert "MAC/unit" in table and "light  torch" in table and "Mpix/s" in table
    assert "matrix products" in table and "energy: " in table
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["rows"][0]["model"] == "light" and told["rows"][0]["macs_per_item"] == pytest.approx(4592, rel=0.05)
    assert run(*common, "--device", "cpu", "--alone", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert "whole_rate" not in told["rows"][0] and told["machine"]["threads"] == 1


def test_what_is_wrong_is_one_line(capsys) -> None:
    assert run("--engine", "torhc") == 2
    assert capsys.readouterr().err.startswith("skysift: error: unknown engine 'torhc'")
