"""All numbers of the networks for spectra and light curves, each beside a peer in the same run, on held-out data.

    python tests/benchmarks/bench_spectra.py [--stars INDO_US_FOLDER] [--only stellar molecules lines transits]

Each part is also a command of its own: bench_spectra_stellar.py, _molecules.py, _lines.py and _transits.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench_spectra_molecules import molecule_lines, speed_lines
from bench_spectra_stellar import stellar_lines

PARTS = ("stellar", "molecules", "lines", "transits")


def main() -> None:
    """Print every part's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stars", type=Path, help="folder with cflib.npz and labels.csv; without it no stellar part")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    for part in given.only:
        print(f"== {part}")
        if part == "stellar":
            print("\n".join(stellar_lines(given.stars) if given.stars else ["left out: give --stars FOLDER"]))
        elif part == "molecules":
            print("\n".join([*molecule_lines(), "", *speed_lines()]))
        elif part == "lines":
            import bench_spectra_lines as bench

            for plain in (False, True):
                print("spectra with a constant continuum" if plain else "all spectra")
                bench.show(bench.lines_table(plain=plain))
            print("areas under ROC curves, detections of simulated HI cubes")
            bench.show(bench.vetting_table(cubes=2))
        else:
            from bench_spectra_transits import main_lines

            print("\n".join(main_lines()))
        print(flush=True)


if __name__ == "__main__":
    main()
