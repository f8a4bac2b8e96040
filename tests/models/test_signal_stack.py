"""An engine leaves a thread's signal stack alone: signals after it was closed must find one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from models.engines.base import available_engines, load_engine
from models.registry import get_model

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signal stacks of Linux")

AFTER_AN_ENGINE = """
import faulthandler, gc, os, signal, subprocess, sys
import numpy as np
from models.engines.base import load_engine
from models.registry import get_model

told = []
if sys.argv[2] == "with":
    faulthandler.enable()
signal.signal(signal.SIGCHLD, lambda *_: told.append("child"))
for side in (64, 96):
    engine = load_engine(sys.argv[1], get_model("light").build())
    engine(np.zeros((1, 1, side, side), np.float32), np.zeros((1, 4), np.float32))
    engine.close()
    del engine
    gc.collect()
subprocess.run(["true"], check=True)
print(told)
"""


@pytest.mark.parametrize("stack", ["with", "without"])
def test_signals_are_handled_after_an_engine_is_gone(stack) -> None:
    run = subprocess.run(
        [sys.executable, "-c", AFTER_AN_ENGINE, "openvino", stack], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0 and run.stdout.strip() == "['child']", run.stderr[-500:]


@pytest.mark.parametrize("name", available_engines())
def test_the_stack_of_a_thread_stays_its_own(name) -> None:
    from models.engines.signal_stack import signal_stack

    engine = load_engine(name, get_model("light").build())
    found = []

    def work() -> None:
        before = signal_stack()
        engine(np.zeros((1, 1, 32, 32), np.float32), np.zeros((1, 4), np.float32))
        after = signal_stack()
        found.append((before.pointer, before.size, before.flags) == (after.pointer, after.size, after.flags))

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    engine.close()
    assert found == [True, True]
