"""The inbox on real files; only the clock is the test's own."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.runs import file_hash
from pipeline.service.inbox import Arrived, Inbox, Refused, check_apart, passing
from survey_io.errors import OptionError


class Clock:
    """Seconds that pass only when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def skies(write_image: Callable[..., Path]) -> list[bytes]:
    """Two images' bytes."""
    made = []
    for value in range(2):
        path = write_image(np.full((40, 50), value, np.float32), name=f"made{value}.fits")
        made.append(path.read_bytes())
        path.unlink()
    return made


@pytest.fixture
def inbox(tmp_path: Path, clock: Clock) -> Inbox:
    (tmp_path / "in").mkdir()
    return Inbox(tmp_path / "in", looks=3, patience=60.0, clock=clock)


def look(inbox: Inbox, times: int = 1) -> list[Arrived | Refused]:
    return [found for _ in range(times) for found in inbox.look()]


def names(found: list[Arrived | Refused]) -> list[str]:
    return [one.path.name for one in found]


def test_a_file_arrives_when_it_has_been_the_same_for_three_looks(inbox: Inbox, skies: list[bytes]) -> None:
    path = inbox.folder / "sky.fits"
    with open(path, "wb") as file:
        for part in (skies[0][:3000], skies[0][3000:6000], skies[0][6000:]):
            file.write(part)
            file.flush()
            assert look(inbox, 2) == [], "it has just grown"
    (found,) = look(inbox)
    assert isinstance(found, Arrived) and found.kind == "image" and found.path == path
    assert found.sha256 == file_hash(path) and found.mark.size == len(skies[0])
    assert look(inbox, 4) == [] and inbox.waiting == 0


def test_a_file_changed_under_its_name_is_another(inbox: Inbox, skies: list[bytes]) -> None:
    path = inbox.folder / "sky.fits"
    path.write_bytes(skies[0])
    status = path.stat()
    (first,) = look(inbox, 3)
    path.write_bytes(skies[1])
    # The same length and the same time: a copy that carries the time along.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (second,) = look(inbox, 3)
    assert first.sha256 != second.sha256


def test_order_of_arrival_is_that_of_coming_to_the_name(inbox: Inbox, skies: list[bytes]) -> None:
    order = ["c", "a", "d", "b"]
    for name in order:
        (inbox.folder / f"{name}.fits.part").write_bytes(skies[0])
        # Times that were carried along, from the past and from the future, in the opposite order.
        moment = 1e9 - order.index(name) * 1e6
        os.utime(inbox.folder / f"{name}.fits.part", (moment, moment))
    assert look(inbox, 5) == [], "still under way, by their names"
    for name in order:
        (inbox.folder / f"{name}.fits.part").rename(inbox.folder / f"{name}.fits")
        time.sleep(0.01)
    assert names(look(inbox, 3)) == [f"{name}.fits" for name in order]


def test_names_that_are_passed_over(inbox: Inbox, skies: list[bytes]) -> None:
    for name in (".sky.fits.Xy12", "sky.fits.part", "sky.FITS.TMP", "sky.fits~", "sky.fits.filepart"):
        assert passing(name)
        (inbox.folder / name).write_bytes(skies[0])
    (inbox.folder / ".hidden").mkdir()
    (inbox.folder / ".hidden" / "sky.fits").write_bytes(skies[0])
    (inbox.folder / "night" / "field 1").mkdir(parents=True)
    (inbox.folder / "night" / "field 1" / "sky.fits").write_bytes(skies[0])
    found = look(inbox, 3)
    assert [one.path.relative_to(inbox.folder) for one in found] == [Path("night/field 1/sky.fits")]


def test_a_truncated_upload_waits_and_is_refused_in_the_end(inbox: Inbox, clock: Clock, skies: list[bytes]) -> None:
    path = inbox.folder / "sky.fits"
    path.write_bytes(skies[0][:9000])
    clock.now = 1.0
    assert look(inbox, 5) == [] and inbox.waiting == 1 and inbox.unsettled == 0
    clock.now = 59.0
    assert look(inbox, 3) == []
    clock.now = 62.0
    (found,) = look(inbox)
    assert isinstance(found, Refused) and found.reason.startswith("truncated: ") and found.sha256 == file_hash(path)
    assert look(inbox, 5) == []


def test_a_stalled_upload_that_goes_on(inbox: Inbox, clock: Clock, skies: list[bytes]) -> None:
    path = inbox.folder / "sky.fits"
    path.write_bytes(skies[0][:9000])
    look(inbox, 4)
    clock.now = 59.0
    with open(path, "ab") as file:
        file.write(skies[0][9000:9500])
    clock.now = 80.0
    assert look(inbox, 4) == [], "its patience counts from the last change"
    with open(path, "ab") as file:
        file.write(skies[0][9500:])
    assert isinstance(look(inbox, 3)[0], Arrived)


def test_patience_counts_over_services_that_come_and_go(tmp_path: Path, clock: Clock, skies: list[bytes]) -> None:
    from pipeline.service.seen import Seen

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "sky.fits").write_bytes(skies[0][:9000])
    seen = Seen(tmp_path / "inbox.db")
    for clock.now in (0.0, 30.0, 59.0):
        one = Inbox(tmp_path / "in", looks=2, patience=60.0, clock=clock, waiting=seen.waiting)
        assert look(one, 3) == [] and one.unsettled == 0
    clock.now = 61.0
    one = Inbox(tmp_path / "in", looks=2, patience=60.0, clock=clock, waiting=seen.waiting)
    assert isinstance(look(one, 3)[0], Refused)
    seen.close()


def test_what_is_no_observation_is_refused_at_once(inbox: Inbox) -> None:
    (inbox.folder / "letter.fits").write_text("Dear Sir or Madam, this is not an image.")
    (found,) = look(inbox, 3)
    assert isinstance(found, Refused) and "letter.fits" in found.reason and found.sha256


def test_links_and_what_is_no_file(inbox: Inbox, skies: list[bytes], tmp_path: Path) -> None:
    secret = tmp_path / "secret.fits"
    secret.write_bytes(skies[0])
    (tmp_path / "elsewhere").mkdir()
    (inbox.folder / "out.fits").symlink_to(secret)
    (inbox.folder / "up.fits").symlink_to(Path("..") / "secret.fits")
    (inbox.folder / "nowhere.fits").symlink_to(tmp_path / "gone")
    (inbox.folder / "round.fits").symlink_to(inbox.folder / "round.fits")
    (inbox.folder / "folder").symlink_to(tmp_path / "elsewhere")
    (inbox.folder / "itself").symlink_to(inbox.folder)
    os.mkfifo(inbox.folder / "pipe.fits")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(inbox.folder / "s.fits"))
        found = {one.path.name: one for one in look(inbox, 3)}
    assert all(isinstance(one, Refused) and one.sha256 is None for one in found.values())
    reasons = {name: one.reason.partition(": ")[2] for name, one in found.items()}
    assert all("out of the inbox" in reasons[name] for name in ("out.fits", "up.fits", "folder"))
    assert all("nowhere" in reasons[name] for name in ("nowhere.fits", "round.fits"))
    assert "no file" in reasons["itself"] and "pipe" in reasons["pipe.fits"] and "socket" in reasons["s.fits"]
    # A link within the inbox is another name of what is there.
    (inbox.folder / "sky.fits").write_bytes(skies[0])
    (inbox.folder / "again.fits").symlink_to("sky.fits")
    again = look(inbox, 3)
    assert len(again) == 2 and len({one.sha256 for one in again}) == 1


@pytest.mark.parametrize("name", ["line\nbreak.fits", "bell\x07.fits", "\u202efits.exe", os.fsdecode(b"caf\xe9.fits")])
def test_names_that_cannot_be_shown_are_refused(inbox: Inbox, skies: list[bytes], name: str) -> None:
    (inbox.folder / name).write_bytes(skies[0])
    (found,) = look(inbox, 3)
    assert isinstance(found, Refused) and found.reason.isprintable() and "rename" in found.reason
    found.reason.encode()


def test_names_in_any_language_are_not(inbox: Inbox, skies: list[bytes]) -> None:
    (inbox.folder / "Räßler μJy '; DROP TABLE run; --<b>$(id).fits").write_bytes(skies[0])
    assert isinstance(look(inbox, 3)[0], Arrived)


def test_files_that_go_and_are_handed_back(inbox: Inbox, skies: list[bytes]) -> None:
    path = inbox.folder / "sky.fits"
    path.write_bytes(skies[0])
    look(inbox, 2)
    path.unlink()
    assert look(inbox, 3) == [] and inbox.waiting == 0
    path.write_bytes(skies[0])
    (found,) = look(inbox, 3)
    inbox.forget(found.path)
    assert names(look(inbox, 3)) == ["sky.fits"]


def test_what_an_earlier_service_knew_is_not_read(tmp_path: Path, skies: list[bytes]) -> None:
    path = tmp_path / "in" / "sky.fits"
    path.parent.mkdir()
    path.write_bytes(skies[0])
    asked = []

    def known(path: Path, mark: object) -> bool:
        asked.append(path.name)
        return True

    inbox = Inbox(path.parent, looks=2, skip=known)
    assert look(inbox, 5) == [] and asked == ["sky.fits"]


def test_folders_in_which_the_service_would_feed_itself(tmp_path: Path) -> None:
    (tmp_path / "in" / "out").mkdir(parents=True)
    check_apart(tmp_path / "in", tmp_path / "out", tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path / "in" / "out")
    for folder in (tmp_path / "in", tmp_path / "in" / "out", tmp_path / "in" / "x" / "y", tmp_path / "alias"):
        with pytest.raises(OptionError, match="lies in it"):
            check_apart(tmp_path / "in", folder)
    with pytest.raises(OptionError, match="expected a folder"):
        Inbox(tmp_path / "nothing")


def test_a_folder_that_goes_and_comes_again(inbox: Inbox, skies: list[bytes]) -> None:
    (inbox.folder / "sky.fits").write_bytes(skies[0])
    look(inbox, 3)
    shutil.rmtree(inbox.folder)
    assert look(inbox) == []
    inbox.folder.mkdir()
    (inbox.folder / "sky.fits").write_bytes(skies[0])
    assert len(look(inbox, 3)) == 1
