"""How well sources of overlapping observations are associated, on simulated skies found by the real pipeline.

    python tests/benchmarks/bench_association.py [--size 1400] [--seeds 101,102,103] [--density 0.004,0.02]

One sky per seed and density is observed four times: twice with the same depth, once deeper, and once with a beam 1.6
times as wide; each has its own noise, its own part of the sky (neighbours share about three quarters) and its own
systematic offset of up to a twentieth of a beam. A pair of sources of two observations is true when both are best
identified with the same source of the truth table. A joined pair is wrong when no source of the truth could be both
(of those within 0.75 of a beam, or of the source's size); joined pairs between these are of blends, of which each noise
shows another member: counted as neither. "nearest" joins each source with the nearest of the other observations within
one beam, observation after observation, as a plain script would. Seeds below 100 were used while the method was built.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from astropy.io import fits
from astropy.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pipeline.crossmatch import match_sky, pairs_within, unit_vectors  # noqa: E402
from pipeline.detect import detect  # noqa: E402
from pipeline.options import DetectOptions  # noqa: E402
from pipeline.survey import SurveyStore, open_store  # noqa: E402
from pipeline.survey.schema import sky_object, source  # noqa: E402
from survey_io.simulate.continuum import SkyModel, draw_sources, noise_map, paint  # noqa: E402
from survey_io.simulate.tables import image_header, truth_table  # noqa: E402

PIXEL, RMS, BEAM = 0.6, 5e-7, 4.0
# Beam in units of the first one's, noise in units of RMS, corner of the part of the sky in units of its margin.
LOOKS = ((1.0, 1.0, (0.0, 0.0)), (1.0, 1.0, (1.0, 0.0)), (1.0, 0.5, (0.0, 1.0)), (1.6, 1.0, (1.0, 1.0)))


def observe(size: int, density: float, seed: int, folder: Path) -> list[tuple[Path, Table, float]]:
    """Write the observations of one sky; for each its truth (ra, dec, id, peak over its noise) and beam in arcsec."""
    model = SkyModel(density=density)
    shape, margin = (size, size), size // 7
    part = size - margin
    drawn = draw_sources(shape, model, (BEAM, BEAM, 0.0), np.random.default_rng(seed))
    looks = []
    for number, (beam, noise, corner) in enumerate(LOOKS):
        rng = np.random.default_rng([seed, number])
        wide = (BEAM * beam, BEAM * beam, 0.0)
        # The flux of a source is in units of the noise of the first look, whatever the beam.
        sources = copy.deepcopy(drawn)
        # The same draw of lobes for every look.
        sky = paint(shape, sources, model, wide, np.random.default_rng(seed + 1))
        y, x = (int(round(one * margin)) for one in corner)
        cut = (slice(y, y + part), slice(x, x + part))
        image = (sky[cut] + noise * noise_map((part, part), model, wide, rng)) * np.float32(RMS)
        header = image_header(shape, wide, pixel_scale=PIXEL, frequency=1.4e9, centre=(0.0, -30.0))
        truth = truth_table(sources, header, shape, rms=RMS, pixel_scale=PIXEL)
        truth["peak_snr"] = truth["peak_snr"] / noise
        header["CRPIX1"] -= x
        header["CRPIX2"] -= y
        offset = rng.uniform(-0.05, 0.05, 2) * wide[0]
        header["CRPIX1"] += offset[0]
        header["CRPIX2"] += offset[1]
        path = folder / f"look{number}.fits"
        fits.writeto(path, image.astype(np.float32), header)
        looks.append((path, truth, wide[0] * PIXEL))
    return looks


def identify(found: Table, truth: Table, beam: float) -> tuple[np.ndarray, list[set[int]]]:
    """Id in the truth that each source is best identified with (-1 for none), and all ids that it could be."""
    visible = truth[np.asarray(truth["peak_snr"]) > 2.5]
    position = (np.asarray(found["ra"]), np.asarray(found["dec"]))
    true = (np.asarray(visible["ra_core"]), np.asarray(visible["dec_core"]))
    radius = np.maximum(beam, np.asarray(visible["maj"])) * 0.75
    fluxes = (np.asarray(found["flux"], float), np.asarray(visible["flux"]))
    matched = match_sky(position, true, radius=radius, method="greedy", fluxes=fluxes, flux_factor=4.0)
    ids = np.asarray(visible["id"])
    best = np.full(len(found), -1)
    best[matched.first] = ids[matched.second]
    i, j, _ = pairs_within(unit_vectors(*position), unit_vectors(*true), np.radians(radius / 3600))
    possible: list[set[int]] = [set() for _ in range(len(found))]
    for row, one in zip(i.tolist(), ids[j].tolist(), strict=True):
        possible[row].add(one)
    return best, possible


def nearest_groups(tables: list[Table], beams: list[float]) -> list[np.ndarray]:
    """Labels of a plain join: each observation's sources take the nearest group within a beam, or make a new one."""
    ra, dec, labels = np.empty(0), np.empty(0), []
    for table, beam in zip(tables, beams, strict=True):
        position = (np.asarray(table["ra"]), np.asarray(table["dec"]))
        partner = match_sky(position, (ra, dec), radius=beam, method="nearest").of_first(len(table))
        new = partner < 0
        partner[new] = len(ra) + np.arange(new.sum())
        ra, dec = np.concatenate([ra, position[0][new]]), np.concatenate([dec, position[1][new]])
        labels.append(partner)
    return labels


def count(labels: list[np.ndarray], truth: list[tuple[np.ndarray, list[set[int]]]]) -> np.ndarray:
    """True pairs, those of them joined, all joined pairs, wrong ones of those."""
    total = np.zeros(4, int)
    for a, b in combinations(range(len(labels)), 2):
        joined, true = _pairs(labels[a], labels[b]), _pairs(truth[a][0], truth[b][0])
        wrong = sum(not truth[a][1][i] & truth[b][1][j] for i, j in joined)
        total += (len(true), len(true & joined), len(joined), wrong)
    return total


def _pairs(first: np.ndarray, second: np.ndarray) -> set[tuple[int, int]]:
    where = {value: row for row, value in enumerate(second.tolist()) if value >= 0}
    return {(row, where[value]) for row, value in enumerate(first.tolist()) if value in where}


def survey_labels(store: SurveyStore, runs: list[int]) -> tuple[list[np.ndarray], int]:
    """Objects of the sources of each run, and how many objects are unresolved."""
    def work(connection: sa.Connection) -> tuple[list[np.ndarray], int]:
        query = sa.select(source.c.object_id).order_by(source.c.row)
        labels = [np.array(connection.execute(query.where(source.c.run_id == run)).scalars().all()) for run in runs]
        marked = sa.select(sa.func.count()).where(sky_object.c.status == "unresolved")
        return labels, connection.execute(marked).scalar_one()
    return store.read(work)


def main() -> None:
    """Simulate, detect, record, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1400)
    parser.add_argument("--seeds", default="101,102,103")
    parser.add_argument("--density", default="0.004,0.02")
    parser.add_argument("--model", default="light")
    given = parser.parse_args()
    print("density  method    sources  true pairs  of them joined  joined pairs    wrong  unresolved objects")
    for density in map(float, given.density.split(",")):
        ours, plain, marked, sources = np.zeros(4, int), np.zeros(4, int), 0, 0
        for seed in map(int, given.seeds.split(",")):
            with tempfile.TemporaryDirectory() as name, open_store(Path(name) / "survey") as store:
                looks = observe(given.size, density, seed, Path(name))
                tables, runs = [], []
                for path, _, _ in looks:
                    options = DetectOptions(output=Path(name) / path.stem, model=given.model)
                    result = detect(path, options)
                    runs.append(store.record(result))
                    tables.append(result.table)
                ids = [identify(one, truth, beam) for one, (_, truth, beam) in zip(tables, looks, strict=True)]
                labels, unclear = survey_labels(store, runs)
                ours += count(labels, ids)
                plain += count(nearest_groups(tables, [beam for _, _, beam in looks]), ids)
                marked += unclear
                sources += sum(map(len, tables))
        for method, (true, right, joined, wrong) in (("skysift", ours), ("nearest", plain)):
            note = f"{marked:>18}" if method == "skysift" else f"{'-':>18}"
            print(
                f"{density:<8g} {method:<8} {sources:>8} {true:>11} {right / true:>15.2%} {joined:>13} "
                f"{wrong / joined:>8.2%}  {note}", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
