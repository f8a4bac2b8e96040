"""Judgement on a real cube: the pipeline's catalogue against the truth of the strips kept for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.train_options import TrainOptions
from pipeline.judges import get_judge, judge_name


def test_the_shipped_network_on_a_cube(small_sdc2, tmp_path: Path) -> None:
    folder, _ = small_sdc2
    own = {"guard": 16, "block": 22}
    options = TrainOptions(name="light3d", lesson="sdc2", data=folder, lesson_options=own)
    found = get_judge(judge_name(options))("light3d", options, folder=tmp_path, report=lambda _: None)
    assert found.metric == "SDC2 score" and len(found.units) == 4
    assert found.value == pytest.approx(found.numbers["score"], abs=0.01)
    assert found.value == pytest.approx(sum(found.score(np.array([row])) for row in range(4)))
    assert found.numbers["visible"] > 2
    # In this crowd of bright galaxies some of what is found is real.
    assert 0 < found.numbers["matched"] <= found.numbers["rows"]
