"""One retraining: its options, its output folder and the results of its stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from models.registry import get_model, list_models
from models.store import split_name
from models.train_options import TrainOptions
from models.weights import file_sha256, find_weights, write_whole
from pipeline.judges import Judged, judge_name, judge_with
from pipeline.judges.evaluation import plain
from pipeline.retrain_options import RetrainOptions
from pipeline.runs import version
from pipeline.stages import Stages, fingerprint
from survey_io.errors import OptionError

# What changes neither the weights nor what is said of them; weights to start from count by their hash.
_INDIFFERENT = {
    "output", "resume", "device", "threads", "loaders", "tensorboard", "log_every", "picture_every", "start",
}  # fmt: skip


class Retraining:
    """One run: its options and the results of its stages.

    Parameters
    ----------
    options : TrainOptions
        ``resume`` says whether earlier results in ``output`` count.
    retrain : RetrainOptions, optional
    report : callable
        Receives a line of text now and then.

    Raises
    ------
    OptionError
        For a model that cannot be trained or built, and a name that cannot be registered.
    OutputError
        When the output folder cannot be written, or another run is writing there.
    """

    def __init__(
        self, options: TrainOptions, retrain: RetrainOptions | None = None, *, report: Callable[[str], None] = print
    ):
        self.options, self.retrain, self.report = options, retrain or RetrainOptions(), report
        if not get_model(options.name).has_weights:
            raise OptionError(f"model {options.name!r} has no weights to train; see 'skysift models'")
        self.name = self.retrain.name_for(options.name)
        if split_name(self.name)[1] is not None:
            raise OptionError(f"registry name {self.name!r}: expected a name without a version: versions are counted")
        if self.name in list_models() and self.name != options.name:
            raise OptionError(
                f"registry name {self.name!r} is that of another model: weights of {options.name!r} need another one, "
                "as --set retrain.registry=NAME"
            )
        self.folder = Path(options.output)
        self.stages = Stages(self.folder, resume=options.resume, report=report)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stages.close()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the weights: options, data, and the weights to start from."""
        start = self.options.start
        return {
            "options": self.options.model_dump(mode="json", exclude=_INDIFFERENT),
            "data": fingerprint(self.options.data),
            "templates": fingerprint(self.options.templates),
            "start": file_sha256(find_weights(start)) if start else "",
            "version": version("skysift"),
        }

    def result(self, stage: str) -> dict[str, Any]:
        """The result of an earlier stage."""
        return self.stages.result(stage)

    def write(self, name: str, values: dict[str, Any]) -> str:
        """Write a JSON file into the output folder; give its name."""
        write_whole(self.folder / name, (json.dumps(plain(values), indent=1, allow_nan=False) + "\n").encode())
        return name

    @property
    def weights(self) -> Path:
        """The published weights."""
        return self.folder / self.result("publish")["weights"]

    def judge(self, weights: Path, folder: str) -> Judged:
        """Judge weights as the recipe says; pictures go to a folder of that name."""
        found = judge_with(
            weights, self.options, self.retrain.judge_options, folder=self.folder / folder, report=self.report
        )
        return found.judged(draws=self.retrain.draws)

    def judgement(self, sha256: str) -> dict[str, Any]:
        """What the evaluation of weights with this hash depends on."""
        judge = [judge_name(self.options), self.retrain.judge_options, self.retrain.draws, self.retrain.evaluate]
        return {**self.identity, "judge": judge, "weights": sha256}
