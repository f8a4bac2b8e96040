"""MNIST's idx files and CIFAR-10's binary batches, in trees of exactly their layouts."""

import gzip
import pickle

import numpy as np
import pytest

from survey_io.datasets.cifar10 import CLASSES, read_cifar10
from survey_io.datasets.mnist import read_idx, read_mnist
from survey_io.datasets.pictures import Split
from survey_io.errors import InputError


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_mnist(folder, name, count, seed, *, packed=False, dot=False):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    label = rng.integers(0, 10, count, dtype=np.uint8)
    for kind, array in (("images-idx3", pixels), ("labels-idx1", label)):
        file = f"{name}-{kind}-ubyte".replace("-idx", ".idx" if dot else "-idx")
        data = idx(array)
        (folder / (file + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return pixels, label


@pytest.mark.parametrize("packed", [False, True])
def test_published_parts_of_mnist_hold(tmp_path, packed):
    pixels, label = write_mnist(tmp_path, "train", 240, 1, packed=packed)
    tested, _ = write_mnist(tmp_path, "t10k", 40, 2, packed=packed, dot=True)
    digits = read_mnist(tmp_path)
    assert digits.pixels.shape == (280, 28, 28, 1) and digits.channels == 1
    assert (digits.pixels[:240, :, :, 0] == pixels).all() and (digits.label[:240] == label).all()
    assert (digits.part[240:] == "test").all() and (digits.pixels[240:, :, :, 0] == tested).all()
    assert 5 < (digits.part == "validation").sum() < 40 and not (digits.part[:240] == "test").any()


def test_the_test_part_alone_is_parted_by_a_fixed_rule(tmp_path):
    write_mnist(tmp_path, "t10k", 500, 3)
    digits = read_mnist(tmp_path, split=Split(0.08, 0.2))
    assert [(digits.part == one).sum() for one in ("train", "validation", "test")] == [360, 40, 100]
    # Of every order: the first digits are not one part.
    assert len(set(digits.part[:50])) == 3


def test_labels_beyond_nine_are_dropped(tmp_path):
    _, label = write_mnist(tmp_path, "train", 100, 4)
    label[[3, 70]] = (10, 255)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(label))
    digits = read_mnist(tmp_path)
    assert len(digits) == 98 and digits.report.problems[0].examples == ("train/00003", "train/00070")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\0\0\x08", "idx format"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "unsigned bytes"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "expected 5 bytes"),
    ],
)
def test_damaged_idx_files_are_told_of(tmp_path, data, told):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError, match=told):
        read_idx(tmp_path / "a")


def test_a_cut_archive_is_told_of(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(1000))[:-9])
    with pytest.raises(InputError, match="idx format"):
        read_idx(tmp_path / "a.gz")


def test_files_that_are_no_pair_are_told_of(tmp_path):
    write_mnist(tmp_path, "train", 20, 5)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(19, np.uint8)))
    with pytest.raises(InputError, match="not a pair"):
        read_mnist(tmp_path)
    with pytest.raises(InputError, match="train-images-idx3-ubyte"):
        read_mnist(tmp_path.parent / "nowhere")


def write_cifar(folder, name, count, seed):
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    (folder / f"{name}.bin").write_bytes(records.tobytes())
    return records


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
def test_cifar10_is_read_plane_by_plane(tmp_path, inside):
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    batches = [write_cifar(folder, f"data_batch_{k}", 30, k) for k in range(1, 6)]
    tested = write_cifar(folder, "test_batch", 20, 9)
    pictures = read_cifar10(tmp_path)
    assert pictures.classes == CLASSES and len(pictures) == 170
    assert (pictures.part[150:] == "test").all() and (pictures.part == "test").sum() == 20
    assert (pictures.label[30:60] == batches[1][:, 0]).all()
    # Byte 1 + 1024 c + 32 y + x of a record is colour c at (y, x).
    assert pictures.pixels[150, 5, 7, 2] == tested[0, 1 + 2048 + 32 * 5 + 7]


def test_a_picture_of_the_test_batch_in_training_is_dropped_there(tmp_path):
    train, tested = write_cifar(tmp_path, "data_batch_1", 30, 1), write_cifar(tmp_path, "test_batch", 10, 2)
    train[4] = tested[6]
    (tmp_path / "data_batch_1.bin").write_bytes(train.tobytes())
    pictures = read_cifar10(tmp_path)
    assert "data_batch_1/00004" not in pictures.names and "test_batch/00006" in pictures.names
    assert pictures.report.problems[0].count == 1


def test_pickles_are_never_loaded(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": 1}))
    with pytest.raises(InputError, match="only the pickled version for Python is there, which is never loaded"):
        read_cifar10(tmp_path)


def test_a_cut_batch_is_told_of(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3000))
    with pytest.raises(InputError, match="3,000 bytes are no whole number of records of 3073"):
        read_cifar10(tmp_path)


def test_the_real_digits(shared_data):
    digits = read_mnist(shared_data / "mnist_t10k", split=Split(0.08, 0.2))
    assert len(digits) == 10_000 and (digits.part == "test").sum() == 2000
    assert np.bincount(digits.label).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert not digits.report.problems
