"""What is put aside is never lost and replaces nothing."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.service.quarantine import put_aside, safe_name
from survey_io.errors import OutputError


def reason(path: Path) -> str:
    return Path(f"{path}.reason.txt").read_text(encoding="utf-8").splitlines()[0]


def test_names_that_collide(tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    (aside / "sky.fits").write_text("the operator's own")
    for number in range(1, 4):
        (tmp_path / "sky.fits").write_text(f"file {number}")
        put = put_aside(tmp_path / "sky.fits", aside, f"reason {number}\nforged: line")
        assert put == aside / f"sky.fits.{number}" and put.read_text() == f"file {number}"
        assert reason(put) == f"reason {number}\\nforged: line"
    assert (aside / "sky.fits").read_text() == "the operator's own"
    assert not (tmp_path / "sky.fits").exists()


def test_several_services_at_once(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "sky.fits").write_text(f"{number}")
    # Each file by two services: one of them finds that it has gone.
    paths = [tmp_path / f"{number // 2}" / "sky.fits" for number in range(80)]
    with ThreadPoolExecutor(8) as pool:
        put = [one for one in pool.map(lambda path: put_aside(path, tmp_path / "aside", "r"), paths) if one]
    assert sorted(one.read_text() for one in put) == sorted(str(number) for number in range(40))
    assert len(list((tmp_path / "aside").iterdir())) == 80, "each file and its reason, nothing else"


def test_another_file_system(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    source = memory / f"skysift-test-{os.getpid()}"
    source.mkdir()
    try:
        (source / "sky.fits").write_text("content")
        os.utime(source / "sky.fits", (1e9, 1e9))
        (source / "link.fits").symlink_to("/etc/hostname")
        put = put_aside(source / "sky.fits", tmp_path, "r")
        assert put is not None and put.read_text() == "content" and put.stat().st_mtime == 1e9
        link = put_aside(source / "link.fits", tmp_path, "r")
        assert link is not None and os.readlink(link) == "/etc/hostname"
        assert list(source.iterdir()) == []
    finally:
        for left in source.iterdir():
            left.unlink()
        source.rmdir()


def test_what_cannot_be_moved_stays(tmp_path: Path) -> None:
    (tmp_path / "sky.fits").write_text("content")
    (tmp_path / "aside").write_text("not a folder")
    with pytest.raises(OutputError, match=r"sky\.fits: cannot be moved to .*aside"):
        put_aside(tmp_path / "sky.fits", tmp_path / "aside", "r")
    assert (tmp_path / "sky.fits").read_text() == "content"
    assert put_aside(tmp_path / "gone.fits", tmp_path / "there", "r") is None
    assert list((tmp_path / "there").iterdir()) == []


def test_names_become_safe() -> None:
    assert safe_name("sky μJy.fits") == "sky μJy.fits"
    assert safe_name("a\nb\x1b[2J" + os.fsdecode(b"\xe9") + ".fits") == "a_b_[2J_.fits"
    assert len(safe_name("x" * 300 + ".fits").encode()) <= 200 and safe_name("x" * 300 + ".fits").endswith(".fits")
    assert len(safe_name("μ" * 255).encode()) <= 200
