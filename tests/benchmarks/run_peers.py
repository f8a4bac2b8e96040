"""Run one classical source finder with one setting, in the environment that peers_setup.sh makes.

    PEERS/bin/python tests/benchmarks/run_peers.py IMAGE.fits PEER OUT.csv --setting '{"threshold": 4, ...}'
    PEERS/bin/python tests/benchmarks/run_peers.py --list

The catalogue goes to OUT.csv (sky degrees, Jy, arcsec FWHM, degrees east of north); one JSON line on the last
line of the standard output tells seconds, CPU seconds, peak memory and rows. `--list` prints the settings
that each peer is tried with.
"""

import argparse
import importlib
import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
PEERS = ("sextractor", "sep", "photutils", "pybdsf", "aegean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("peer", nargs="?", choices=PEERS)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--setting", type=json.loads, default={})
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        known = {}
        for peer in PEERS:
            try:
                known[peer] = importlib.import_module(f"{peer}_peer").SETTINGS
            except ImportError as error:
                print(f"{peer} is left out: {error}", file=sys.stderr)
        print(json.dumps(known))
        return
    import common

    warnings.simplefilter("ignore")
    peer = importlib.import_module(f"{options.peer}_peer")
    image, out = options.image.resolve(), options.out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), _cpu_seconds()
        table = peer.run(common.open_plane(image), options.setting, Path(folder))
        seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    rows = common.write_csv(table, out)
    own = _peak_kilobytes()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    cost = {"rows": rows, "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
    print(json.dumps({**cost, "megabytes": round(max(own, children) / 1024)}))


def _peak_kilobytes() -> int:
    # ru_maxrss starts from what the parent held; the kernel's own high-water mark does not.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main()
