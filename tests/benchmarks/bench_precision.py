"""What bf16 and int8 do to the catalogues of the shipped networks, and how much faster the networks are in them.

    python tests/benchmarks/bench_precision.py                              every network with a simulated sky
    python tests/benchmarks/bench_precision.py --models light --runs "openvino int8" "torch bf16"
    python tests/benchmarks/bench_precision.py --models stellar --data FOLDER
    python tests/benchmarks/bench_precision.py --models light light3d --runs "torch fp16" --device cuda:0
    python tests/benchmarks/bench_precision.py --models light lines --ship  also writes the records beside the weights

Each catalogue is compared with float32's on the same simulated sky, which nothing was trained, calibrated or quantised
on (`pipeline.parity`). A missing int8 graph is made first, with NNCF. Speed is that of the network on one core, by the
processor's time, or of a GPU from memory to memory. ``--ship`` is for those who release weights: the records, and the
int8 graphs that passed, go to where the package looks for them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from models.export_engine import export_engine  # noqa: E402
from models.gates import Gate, keep_gate  # noqa: E402
from models.quantised import find_graph, keep_graph, read_graph_record  # noqa: E402
from models.weights import list_weights  # noqa: E402
from pipeline.parity import NoSky, measure_gates  # noqa: E402
from survey_io.errors import SkysiftError  # noqa: E402

RUNS = ("openvino int8", "openvino bf16", "torch bf16")
HEAD = (
    f"{'network':<12}{'engine':<10}{'':<6}{'rows':>7}{'lost':>6}{'gained':>7}{'%':>7}  {'score':<24}{'%':>7}"
    f"{'raw':>9}{'f32':>9}{'here':>9}  {'':<12}passed"
)


def main() -> None:
    """Print a line per network and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list_weights())
    parser.add_argument("--runs", nargs="+", default=list(RUNS), metavar="'ENGINE PRECISION'")
    parser.add_argument("--sky", type=float, default=1.0, help="share of the held-out sky")
    parser.add_argument("--data", type=Path, help="of networks whose sky is not simulated")
    parser.add_argument("--device", default="cpu", help="cuda:0 for runs such as 'torch fp16'")
    parser.add_argument("--anew", action="store_true", help="quantise again")
    parser.add_argument("--layers", type=int, nargs="+", help="products to quantise, not those measured")
    parser.add_argument("--ship", action="store_true", help="write records and graphs beside the shipped weights")
    given = parser.parse_args()
    lines = [HEAD]
    for model in given.models:
        start = time.perf_counter()
        try:
            runs = [run for run in map(_run, given.runs) if run[1] != "int8" or _quantise(model, given)]
            gates = measure_gates(model, runs, share=given.sky, data=given.data, report=_tell, device=given.device)
        except NoSky as error:
            _tell(f"{model}: {error.message}")
            continue
        for gate in gates:
            keep_gate(model, gate)
            if given.ship:
                keep_gate(model, gate, shipped=True)
            if given.ship and gate.precision == "int8" and gate.passed:
                path = find_graph(model, gate.engine, "int8")
                keep_graph(model, gate.engine, "int8", path, read_graph_record(path), shipped=True)
            lines.append(_line(model, gate))
        _tell(f"{model}: {time.perf_counter() - start:.0f} s")
    print("\n".join(lines))


def _run(text: str) -> tuple[str, str]:
    engine, precision = text.split()
    return engine, precision


def _quantise(model: str, given: argparse.Namespace) -> bool:
    """Whether there is an int8 graph of some weights, made where it is missing."""
    if not given.anew and find_graph(model, "openvino", "int8") is not None:
        return True
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = export_engine(
                model, folder, engine="openvino", precision="int8", data=given.data, layers=given.layers
            )
        except SkysiftError as error:
            _tell(f"{model}: no int8: {error.message}")
            return False
        keep_graph(model, "openvino", "int8", made.graph, made.told)
    _tell(f"{model}: int8 in the products {made.told['layers']} of {made.told['products']}, {made.told['changes']}")
    return True


def _line(model: str, gate: Gate) -> str:
    speed, score = gate.speed, f"{gate.score} {gate.score_f32:.5g} {gate.score_here:.5g}"
    return (
        f"{model:<12}{gate.engine:<10}{gate.precision:<6}{gate.rows:>7}{gate.lost:>6}{gate.gained:>7}"
        f"{100 * gate.changed_rows:>7.2f}  {score:<24}{100 * gate.score_change:>+7.2f}{gate.largest_difference:>9.1e}"
        f"{speed['f32']:>9.4g}{speed['here']:>9.4g}  {speed['unit']:<12}{'yes' if gate.passed else 'no'}"
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
