"""What deploy/ names exists, its scripts are sound, and what it promises is what the package says."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from flows.runners import list_clusters, read_cluster

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [ROOT / "deploy" / name for name in ("setup.sh", "demo.sh", "test.sh")] + [ROOT / ".ci" / "run"]
PREFECT = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_as_posix_shell(script: Path) -> None:
    shell = shutil.which("dash") or "sh"
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in text
    assert os.access(script, os.X_OK)
    assert not re.search(r"\[\[|\bfunction \b|<<<|\blocal ", text), "not POSIX shell"


@pytest.mark.parametrize("entry", PREFECT["deployments"], ids=lambda entry: entry["name"])
def test_deployments_name_flows(entry: dict) -> None:
    module, _, name = entry["entrypoint"].rpartition(".")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert path.is_file(), f"{entry['entrypoint']}: no such file"
    functions = {
        node.name: {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert "flow" in functions.get(name, set()), f"{entry['entrypoint']} is not a flow"
    assert entry["work_pool"]["name"]


@pytest.mark.parametrize("name", list_clusters())
def test_cluster_files_are_read(name: str) -> None:
    assert "." in read_cluster(name)["cluster_class"]


def test_set_up_makes_one_environment_outside_the_checkout(tmp_path: Path) -> None:
    """Run the set-up with a stand-in interpreter that records what it is asked to do."""
    log = tmp_path / "log"
    fake = tmp_path / "bin" / "python3.11"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        f'printf "%s\\n" "$*" >> "{log}"\n'
        'if [ "$1 $2" = "-m venv" ]; then\n'
        '    for folder in "$@"; do :; done\n'
        '    mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python"\n'
        "fi\n",
        encoding="utf-8",
    )
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}:/usr/bin:/bin", "HOME": str(tmp_path / "home dir")}
    for _ in range(2):
        done = subprocess.run(
            ["sh", str(ROOT / "deploy" / "setup.sh"), "test"],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
    folder = Path(done.stdout.strip())
    assert folder.is_dir() and folder.is_relative_to(tmp_path / "home dir" / ".cache" / "skysift")
    calls = log.read_text(encoding="utf-8")
    assert calls.count("-m venv") == 1, "the second run made the environment again"
    assert calls.count(f"--editable {ROOT}[test]") == 1


def test_continuous_integration_runs_the_test_script() -> None:
    assert "deploy/test.sh" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_package_promises_what_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"skysift": "flows.cli:main"}
    assert project["license"] == "BSD-3-Clause"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("BSD 3-Clause License")
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "fastapi<0.151" in project["dependencies"], "Prefect 3.8 dies with later FastAPI releases"


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "flows" / "recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_recipes_name_a_model_and_what_they_are(recipe: Path) -> None:
    from flows.recipe_files import list_recipes, resolve_recipe
    from models.registry import get_model, list_models

    options, retrain = resolve_recipe(recipe.stem, environment={})
    assert get_model(options.name).has_weights
    # Weights are registered by a name that is no other model's.
    name = retrain.name_for(options.name)
    assert name == options.name or name not in list_models()
    assert list_recipes()[recipe.stem] and options.output.parts[0] == "training"
    assert retrain.command == f"skysift train {recipe.stem}"
