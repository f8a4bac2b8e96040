"""The report of a retraining: data, learning curve, scores with their errors, comparison, decision, cost."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.weights import write_whole
from pipeline.retrain_run import Retraining
from pipeline.runs import version

# As models.train_log draws it.
CURVE = "learning_curve.png"


def write_report(run: Retraining) -> dict[str, Any]:
    """Write ``report.md`` and ``report.json`` into the output folder; give what the JSON holds."""
    values = {
        "model": run.options.name,
        "name": run.name,
        "recipe": run.retrain.recipe,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": run.options.model_dump(mode="json"),
        "retrain": run.retrain.model_dump(mode="json"),
        "data": run.result("check")["report"],
        "last": run.result("fit")["last"],
        "published": run.result("publish"),
        "judged": _without_draws(run.result("evaluate")["judged"]),
        "compared": {
            name: _without_draws(one) if name == "judged" else one for name, one in run.result("compare").items()
        },
        "exported": run.result("export"),
        "registered": run.result("register"),
        "decision": run.result("promote"),
        "seconds": run.stages.seconds(),
        "cost": run.result("fit")["cost"],
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "skysift": version("skysift")},
    }
    run.write("report.json", values)
    text = "\n".join(markdown(values, curve=(run.folder / CURVE).is_file())) + "\n"
    write_whole(run.folder / "report.md", text.encode())
    run.report(f"{run.folder / 'report.md'}: {values['decision']['line']}")
    return values


def markdown(values: dict[str, Any], *, curve: bool) -> list[str]:
    """The report as lines of Markdown."""
    title = values["recipe"] or values["name"]
    lines = [f"# Retraining {title}", "", f"{values['decision']['line']}.", ""]
    lines += ["## Data", "", *_data_lines(values["data"]), ""]
    last = values["last"]
    lines += ["## Training", "", "| step | " + " | ".join(name for name in last if name != "step") + " |"]
    lines += ["|" + "---|" * len(last), "| " + " | ".join(_number(one) for one in last.values()) + " |", ""]
    if curve:
        lines += [f"![learning curve]({CURVE})", ""]
    lines += ["## Held-out score", "", *_score_lines(values), ""]
    published, exported = values["published"], values["exported"]
    lines += ["## Weights", "", f"- file: `{published['weights']}`, SHA-256 `{published['sha256']}`"]
    lines.append(f"- threshold: {published['threshold']}")
    if exported["graph"]:
        difference = f"{exported['difference']:.1e} of the largest output"
        lines.append(f"- `{exported['graph']}` differs from torch by {difference}")
    if values["registered"]["label"]:
        lines.append(f"- registered as `{values['registered']['label']}`")
    lines += ["", "## Cost", ""]
    lines += [f"- {stage}: {seconds:,.1f} s" for stage, seconds in values["seconds"].items()]
    lines += [f"- {name.replace('_', ' ')}: {_number(one)}" for name, one in values["cost"].items()]
    machine = values["machine"]
    lines.append(f"- on {machine['cores']} cores ({machine['processor']}), skysift {machine['skysift']}")
    return lines


def _data_lines(data: dict[str, Any] | None) -> list[str]:
    if data is None:
        return ["Simulated, or checked by its reader."]
    lines = [
        f"- {split}: {sum(counts.values()):,} (" + ", ".join(f"{name} {n:,}" for name, n in counts.items()) + ")"
        for split, counts in data["counts"].items()
    ]
    return lines + [
        f"- {one['kind']}: {one['count']:,} {one['action']} ({', '.join(one['examples'])})" for one in data["problems"]
    ]


def _score_lines(values: dict[str, Any]) -> list[str]:
    judged, compared = values["judged"], values["compared"]
    if judged is None:
        return ["Not judged."]
    score = f"{judged['metric']} {_number(judged['value'])} +- {_number(judged['error'])}"
    lines = [f"**{score}** over {judged['units']:,} units.", ""]
    lines += [f"- {name}: {_number(one)}" for name, one in judged["numbers"].items()]
    lines += ["", *(f"![{Path(one).stem}]({_relative(one, values)})" for one in judged["pictures"])]
    if "gain" in compared:
        lines += [
            "", "| weights | " + compared["metric"] + " |", "|---|---|", f"| new | {_number(compared['new'])} |",
            f"| {compared['against']} | {_number(compared['old'])} |",
            f"| gain | {_number(compared['gain'])} +- {_number(compared['error'])} |",
        ]  # fmt: skip
    elif "problem" in compared:
        lines += ["", f"Not compared with {compared['against']}: {compared['problem']}"]
    return lines


def _relative(picture: str, values: dict[str, Any]) -> str:
    return os.path.relpath(picture, values["options"]["output"])


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "not a number" if value is None else str(value)


def _without_draws(judged: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if judged is None else {name: one for name, one in judged.items() if name != "draws"}
