"""What the page of an observation says in charts and lists: distributions, depth, provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from flows.http.charts import Chart, histogram
from flows.http.site import Site
from pipeline.preview.depth import (
    Recovery,
    area_limits,
    expected_completeness,
    find_truth,
    measure_recovery,
    read_truth,
)

__all__ = ["depth", "describe_run", "distributions"]

SIGMA = 5.0


def describe_run(observation: dict[str, Any], run: dict[str, Any] | None) -> list[tuple[str, list[tuple[str, str]]]]:
    """Provenance as titled lists of name and value."""
    groups = [
        (
            "File",
            [
                ("name", observation["name"]), ("path", observation["path"]), ("SHA-256", observation["sha256"]),
                ("arrived", observation["arrived"]), ("tries", str(observation["attempts"])),
            ],
        )
    ]  # fmt: skip
    if run is None:
        return groups
    manifest = run["manifest"]
    given = manifest.get("input") or {}
    told = [(_words(key), _value(value)) for key, value in given.items() if key not in ("path", "sha256")]
    groups[0][1].extend(told)
    model = manifest.get("model") or {}
    groups.append(
        (
            "Model",
            [("name", str(run["model"])), ("weights SHA-256", run["weights_sha256"] or "none: a model without weights")]
            + [(_words(key), _value(value)) for key, value in model.items() if key not in ("name", "sha256")],
        )
    )
    groups.append(
        (
            "Run",
            [
                ("number", str(run["id"])), ("id", run["uid"]), ("key", run["key"]),
                ("counts now", "yes" if run["current"] else "no, superseded"), ("started", run["started"] or ""),
                ("finished", run["finished"] or ""), ("folder", run["output"] or ""),
            ]
            + [(_words(key), _value(manifest[key])) for key in ("mpix_per_s", "peak_memory_mib") if key in manifest],
        )
    )  # fmt: skip
    for title, key in (("Versions", "versions"), ("Background and reliability", None), ("Options", "options")):
        if key is None:
            parts = {**(manifest.get("background") or {}), **(manifest.get("reliability") or {})}
        else:
            parts = manifest.get(key) or {}
        if parts:
            groups.append((title, [(_words(name), _value(value)) for name, value in parts.items()]))
    return groups


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and all(isinstance(one, (str, int, float)) for one in value):
        return " × ".join(f"{one:,}" if isinstance(one, int) else _value(one) for one in value) or "none"
    if isinstance(value, dict) and all(not isinstance(one, (dict, list)) for one in value.values()):
        return ", ".join(f"{_words(name)} {_value(one)}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else json.dumps(value, default=str)


def _scaled(unit: str, typical: float) -> tuple[float, str]:
    """Factor and unit in which numbers of this size read well."""
    first, _, rest = unit.partition(" ")
    if first != "Jy" or not typical > 0:
        return 1.0, unit
    scales = ((1.0, "Jy"), (1e3, "mJy"), (1e6, "µJy"), (1e9, "nJy"))
    factor, name = next((scale for scale in scales if typical * scale[0] >= 0.3), scales[-1])
    return factor, f"{name} {rest}".strip()


def _typical(flux: NDArray[np.float64]) -> float:
    positive = flux[np.isfinite(flux) & (flux > 0)]
    return float(np.median(positive)) if positive.size else 0.0


def distributions(columns: dict[str, NDArray[Any]], kind: str, flux_unit: str) -> list[Chart]:
    """Histograms of a catalogue."""
    line = kind in ("cube", "spectrum")
    factor, unit = _scaled(flux_unit, _typical(columns["flux"]))
    flux_label = f"{'line flux' if line else 'flux'}{f', {unit}' if unit else ''}"
    made = [
        histogram(factor * columns["flux"], title="Flux", label=flux_label, log=True),
        histogram(columns["snr"], title="Signal-to-noise", label="S/N", log=True),
        histogram(columns["p_real"], title="Probability of being real", label="p_real", limits=(0, 1), bins=20),
        histogram(columns["maj"], title="Size", label="major axis through the beam, arcsec FWHM", log=True),
    ]
    if line:
        made.append(histogram(columns["w20"], title="Line width", label="w20, km/s", log=True))
    return [chart for chart in made if chart is not None]


def depth(
    site: Site, observation: dict[str, Any], run: dict[str, Any], columns: dict[str, NDArray[Any]]
) -> tuple[list[tuple[Chart, str]], list[str]]:
    """Charts of what the observation reaches, each with a caption, and what cannot be said."""
    kind, notes = observation["kind"] or "image", []
    charts: list[tuple[Chart, str]] = []
    factor, unit = _scaled(run.get("flux_unit") or "", _typical(columns["flux"]))
    if (counts := _number_counts(factor * columns["flux"], unit)) is not None:
        charts.append(counts)
    if kind in ("spectrum", "classes"):
        return charts, ["Completeness is not given for spectra: how many lines there are to find is not known."]
    truth_path = find_truth(observation["path"])
    truth = read_truth(truth_path) if truth_path is not None else None
    if kind == "cube":
        notes.append(
            "An expected completeness is not given for cubes: it depends on the width and the extent of each line. The "
            "catalogue's S/N is that of the whole line."
        )
        overview = None
    else:
        try:
            preview = site.preview(observation)
            with site.turn():
                overview = preview.overview()
        except HTTPException as error:
            overview = None
            notes.append(f"Limits by area are missing: {error.detail}.")
    if overview is not None:
        charts.extend(_limits(overview, factor, unit))
        if (run["options"] or {}).get("primary_beam"):
            notes.append("The limits are those of the image, before its primary beam was divided out of the fluxes.")
    if truth is not None and truth_path is not None:
        beam = (run["manifest"].get("input") or {}).get("beam") or {}
        radius = max(1.0, 0.5 * float(beam.get("major") or 0), float((run["manifest"].get("input") or {}).get(
            "pixel_scale_arcsec") or 0))  # fmt: skip
        lowest = float(0.5 * overview.noise) if overview is not None and overview.noise > 0 else None
        recovery = measure_recovery(truth, columns["ra"], columns["dec"], radius, lowest=lowest)
        if recovery is not None:
            charts.append(_recovered(recovery, factor, unit, overview, truth_path, radius))
    else:
        notes.insert(
            0,
            "This observation has no truth list, so its completeness was not measured. What its noise allows is shown: "
            f"the share of point sources above {SIGMA:g} times the local rms, without confusion and without extended "
            "sources."
            if overview is not None
            else "This observation has no truth list, so its completeness was not measured.",
        )
    return charts, notes


def _number_counts(flux: NDArray[np.float64], unit: str) -> tuple[Chart, str] | None:
    flux = flux[np.isfinite(flux) & (flux > 0)]
    if flux.size < 2 or not flux.max() > flux.min():
        return None
    brighter = np.sort(flux)[::-1]
    number = np.arange(1, flux.size + 1)
    keep = np.unique(np.geomspace(1, flux.size, 300).astype(int) - 1)
    label = f"flux{f', {unit}' if unit else ''}"
    chart = Chart("Number counts", label, "sources brighter", (brighter[-1], brighter[0] * 1.05),
                  (0.8, flux.size * 1.6), log=True, log_y=True)  # fmt: skip
    return chart.line(brighter[keep], number[keep]), "Catalogued sources brighter than a flux."


def _limits(overview: Any, factor: float, unit: str) -> list[tuple[Chart, str]]:
    limit, share = area_limits(overview, SIGMA)
    if not len(limit):
        return []
    limit = factor * limit
    low, high = float(limit[0]) / 1.6, float(limit[-1]) * 1.6
    flux = np.geomspace(float(np.interp(0.01, share, limit)) / 4, float(np.interp(0.99, share, limit)) * 4, 160)
    keep = np.unique(np.linspace(0, len(limit) - 1, 240).astype(int))
    label = f"flux of a point source{f', {unit}' if unit else ''}"
    half = float(np.interp(0.5, share, limit))
    area = Chart("Flux limit by area", label, "share of area", (low, high), (0.0, 1.05), log=True)
    area.line(np.r_[low, limit[keep], high], np.r_[0.0, share[keep], 1.0])
    expected = Chart("Expected completeness", label, "completeness", (flux[0], flux[-1]), (0.0, 1.05), log=True)
    expected.line(flux, expected_completeness(flux / factor, overview, sigma=SIGMA))
    cells = f"rms measured in cells of {overview.cell} pixels"
    return [
        (area, f"Share of the area where {SIGMA:g} σ lies below a flux: {half:.3g} {unit} on half of it; {cells}."),
        (expected, f"Point sources that Gaussian noise leaves above {SIGMA:g} times the local rms."),
    ]


def _recovered(
    recovery: Recovery, factor: float, unit: str, overview: Any, path: Path, radius: float
) -> tuple[Chart, str]:
    edges = factor * recovery.edges
    centres = np.sqrt(edges[:-1] * edges[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(recovery.true > 0, recovery.found / recovery.true, np.nan)
        error = np.sqrt(np.clip(share * (1 - share), 0.02, None) / recovery.true)
    label = f"true flux{f', {unit}' if unit else ''}"
    chart = Chart("Completeness, measured", label, "completeness", (edges[0], edges[-1]),
                  (0.0, 1.05), log=True, legend_below=True)  # fmt: skip
    if overview is not None:
        flux = np.geomspace(edges[0], edges[-1], 120)
        expected = expected_completeness(flux / factor, overview, sigma=SIGMA)
        chart.line(flux, expected, name=f"{SIGMA:g} σ, point sources")
    low, high = np.clip([share - error, share + error], 0, 1)
    chart.points(centres, share, low, high, name="found of the true ones")
    reliability = recovery.matched / recovery.rows if recovery.rows else float("nan")
    text = (
        f"Against {path.name}: matched within {radius:.3g} arcsec. {recovery.matched:,} of {recovery.rows:,} rows are "
        f"true sources (reliability {reliability:.3f})."
    )
    return chart, text
