"""The catalogue gate: whether a precision finds what float32 finds, on simulated sky that nothing else has seen.

The whole pipeline runs twice on the same sky and the two catalogues are compared with each other, row by row, and with
the truth, by the score of the kind: that of SDC1 for images, of SDC2 for cubes, F1 for lines of spectra, accuracy or
average precision for classifiers. Rows at the threshold are what moves first: 14% of light's lie within one unit of
log odds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from models.engines.base import load_engine
from models.engines.gain import card_name, processor_name
from models.gates import EXACT, Gate
from models.quantised import graph_hash
from models.samples import sample_inputs, sample_lesson
from pipeline.options import DetectOptions
from survey_io.errors import OptionError

# No training, calibration or quantisation draws from these seeds.
SEED = 3_141_593
# Simulated skies and their sides, so that there are thousands of rows.
SKIES, SKY_SIDE = 8, 1024
CUBES, CUBE_SHAPE, CUBE_DENSITY = 12, (384, 192, 192), 45.0
SPECTRA = 256
# Two rows within this many beams, and in a cube within so many channels, are one; so are lines within this share of
# their width and a channel.
SAME_BEAMS, SAME_CHANNELS, SAME_WIDTHS = 0.5, 8.0, 0.5
# Seconds of the speed of each precision.
SPEED_SECONDS = 3.0

Run = tuple[str, str]


class NoSky(OptionError):
    """There is no simulated sky for a network."""


@dataclass
class Tally:
    """What the catalogues of some precisions add up to, in the order of the precisions, float32 first."""

    rows: np.ndarray
    lost: np.ndarray
    gained: np.ndarray
    score: np.ndarray
    name: str
    sky: str

    @classmethod
    def empty(cls, count: int, name: str, sky: str) -> Tally:
        """Nothing yet."""
        return cls(*(np.zeros(count) for _ in range(4)), name, sky)

    def add(self, places: Sequence[np.ndarray], scores: Sequence[float], within: np.ndarray | float = 1.0) -> None:
        """A sky: places (n, axes), scores, and within what distance of the first's rows another one is the same."""
        for i, place in enumerate(places):
            partners = count_partners(places[0], place, within)
            self.rows[i] += len(place)
            self.lost[i] += len(places[0]) - partners
            self.gained[i] += len(place) - partners
            self.score[i] += scores[i]


def count_partners(first: np.ndarray, second: np.ndarray, within: np.ndarray | float = 1.0) -> int:
    """How many rows of two catalogues, shape (n, axes), are each other's nearest, within a distance of the first's."""
    if not len(first) or not len(second):
        return 0
    distance, nearest = cKDTree(second).query(first)
    _, back = cKDTree(first).query(second)
    return int(np.count_nonzero((distance < within) & (back[nearest] == np.arange(len(first)))))


def measure_gates(
    model: str, runs: Sequence[Run], *, share: float = 1.0, data: Path | None = None,
    report: Callable[[str], None] = print, names: Sequence[Run] | None = None, device: str = "cpu",
) -> list[Gate]:  # fmt: skip
    """Compare the catalogues of some precisions with that of float32.

    Parameters
    ----------
    model : str
        Name or file of weights.
    runs : sequence of (engine, precision)
    share : float
        Of the sky that is looked at otherwise.
    data : Path, optional
        What the network's lesson needs when it is not simulated.
    report : callable
        Receives a line per sky.
    names : sequence of (engine, precision), optional
        What the gates are of, where another engine runs it here.
    device : str
        "cpu" or "cuda:0", for float32 too.

    Returns
    -------
    list of Gate
        In the order of the runs.

    Raises
    ------
    OptionError
        For a precision that cannot be run here; `NoSky` for a network whose sky is not simulated.
    """
    from models.registry import get_model
    from models.weights import find_weights, load_weights, read_card

    entry = get_model(read_card(find_weights(model)).model)
    module, _ = load_weights(model)
    try:
        sample_lesson(module, data)
    except OptionError as error:
        raise NoSky(error.message) from error
    _forget_finders()
    try:
        tally = _KINDS[entry.kind, entry.ndim](model, [("auto", EXACT), *runs], share, data, report, device)
    finally:
        # Nor may what was only tried here serve a later search.
        _forget_finders()
    samples = sample_inputs(module, batches=2, seed=SEED, data=data)
    exact = _answers(model, ("auto", EXACT), samples, device)
    gates = []
    for i, (run, name) in enumerate(zip(runs, names or runs, strict=True), 1):
        came = _answers(model, run, samples, device)
        gates.append(
            Gate(
                *name, int(tally.rows[0]), int(tally.lost[i]), int(tally.gained[i]), tally.name,
                round(float(tally.score[0]), 4), round(float(tally.score[i]), 4),
                round(max(_difference(a, b) for a, b in zip(exact, came, strict=True)), 6), tally.sky,
                graph_hash(model, *run), measure_speed(model, module, run, device),
            )
        )  # fmt: skip
        report(f"{model}, {' '.join(name)}: {gates[-1].line}")
    return gates


def _forget_finders() -> None:
    """Finders of this process hold their engines, and a quantised graph may be another now."""
    from models.engines.base import forget_engines
    from pipeline import cube_finders, finders, spectrum_finders

    for module in (cube_finders, finders, spectrum_finders):
        module._load.cache_clear()
    forget_engines()


def _answers(model: str, run: Run, samples: Sequence[tuple[np.ndarray, ...]], device: str) -> list[np.ndarray]:
    engine = _load(model, run, device)
    try:
        return [engine(*given).copy() for given in samples]
    finally:
        engine.close()


def _load(model: str, run: Run, device: str, *, threads: int = 2) -> Any:
    from models.weights import load_weights

    module, _ = load_weights(model)
    name = "torch" if run[0] == "auto" and device != "cpu" else run[0]
    return load_engine(name, module, precision=run[1], threads=threads, device=device, weights=model)


def _difference(exact: np.ndarray, came: np.ndarray) -> float:
    return float(np.abs(came - exact).max() / np.abs(exact).max())


def measure_speed(model: str, module: Any, run: Run, device: str = "cpu") -> dict[str, Any]:
    """Speed of the network alone, in float32 and in a precision: the best of turns.

    On one core of this machine by the processor's time and not the wall's, so that neighbours do not count; on a GPU
    from memory to memory, by the wall's.
    """
    from models.signature import random_input

    head = getattr(module, "head", None)
    cells = {1: 1024, 2: 320, 3: (32, 32, 32)}[head.ndim] if head is not None else 1
    given = random_input(module, batch=1 if head is not None and head.ndim > 1 else 32, cells=cells)
    engines = [_load(model, one, device, threads=1) for one in (("auto", EXACT), run)]
    clock, place = (time.process_time, processor_name()) if device == "cpu" else (time.perf_counter, card_name(device))
    for engine in engines:
        # What is made ready at the first call is not speed.
        engine(*given)
    best = [np.inf, np.inf]
    start = time.perf_counter()
    while time.perf_counter() - start < 2 * SPEED_SECONDS or np.inf in best:
        for i, engine in enumerate(engines):
            began = clock()
            engine(*given)
            best[i] = min(best[i], clock() - began)
    for engine in engines:
        engine.close()
    unit = "Melement" if head is None else {1: "Mchannel", 2: "Mpix", 3: "Mvoxel"}[head.ndim]
    f32, here = (round(given[0].size / 1e6 / seconds, 3) for seconds in best)
    return {"unit": f"{unit}/s", "f32": f32, "here": here, "processor": place}


def _images(
    model: str, runs: Sequence[Run], share: float, data: Path | None, report: Callable[[str], None], device: str
) -> Tally:
    from pipeline.calibrate import SDC1_FREQUENCY, held_out_sky
    from pipeline.detect import analyse
    from pipeline.scorers.sdc1 import score_sdc1
    from pipeline.scorers.sdc1_table import as_sdc1
    from survey_io import open_image
    from survey_io.simulate.tables import write_simulation

    count = max(1, round(SKIES * share))
    tally = Tally.empty(len(runs), "sdc1", f"{count} simulated skies of {SKY_SIDE} px from seed {SEED}")
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            sim, _, beam = held_out_sky(number, rng, size=SKY_SIDE, seed=SEED)
            observation = open_image(write_simulation(sim, Path(folder))["image"])
            tables = [analyse(observation, _options(model, run, device)).table for run in runs]
            truth = as_sdc1(sim.truth)
            scores = [
                score_sdc1(as_sdc1(table), truth, frequency=SDC1_FREQUENCY).value if len(table) else 0.0
                for table in tables
            ]
            tally.add([_places(table, "xy") / (SAME_BEAMS * beam) for table in tables], scores)
            report(f"sky {number + 1}/{count}: {', '.join(str(len(table)) for table in tables)} rows")
    return tally


def _cubes(
    model: str, runs: Sequence[Run], share: float, data: Path | None, report: Callable[[str], None], device: str
) -> Tally:
    from dataclasses import replace

    from pipeline.calibrate_cube import held_out_model
    from pipeline.detect_cube import analyse_cube
    from pipeline.scorers.sdc2 import score_sdc2
    from survey_io.cube import open_cube
    from survey_io.sdc2 import sdc2_columns
    from survey_io.simulate.hi import simulate_hi, truth_table, write_hi

    count = max(1, round(CUBES * share))
    sky = f"{count} simulated cubes of {' x '.join(map(str, CUBE_SHAPE))} from seed {SEED}"
    tally = Tally.empty(len(runs), "sdc2", sky)
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            drawn = replace(held_out_model(rng, CUBE_SHAPE), density=CUBE_DENSITY)
            cube, galaxies = simulate_hi(drawn, seed=SEED + number)
            truth = truth_table(drawn, galaxies)
            opened = open_cube(write_hi(drawn, cube, galaxies, Path(folder))["cube"])
            tables = [analyse_cube(opened, _options(model, run, device)).table for run in runs]
            scores = [score_sdc2(sdc2_columns(table), truth).score if len(table) else 0.0 for table in tables]
            unit = np.array([SAME_CHANNELS, *[SAME_BEAMS * drawn.beam_px] * 2])
            tally.add([_places(table, "zyx") / unit for table in tables], scores)
            report(f"cube {number + 1}/{count}: {', '.join(str(len(table)) for table in tables)} rows")
    return tally


def _options(model: str, run: Run, device: str) -> DetectOptions:
    return DetectOptions(model=model, engine=run[0], precision=run[1], device=device)


def _places(table: Any, axes: str) -> np.ndarray:
    return np.stack([np.asarray(table[axis], float) for axis in axes], axis=1)


def _spectra(
    model: str, runs: Sequence[Run], share: float, data: Path | None, report: Callable[[str], None], device: str
) -> Tally:
    from pipeline.calibrate_lines import WANTED_SNR, draw_spectra, probabilities, search_drawn
    from pipeline.reliability import Calibration
    from pipeline.scorers.lines import score_lines
    from pipeline.spectrum_finders import make_spectrum_finder

    count = max(1, round(SPECTRA * share))
    drawn = draw_spectra(count, SEED)
    tally = Tally.empty(len(runs), "f1", f"{count} simulated spectra from seed {SEED}")
    lines, widths = [], np.empty(0)
    for engine, precision in runs:
        finder, card = make_spectrum_finder(model, engine=engine, precision=precision)
        calibration = Calibration(**card["calibration"].get("reliability", {}))
        pairs = probabilities(search_drawn(model, drawn, engine=engine, precision=precision), calibration)
        limit = card["threshold"] or 0.5
        kept = []
        for number, (found, _) in enumerate(pairs):
            row = found["score"] >= limit
            # Emission, absorption and the spectra lie far apart.
            far = 1e5 * (2 * number + (found["sign"] > 0))
            kept.append(np.column_stack([found["z"] + far, found["width"]])[row])
        score = score_lines(pairs, least=WANTED_SNR, threshold=limit).f1
        places, width = np.hsplit(np.concatenate(kept), 2)
        lines.append((places, score))
        widths = widths if len(widths) else width.ravel()
        report(f"{engine} {precision}: {len(lines[-1][0])} lines in {count} spectra")
    tally.add([place for place, _ in lines], [score for _, score in lines], SAME_WIDTHS * widths + 1)
    return tally


def _classes(
    model: str, runs: Sequence[Run], share: float, data: Path | None, report: Callable[[str], None], device: str
) -> Tally:
    from models.answers import AnswerCalibration
    from models.weights import load_weights
    from pipeline.calibrate_classifier import score_answers

    module, card = load_weights(model)
    examples = sample_lesson(module, data).examples
    inputs, targets = examples.fixed("test")
    use = slice(0, max(1, round(len(inputs[0]) * share)))
    inputs, targets = tuple(one[use] for one in inputs), {name: one[use] for name, one in targets.items()}
    answers, calibration = module.answers, AnswerCalibration.from_card(card.calibration)
    name = "accuracy" if answers.exclusive else "macro_average_precision"
    tally = Tally.empty(len(runs), name, f"{len(inputs[0])} examples of the test part")
    said = []
    for run in runs:
        engine = _load(model, run, device)
        raw = np.concatenate([engine(*(one[i : i + 32] for one in inputs)) for i in range(0, len(inputs[0]), 32)])
        engine.close()
        probability = calibration.probability(raw, answers)
        said.append(probability.argmax(axis=1) if answers.exclusive else probability >= (card.threshold or 0.5))
        tally.score[len(said) - 1] = score_answers(raw, targets, answers, calibration)[name]
        report(f"{run[0]} {run[1]}: {name} {tally.score[len(said) - 1]:.4f}")
    for i, one in enumerate(said):
        if answers.exclusive:
            tally.rows[i], tally.lost[i] = len(one), np.count_nonzero(one != said[0])
        else:
            tally.rows[i] = np.count_nonzero(one)
            tally.lost[i], tally.gained[i] = np.count_nonzero(said[0] & ~one), np.count_nonzero(one & ~said[0])
    return tally


_KINDS = {
    ("detector", 1): _spectra, ("detector", 2): _images, ("detector", 3): _cubes, ("classifier", 1): _classes,
    ("classifier", 2): _classes,
}  # fmt: skip
