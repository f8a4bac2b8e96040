"""Whether new weights take the place of those in use: compared on the same held-out units, kept, promoted if better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.in_use import InUseChanged, usage
from models.in_use import promote as use
from models.registry import get_model
from models.store import SHIPPED, add_version, get_version
from models.weights import exact_name, file_sha256, find_weights, list_weights, read_card
from pipeline.judges import Judged, compare
from pipeline.retrain_run import Retraining
from survey_io.errors import OptionError, SkysiftError

# So often another promotion may come between comparison and decision before a run gives up.
_ATTEMPTS = 5


def reference_of(run: Retraining) -> tuple[str, Path] | None:
    """The weights to compare with, by exact name and file: those in use, else the recipe's baseline, else None.

    Once a run's own weights are in use (it was killed after their promotion), it is what was in use before them.
    """
    used = usage(run.name)
    number = used.version
    if number is not None and _holds(run, number):
        number = next(entry["previous"] for entry in reversed(used.history) if entry["version"] == number)
    if number is not None:
        label = f"{run.name}@{number}"
    elif run.name in list_weights():
        label = f"{run.name}@{SHIPPED}"
    elif run.retrain.baseline:
        label = exact_name(run.retrain.baseline)
        if label in list_weights():
            label = f"{label}@{SHIPPED}"
    else:
        return None
    return label, find_weights(label)


def _holds(run: Retraining, number: int) -> bool:
    """Whether a version is of this run's weights."""
    try:
        stored = get_version(run.name, number)
    except SkysiftError:
        return False
    return stored.files.get(stored.weights.name) == run.result("publish")["sha256"]


def compare_with_use(run: Retraining) -> dict[str, Any]:
    """Compare with the weights in use on the same held-out units, by a paired bootstrap."""
    judged, reference = run.result("evaluate")["judged"], reference_of(run)
    label, path = reference or ("", None)
    own = run.result("publish")["sha256"]
    other = file_sha256(path) if path else ""

    def work() -> dict[str, Any]:
        if path is None or judged is None or other == own:
            return {"against": label, "same": bool(path) and other == own}
        try:
            _require_same_data(run, label)
            old = run.judge(path, "evaluation_in_use")
            found = compare(Judged.from_dict(judged), old)
        except (SkysiftError, ValueError) as error:
            # Weights for another task, or of a damaged version: that is no reason to lose the new ones.
            run.report(f"{label} cannot be compared with: {error}")
            return {"against": label, "problem": str(error)}
        run.report(f"{label}: {found.metric} {found.old:.4g}; gain {found.gain:.3g} +- {found.error:.2g}")
        values = {
            "against": label, "metric": found.metric, "new": found.new, "old": found.old, "gain": found.gain,
            "error": found.error, "sigma": run.retrain.sigma, "better": found.better(sigma=run.retrain.sigma),
        }  # fmt: skip
        values = {name: None if value != value else value for name, value in values.items()}
        return {**values, "judged": old.to_dict(), "files": [run.write("comparison.json", values)]}

    return run.stages.run("compare", {**run.judgement(own), "against": [label, other, run.retrain.sigma]}, work)


def _require_same_data(run: Retraining, label: str) -> None:
    """Refuse weights that could not be judged as the new ones are."""
    mine, theirs = (get_model(name) for name in (run.options.name, read_card(label).model))
    if (mine.kind, mine.ndim, mine.reads) != (theirs.kind, theirs.ndim, theirs.reads):
        raise OptionError(
            f"expected a {mine.kind} of {mine.reads} in {mine.ndim}D, as {mine.name!r}, got a {theirs.kind} of "
            f"{theirs.reads} in {theirs.ndim}D"
        )


def register(run: Retraining) -> dict[str, Any]:
    """Keep the weights as the next version of their name; those that are kept already stay what they are."""

    def work() -> dict[str, Any]:
        if not run.retrain.keep:
            return {"version": None, "label": ""}
        files: dict[str, Path | bytes] = {"options.json": run.folder / "recipe.json"}
        for name, stage in (("data_report", "check"), ("evaluation", "evaluate"), ("comparison", "compare")):
            if f"{name}.json" in run.result(stage).get("files", ()):
                files[f"{name}.json"] = run.folder / f"{name}.json"
        stored = add_version(run.name, run.weights, files)
        run.report(f"registered as {stored.label}")
        return {"version": stored.version, "label": stored.label, "folder": str(stored.folder)}

    # The store knows these weights if it has them: a version that is gone from it is registered anew.
    return run.stages.run("register", {"weights": run.result("publish")["sha256"]}, work, again=True)


def promote(run: Retraining) -> dict[str, Any]:
    """Put the weights to use if they are better than what is in use; else keep them and say why."""
    for _ in range(_ATTEMPTS):
        number, against = run.result("register")["version"], run.result("compare")["against"]

        def work(number: int | None = number) -> dict[str, Any]:
            wanted, why = decide(run)
            if wanted:
                assert number is not None
                before = usage(run.name).version
                if before != number:
                    expected = reference_of(run)
                    if (expected[0] if expected else "") != run.result("compare")["against"]:
                        raise InUseChanged(f"{run.name}: another version came into use")
                    use(run.name, number, why=why, instead_of=before)
            name = run.result("register")["label"] or run.weights.name
            line = f"{name} is {'promoted' if wanted else 'kept, not promoted'}: {why}"
            run.report(line)
            return {"promoted": wanted, "why": why, "line": line}

        key = {"register": run.result("register"), "compare": run.result("compare"), "promote": run.retrain.promote}
        try:
            return run.stages.run("promote", {**key, "sigma": run.retrain.sigma}, work)
        except InUseChanged:
            run.report(f"{against or 'nothing'} is no longer what is in use: comparing again")
            compare_with_use(run)
    raise SkysiftError(f"{run.name}: what is in use changed {_ATTEMPTS} times while it was compared with; run again")


def decide(run: Retraining) -> tuple[bool, str]:
    """Whether to promote, and why, in one line."""
    compared, judged = run.result("compare"), run.result("evaluate")["judged"]
    against = compared["against"]
    if not run.retrain.keep:
        return False, "the recipe says keep: false"
    if run.retrain.promote == "never":
        return False, "the recipe says promote: never"
    if judged is None:
        return False, "it was not judged"
    if judged["value"] is None:
        return False, f"its {judged['metric']} is not a number"
    if not against:
        return True, f"nothing was in use; {judged['metric']} {judged['value']:.4g} +- {judged['error'] or 0:.2g}"
    if compared.get("same"):
        return False, f"it is the same as {against}"
    if "problem" in compared:
        return False, f"it cannot be compared with {against}: {compared['problem']}"
    numbers = (compared[name] for name in ("new", "old", "gain", "error"))
    new, old, gain, error = (float("nan") if one is None else one for one in numbers)
    text = f"{compared['metric']} {new:.4g} against {old:.4g} of {against}, gain {gain:.3g} +- {error:.2g}"
    if compared["better"]:
        return True, f"{text}, beyond {compared['sigma']:g} standard errors"
    return False, f"{text}, not beyond {compared['sigma']:g} standard errors"
