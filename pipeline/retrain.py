"""From a recipe to weights in use: the stages of a retraining, each a function that a flow can call.

Check the data, prepare, fit, publish (calibration and card), evaluate on the held-out split, compare with the weights
in use, export, register, promote if better. Every stage leaves its result in the output folder and is not done again
by a run that resumes while what it rests on is the same; a run that was killed anywhere goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.distributed import is_main, launched
from models.registry import get_model
from models.train_options import TrainOptions
from models.training import make_lesson, train
from models.weights import checked_card, exact_name, file_sha256, find_weights, is_path
from pipeline.retrain_decision import compare_with_use, promote, register
from pipeline.retrain_options import RetrainOptions
from pipeline.retrain_report import write_report
from pipeline.retrain_run import Retraining
from pipeline.runs import version
from pipeline.train import checkpoint_facts, publish
from survey_io.errors import OptionError


def retrain(
    options: TrainOptions, retrain: RetrainOptions | None = None, *, report: Callable[[str], None] = print
) -> Path:
    """Run all stages here; returns the weights file in the output folder.

    Of the processes that torchrun started all train; process 0 does all the rest, and the others give its checkpoint.
    """
    if launched() and not is_main():
        return train(options, report=report)
    with Retraining(options, retrain, report=report) as run:
        for stage in STAGES.values():
            stage(run)
        return run.weights


def check_data(run: Retraining) -> dict[str, Any]:
    """Look at the data before anything is spent on it; data with a fault that the recipe does not allow is refused."""

    def work() -> dict[str, Any]:
        options = run.options
        try:
            net = get_model(options.name).build(**options.model_options)
        except (TypeError, ValueError) as error:
            raise OptionError(f"model {options.name!r} cannot be built with {options.model_options}: {error}") from None
        check = getattr(make_lesson(net, options), "check", None)
        if check is None:
            run.report("data: simulated, or checked by its reader")
            return {"report": None}
        found = check()
        for line in found.lines():
            run.report(line)
        file = run.write("data_report.json", found.to_dict())
        found.require()
        return {"report": found.to_dict(), "files": [file]}

    return run.stages.run("check", run.identity, work)


def prepare(run: Retraining) -> dict[str, Any]:
    """Write down what this run is: the resolved options, and the weights that it starts from."""

    def work() -> dict[str, Any]:
        options = run.options.model_dump(mode="json")
        file = run.write("recipe.json", {**options, "retrain": run.retrain.model_dump(mode="json")})
        start = run.options.start
        if start:
            run.report(f"start: {start if is_path(str(start)) else exact_name(start)}")
        return {"files": [file], "start": str(find_weights(start)) if start else ""}

    return run.stages.run("prepare", {**run.identity, "retrain": run.retrain.model_dump(mode="json")}, work)


def fit(run: Retraining) -> dict[str, Any]:
    """Train, from the last checkpoint of a run that resumes.

    Of several processes that torchrun started all come here, and only one to the other stages.
    """

    def work() -> dict[str, Any]:
        checkpoint = train(run.options, report=run.report)
        return {"checkpoint": checkpoint.name, **checkpoint_facts(checkpoint), "files": [checkpoint.name]}

    # The other processes of torchrun wait for process 0 there; a training that is at its end has nothing to do.
    return run.stages.run("fit", run.identity, work, again=launched())


def publish_weights(run: Retraining) -> dict[str, Any]:
    """Make weights with a card of the checkpoint, calibrated on data that is not reported on."""
    checkpoint = run.folder / run.result("fit")["checkpoint"]

    def work() -> dict[str, Any]:
        path = publish(checkpoint, run.options, command=run.retrain.command, report=run.report)
        card = checked_card(path)
        return {
            "weights": path.name, "sha256": card.sha256, "threshold": card.threshold, "score": card.score,
            "files": [path.name, path.with_suffix(".json").name],
        }  # fmt: skip

    return run.stages.run("publish", {**run.identity, "checkpoint": file_sha256(checkpoint)}, work)


def evaluate(run: Retraining) -> dict[str, Any]:
    """Judge the new weights on the held-out split."""

    def work() -> dict[str, Any]:
        if not run.retrain.evaluate:
            return {"judged": None}
        found = run.judge(run.weights, "evaluation")
        run.report(f"held out: {found.metric} {found.value:.4g} +- {found.error:.2g} over {found.units:,} units")
        return {"judged": found.to_dict(), "files": [run.write("evaluation.json", found.to_dict())]}

    return run.stages.run("evaluate", run.judgement(run.result("publish")["sha256"]), work)


def export_graph(run: Retraining) -> dict[str, Any]:
    """Write the weights as ONNX and measure how far the graph's answers are from torch's."""
    weights = run.weights

    def work() -> dict[str, Any]:
        if not run.retrain.export:
            return {"graph": None}
        from models.export import export

        graph = export(weights, run.folder / f"{weights.stem}.onnx")
        card = graph.with_name(f"{graph.stem}_card.json")
        difference = json.loads(card.read_text(encoding="utf-8"))["agreement_with_torch"]
        run.report(f"{graph}: differs from torch by {difference:.1e} of the largest output")
        return {"graph": graph.name, "difference": difference, "files": [graph.name, card.name]}

    key = {"weights": run.result("publish")["sha256"], "export": run.retrain.export, "version": version("skysift")}
    return run.stages.run("export", key, work)


def write_up(run: Retraining) -> dict[str, Any]:
    """Write ``report.md`` and ``report.json``; give what they say."""
    return write_report(run)


# In the order in which they run; the names are those of the flow's tasks.
STAGES: dict[str, Callable[[Retraining], dict[str, Any]]] = {
    "check data": check_data, "prepare": prepare, "fit": fit, "publish": publish_weights, "evaluate": evaluate,
    "compare": compare_with_use, "export": export_graph, "register": register, "promote": promote, "report": write_up,
}  # fmt: skip
