"""Prefect flow: train a network."""

from __future__ import annotations

from pathlib import Path

from models.training import TrainOptions
from pipeline.train import train_and_publish

from . import environment as environment  # before Prefect, which reads its settings at import

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

train_model = task(train_and_publish, name="train model", cache_policy=NO_CACHE)


@flow(name="train", log_prints=True)
def train(options: TrainOptions) -> Path:
    """Train as ``skysift train`` does; returns the weights file."""
    return train_model(options)
