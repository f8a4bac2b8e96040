"""A file is there when all of it is, whatever it holds and however it is packed."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from survey_io.arrived import check_arrived
from survey_io.errors import IncompleteError, InputError

PIXELS = np.arange(60 * 70, dtype=np.float32).reshape(60, 70)


@pytest.fixture
def image(write_image: Callable[..., Path]) -> Path:
    return write_image(PIXELS)


def shorten(path: Path, length: int) -> Path:
    path.write_bytes(path.read_bytes()[:length])
    return path


def test_whole_image(image: Path) -> None:
    assert check_arrived(image) == "image"


@pytest.mark.parametrize("length", [0, 1, 8, 9, 100, 2879, 2880, 5000, -2])
def test_an_image_of_which_some_is_missing(image: Path, length: int) -> None:
    with fits.open(image) as hdus:
        end = hdus[0].fileinfo()["datLoc"] + PIXELS.nbytes
    shorten(image, end - 1 if length == -2 else length)
    with pytest.raises(IncompleteError, match=rf"{image.name}.*cut short, fetch it again") as caught:
        check_arrived(image)
    assert caught.value.fields["got"] == image.stat().st_size


def test_the_padding_of_the_last_block_may_be_missing(image: Path) -> None:
    with fits.open(image) as hdus:
        end = hdus[0].fileinfo()["datLoc"] + PIXELS.nbytes
    assert check_arrived(shorten(image, end)) == "image"


def test_rubbish_behind_the_last_unit_is_no_matter(image: Path) -> None:
    image.write_bytes(image.read_bytes() + b"rubbish")
    assert check_arrived(image) == "image"


def test_an_extension_that_is_cut(image: Path) -> None:
    whole = image.stat().st_size
    fits.append(image, PIXELS)
    assert check_arrived(image) == "image"
    for length in (whole + 4, whole + 100, whole + 2880, whole + 2880 + 500):
        content = image.read_bytes()
        with pytest.raises(IncompleteError):
            check_arrived(shorten(image, length))
        image.write_bytes(content)


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_images(image: Path, packer: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = image.read_bytes()
    packed = tmp_path / "packed.fits.gz"
    packed.write_bytes(packer(content))
    assert check_arrived(packed) == "image"
    shorten(packed, packed.stat().st_size - 20)
    with pytest.raises(IncompleteError, match="end mark"):
        check_arrived(packed)
    # Packed when it was cut already.
    packed.write_bytes(packer(content[:9000]))
    with pytest.raises(IncompleteError, match="promise"):
        check_arrived(packed)


def test_damage_is_not_taken_for_a_missing_end(image: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.fits.gz"
    content = bytearray(gzip.compress(image.read_bytes()))
    content[-8] ^= 0xFF
    packed.write_bytes(content)
    with pytest.raises(InputError) as caught:
        check_arrived(packed)
    assert not isinstance(caught.value, IncompleteError)


def test_tile_compressed(image: Path, tmp_path: Path) -> None:
    with fits.open(image) as hdus:
        packed = fits.CompImageHDU(hdus[0].data, hdus[0].header)
    packed.writeto(tmp_path / "sky.fits.fz")
    assert check_arrived(tmp_path / "sky.fits.fz") == "image"
    with pytest.raises(IncompleteError):
        check_arrived(shorten(tmp_path / "sky.fits.fz", 8000))
    # Of the first unit alone, which has no pixels, nothing can be said.
    with pytest.raises(IncompleteError, match="none of its units has data"):
        check_arrived(shorten(tmp_path / "sky.fits.fz", 2880))


def test_cube_and_spectrum(small_sdc2: tuple[Path, object], tmp_path: Path) -> None:
    assert check_arrived(small_sdc2[0] / "sky_ldev_v2.fits") == "cube"
    text = tmp_path / "star.txt"
    text.write_text("# wavelength(Angstrom) flux\n" + "\n".join(f"{4000 + i} {1 + i % 3}" for i in range(50)))
    assert check_arrived(text) == "spectrum"


def test_what_can_never_be_used(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    (tmp_path / "letter.fits").write_text("Dear Sir or Madam")
    plain = write_image(PIXELS, name="plain.fits", CTYPE1=None, CTYPE2=None)
    for path in (tmp_path / "letter.fits", plain):
        with pytest.raises(InputError) as caught:
            check_arrived(path)
        assert not isinstance(caught.value, IncompleteError)
