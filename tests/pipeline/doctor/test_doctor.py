"""The doctor in set-ups that are really broken, each in one way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models import weights
from pipeline import gpu_use
from pipeline.doctor import FAIL, OK, WARN, Place, installation, machine, networks, run_checks, worst
from pipeline.doctor.finding import as_json

ROOT = Path(__file__).parents[3]


def only(findings):  # noqa: ANN001, ANN201
    (one,) = findings
    return one


def distribution(folder: Path, *requires: str) -> None:
    info = folder / "skysift_trial-1.0.dist-info"
    info.mkdir()
    lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: skysift-trial\nVersion: 1.0\n{lines}")


def test_versions_are_held_against_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    other = 'nothing-such; extra == "other"'
    distribution(tmp_path, "numpy>=2", "fastapi<0.1", "astropy>=900", other, "not-there-at-all")
    found = only(installation.check_versions("skysift-trial"))
    assert found.status == FAIL and "Prefect 3.8 dies" in found.found
    assert all(word in found.found for word in ("fastapi 0.", "astropy 8", "not-there-at-all is missing"))
    assert "numpy" not in found.found and "nothing-such" not in found.found
    assert only(installation.check_versions("no-such-distribution")).status == WARN


def test_a_torchvision_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(installation.check_torchvision()).status == OK
    (tmp_path / "torchvision").mkdir()
    code = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "torchvision" / "__init__.py").write_text(code)
    info = tmp_path / "torchvision-0.28.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = only(installation.check_torchvision())
    assert found.status == WARN and "torchvision 0.28.0" in found.found and "nms does not exist" in found.found


def test_an_encoding_that_is_not_utf8() -> None:
    code = "from pipeline.doctor.installation import check_encoding; print(next(check_encoding()).status)"
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for names, expected in (({"LC_ALL": "C.UTF-8"}, OK), (ascii_only, FAIL)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"PATH": os.environ["PATH"], **names},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == expected, names


def test_threads_that_would_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu sse sse2\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    processor, threads, policy = machine.check_processor(tmp_path / "cpuinfo", tmp_path)
    assert processor.status == WARN and "AVX2" in processor.advice and "1.5 of" in processor.found
    assert threads.status == WARN and "OMP_NUM_THREADS=64 on 1.5 cores" in threads.found
    assert policy.status == WARN and "OMP_WAIT_POLICY" in policy.found
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**30 - 2**20}\n")
    assert only(machine.check_memory(cgroup=tmp_path)).status == FAIL


@pytest.fixture
def small_disk(tmp_path: Path):  # noqa: ANN201
    """A file system of 1 MiB with few inodes, mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m,nr_inodes=8,mode=755", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root and its capability")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disks_that_are_full_or_read_only(small_disk: Path) -> None:
    deep = small_disk / "new" / "sub"
    assert only(machine.check_places([Place("output", deep)])).found.startswith(str(deep))
    few = only(machine.check_places([Place("output", small_disk)]))
    assert few.status == FAIL and "inodes free" in few.found
    (small_disk / "all").write_bytes(b"\0" * 2**20)
    full = only(machine.check_places([Place("output", small_disk)]))
    assert full.status == FAIL and "No space left" in full.found and full.advice == "make room"
    assert [one.name for one in small_disk.iterdir()] == ["all"]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    locked = only(machine.check_places([Place("inbox", small_disk)]))
    assert locked.status == FAIL and "Read-only" in locked.found and locked.check == "inbox folder"


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert only(machine.check_places([Place("output", tmp_path / "file" / "sub")])).status == FAIL
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    good, anyone = machine.check_places([Place("output", tmp_path / "a"), Place("cache", tmp_path / "open")])
    assert good.status in (OK, WARN) and not (tmp_path / "a").exists()
    assert anyone.status == WARN and "chmod o-w" in anyone.advice
    assert only(machine.check_shared_memory(tmp_path / "none")).status == WARN


def test_graphics_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_use, "_answer", (float("-inf"), []))
    assert only(machine.check_gpu(tmp_path)).status == OK
    (tmp_path / "nvidia0").touch()
    assert only(machine.check_gpu(tmp_path)).status == FAIL
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, NVIDIA H100 80GB HBM3, 37, 1024, 81559, 41'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(gpu_use, "_answer", (float("-inf"), []))
    found = only(machine.check_gpu(tmp_path))
    # There is no such card here: torch was built without CUDA or sees none of its devices.
    assert found.status in (WARN, FAIL) and "H100" in found.found and "torch" in found.found


def test_a_clock_that_differs() -> None:
    assert [one.status for one in machine.check_clock({"a": 0.5, "b": -10.0, "c": 3600.0})] == [OK, WARN, FAIL]


def test_engines_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.engines import base
    from models.engines.torch_engine import TorchEngine

    monkeypatch.setenv("SKYSIFT_CACHE", str(tmp_path))
    findings = {one.check: one for one in networks.check_engines()}
    assert findings["engine torch"].status == findings["engine openvino"].status == findings["engine onnx"].status == OK
    assert findings["engine tensorrt"].status == OK

    class Wrong(TorchEngine):
        def __call__(self, *arrays):  # noqa: ANN002, ANN204
            return super().__call__(*arrays) * 1.01

    def broken(module, **options):  # noqa: ANN001, ANN003, ANN202
        raise ImportError("libopenvino.so: cannot open\nshared object file")

    for name, build in (("torch", Wrong), ("openvino", broken)):
        changed = base._Backend(**{**vars(base._backends[name]), "build": build})
        monkeypatch.setitem(base._backends, name, changed)
    findings = {one.check: one for one in networks.check_engines()}
    assert findings["engine torch"].status == FAIL and "off by 0.01" in findings["engine torch"].found
    assert findings["engine openvino"].status == FAIL and "\n" not in findings["engine openvino"].found
    assert "until then --engine" in findings["engine openvino"].advice


def test_damaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(networks.check_weights()).status == OK
    copy = tmp_path / "weights"
    shutil.copytree(weights.WEIGHTS_FOLDER, copy)
    monkeypatch.setattr(weights, "WEIGHTS_FOLDER", copy)
    data = bytearray((copy / "light.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "light.safetensors").write_bytes(data)
    found = only(networks.check_weights())
    assert found.status == FAIL and "light.safetensors" in found.found and "SHA-256" in found.found
    shutil.rmtree(copy)
    copy.mkdir()
    assert "none are shipped" in only(networks.check_weights()).found


def test_damaged_registered_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.in_use import promote
    from models.store import add_version

    monkeypatch.setenv("SKYSIFT_MODELS", str(tmp_path))
    stored = add_version("light", weights.WEIGHTS_FOLDER / "light.safetensors", {})
    promote("light", stored.version, why="test")
    shipped, good = networks.check_weights()
    assert shipped.status == good.status == OK and "1 registered" in good.found
    (stored.folder / "light.json").write_text("{}")
    _, bad = networks.check_weights()
    assert bad.status == FAIL and bad.found.startswith("in use:")


def test_a_check_that_breaks_hides_no_other() -> None:
    def breaks():  # noqa: ANN202
        yield from machine.check_limits()
        raise RuntimeError("two\nlines")

    found = run_checks({"one": breaks, "two": machine.check_limits})
    assert [one.check for one in found[-2:]] == ["one", "open files"] and worst(found) == FAIL
    assert as_json(found)["counts"][FAIL] == 1 and "two lines" in as_json(found)["findings"][-2]["found"]
