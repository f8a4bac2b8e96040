"""Dockerfile, compose.yaml, Kubernetes manifests and systemd units: linted, and held to what is promised of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "skysift.yaml").read_text(encoding="utf-8")))
UNITS = sorted(DEPLOY.glob("skysift-*.service"))
BIN = Path(sys.executable).parent
YAMLLINT = (
    "{extends: default, rules: {line-length: {max: 120}, document-start: disable, comments-indentation: disable, "
    "braces: {max-spaces-inside: 0}, truthy: {check-keys: false}}}"
)
LINTERS = {
    "hadolint": ["hadolint", "--failure-threshold", "info", "deploy/Dockerfile"],
    "compose": ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"],
    "yamllint": ["yamllint", "--strict", "-d", YAMLLINT, "deploy", "flows/recipes"],
    "shellcheck": [
        "shellcheck", *(str(one.relative_to(ROOT)) for one in sorted([*DEPLOY.glob("*.sh"), *DEPLOY.glob("slurm/*")])),
        ".ci/run",
    ],
}  # fmt: skip


@pytest.mark.parametrize("words", LINTERS.values(), ids=list(LINTERS))
def test_linters_have_nothing_to_say(words: list[str]) -> None:
    done = subprocess.run(
        [BIN / words[0], *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_services_are_confined(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] in ("unless-stopped", "on-failure")
    assert service["user"] == "postgres" or service["user"].startswith("${USER_ID:-1000}")
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory"} <= limits.keys()
    assert "privileged" not in service and "cap_add" not in service and "network_mode" not in service
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), f"{name} is reachable from other machines"
    # What ends by itself needs no check, and one image's is that of the file.
    assert "healthcheck" in service or name in ("prefect-setup", "prefect-worker-gpu")
    for other, how in service.get("depends_on", {}).items():
        assert other in COMPOSE["services"] and how["condition"] != "service_started"
    assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()


def test_there_are_no_default_passwords() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8") + (DEPLOY / "kubernetes" / "skysift.yaml").read_text()
    assert not re.search(r"://[^@/\s]*:[^@/\s]+@", text), "a password in a URL"
    values = re.findall(r"(?i)(?:password|token|auth_string|secret)[\"']?\s*[:=]\s*[\"']?(\w\S*)", text)
    assert set(values) <= {"false"}, "a secret is spelt out"
    for secret in COMPOSE["secrets"].values():
        # Without the folder nothing starts.
        assert secret["file"].startswith("${SKYSIFT_SECRETS:?")
    assert not [one for one in MANIFESTS if one["kind"] == "Secret"]
    for service in COMPOSE["services"].values():
        for value in (service.get("environment") or {}).values():
            assert "/run/secrets" not in value or value.startswith("/run/secrets/")


def test_databases_are_not_published() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in ("survey-db", "prefect-db"):
        service = COMPOSE["services"][name]
        assert service["networks"] == ["inside"] and "ports" not in service


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for manifest in MANIFESTS:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield manifest["metadata"]["name"], spec["template"]


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=[name for name, _ in pods()])
def test_pods_are_confined(name: str, pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {one["name"] for one in spec["volumes"]} | ({"data"} if name == "survey-db" else set())
    for container in [*spec["containers"], *spec.get("initContainers", ())]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert {one["name"] for one in container["volumeMounts"]} <= volumes
        for variable in container.get("env", ()):
            assert "PASSWORD" not in variable["name"] or "valueFrom" in variable or variable["name"].endswith("_FILE")
    if name not in ("nightly",):
        assert "livenessProbe" in spec["containers"][0]


def test_manifests_belong_together() -> None:
    kinds: dict[str, list[str]] = {}
    for manifest in MANIFESTS:
        kinds.setdefault(manifest["kind"], []).append(manifest["metadata"]["name"])
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "skysift"
    assert set(kinds) >= {"Namespace", "PersistentVolumeClaim", "Deployment", "CronJob", "NetworkPolicy", "Service"}
    claims = {
        one["persistentVolumeClaim"]["claimName"]
        for _, pod in pods() for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one
    }  # fmt: skip
    assert claims == set(kinds["PersistentVolumeClaim"])
    gpu = next(pod for name, pod in pods() if name == "serve-gpu")
    assert gpu["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    policies = [one["spec"] for one in MANIFESTS if one["kind"] == "NetworkPolicy"]
    assert any(one["podSelector"] == {} and one["policyTypes"] == ["Ingress", "Egress"] for one in policies)
    # Each pod that has the catalogue's address may reach it.
    for name, pod in pods():
        if name != "survey-db":
            assert pod["metadata"]["labels"]["catalogue"] == "client", name


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_restart_and_are_confined(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    assert "\nUser=skysift\n" in text and "\nRestart=on-failure\n" in text and "\nWantedBy=multi-user.target\n" in text
    if unit.name != "skysift-worker.service":
        for line in ("ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "PrivateTmp=yes"):
            assert f"\n{line}\n" in text
    if shutil.which("systemd-analyze"):
        copy = tmp_path / unit.name
        copy.write_text(re.sub(r"/opt/skysift/bin/\w+", "/bin/true", text), encoding="utf-8")
        done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
        said = [line for line in done.stderr.splitlines() if unit.name in line]
        assert not said, said


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each call of skysift in the files of this test, and what it stands in."""
    for name, service in COMPOSE["services"].items():
        text = " ".join(service.get("command", ()))
        test = " ".join((service.get("healthcheck") or {}).get("test", ()))
        for call in re.findall(r"(?<![\w/-])skysift ((?:serve|http|survey|doctor)[^&|]*)", f"{text} | {test}"):
            yield f"compose.yaml {name}", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", call).split()
    for name, pod in pods():
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]:
            if container["image"].startswith("skysift"):
                yield f"kubernetes {name}", container["args"]
    for unit in UNITS:
        for call in re.findall(r"^Exec\w+=/opt/skysift/bin/skysift (.*)$", unit.read_text().replace("\\\n", " "), re.M):
            yield unit.name, call.split()
    batch = (DEPLOY / "slurm" / "serve.sbatch").read_text()
    for call in re.findall(r"skysift (serve --once)|deploy/slurm/serve\.sbatch (--.*)$", batch, re.M):
        yield "serve.sbatch", ["serve", *(call[0] or call[1]).replace("serve ", "").split()]


def test_commands_exist() -> None:
    from typer.main import get_command

    from flows.cli import app

    found = list(commands())
    assert {name.split()[0] for name, _ in found} == {
        "compose.yaml", "kubernetes", "skysift-serve.service", "skysift-http.service", "serve.sbatch"
    }  # fmt: skip
    for where, words in found:
        command = get_command(app).commands[words[0]]
        if hasattr(command, "commands"):
            command = command.commands[words[1]]
        known = {option for one in command.params for option in one.opts}
        for word in words:
            if word.startswith("-"):
                assert word.partition("=")[0] in known, f"{where}: {' '.join(words)}"
