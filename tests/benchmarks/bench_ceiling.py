"""How much is left to gain on an image: an ideal observer's SDC1 sub-scores beside skysift's, by S/N.

    python tests/benchmarks/bench_ceiling.py --size 4096 --beam 4

The ideal observer is told what no finder knows: where each source lies, that it is a Gaussian alone on its sky, what
the noise is, and from which population it was drawn. It holds the data against every flux, size and angle at once (the
exact posterior, on a grid) and submits, for each sub-score by itself, the value of the highest expected score. What it
does not reach is lost in the noise. skysift runs on a whole simulated sky of the same population, with neighbours,
sidelobes, discs and doubles, that it never saw, and it has to serve all populations.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from bench_finders import detect, simulated_field  # noqa: E402

from pipeline.scorers import SUBSCORES, as_sdc1, score_sdc1  # noqa: E402
from survey_io.simulate.continuum import GAUSSIAN, POINT, SkyModel, draw_fluxes  # noqa: E402

MEASURED = ("flux", "b_maj", "b_min", "pa")
EDGES = (4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 40.0)
# Grid of the posterior: sizes in beams, axis ratios, angles (deg), and fluxes about the true one.
SIZES = np.geomspace(0.02, 5.0, 40)
RATIOS = np.linspace(0.08, 1.0, 11)
ANGLES = np.arange(0.0, 180.0, 7.5)
FLUXES = np.linspace(-1.0, 1.0, 41)
SIGMA = 1 / np.sqrt(8 * np.log(2))
# Wave numbers in units of 1 / sigma of the beam; beyond, a whitened source holds nothing.
WAVES = np.arange(-3.6, 3.61, 0.3)
KEPT = 60


def whitened(major: np.ndarray, minor: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Sources of unit flux (in noise per beam) as the noise's whitened Fourier amplitudes, (n, waves).

    Sizes are intrinsic FWHM in beams. The noise has the beam's autocorrelation, so that a point source of flux 1 has
    the length 1: its S/N.
    """
    ky, kx = (k.ravel() for k in np.meshgrid(WAVES, WAVES, indexing="ij"))
    c, s = np.cos(np.radians(angle))[:, None], np.sin(np.radians(angle))[:, None]
    along, across = (c * kx + s * ky) * major[:, None], (c * ky - s * kx) * minor[:, None]
    step = WAVES[1] - WAVES[0]
    return np.exp(-0.25 * (kx**2 + ky**2) - 0.5 * (along**2 + across**2)) * step / np.sqrt(2 * np.pi)


def draw(count: int, model: SkyModel, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Points and Gaussians of a population with apparent S/N in the range of `EDGES`, as draw_sources makes them."""
    parts: list[dict[str, np.ndarray]] = []
    have = 0
    while have < count:
        flux = draw_fluxes(200_000, model, rng)
        flux = flux[flux > EDGES[0]]
        relative = flux / 10
        size = model.size_at_10 * relative**model.size_slope * np.exp(rng.normal(0, model.size_scatter, len(flux)))
        middle = np.clip(model.axis_ratio_at_10 * relative**model.axis_ratio_slope, 0.12, 0.8)
        ratio = 1 / (1 + np.exp(-(np.log(middle / (1 - middle)) + rng.normal(0, 0.55, len(flux)))))
        point = rng.random(len(flux)) < model.point_fraction
        major = np.where(point, 0.02, np.minimum(size, 5))
        minor = np.where(point, 0.02, major * np.clip(ratio, 0.05, 1))
        snr = flux / np.sqrt((1 + major**2) * (1 + minor**2))
        kept = (snr >= EDGES[0]) & (snr < EDGES[-1])
        one = {"flux": flux, "major": major, "minor": minor, "angle": rng.uniform(0, 180, len(flux)), "snr": snr,
               "kind": np.where(point, POINT, GAUSSIAN)}  # fmt: skip
        parts.append({name: value[kept] for name, value in one.items()})
        have += int(kept.sum())
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def log_prior(flux: np.ndarray, shapes: dict[str, np.ndarray], model: SkyModel) -> np.ndarray:
    """ln of the population's density (fluxes, shapes) in ln flux, ln size, axis ratio and angle."""
    relative = flux[:, None] / 10
    x = np.log10(np.maximum(flux, 0.5))
    counts = -np.cumsum(np.r_[0, np.diff(x)] * (model.slope + model.curve * x)) * np.log(10)
    counts += np.log(model.slope + model.curve * x)
    size = np.log(model.size_at_10 * relative**model.size_slope)
    major = -0.5 * ((np.log(shapes["major"]) - size) / model.size_scatter) ** 2
    middle = np.clip(model.axis_ratio_at_10 * relative**model.axis_ratio_slope, 0.12, 0.8)
    q = np.clip(shapes["ratio"], 0.05, 0.98)
    off = np.log(q / (1 - q)) - np.log(middle / (1 - middle))
    ratio = -0.5 * (off / 0.55) ** 2 - np.log(q * (1 - q))
    return counts[:, None] + major + ratio


def best(values: np.ndarray, weight: np.ndarray, choices: np.ndarray, limit: float) -> float:
    """The choice with the highest expected sub-score min(1, limit / relative error)."""
    with np.errstate(divide="ignore"):
        score = np.minimum(1, limit / (np.abs(choices[:, None] - values) / values))
    return float(choices[np.argmax(score @ weight)])


def fold(angle: np.ndarray) -> np.ndarray:
    """Angles as the challenge's scorer folds those of [-90, 90) degrees."""
    angle = np.where(angle > 45, angle - 45, angle)
    return np.where(angle < -45, angle + 45, angle)


def observe(truth: dict[str, np.ndarray], model: SkyModel, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The ideal observer's flux, sizes and angle for each source."""
    major, ratio, angle = (g.ravel() for g in np.meshgrid(SIZES, RATIOS, ANGLES, indexing="ij"))
    shapes = {"major": major, "ratio": ratio, "minor": major * ratio}
    grid = whitened(major, shapes["minor"], angle)
    # The amplitudes of all shapes lie in few dimensions, and what noise does in the others tells nothing.
    _, _, axes = np.linalg.svd(grid[:: 7], full_matrices=False)
    axes = axes[:KEPT]
    grid, sky = grid @ axes.T, whitened(truth["major"], truth["minor"], truth["angle"]) @ axes.T
    norm = (grid**2).sum(axis=1)
    data = truth["flux"][:, None] * sky + rng.standard_normal((len(sky), len(axes)))
    out = {name: np.empty(len(sky)) for name in ("flux", "major", "minor", "angle")}
    turns = fold(((90 - ANGLES + 90) % 180) - 90)
    fine = np.arange(-90.0, 90.0, 2.5)
    with np.errstate(divide="ignore"):
        angle_score = np.minimum(1, 10 / np.abs(fold(fine)[:, None] - turns))
    for i, one in enumerate(data):
        flux = truth["flux"][i] * np.exp(FLUXES * min(1.5, 10 / truth["snr"][i]))
        log = flux[:, None] * (grid @ one) - 0.5 * flux[:, None] ** 2 * norm + log_prior(flux, shapes, model)
        weight = np.exp(log - log.max())
        by_shape = (weight.sum(axis=0) / weight.sum()).reshape(len(SIZES), len(RATIOS), len(ANGLES))
        out["flux"][i] = best(flux, weight.sum(axis=1) / weight.sum(), flux, 0.1)
        out["major"][i] = best(SIZES, by_shape.sum(axis=(1, 2)), SIZES, 0.3)
        minor = (SIZES[:, None] * RATIOS).ravel()
        out["minor"][i] = best(minor, by_shape.sum(axis=2).ravel(), SIZES, 0.3)
        out["angle"][i] = (90 - fine[np.argmax(angle_score @ by_shape.sum(axis=(0, 1)))]) % 180
    return out


def ideal(count: int, model: SkyModel, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """S/N (n,) and sub-scores (n, 7) of an ideal observer, by the challenge's own scorer."""
    rng = np.random.default_rng(seed)
    truth = draw(count, model, rng)
    seen = observe(truth, model, rng)
    # Alone: a hundred beams from one to the next, along a meridian strip.
    beam = 0.25 * 1400 / 560
    place = np.arange(count)
    ra, dec = (place % 100) * 0.05, (place // 100) * 0.05

    def table(values: dict[str, np.ndarray]) -> np.ndarray:
        return as_sdc1({
            "ra": ra, "dec": dec, "flux": values["flux"] * 1e-6, "maj": values["major"] * beam,
            "min": values["minor"] * beam, "pa": values["angle"],
        })  # fmt: skip

    score = score_sdc1(table(seen), table(truth), frequency=560)
    return truth["snr"][score.true], score.subscores


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--beam", type=float, default=4.0, help="FWHM, px")
    parser.add_argument("--seed", type=int, default=8_675_309)
    parser.add_argument("--sources", type=int, default=3000, help="of the ideal observer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        field = simulated_field(Path(folder), given.beam, given.size, given.seed)
        row = detect(field, Path(folder), [])
    ours, snr = row.score, field.truth["peak_snr"]
    theirs_snr, theirs = ideal(given.sources, SkyModel(), given.seed)
    columns = [SUBSCORES.index(name) for name in MEASURED]
    print(f"{'S/N':>9}{'sources':>9}{'found':>7}" + "".join(f"{name:>16}" for name in (*MEASURED, "all seven")))
    reached = limit = 0.0
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        here = (snr >= low) & (snr < high)
        mine = ours.subscores[here[ours.true]]
        best_of = theirs[(theirs_snr >= low) & (theirs_snr < high)]
        pairs = [(mine[:, c].mean(), best_of[:, c].mean()) for c in columns]
        # Position, core fraction and class are not the observer's matter: what skysift has in them is kept.
        rest = mine[:, [c for c in range(len(SUBSCORES)) if c not in columns]].sum(axis=1).mean()
        whole = (mine.mean(), (rest + sum(other for _, other in pairs)) / len(SUBSCORES))
        print(f"{low:>4g}-{high:<4g}{here.sum():>9}{len(mine) / here.sum():>7.3f}"
              + "".join(f"{one:>9.3f}{other:>7.3f}" for one, other in (*pairs, whole)))  # fmt: skip
        reached += mine.mean() * len(mine)
        limit += whole[1] * (len(mine) if high <= 5 else here.sum())
    above = ours.subscores[snr[ours.true] >= EDGES[-1]]
    below = ours.subscores[snr[ours.true] < EDGES[0]]
    rest = sum(part.mean(axis=1).sum() for part in (above, below))
    print(f"skysift: {ours.value:.0f} ({reached + rest:.0f} for its matches, {ours.n_false} false rows)")
    print(f"the same sources and all above S/N 5, none false, measured ideally from S/N {EDGES[0]:g} to {EDGES[-1]:g}: "
          f"{limit + rest:.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
