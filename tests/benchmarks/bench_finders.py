"""The classical finders and skysift on the same pixels, in the exact SDC1 score.

    python tests/benchmarks/bench_finders.py --image CROP.fits --truth TRUTH.txt --primary-beam PB.fits     a
    real field
    python tests/benchmarks/bench_finders.py --beams 2.5 4 7
    simulated skies

The peers run in the environment that peers_setup.sh makes. Everything that can be chosen is chosen in their
favour: the
threshold, which flux, and whether sizes are fitted, deconvolved, bounded below or replaced by constants. On
a real field they
are tuned on the pixels they are scored on; on simulated skies on a sky of another seed. skysift runs as it
ships.

"match" and "false" count SDC1 matches, "(cent.)" is the score with centroids for cores; F1(5) and C(5) match
by position
alone, above an apparent S/N of 5. The last lines compare accuracy on the sources that both found.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

from finder_scores import Field, Row, common_subscores, format_rows, open_field, score_row, score_run  # noqa: E402  # noqa: E402

from pipeline.scorers import as_sdc1, read_sdc1  # noqa: E402

Run = tuple[dict, Path, dict]


def peers_python(folder: Path | None) -> Path:
    """The interpreter of the peers' environment."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = folder or Path(os.environ.get("SKYSIFT_PEERS", cache / "skysift" / "peers"))
    python = folder / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"no peers in {folder}: make them with sh {HERE / 'peers_setup.sh'} {folder}")
    return python


def known_settings(python: Path, wanted: list[str]) -> dict[str, list[dict]]:
    """Settings that each installed peer is tried with."""
    done = subprocess.run(
        [python, HERE / "run_peers.py", "--list"], capture_output=True, text=True, check=True
    )
    print(done.stderr, end="", file=sys.stderr)
    known = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: settings for name, settings in known.items() if not wanted or name in wanted}


def run_peer(python: Path, image: Path, peer: str, setting: dict, folder: Path) -> Run | None:
    """Run a peer, or take its result of an earlier call from the folder; None when it fails."""
    text = json.dumps(setting, sort_keys=True)
    key = hashlib.sha256(f"{image.name} {image.stat().st_size} {text}".encode()).hexdigest()[:12]
    out, costs = folder / f"{image.stem}-{peer}-{key}.csv", folder / f"{image.stem}-{peer}-{key}.json"
    if not costs.exists():
        command = [python, HERE / "run_peers.py", image, peer, out, "--setting", text]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            print(f"{peer} {text} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)
            return None
        costs.write_text(lines[-1])
    cost = json.loads(costs.read_text())
    print(f"  {peer} {text}: {cost['rows']} rows, {cost['seconds']} s", file=sys.stderr)
    return setting, out, cost


def tune(python: Path, field: Field, settings: dict[str, list[dict]], folder: Path) -> dict[str, tuple]:
    """Best (row, reading, setting) of every peer on a field."""
    best = {}
    for peer, tried in settings.items():
        for setting in tried:
            run = run_peer(python, field.path, peer, setting, folder)
            scored = score_run(peer, run, field) if run else None
            if scored and (peer not in best or scored[0].score.value > best[peer][0].score.value):
                best[peer] = (*scored, setting)
    return best


def detect(field: Field, folder: Path, extra: list[str]) -> Row:
    """Run ``skysift detect`` on the field's image in a process of its own and score its submission."""
    output = folder / f"{field.path.stem}-skysift"
    command = [
        sys.executable,
        "-c",
        "import sys; from flows.cli import main; sys.exit(main())",
        "detect",
        str(field.path),
    ]
    command += ["-o", str(output), "--format", "fits,sdc1", "--fresh", *extra]
    if field.primary_beam:
        command += ["--primary-beam", str(field.primary_beam)]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"skysift detect ended with status {process.returncode}")
    cost = {"seconds": time.perf_counter() - start, "megabytes": usage.ru_maxrss / 1024}
    catalogue = read_sdc1(output / f"{field.path.stem}_sdc1.txt")
    return score_row("skysift", " ".join(["as shipped", *extra]), catalogue, field, cost)


def given(path: Path, field: Field) -> Row:
    """Score a catalogue that was made before: SDC1 text, or any format of skysift's."""
    if path.suffix in (".txt", ".dat"):
        return score_row("skysift", path.name, read_sdc1(path), field, {})
    from survey_io.catalogue import read_catalogue

    return score_row("skysift", path.name, as_sdc1(read_catalogue(path)), field, {})


def report(field: Field, ours: Row | None, peers: list[Row]) -> None:
    """Print the table of a field and what it says of the best peer."""
    ny, nx = field.shape
    bright = int((field.truth["peak_snr"] > 5).sum())
    print(
        f"\n{field.name}: {nx} x {ny} pixels, beam {field.beam[0] / field.scale:.2f} pixels,"
        f" {bright} sources above S/N 5"
    )
    peers = sorted(peers, key=lambda row: -row.score.value)
    print(format_rows([*([ours] if ours else []), *peers]))
    if ours is None or not peers:
        return
    for label, value in (("SDC1 score", lambda row: row.score.value), ("F1(5)", lambda row: row.f1)):
        ratios = ", ".join(f"{row.name} {value(ours) / value(row):.3f}" for row in peers)
        print(f"{label} of skysift over that of: {ratios}")
    for row in peers:
        print(common_subscores(ours, row))


def real_field(options: argparse.Namespace, python: Path, settings: dict[str, list[dict]]) -> None:
    """Peers tuned and scored on a real image."""
    truth = read_sdc1(options.truth)
    field = open_field(
        options.image,
        truth,
        name=options.image.stem,
        frequency=options.frequency,
        primary_beam=options.primary_beam,
    )
    best = tune(python, field, settings, options.work)
    ours = None
    if options.skysift_catalogue:
        ours = given(options.skysift_catalogue, field)
    elif not options.peers_only:
        ours = detect(field, options.work, options.extra)
    report(field, ours, [entry[0] for entry in best.values()])


def simulated_field(folder: Path, beam: float, size: int, seed: int) -> Field:
    """A sky of the simulator, written once; the beam is 1.5 arcsec at any sampling, as the challenge's at
    560 MHz."""
    from survey_io.simulate.continuum import simulate_continuum
    from survey_io.simulate.tables import write_simulation

    stem = f"sky-beam{beam:g}-{size}-seed{seed}"
    if not (folder / f"{stem}_truth.ecsv").exists():
        sky = simulate_continuum(
            (size, size), beam_pixels=(beam, 0.9 * beam, 0.5), seed=seed, pixel_scale=1.5 / beam,
            frequency=5.6e8, rms=3.6e-7
        )  # fmt: skip
        write_simulation(sky, folder, stem=stem)
    from survey_io.catalogue import read_catalogue

    truth = read_catalogue(folder / f"{stem}_truth.ecsv")
    name = f"simulated sky, seed {seed}"
    return open_field(folder / f"{stem}.fits", truth.as_array(), name=name, frequency=560)


def simulated_skies(options: argparse.Namespace, python: Path, settings: dict[str, list[dict]]) -> None:
    """Peers tuned on one seed and scored, with skysift as it ships, on another."""
    for beam in options.beams:
        rehearsal = simulated_field(options.work, beam, options.tune_size, options.tune_seed)
        best = tune(python, rehearsal, settings, options.work)
        field = simulated_field(options.work, beam, options.size, options.seed)
        rows = []
        for peer, (_, reading, setting) in best.items():
            run = run_peer(python, field.path, peer, setting, options.work)
            scored = score_run(peer, run, field, reading) if run else None
            if scored:
                rows.append(scored[0])
        ours = None if options.peers_only else detect(field, options.work, options.extra)
        report(field, ours, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, help="real image with BMAJ, BMIN in its header")
    parser.add_argument("--truth", type=Path, help="its truth in the SDC1 text format")
    parser.add_argument("--primary-beam", type=Path)
    parser.add_argument("--frequency", type=int, default=560, choices=(560, 1400, 9200), help="MHz")
    parser.add_argument("--skysift-catalogue", type=Path, help="score this instead of running skysift detect")
    parser.add_argument(
        "--beams", type=float, nargs="*", default=[], help="simulated skies at these beams (pixels)"
    )
    parser.add_argument("--size", type=int, default=4096, help="side of the simulated skies that are scored")
    parser.add_argument("--seed", type=int, default=20_001)
    parser.add_argument("--tune-size", type=int, default=1536)
    parser.add_argument("--tune-seed", type=int, default=10_001)
    parser.add_argument("--peers", nargs="*", default=[], help="only these peers")
    parser.add_argument("--peers-folder", type=Path, help="environment of peers_setup.sh")
    parser.add_argument("--peers-only", action="store_true", help="without skysift")
    parser.add_argument(
        "--work", type=Path, default=Path("bench_finders"), help="folder for skies and catalogues"
    )
    parser.add_argument("extra", nargs="*", help="after --: further options of skysift detect")
    options = parser.parse_args()
    if not options.beams and not options.image:
        parser.error("give --image and --truth, or --beams, or both")
    if options.image and not options.truth:
        parser.error("--image needs --truth")
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    python = peers_python(options.peers_folder)
    settings = known_settings(python, options.peers)
    if options.image:
        real_field(options, python, settings)
    if options.beams:
        simulated_skies(options, python, settings)


if __name__ == "__main__":
    main()
