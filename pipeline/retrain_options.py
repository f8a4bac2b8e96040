"""What a recipe says of everything around the training itself: its section ``retrain``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipeline.options import Options


class RetrainOptions(Options):
    """How trained weights are judged, kept and put to use. See each field's description."""

    recipe: str = Field("", description="Name of the recipe, for cards and reports.")
    registry: str = Field("", description="Name that weights are registered by; empty: the recipe's, else the model's.")
    baseline: str = Field(
        "", description="Weights to compare with while none of that name are in use, such as light@shipped."
    )
    evaluate: bool = Field(True, description="Judge on the held-out split; unjudged weights are never promoted.")
    judge_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the judge, such as skies: 16 for detectors of images."
    )
    draws: int = Field(200, ge=20, le=100_000, description="Draws of the bootstrap that errors are made of.")
    promote: Literal["auto", "never"] = Field(
        "auto", description="auto: when better than what is in use by sigma errors, or when nothing is in use."
    )
    sigma: float = Field(1.0, ge=0, description="Standard errors that the gain must exceed.")
    export: bool = Field(True, description="Write the network as ONNX too, and check that it computes the same.")
    keep: bool = Field(True, description="Register the weights as a version of their name.")
    command: str = Field("", description="The command that makes the same weights again; empty: from the options.")

    def name_for(self, model: str) -> str:
        """The name that weights of this model are registered by."""
        return self.registry or self.recipe or model
