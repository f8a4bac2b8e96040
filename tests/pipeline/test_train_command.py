"""The command on a card makes the same weights again, and names no place of the machine."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from models.train_options import TrainOptions
from pipeline.train import command_line


def test_places_are_cut_down_to_names_at_any_depth() -> None:
    options = TrainOptions(
        name="galaxy", data=Path("/somewhere/class5"), steps=7, start=Path("/else/trunk.safetensors"),
        lesson_options={"without": "/somewhere/labels.csv", "parts": ["/a/b.fits", "c.fits"], "turn": 180},
    )  # fmt: skip
    said = command_line(options, "gz2-classes", TrainOptions(name="galaxy"))
    words = shlex.split(said)
    assert words[:3] == ["skysift", "train", "gz2-classes"] and "/" not in said
    changes = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--set")
    assert yaml.safe_load(changes["steps"]) == 7 and words[words.index("--data") + 1] == "class5"
    assert yaml.safe_load(changes["lesson_options"]) == {
        "without": "labels.csv", "parts": ["b.fits", "c.fits"], "turn": 180
    }  # fmt: skip


def test_what_the_recipe_says_is_not_repeated() -> None:
    base = TrainOptions(name="light", steps=100)
    assert command_line(base, "light", base) == "skysift train light"
