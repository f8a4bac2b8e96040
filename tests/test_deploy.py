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
SCRIPTS = [ROOT / "deploy" / name for name in ("setup.sh", "demo.sh", "test.sh", "lock.sh")] + [ROOT / ".ci" / "run"]
BATCH = sorted((ROOT / "deploy" / "slurm").glob("train*.sbatch"))
RUN_BOOK = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
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
        node.name: node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    decorators = {ast.unparse(one).split("(")[0] for one in functions[name].decorator_list}
    assert "flow" in decorators, f"{entry['entrypoint']} is not a flow"
    assert f"prefect work-pool create --type process {entry['work_pool']['name']}\n" in RUN_BOOK
    known = {argument.arg for argument in functions[name].args.args}
    schedules = [one.get("parameters", {}) for one in entry.get("schedules", ())]
    triggers = [one["parameters"] for one in entry.get("triggers", ())]
    for values in [entry.get("parameters", {}), *schedules, *triggers]:
        assert set(values) <= known, f"{name} takes {known}"
        assert values.get("recipe", "light") in recipe_names()


def recipe_names() -> set[str]:
    return {path.stem for path in (ROOT / "flows" / "recipes").glob("*.yaml")}


def test_schedules_are_examples_until_they_are_started() -> None:
    active = {entry["name"]: [one["active"] for one in entry.get("schedules", ())] for entry in PREFECT["deployments"]}
    assert active.pop("watch") == [True]
    assert {"detect", "classify", "train", "evaluate"} <= {name for name, found in active.items() if found}
    assert not any(any(found) for found in active.values())


def test_what_fails_is_told_but_for_the_telling_itself() -> None:
    tagged = {entry["name"] for entry in PREFECT["deployments"] if "skysift" in entry.get("tags", ())}
    assert tagged == {entry["name"] for entry in PREFECT["deployments"]} - {"notify"}
    (watch,) = (entry for entry in PREFECT["deployments"] if entry["name"] == "watch")
    assert watch["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_automations_are_what_prefect_takes() -> None:
    from prefect.events.schemas.automations import AutomationCore

    assert "prefect automation create --from-file deploy/automations.yaml\n" in RUN_BOOK
    automations = yaml.safe_load((ROOT / "deploy" / "automations.yaml").read_text(encoding="utf-8"))["automations"]
    assert [AutomationCore.model_validate(one).actions[0].type for one in automations] == ["change-flow-run-state"]


@pytest.mark.parametrize("script", BATCH, ids=lambda path: path.name)
def test_batch_scripts_parse_and_can_be_requeued(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n#SBATCH ") and "\nset -euo pipefail\n" in text
    asked = re.findall(r"^#SBATCH --([\w-]+)(?:=(.+))?$", text, re.M)
    assert {"requeue", "signal", "time", "nodes", "gpus-per-node"} <= {name for name, _ in asked}
    assert dict(asked)["signal"] == "B:USR1@300" and "trap stop USR1" in text and "--resume" in text


def test_batch_scripts_stop_and_go_on_alike() -> None:
    ends = {path.read_text().partition("training=$!")[2].replace(path.name, "") for path in BATCH}
    assert len(BATCH) == 2 and len(ends) == 1


def commands() -> list[tuple[str, list[str]]]:
    """Each call of skysift in deploy/, as what it stands in and its words."""
    texts = {path.name: path.read_text(encoding="utf-8").replace("\\\n", " ") for path in BATCH}
    texts |= {
        "prefect.yaml": "",
        "README.md": RUN_BOOK.replace("\\\n", " "),
        "Dockerfile": DOCKERFILE.replace("\\\n#", " "),
    }
    call = re.compile(
        r"(?:(?<![-\w/.])(?:skysift|flows\.cli)|skysift-train)\s+((?:train|detect|models|demo|evaluate)\b[^`|&#)';]*)"
    )
    return [(name, words.split()) for name, text in texts.items() for words in call.findall(text.replace("\n", " ;"))]


def test_commands_in_deploy_exist() -> None:
    from typer.main import get_command

    from flows.cli import app

    found = commands()
    assert len(found) > 15
    assert {name for name, _ in found} >= {"train.sbatch", "train-nodes.sbatch", "README.md", "Dockerfile"}
    for name, words in found:
        command = get_command(app).commands[words[0]]
        if words[0] == "models" and len(words) > 1:
            command = command.commands[words[1]]
        known = {option for one in command.params for option in one.opts}
        for word in words[1:]:
            if word.startswith("-"):
                assert word.partition("=")[0] in known, f"deploy/{name}: {' '.join(words)}"
        if words[0] == "train" and len(words) > 1 and words[1][0].islower():
            assert words[1] in recipe_names(), f"deploy/{name}: {' '.join(words)}"


def test_recipes_and_files_in_the_run_book_exist() -> None:
    for path in re.findall(r"\bdeploy/[\w./-]+\w", RUN_BOOK):
        assert (ROOT / path).exists() or path == "deploy/clusters/NAME.yaml", path
    for recipe in re.findall(r"\.sbatch ([a-z][\w-]+)|--param recipe=(\S+)", RUN_BOOK):
        assert set(recipe) - {""} <= recipe_names(), recipe


def test_options_of_training_in_the_run_book_exist() -> None:
    from models.train_options import TrainOptions
    from pipeline.retrain_options import RetrainOptions

    names = re.findall(r"--set\s+([\w.]+)=|changes='\[\"([\w.]+)=", RUN_BOOK)
    assert len(names) > 3
    for name in filter(None, (one for pair in names for one in pair)):
        section, _, key = name.rpartition(".")
        assert key in {"": TrainOptions, "retrain": RetrainOptions}[section].model_fields, name


def test_variables_in_deploy_are_read_somewhere() -> None:
    folders = ("survey_io", "models", "pipeline", "flows", "deploy")
    sources = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sbatch", ".sh", ".yaml")
    ]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    unit = (ROOT / "deploy" / "skysift-worker.service").read_text(encoding="utf-8")
    for name in set(re.findall(r"\bSKYSIFT_[A-Z]+\b", RUN_BOOK + DOCKERFILE + unit)):
        assert name in code, name


def test_the_container_has_targets_for_processors_gpus_and_training() -> None:
    """Ordinary user, volumes, every package with its hash; the default target is the one for processors."""
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.M)[1:]
    targets = {re.match(r"\S+ AS (\w+)", stage)[1]: stage for stage in stages}
    assert list(targets) == ["base", "gpu", "train", "cpu"]
    assert '--index-url "$TORCH_INDEX"' in targets["base"] and 'ENTRYPOINT ["skysift"]' in targets["base"]
    for name in ("gpu", "train", "cpu"):
        assert "\nUSER ${USER_ID}\n" in targets[name] and "FROM" not in targets[name]
        assert "\nHEALTHCHECK " in targets[name]
    assert 'VOLUME ["/cache", "/data", "/models", "/runs", "/scratch"]' in targets["train"]
    for source in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.M):
        assert all((ROOT / one).exists() for one in source.split()), source
    held = ("--require-hashes", "--no-deps --no-build-isolation --editable .")
    calls = re.findall(r"pip install .*", DOCKERFILE)
    assert calls and all(any(one in call for one in held) for call in calls)


@pytest.mark.parametrize("name", list_clusters())
def test_cluster_files_are_read(name: str) -> None:
    description = read_cluster(name)
    assert "." in description.get("cluster_class", "") or "address" in description


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


@pytest.mark.parametrize("recipe", sorted((ROOT / "flows" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
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
