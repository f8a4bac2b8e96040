"""The demonstration of cubes: what it promises is there, and its score is that of a working finder."""

from __future__ import annotations

from pipeline.demo import CUBE_PRODUCTS, run_cube_demo


def test_a_small_cube_from_sky_to_score(tmp_path):
    seen = []
    made = run_cube_demo(tmp_path, shape=(150, 60, 70), seed=14, progress=lambda *call: seen.append(call[0]))
    table = made.result.table
    assert len(table) >= 3 and {"simulate", "detect", "evaluate"} == set(made.seconds)
    assert {"simulate", "noise", "detect", "measure", "products"} <= set(seen)
    pictures = list(made.result.files["products"].glob("*.png"))
    assert len(pictures) == min(CUBE_PRODUCTS, len(table))
    assert made.report["exact"]["reliability"] > 0.6 and made.report["exact"]["score"] > 1
    assert "position" in str(made.report)
