"""The doctor's checks of what only the flows know: Prefect's server and the cluster files. Does not import Prefect."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from pipeline.doctor import FAIL, OK, WARN, Finding
from pipeline.doctor.finding import one_line
from pipeline.doctor.machine import check_clock
from survey_io.errors import OptionError

from .runners import cluster_folders, read_cluster
from .server import configured_api_url

_SECONDS = 3.0


def check_prefect() -> Iterator[Finding]:
    """A configured server answers, is of this version, and its pools have workers."""
    url = configured_api_url()
    if url is None:
        yield Finding("Prefect", OK, "no server configured, none needed")
        return
    try:
        version, ahead = _ask(url, "admin/version")
    except urllib.error.HTTPError as error:
        # Without a right key it still answers, and says no more.
        advice = "set PREFECT_API_AUTH_STRING, or PREFECT_API_KEY"
        yield Finding("Prefect", WARN, f"{url} answers {error.code} {error.reason}", advice)
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        advice = "start it with 'prefect server start', or unset PREFECT_API_URL"
        yield Finding("Prefect", FAIL, f"no server at {url}: {reason}", advice)
        return
    ours = metadata.version("prefect")
    if version == ours:
        yield Finding("Prefect", OK, f"{url} answers, version {version}")
    else:
        yield Finding("Prefect", WARN, f"{url} is version {version}, here is {ours}", "upgrade the older one")
    # The server tells whole seconds.
    yield from check_clock({"Prefect's server": ahead if abs(ahead) > 1.5 else 0.0})
    yield from _check_pools(url)


def _check_pools(url: str) -> Iterator[Finding]:
    pools, _ = _ask(url, "work_pools/filter", {})
    if not pools:
        yield Finding("work pools", WARN, "none", "make them as deploy/README.md says, then prefect deploy --all")
    for pool in pools:
        name = f"work pool {pool['name']}"
        if pool.get("is_paused"):
            yield Finding(name, WARN, "paused: its runs wait", f"prefect work-pool resume {pool['name']}")
            continue
        workers, _ = _ask(url, f"work_pools/{pool['name']}/workers/filter", {})
        online = [one["name"] for one in workers if one.get("status") == "ONLINE"]
        if online:
            yield Finding(name, OK, f"{len(online)} workers: {', '.join(online[:5])}")
        else:
            yield Finding(name, WARN, "no worker: its runs wait", f"prefect worker start --pool {pool['name']}")


def _ask(url: str, path: str, body: dict[str, Any] | None = None) -> tuple[Any, float]:
    """Prefect's answer, and the seconds by which this machine's clock is ahead of the server's."""
    request = urllib.request.Request(f"{url.rstrip('/')}/{path}")
    if body is not None:
        request = urllib.request.Request(
            f"{url.rstrip('/')}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
    if key := os.environ.get("PREFECT_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    elif login := os.environ.get("PREFECT_API_AUTH_STRING"):
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        ahead = 0.0
        if date := answer.headers.get("Date"):
            ahead = time.time() - parsedate_to_datetime(date).timestamp()
        return json.loads(answer.read(10_000_000)), ahead


def check_clusters(wanted: str | None = None) -> Iterator[Finding]:
    """Cluster files can be read and their classes imported; the one that is wanted must be there."""
    paths = {path.stem: path for folder in reversed(cluster_folders()) for path in sorted(folder.glob("*.yaml"))}
    good = []
    for name, path in sorted(paths.items()):
        try:
            description = read_cluster(str(path))
        except (OptionError, OSError, yaml.YAMLError) as error:
            yield Finding(f"cluster {name}", FAIL, one_line(error), f"mend or remove {path}")
            continue
        if "address" in description:
            yield Finding(f"cluster {name}", OK, f"a scheduler at {description['address']}, asked when it is used")
            continue
        module = description["cluster_class"].rpartition(".")[0] or "distributed"
        missing = _missing(module)
        if missing is None:
            good.append(name)
        else:
            status = FAIL if name == wanted else OK
            advice = f"pip install {missing.replace('_', '-')}" if status == FAIL else ""
            yield Finding(f"cluster {name}", status, f"needs {missing}, not installed here", advice)
    if good:
        yield Finding("clusters", OK, f"{', '.join(good)} can be used")
    if wanted is not None and "://" not in wanted and wanted not in paths and not Path(wanted).is_file():
        yield Finding(f"cluster {wanted}", FAIL, f"no such file; known: {', '.join(sorted(paths))}", "SKYSIFT_CLUSTERS")


def _missing(module: str) -> str | None:
    """The package that is not installed of a dotted module; None when it is there."""
    package = module.split(".")[0]
    return None if importlib.util.find_spec(package) is not None else package
