"""How detectors are judged on real cubes: the whole pipeline, the score of SDC2 on the strips of sky kept for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.lessons import lesson_options
from models.lessons.cube_survey import CubeSurveyOptions, cube_files, split_cube
from models.outline import load_outline
from models.train_options import TrainOptions
from pipeline.detect_cube import analyse_cube
from pipeline.judges import register_judge
from pipeline.judges.evaluation import Evaluation
from pipeline.options import DetectOptions
from pipeline.scorers.sdc2 import SDC2_SUBSCORES, score_sdc2
from pipeline.survey_score import block_of
from survey_io.datasets.ska_sdc2 import open_survey_cube
from survey_io.datasets.sky_split import TEST
from survey_io.sdc2 import sdc2_columns


@register_judge("cube-survey", "sdc2")
def judge_cube_survey(
    weights: str | Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> Evaluation:
    """Detect with the weights' own threshold and score the test strips; the units are blocks of the sky.

    A row that matches earns the mean score of all matches, one that does not costs one; of several rows on one galaxy
    one matches.
    """
    own = lesson_options(CubeSurveyOptions, options)
    outline, _ = load_outline(str(weights))
    names: list[str] = []
    values, means = [], []
    counts = np.zeros(3, int)
    for files in cube_files(options):
        cube = open_survey_cube(files)
        split = split_cube(cube, outline.receptive_field, own)
        table = analyse_cube(cube.cube, DetectOptions(model=str(weights), precision="f32")).table
        table = table[split.part_at(table["y"], table["x"]) == TEST] if len(table) else table
        g = cube.galaxies
        rows = split.part_at(g["y"], g["x"]) == TEST
        blocks = split.blocks(TEST, own.block)
        names += [f"{cube.name}[{one[0].start},{one[1].start}]" for one in blocks]
        value = np.zeros(len(blocks))
        if len(table):
            columns = sdc2_columns(table)
            kept = np.isin(np.asarray(table["source_id"]), columns["id"])
            at = block_of(blocks, np.asarray(table["y"])[kept], np.asarray(table["x"])[kept])
            scored = score_sdc2(columns, cube.truth[g["row"][rows]], sane=True)
            earned = np.full(len(at), -1.0)
            earned[scored.index] = scored.mean if scored.n_match else 0.0
            value = np.bincount(at, earned, len(blocks))
            counts += (scored.n_det, scored.n_match, 0)
            means.append((scored.n_match, [scored.subscores.get(name, 0.0) for name in SDC2_SUBSCORES]))
        counts[2] += int((g["snr"][rows] >= own.demanded).sum())
        values.append(value)
    value = np.concatenate(values)
    weight = max(sum(count for count, _ in means), 1)
    parts = np.sum([count * np.array(part) for count, part in means], axis=0) / weight if means else np.zeros(7)
    numbers = {
        "score": round(float(value.sum()), 2), "rows": int(counts[0]), "matched": int(counts[1]),
        "visible": int(counts[2]),
    }  # fmt: skip
    numbers |= {name: round(float(one), 4) for name, one in zip(SDC2_SUBSCORES, parts, strict=True)}
    report(f"{weights}: " + ", ".join(f"{name} {one}" for name, one in numbers.items()))
    return Evaluation("SDC2 score", tuple(names), lambda chosen: float(value[chosen].sum()), numbers=numbers)
