"""Silence of one thread: other threads, other libraries' `catch_warnings` and other warnings leave it alone."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from survey_io.quiet import quiet

ROOT = Path(__file__).resolve().parents[2]


class Told(UserWarning):
    """What these tests warn with."""


def warn(category: type[Warning] = Told) -> None:
    warnings.warn("something", category, stacklevel=2)


@pytest.fixture(autouse=True)
def errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def in_thread(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(timeout=60)


def foreign(action: str = "ignore", category: type[Warning] = Told) -> AbstractContextManager[None]:
    """What libraries do."""
    return warnings.catch_warnings(action=action, category=category)


def crowd(block: Callable[[], AbstractContextManager[None]], *, seed: int, threads: int = 6, times: int = 40) -> int:
    """Warnings that get out of the blocks of several threads; each third of them calls a library in its block."""
    start, out = threading.Barrier(threads), []

    def work(number: int) -> None:
        draw = random.Random(seed + number)
        start.wait(timeout=60)
        for _ in range(times):
            try:
                with block():
                    time.sleep(draw.random() * 1e-3)
                    if number % 3 == 0:
                        with foreign(category=DeprecationWarning):
                            time.sleep(draw.random() * 1e-3)
                    warn()
            except Told as told:
                out.append(told)
            time.sleep(draw.random() * 3e-4)

    with ThreadPoolExecutor(threads) as pool:
        for one in [pool.submit(work, number) for number in range(threads)]:
            one.result(timeout=60)
    return len(out)


@pytest.mark.parametrize("seed", [0, 100])
def test_nothing_gets_out_of_any_thread_that_is_inside(seed):
    with quiet():
        pass
    assert crowd(quiet, seed=seed) == 0
    with pytest.raises(Told):
        warn()


def test_another_thread_still_warns():
    def work() -> None:
        with pytest.raises(Told):
            warn()

    with quiet():
        in_thread(work)
        warn()


def overlap(block: Callable[[], AbstractContextManager[None]]) -> None:
    """Another thread enters its block and warns there after this one has left its own, entered before."""
    inside, left = threading.Event(), threading.Event()

    def work() -> None:
        with block():
            inside.set()
            assert left.wait(timeout=60)
            warn()

    with ThreadPoolExecutor(1) as pool:
        try:
            with block():
                done = pool.submit(work)
                assert inside.wait(timeout=60)
        finally:
            left.set()
        done.result(timeout=60)


def test_the_thread_that_leaves_first_takes_nothing_from_the_other():
    overlap(quiet)
    with pytest.raises(Told):
        warn()


@pytest.mark.skipif(getattr(sys.flags, "context_aware_warnings", 0), reason="the standard library's blocks are safe")
def test_the_standard_library_s_block_takes_the_filter_from_the_other():
    with pytest.raises(Told):
        overlap(foreign)


def test_nested_and_after_an_exception():
    with quiet():
        with quiet():
            warn()
        warn()
        with pytest.raises(KeyError), quiet():
            raise KeyError
        warn()
    with pytest.raises(Told):
        warn()


def test_as_a_decorator():
    @quiet()
    def work() -> int:
        warn()
        return 3

    assert work() == 3
    with pytest.raises(Told):
        warn()


def test_a_category_alone():
    with quiet(Told):
        warn()
        with pytest.raises(RuntimeWarning):
            warn(RuntimeWarning)
        with quiet(RuntimeWarning):
            warn(RuntimeWarning)
            warn()
    for category in (Told, RuntimeWarning):
        with pytest.raises(category):
            warn(category)


def test_a_foreign_block_inside():
    with quiet():
        with foreign("error"):
            # What a library asks for in its own block holds there, as units do to refuse what they cannot parse.
            with pytest.raises(Told):
                warn()
            with quiet():
                warn()
        warn()
    with pytest.raises(Told):
        warn()


def test_a_foreign_block_around():
    with foreign("error"), quiet():
        warn()
    with pytest.raises(Told):
        warn()
    with quiet():
        warn()


def test_a_foreign_block_that_ends_while_another_thread_is_inside():
    with quiet():
        pass
    inside, left = threading.Event(), threading.Event()

    def work() -> None:
        with quiet():
            inside.set()
            assert left.wait(timeout=60)
            warn()

    with ThreadPoolExecutor(1) as pool:
        with foreign("error"):
            done = pool.submit(work)
            assert inside.wait(timeout=60)
        left.set()
        done.result(timeout=60)


def test_a_foreign_filter_of_one_thread_outlives_another_thread_that_goes_in():
    """Else what a library turns into an error in one thread would be ignored for what another thread does."""

    def work() -> None:
        with foreign("error", DeprecationWarning), quiet():
            warn(DeprecationWarning)
            warn()

    with quiet(), foreign("error"):
        in_thread(work)
        with pytest.raises(Told):
            warn()


def test_what_was_shown_is_not_shown_again_and_what_was_ignored_is_shown_later():
    def speak() -> None:
        warnings.warn("once for each place", Told, stacklevel=1)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        with quiet():
            speak()
        assert len(told) == 0
        speak()
        assert len(told) == 1
        with quiet():
            speak()
        speak()
        assert len(told) == 1


def test_the_list_does_not_grow():
    lengths = []
    for _ in range(3):
        for _ in range(20):
            warnings.simplefilter("error")
            with quiet(), foreign("error"):
                in_thread(quiet()(warn))
        lengths.append(len(warnings.filters))
    assert lengths[0] == lengths[2]


CROWD = """
import sys, threading, time, warnings
from survey_io.quiet import quiet

sys.setswitchinterval(1e-6)
warnings.simplefilter("error")
end, out = time.monotonic() + 1.5, []

def inside():
    while time.monotonic() < end:
        try:
            with quiet():
                warnings.warn("inside")
        except UserWarning as told:
            out.append(told)

def outside():
    while time.monotonic() < end:
        with warnings.catch_warnings():
            try:
                warnings.warn("outside")
            except UserWarning:
                pass

with quiet():
    pass
threads = [threading.Thread(target=work) for work in (inside, outside) * 4]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(out))
"""


def test_lists_that_end_in_other_threads_do_no_harm():
    # A pattern written in Python dies here of a segmentation fault within a second or two, hence a process of its own.
    done = subprocess.run([sys.executable, "-c", CROWD], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip() == "0", done.stderr[-2000:]


def test_the_packages_use_no_other_silence():
    for layer in ("survey_io", "models", "pipeline"):
        for path in (ROOT / layer).rglob("*.py"):
            names = {
                node.attr if isinstance(node, ast.Attribute) else node.name
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, (ast.Attribute, ast.alias))
            }
            wrong = names & {"catch_warnings", "simplefilter", "filterwarnings"}
            assert not wrong, f"{path.relative_to(ROOT)} uses {wrong}: use survey_io.quiet, which holds in threads"
