"""What an error is about: the input, or the machine."""

from __future__ import annotations

import errno

import pytest

from survey_io import open_image
from survey_io.errors import InputError, machine_trouble


def chained(cause: BaseException) -> InputError:
    try:
        try:
            raise cause
        except Exception as error:
            raise InputError("sky.fits: cannot be read") from error
    except InputError as error:
        return error


@pytest.mark.parametrize(
    ("cause", "trouble"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (MemoryError(), "memory"),
        (ImportError("x.so: failed to map segment from shared object"), "memory"),
        (OSError(errno.EIO, "Input/output error"), "system"),
        (OSError(errno.ENOENT, "No such file or directory"), None),
        (ValueError("not a FITS file"), None),
    ],
)
def test_a_good_file_is_not_blamed_for_its_machine(cause: BaseException, trouble: str | None) -> None:
    assert machine_trouble(cause) == trouble
    assert machine_trouble(chained(cause)) == trouble


def test_a_file_that_was_cut_short_is_to_blame(planted_sky) -> None:
    image = open_image(planted_sky.path)
    planted_sky.path.write_bytes(planted_sky.path.read_bytes()[:8000])
    with pytest.raises(InputError, match="can no longer be read") as caught:
        image.pixels.read((slice(100, 150), slice(0, 200)))
    assert machine_trouble(caught.value) is None
