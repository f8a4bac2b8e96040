"""Recipes by name and by file, and what the command line changes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.recipe_files import list_recipes, parse_sets, resolve_recipe
from survey_io.errors import OptionError


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "field7.yaml"
    path.write_text(
        "# A field.\nname: lines\nsteps: 7\nbatch: 2\nlesson_options: {size: 32, turn: 5}\n"
        "retrain:\n  sigma: 2\n  judge_options: {spectra: 9}\n",
        encoding="utf-8",
    )
    return path


def resolve(name: str | None, *sets: str, environment: dict | None = None, **given):
    config = given.pop("config", None)
    return resolve_recipe(name, config=config, sets=sets, given=given, environment=environment or {})


def test_the_command_line_changes_keys_at_any_depth(recipe: Path) -> None:
    options, retrain = resolve(
        str(recipe), "learning_rate=1e-3", "lesson_options.size=64", "cube_size=[32, 24, 24]", "batch=3",
        "retrain.judge_options.spectra=5", "retrain.promote=never", batch=4,
        environment={"SKYSIFT_TRAIN_STEPS": "8", "SKYSIFT_TRAIN_BATCH": "9"},
    )  # fmt: skip
    assert (options.name, options.steps, options.batch, options.learning_rate) == ("lines", 8, 4, 1e-3)
    assert options.lesson_options == {"size": 64, "turn": 5} and options.cube_size == (32, 24, 24)
    assert (retrain.sigma, retrain.promote, retrain.judge_options) == (2, "never", {"spectra": 5})
    assert options.output == Path("training/field7") and retrain.name_for(options.name) == "field7"
    # The same again: what differs from the recipe's file.
    assert retrain.command.startswith("skysift train field7.yaml --set ")
    assert "'lesson_options={\"size\": 64, \"turn\": 5}'" in retrain.command and "sigma" not in retrain.command


def test_a_name_is_a_recipe_or_a_model() -> None:
    assert {"light", "sdc1", "stellar"} <= set(list_recipes())
    options, retrain = resolve("light", steps=10)
    assert (options.name, options.steps, options.output) == ("light", 10, Path("training/light"))
    assert retrain.recipe == "light" and retrain.command == "skysift train light --set steps=10"
    # A model that has no recipe of its own begins from the plain options.
    options, retrain = resolve("stellar-course", data=Path("/there/stars"))
    assert (options.name, options.output, options.batch) == ("stellar-course", Path("training"), 8)
    assert retrain.recipe == "" and retrain.command == "skysift train stellar-course --data stars"
    assert resolve(None)[0].name == "light"


def test_a_recipe_given_as_configuration_for_a_model(recipe: Path) -> None:
    options, _ = resolve("light", config=recipe)
    assert (options.name, options.steps, options.output) == ("light", 7, Path("training"))


@pytest.mark.parametrize(
    ("name", "sets", "message"),
    [
        ("lihgt", (), r"unknown recipe or model 'lihgt': expected one of .*did you mean 'light'\?"),
        ("gone.yaml", (), r"gone.yaml: no such recipe; those by name are .*light"),
        ("light", ("lerning_rate=1",), r"--set: unknown train option 'lerning_rate'; known: .*'learning_rate'\?"),
        ("light", ("retrain.sigm=1",), r"--set retrain: unknown retrain option 'sigm'; known: .*mean 'sigma'\?"),
        ("light", ("steps.a=1",), r"option steps: got \{'a': 1\}"),
        ("light", ("steps=-1",), r"^option steps: got -1; input should be greater"),
        ("light", ("retrain.sigma=-1",), r"^retrain: option sigma: got -1; input should be greater"),
        ("light", ("steps",), r"--set steps: expected key=value"),
        ("light", ("=3",), r"--set =3: expected key=value"),
        ("light", ("a=[1",), r"--set a=\[1: '\[1' is not valid YAML"),
        ("light", ("a=1", "a.b=2"), r"--set a.b=2: 'a' was given a value before"),
        ("light", ("retrain=3",), r"--set: retrain: expected keys with values, got 3"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(name: str, sets: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        resolve(name, *sets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: light\nstepz: 3\n", r"bad.yaml: unknown train option 'stepz'; known: .*did you mean 'steps'\?"),
        ("name: light\nretrain: {sigmas: 3}\n", r"bad.yaml: retrain: unknown retrain option 'sigmas'"),
        ("name: light\nretrain: 3\n", r"bad.yaml: retrain: expected keys with values, got 3"),
        ("name: light\nsteps: many\n", r"bad.yaml: option steps: got 'many'"),
        ("- light\n", r"bad.yaml: expected a mapping"),
    ],
)
def test_a_bad_file_is_blamed(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        resolve(str(path))


def test_values_are_those_of_yaml() -> None:
    found = parse_sets(["a=1e-3", "b=true", "c=[1, 2]", "d=x=y", "e.f.g=null", "e.f.h=-2.5E+2", "i=1e"])
    assert found == {
        "a": 1e-3, "b": True, "c": [1, 2], "d": "x=y", "e": {"f": {"g": None, "h": -250.0}}, "i": "1e"
    }  # fmt: skip
