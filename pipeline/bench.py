"""What a machine makes of the networks: speed alone and from file to detections, beside what it can do at most."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field
from threadpoolctl import threadpool_limits

from models.engines.base import available_engines, engine_precisions, list_engines, resolve_engine
from models.engines.chain import Way
from models.engines.choose import find_devices
from models.registry import get_model
from pipeline.bench_paths import WholePath, make_path
from pipeline.options import Options, split_commas
from pipeline.runs import version
from survey_io.errors import OptionError, SkysiftError

if TYPE_CHECKING:
    from models.speed import Peaks

# Side of what a network is timed on, by axes: a tile as the pipeline cuts it, or a smaller one that behaves the same.
SIDES = {1: 8192, 2: 512, 3: 64}
# Shares of the time: network alone, and the whole way.
ALONE, WHOLE = 0.55, 0.45
LEAST_ROUNDS = 3
# A GPU's counter moves on ten times a second or so.
ENERGY_SECONDS = 1.0
POWERCAP = Path("/sys/class/powercap")
COMPILED = "torch compiled"
Say = Callable[[str], None]


class BenchOptions(Options):
    """What is timed, and for how long."""

    model: Annotated[tuple[str, ...], BeforeValidator(split_commas)] = Field(
        ("light",), min_length=1, description="Models by name, or weights files; those without weights get random ones."
    )
    engine: Annotated[tuple[str, ...], BeforeValidator(split_commas)] = Field(
        ("all",), min_length=1, description="Engines, or all that run here."
    )
    precision: Annotated[tuple[str, ...], BeforeValidator(split_commas)] = Field(
        ("all",), min_length=1, description="Precisions, or all that the engines compute in."
    )
    device: str = Field("auto", description="cpu, cuda:0; auto = the first GPU, and the processor beside it.")
    size: int | None = Field(
        None, ge=16, le=16384, description="Side of a window in px, voxels or channels; null: 512, 64 or 8192."
    )
    batch: int | None = Field(None, ge=1, le=1024, description="Windows of a call; null: 1, of classifiers 16.")
    threads: int | None = Field(None, ge=1, le=4096, description="Cores of the processor; null: all.")
    seconds: float = Field(8.0, gt=0, le=3600, description="Time for each model, beside loading and the peaks.")
    compiled: bool = Field(False, description="Also time torch's networks compiled, alone.")
    whole: bool = Field(True, description="Also time the way from a file to its detections.")
    trace: Path | None = Field(None, description="Write a timeline of the stages on a device as a Chrome trace.")


@dataclass
class Row:
    """One engine in one precision on one device, with one model."""

    model: str
    way: Way
    unit: str = ""
    amount: float = 0.0
    items: float = 0.0
    macs: float = 0.0
    moved: float = 0.0
    calls: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)
    joules: float | None = None
    whole: list[float] = field(default_factory=list)
    whole_amount: float = 0.0
    detections: int | None = None
    loading: float = 0.0
    refused: str = ""

    @property
    def line(self) -> str:
        """What was measured, for people who wait."""
        if self.refused:
            return f"{self.model}: {self.way}: {self.refused}"
        whole = f", {self.whole_amount / min(self.whole):.4g} from the file to detections" if self.whole else ""
        return f"{self.model}: {self.way}: {self.amount / min(self.calls):.4g} {self.unit}/s alone{whole}"

    def told(self, peaks: Peaks) -> dict[str, Any]:
        """For the table and the JSON."""
        row: dict[str, Any] = {"model": self.model, **self.way._asdict()}
        if self.refused:
            return row | {"refused": self.refused}
        best, middle = min(self.calls), float(np.median(self.calls))
        flops = 2 * self.macs / best
        peak, copy = peaks.flops[self.way.device].get(self.way.precision), peaks.copy[self.way.device]
        spent = None if self.joules is None else self.joules / self.amount
        row |= {
            "unit": f"{self.unit}/s", "rate": self.amount / best, "rate_median": self.amount / middle,
            "macs_per_item": self.macs / self.items,
            "flops": flops, "peak_share": None if peak is None else flops / peak,
            "bytes_per_second": self.moved / best, "copy_share": self.moved / best / copy,
            "latency_ms": 1e3 * float(np.median(self.single)),
            "latency_95_ms": 1e3 * float(np.quantile(self.single, 0.95)),
            "joules_per_unit": spent, "calls": len(self.calls), "loading_s": self.loading,
        }  # fmt: skip
        if self.whole:
            row |= {"whole_rate": self.whole_amount / min(self.whole), "detections": self.detections}
            row["whole_share"] = row["whole_rate"] / row["rate"]
        return row


def run_bench(options: BenchOptions, *, say: Say = lambda _: None) -> dict[str, Any]:
    """Time networks in engines.

    Every engine takes its turn in each round, so that what else the machine does disturbs all alike; the best call
    counts for speed, since a disturbed one is only slower.

    Parameters
    ----------
    options : BenchOptions
    say : callable
        Told what is being done.

    Returns
    -------
    dict
        ``machine``, ``versions``, ``peaks`` (by device: FLOP/s of square matrix products in each precision, and bytes
        per second of a copy, read and written), ``rows``; of a timeline ``lanes``, the share of the time that each
        was at work.

    Raises
    ------
    OptionError
        For a model, engine, precision or device that there is none of.
    """
    from models.speed import Peaks

    threads = options.threads or os.cpu_count() or 1
    ways = choose_ways(options)
    with tempfile.TemporaryDirectory(prefix="skysift-bench-") as folder, threadpool_limits(threads, user_api="blas"):
        say("the device's peak")
        peaks = Peaks(ways, threads=threads)
        rows, lanes = [], None
        for model in options.model:
            made = _bench_model(model, ways, options, threads, Path(folder), peaks, say)
            for row in made:
                # A run of many models that is stopped has told what it knew.
                say(row.line)
            rows += made
        if options.trace is not None:
            say("timeline")
            lanes = _trace(options, threads, Path(folder))
        peaks.close()
    return {
        "machine": describe_machine(threads),
        "versions": {name: version(name) for name in ("skysift", "torch", "openvino", "onnxruntime", "numpy")},
        "energy": "not available: no counter of a processor (RAPL) or GPU (NVML) can be read here"
        if all(row.joules is None for row in rows) else "from the machine's counters",
        "peaks": {device: {"flops": peaks.flops[device], "copy": copy} for device, copy in peaks.copy.items()},
        "rows": [row.told(peaks) for row in rows], **({"lanes": lanes} if lanes else {}),
    }  # fmt: skip


def choose_ways(options: BenchOptions) -> list[Way]:
    """Engines, precisions and devices to time.

    Raises
    ------
    OptionError
    """
    gpus, _ = find_devices(options.device)
    devices = [*gpus[:1], *(["cpu"] if options.device in ("auto", "cpu") else [])]
    names = list_engines() if "all" in options.engine else list(options.engine)
    for name in names:
        if name not in list_engines():
            resolve_engine(name)
    ways = [
        Way(name, precision, device)
        for device in devices
        for name in names
        if name in available_engines()
        for precision in engine_precisions(name, device)
        if "all" in options.precision or precision in options.precision
    ]
    if not ways:
        for name in options.engine:
            resolve_engine("auto" if name == "all" else name, precision=options.precision[0].replace("all", "f32"))
        raise OptionError(
            f"engine {', '.join(options.engine)}, precision {', '.join(options.precision)}, device {options.device}: "
            "nothing here computes so; leave one of them out"
        )
    if options.compiled:
        ways += [way._replace(engine=COMPILED) for way in ways if way.engine == "torch"]
    return ways


def _bench_model(
    model: str, ways: list[Way], options: BenchOptions, threads: int, folder: Path, peaks: Peaks, say: Say
) -> list[Row]:
    """Rows of one model."""
    from models.speed import make_call, make_work, seconds_of

    module, weights, entry = _network(model, folder)
    side = options.size or SIDES[entry.ndim]
    batch = options.batch or (16 if entry.kind == "classifier" else 1)
    work = make_work(module, entry, batch=batch, side=side)
    one = work if batch == 1 else make_work(module, entry, batch=1, side=side)
    rows, calls = [], {}
    for way in ways:
        say(f"{model}: {way}")
        row = Row(model, way, work.unit, work.amount, work.items, work.macs, work.moved(way.precision))
        rows.append(row)
        begin = time.perf_counter()
        try:
            engine = _load(weights, module, way, threads)
            calls[id(row)] = tuple(make_call(engine, each.arrays) for each in (work, one))
            # Kernels are picked and graphs captured in the first calls of a shape.
            for call in calls[id(row)] * (3 if way.on_gpu else 1):
                call()
        except (SkysiftError, RuntimeError, MemoryError) as error:
            row.refused = " ".join(str(error).replace(weights, model).split())[:200]
            calls.pop(id(row), None)
            continue
        row.loading = time.perf_counter() - begin
    able = [row for row in rows if not row.refused]
    until = time.perf_counter() + ALONE * options.seconds
    while able and (time.perf_counter() < until or len(able[0].calls) < LEAST_ROUNDS):
        peaks.sample()
        for row in able:
            row.calls.append(seconds_of(calls[id(row)][0]))
            row.single.append(row.calls[-1] if batch == 1 else seconds_of(calls[id(row)][1]))
    for row in able:
        row.joules = _joules_per_call(calls[id(row)][0], row.way)
    path = make_path(weights, entry, folder, side=side, threads=threads) if options.whole else None
    if path is not None:
        _bench_whole(path, [row for row in able if row.way.engine != COMPILED], options.seconds * WHOLE, say)
    return rows


def _joules_per_call(call: Callable[[], None], way: Way) -> float | None:
    """Energy of a call, over some that fill the time in which counters move on; None where no counter can be read."""
    from models.cost import EnergyMeter

    # What the processor spends on feeding a GPU is not counted: other work shares it.
    place = {"gpu": int(way.device.partition(":")[2]), "powercap": None} if way.on_gpu else {"powercap": POWERCAP}
    meter = EnergyMeter(**place)
    before = meter.joules()
    if before is None:
        return None
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < ENERGY_SECONDS:
        call()
        count += 1
    return ((meter.joules() or before) - before) / count


def _bench_whole(path: WholePath, rows: list[Row], seconds: float, say: Say) -> None:
    """The way from the file to detections, every engine in turn."""
    for row in rows:
        say(f"{row.model}: {row.way}, from the file to detections")
        path.run(row.way)
    until = time.perf_counter() + seconds
    while rows and (time.perf_counter() < until or len(rows[0].whole) < 2):
        for row in rows:
            begin = time.perf_counter()
            row.detections = path.run(row.way)
            row.whole.append(time.perf_counter() - begin)
            row.whole_amount = path.amount


def _network(model: str, folder: Path) -> tuple[Any, str, Any]:
    """A model's network, the name or file of its weights, and its entry; random weights where there are none."""
    from models.speed import random_network
    from models.weights import Card, find_weights, load_weights, save_weights

    try:
        find_weights(model)
        module, card = load_weights(model)
        return module, model, get_model(card.model)
    except OptionError:
        entry = get_model(model)
    if not entry.has_weights:
        raise OptionError(f"model {model!r} has no network to time: name one that has weights, such as light")
    module = random_network(entry)
    path = folder / f"{model}.safetensors"
    save_weights(module, Card(model=model, options=module.options), path)
    return module, str(path), entry


def _load(weights: str, module: Any, way: Way, threads: int) -> Any:
    from models.engines.base import EngineSpec
    from models.speed import load_compiled

    if way.engine == COMPILED:
        return load_compiled(module, way, threads=threads)
    return EngineSpec(weights, way.engine, way.precision, threads, way.device).load().current()[1]


def _trace(options: BenchOptions, threads: int, folder: Path) -> dict[str, float]:
    """Write the timeline of the first model's stages on a device; gives the share of each lane."""
    from pipeline.bench_paths import trace_image

    _, weights, entry = _network(options.model[0], folder)
    gpus, _ = find_devices(options.device)
    if entry.kind != "detector" or entry.ndim != 2:
        raise OptionError(f"a timeline is made of detectors of images, {options.model[0]} is none: try --model light")
    way = Way("torch", "f32", gpus[0] if gpus else "cpu")
    timeline = trace_image(weights, way, folder, side=options.size or SIDES[2], threads=threads)
    try:
        timeline.write(options.trace)
    except OSError as error:
        raise OptionError(f"{options.trace}: cannot write the timeline: {error.strerror}") from None
    return timeline.busy()


def describe_machine(threads: int) -> dict[str, Any]:
    """Processor, cores, memory (GiB), GPUs and how busy the machine was."""
    from models.engines.gain import processor_name
    from models.speed import describe_gpus

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor_name(), "cores": os.cpu_count(), "threads": threads, "memory_gib": round(memory, 1),
        "gpus": describe_gpus(), "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(), "load": round(os.getloadavg()[0], 2),
    }  # fmt: skip
