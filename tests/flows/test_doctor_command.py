"""``skysift doctor`` and ``skysift clean`` as they are called; what only the flows know of: cluster files, Prefect."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from flows import doctor
from flows.cli import main
from flows.commands.doctor import diagnose
from pipeline.doctor import FAIL, OK, WARN


def run(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return left.value.code, capsys.readouterr().out


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("SKYSIFT_CATALOGUE", raising=False)


@pytest.mark.slow
def test_a_set_up_that_works(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    began = time.process_time()
    words = ["doctor", "--json", "--catalogue", str(tmp_path / "survey"), "--inbox", str(tmp_path), "-o", str(tmp_path)]
    status, text = run(capsys, *words)
    answer = json.loads(text)
    assert status == 0 and answer["status"] in (OK, WARN) and answer["counts"][FAIL] == 0
    checks = {one["check"] for one in answer["findings"]}
    assert {"installation", "engine torch", "weights", "output folder", "catalogue", "Prefect", "clock"} <= checks
    assert all(set(one) == {"check", "status", "found", "advice"} for one in answer["findings"])
    assert all(one["advice"] for one in answer["findings"] if one["status"] != OK)
    # 10 s are promised on an idle machine; other work here does not count.
    assert time.process_time() - began < 10
    assert sorted(one.name for one in tmp_path.iterdir()) == []


def test_set_ups_that_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.doctor import networks

    monkeypatch.setattr(networks, "check_engines", lambda: [])
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("SKYSIFT_CLUSTERS", str(tmp_path))
    (tmp_path / "odd\nname.yaml").write_text("cluster_clas: x\n")
    (tmp_path / "absent.yaml").write_text("cluster_class: no_such_package.Cluster\n")
    status, text = run(capsys, "doctor", "--cluster", "absent", "-o", str(tmp_path))
    assert status == 1 and "no server at http://127.0.0.1:9/api" in text
    assert "needs no_such_package" in text and "cluster_class is missing" in text and "odd\\nname" in text
    assert text.splitlines()[-1].endswith("with a warning")
    assert all(line.startswith(("ok", "warn", "fail", " ")) for line in text.splitlines()[:-1])
    assert [one.status for one in doctor.check_clusters("nowhere")][-1] == FAIL
    # The files that ship, one of which names a scheduler's address instead of a class.
    ours = {one.check: one.status for one in doctor.check_clusters()}
    assert ours["cluster running"] == OK and ours["clusters"] == OK
    # A class that is not installed is no fault where nobody asks for it.
    assert FAIL not in [one.status for one in doctor.check_clusters() if "absent" in one.check]


def test_all_checks_are_asked_for() -> None:
    import inspect

    source = inspect.getsource(diagnose)
    from pipeline.doctor import installation, machine, networks, survey

    for module in (installation, machine, networks, survey, doctor):
        for name in vars(module):
            if name.startswith("check_") and vars(module)[name].__module__ == module.__name__:
                assert name in source, name


def test_clean(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from pipeline.survey import open_store

    home = tmp_path / "survey"
    status, _ = run(capsys, "clean", "--older-than", "90d", "--catalogue", str(home))
    assert status == 2 and not home.exists()
    open_store(home).close()
    old = home / "results" / "sky-0123456789ab" / "sky_run.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    for path in (old, old.parent):
        os.utime(path, (0, 0))
    status, text = run(capsys, "clean", "--older-than", "90d", "--catalogue", str(home), "--dry-run")
    assert status == 0 and "would remove 1" in text and old.exists()
    status, text = run(capsys, "clean", "--older-than", "90d", "--catalogue", str(home))
    assert status == 0 and text.splitlines()[-1].startswith("removed 1") and not old.parent.exists()
    assert (home / "survey.db").exists()
