"""Colour pictures to a table of classes or of votes: the part of `skysift classify` that does not read spectra."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from models.answers import AnswerCalibration
from models.signature import network_inputs
from models.votes import VoteAnswers
from models.weights import Card
from pipeline.classify import ClassifierSpec, ClassifyResult, engine_summary, finish, load_classifier, write_table
from pipeline.classify_options import ClassifyOptions
from pipeline.outputs import prepare_output
from pipeline.runs import Clock, Progress, version
from survey_io.class_columns import probability_column
from survey_io.datasets.galaxy_tree import ANSWERS, QUESTIONS, cumulative_fractions
from survey_io.datasets.pictures import ENDINGS, picture_files, read_picture
from survey_io.errors import InputError
from survey_io.picture_columns import Share, make_picture_table

# Pictures given to the network at once, and how many batches are read ahead of it.
BATCH, AHEAD = 64, 2


def classify_pictures(
    paths: list[Path], options: ClassifyOptions, card: Card, *, progress: Progress | None = None
) -> ClassifyResult:
    """Classify all pictures of files and folders and write one table, as `pipeline.classify.classify` does for spectra.

    Parameters
    ----------
    paths : list of Path
        Pictures that Pillow decodes, or folders of such.
    options : ClassifyOptions
    card : Card
        Of the weights.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Raises
    ------
    InputError
        When not one picture could be used: all reasons are in ``fields["errors"]``.
    OptionError, OutputError
    """
    clock = Clock(progress)
    with clock.stage("find"):
        files, errors = _find(paths)
    output = prepare_output(options.output)
    workers = options.workers or os.cpu_count() or 1
    spec = ClassifierSpec(options.model, options.engine, options.precision, workers, device=options.device)
    module, _, engine = load_classifier(spec)
    began = time.perf_counter()
    raw, used = [], []
    with clock.stage("classify", max(len(files), 1)) as advance, ThreadPoolExecutor(workers) as pool:
        for group, pixels, count in _read(files, module, options.central, pool, errors):
            if len(pixels):
                raw.append(engine(module.prepare(pixels)))
                used += group
            advance(count)
    if not used:
        raise InputError(errors[0] if errors else "no pictures were given", errors=tuple(errors))
    seconds = time.perf_counter() - began
    table = picture_table(np.concatenate(raw), used, module, card)
    manifest = {
        "input": {"files": [str(path) for path in files], "errors": errors},
        "model": {
            "name": card.model, "weights": options.model, "sha256": card.sha256, "input": card.input_scaling,
            "calibration": card.calibration, **engine_summary(engine, spec),
        },
        "options": options.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("skysift", "numpy", "astropy", "torch", "openvino", "pillow")},
        "counts": {
            "pictures": len(table), "failed": len(errors),
            "classes": dict(Counter(str(one) for one in table["class"]).most_common()),
        },
        "pictures_per_s": round(len(table) / seconds, 2),
    }  # fmt: skip
    written = write_table(table, card.model, output, options, manifest, files, clock)
    finish(manifest, written, output / f"{card.model}_run.json", clock)
    return ClassifyResult(table, written, manifest, tuple(errors))


def _find(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """All pictures, and a line for each path that leads to none."""
    files: dict[Path, None] = {}
    errors = []
    for path in paths:
        if path.is_dir():
            found = picture_files(path)
            if not found:
                errors.append(f"{path}: expected pictures ({', '.join(ENDINGS)}) in this folder, found none")
        elif path.suffix.lower() in ENDINGS:
            found = [path]
        else:
            found = []
            errors.append(
                f"{path}: expected a colour picture ({', '.join(ENDINGS)}); data of other forms have to be made into "
                "one first, with the stretch of those that the model was trained on"
            )
        files.update(dict.fromkeys(found))
    return list(files), errors


def _read(
    files: list[Path], module: Any, central: float, pool: ThreadPoolExecutor, errors: list[str]
) -> Iterator[tuple[list[Path], np.ndarray, int]]:
    """Pictures in batches, decoded ahead of the network, and how many were tried; broken ones are told of."""
    channels = int(network_inputs(module)[0].shape[0])
    whole = getattr(module, "whole", module.side)

    def decode(path: Path) -> np.ndarray:
        return read_picture(path, side=whole, channels=channels, central=central)

    groups = iter([files[first : first + BATCH] for first in range(0, len(files), BATCH)])
    waiting: deque[tuple[list[Path], list[Future[np.ndarray]]]] = deque()
    while True:
        while len(waiting) < AHEAD and (group := next(groups, None)) is not None:
            waiting.append((group, [pool.submit(decode, path) for path in group]))
        if not waiting:
            return
        group, futures = waiting.popleft()
        good, pixels = [], []
        for path, future in zip(group, futures, strict=True):
            try:
                pixels.append(future.result())
                good.append(path)
            except InputError as error:
                errors.append(error.message)
        yield good, np.stack(pixels) if pixels else np.empty((0,), np.uint8), len(group)


def picture_table(raw: np.ndarray, files: list[Path], module: Any, card: Card) -> Table:
    """The table of raw answers (N, outputs): probabilities of classes, or both kinds of fractions of votes."""
    answers = module.answers
    if isinstance(answers, VoteAnswers):
        conditional = answers.conditional(raw)
        shares = _vote_shares(conditional)
        chance, names = conditional[:, QUESTIONS[0].place], QUESTIONS[0].answers
    else:
        chance, names = AnswerCalibration.from_card(card.calibration).probability(raw, answers), answers.classes
        shares = [
            (probability_column(name), one, f"probability of class {name}")
            for name, one in zip(names, chance.T, strict=True)
        ]
    p = np.clip(chance, 1e-12, 1)
    values = {
        "picture_id": np.arange(1, len(raw) + 1), "name": np.array([path.stem for path in files], dtype=np.str_),
        "file": np.array([str(path) for path in files], dtype=np.str_),
        "class": np.array([names[k] for k in chance.argmax(axis=1)], dtype=np.str_), "p_class": chance.max(axis=1),
        "entropy": np.abs((p * np.log2(p)).sum(axis=1)),
    }  # fmt: skip
    return make_picture_table(values, shares)


def _vote_shares(conditional: np.ndarray) -> list[Share]:
    """Columns by the catalogue's names: of those asked, and of all."""
    cumulative = cumulative_fractions(conditional)
    found = []
    for i, stem in enumerate(ANSWERS):
        found.append((f"{stem}_fraction", conditional[:, i], "share of this answer among those who are asked"))
        found.append((f"{stem}_cumulative", cumulative[:, i], "the same times the share that leads to the question"))
    return found
