"""Where options come from, and which source wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.settings import resolve_options
from pipeline.options import DetectOptions
from survey_io.errors import OptionError


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "options.yaml"
    path.write_text("tile: 512\nbatch: 2\nformats: [fits, csv]\n", encoding="utf-8")
    return path


def test_command_line_over_environment_over_file_over_default(recipe: Path) -> None:
    environment = {"SKYSIFT_DETECT_TILE": "256", "SKYSIFT_DETECT_BATCH": "3", "SKYSIFT_DETECT_MODEL": ""}
    options = resolve_options(
        DetectOptions, {"tile": 128, "engine": None}, config=recipe, environment=environment
    )
    assert (options.tile, options.batch, options.formats) == (128, 3, ("fits", "csv"))
    assert (options.model, options.engine) == ("auto", "auto")


def test_a_misspelt_key_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("tiles: 512\n", encoding="utf-8")
    with pytest.raises(
        OptionError, match=r"options\.yaml: unknown detect option 'tiles'; known: output, model"
    ):
        resolve_options(DetectOptions, {}, config=path, environment={})
    with pytest.raises(OptionError, match="SKYSIFT_DETECT_TILES names no option"):
        resolve_options(DetectOptions, {}, environment={"SKYSIFT_DETECT_TILES": "1"})


def test_a_bad_value_is_blamed_on_its_source(recipe: Path) -> None:
    with pytest.raises(OptionError, match=r"^SKYSIFT_DETECT_TILE: option tile: got 'big'"):
        resolve_options(DetectOptions, {}, environment={"SKYSIFT_DETECT_TILE": "big"})
    recipe.write_text("[1, 2]\n", encoding="utf-8")
    with pytest.raises(OptionError, match="expected a mapping"):
        resolve_options(DetectOptions, {}, config=recipe, environment={})
    recipe.write_text("a: [1\n", encoding="utf-8")
    with pytest.raises(OptionError, match="not valid YAML at line 2"):
        resolve_options(DetectOptions, {}, config=recipe, environment={})


def test_yaml_written_is_yaml_read(tmp_path: Path) -> None:
    options = DetectOptions(
        tile=300, beam="6,5,190", primary_beam="pb.fits", hdu="SCI", formats="csv,sdc1,csv"
    )
    assert options.beam == (6.0, 5.0, 10.0)
    assert options.formats == ("csv", "sdc1")
    options.to_yaml(tmp_path / "used.yaml")
    assert DetectOptions.from_yaml(tmp_path / "used.yaml") == options
    assert DetectOptions.from_yaml(tmp_path / "used.yaml", tile=400).tile == 400
    assert "# Side of a tile's core in pixels" in options.to_yaml()


def test_options_are_frozen_and_a_run_can_move_to_other_workers() -> None:
    options = DetectOptions()
    with pytest.raises(Exception, match="frozen"):
        options.tile = 5
    assert options.with_changes(workers=7, cluster="local", fresh=True).identity() == options.identity()
    assert options.with_changes(model="sdc1").identity() != options.identity()
    assert DetectOptions(hdu="2").hdu == 2
