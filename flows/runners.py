"""Dask clusters by name: a short YAML file in ``deploy/clusters``, or a running scheduler's address."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from survey_io.errors import OptionError

from . import environment as environment  # Dask reads its settings from the environment at import.

# The file format of the flint and arrakis pipelines, so that their users' files work as they are.
# Beyond it, `task_resources` says what a worker must offer to run the network, and `address` names a running scheduler.
_KEYS = ("cluster_class", "cluster_kwargs", "adapt_kwargs", "task_resources", "address")
_CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = 20.0
logger = logging.getLogger("skysift")


def cluster_folders() -> list[Path]:
    """Return the folders searched for ``NAME.yaml``: ``SKYSIFT_CLUSTERS``, the checkout's own, those of an install."""
    own = Path(__file__).resolve().parents[1] / "deploy" / "clusters"
    installed = Path(sysconfig.get_path("data")) / "share" / "skysift" / "clusters"
    extra = os.environ.get("SKYSIFT_CLUSTERS", "")
    return [*(Path(part) for part in extra.split(os.pathsep) if part), own, installed]


def list_clusters() -> list[str]:
    """Return the names that ``--cluster`` knows."""
    return sorted({path.stem for folder in cluster_folders() for path in folder.glob("*.yaml")})


def read_cluster(name: str) -> dict[str, Any]:
    """Read a cluster's description.

    Parameters
    ----------
    name : str
        Name of a file in `cluster_folders`, or the path of a YAML file.

    Returns
    -------
    dict
        With ``cluster_class`` (dotted name), ``cluster_kwargs``, ``adapt_kwargs`` and ``task_resources`` (dict or
        None); or with ``address`` in the place of the first three.

    Raises
    ------
    OptionError
        When there is no such cluster or its file does not have this shape.
    """
    candidates = [folder / f"{name}.yaml" for folder in cluster_folders()]
    if name.endswith((".yaml", ".yml")):
        candidates = [Path(name)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        known = ", ".join(list_clusters()) or "none"
        raise OptionError(
            f"unknown cluster {name!r}; known: {known}; or give a YAML file or an address such as tcp://host:8786"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError(f"{path}: cannot read the cluster: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("cluster_class", content.get("address")), str):
        raise OptionError(f"{path}: expected the keys {', '.join(_KEYS[:3])}, or address; cluster_class is missing")
    unknown = [str(key) for key in content if key not in _KEYS]
    if unknown:
        raise OptionError(f"{path}: unknown key {', '.join(unknown)}; known: {', '.join(_KEYS)}")
    resources = content.get("task_resources")
    if "address" in content:
        return {"address": os.path.expandvars(content["address"]), "task_resources": resources}
    return {
        "cluster_class": content["cluster_class"],
        "cluster_kwargs": content.get("cluster_kwargs") or {},
        "adapt_kwargs": content.get("adapt_kwargs"),
        "task_resources": resources,
    }


def cluster_resources(cluster: str | None) -> dict[str, float] | None:
    """What the workers of a cluster by name must offer to run a network; None for an address, or without a cluster."""
    if cluster is None or "://" in cluster:
        return None
    return read_cluster(cluster)["task_resources"]


def start_cluster(description: dict[str, Any]) -> Any:
    """Start the Dask cluster of a description from `read_cluster`; the caller closes it."""
    module, _, name = description["cluster_class"].rpartition(".")
    try:
        factory = getattr(importlib.import_module(module or "distributed"), name)
    except (ImportError, AttributeError):
        raise OptionError(
            f"cluster class {description['cluster_class']!r} cannot be imported; "
            "install its package (dask-jobqueue for SLURM) or correct cluster_class"
        ) from None
    try:
        cluster = factory(**description["cluster_kwargs"])
    except TypeError as error:
        raise OptionError(f"{description['cluster_class']} refuses its cluster_kwargs: {error}") from None
    adapt = description["adapt_kwargs"]
    if adapt:
        if "minimum_jobs" not in adapt:
            # A cluster that shrinks to nothing is refused by the first stage, which counts its workers.
            adapt = {**adapt, "minimum": max(1, adapt.get("minimum") or 1)}
        cluster.adapt(**adapt)
    return cluster


@contextmanager
def scheduler_address(cluster: str | None) -> Iterator[str | None]:
    """Give the address of the scheduler that ``--cluster`` asks for, started and closed here if named.

    Parameters
    ----------
    cluster : str or None
        Name, YAML file, or address (``tcp://host:port``, ``tls://host:port``); None gives None.

    Yields
    ------
    str or None
        An address that a `distributed.Client` takes.
    """
    if cluster is None:
        yield None
    elif "://" in cluster:
        _require_listener(cluster)
        yield cluster
    else:
        description = read_cluster(cluster)
        if "address" in description:
            _require_listener(description["address"])
            yield description["address"]
            return
        with start_cluster(description) as started:
            _wait_for_worker(started, cluster)
            yield started.scheduler_address


@contextmanager
def dask_client(cluster: str) -> Iterator[Any]:
    """Give a `distributed.Client` of the cluster, closed with it."""
    from distributed import Client

    with scheduler_address(cluster) as address, Client(address, set_as_default=False) as client:
        yield client


def _wait_for_worker(cluster: Any, name: str) -> None:
    """Wait for the first worker: a batch system may keep it queued for hours."""
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE_SECONDS)
        except TimeoutError:
            logger.warning("cluster %s has no worker yet: waiting for the first", name)
            client.wait_for_workers(1)


def _require_listener(address: str) -> None:
    """Refuse at once an address where nothing listens: Dask itself would wait for 30 s or more."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise OptionError(f"cluster address {address!r} is not of the form tcp://host:port")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OptionError(
            f"no Dask scheduler answers at {address}: {reason}; start one with 'dask scheduler'"
        ) from None
