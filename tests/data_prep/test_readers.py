"""Readers give back what was written in the publishers' formats, and refuse damaged files."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from data_prep.readers import (
    RawDomain,
    RawSplit,
    read_idx,
    read_idx_pair,
    read_npz,
    read_svhn,
    read_usps,
)

MNIST_TRAIN = ("digits/mnist/train-images-idx3-ubyte.gz", "digits/mnist/train-labels-idx1-ubyte.gz")


def assert_same(split: RawSplit, expected: RawSplit) -> None:
    np.testing.assert_array_equal(split.images, expected.images)
    np.testing.assert_array_equal(split.labels, expected.labels)
    assert split.images.dtype == split.labels.dtype == np.uint8


def test_idx_pair_is_read_back(digit_files) -> None:
    images, labels = (digit_files.write("mnist") / name for name in MNIST_TRAIN)
    assert_same(read_idx_pair(images, labels), digit_files.mnist.train)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4), packed=st.booleans())
def test_idx_of_any_shape_is_read_back(tmp_path: Path, shape: list[int], packed: bool) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
    content = header + array.tobytes()
    path = tmp_path / "array-idx"
    path.write_bytes(gzip.compress(content) if packed else content)
    np.testing.assert_array_equal(read_idx(path), array)


def test_svhn_is_read_back_and_its_label_10_is_the_digit_0(digit_files) -> None:
    path = digit_files.write("svhn") / "digits/svhn/train_32x32.mat"
    split = read_svhn(path)
    assert_same(split, digit_files.svhn.train)
    assert 0 in split.labels


def test_usps_is_read_back(digit_files) -> None:
    path = digit_files.write("usps") / "digits/usps/usps.t.bz2"
    assert_same(read_usps(path), digit_files.usps.test)


def test_usps_zero_left_out_of_a_line_is_mid_grey(tmp_path: Path) -> None:
    path = tmp_path / "usps.bz2"
    path.write_bytes(bz2.compress(b"10 2:-1 3:1\n"))
    split = read_usps(path)
    assert split.labels.tolist() == [9]
    assert split.images[0].ravel()[:4].tolist() == [128, 0, 255, 128]


def test_npz_is_read_back(digit_files) -> None:
    domain = read_npz(digit_files.write("meter") / "digits/meter.npz")
    assert_same(domain.train, digit_files.meter.train)
    assert_same(domain.test, digit_files.meter.test)


READERS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "idx": ("mnist", MNIST_TRAIN[0], read_idx),
    "svhn": ("svhn", "digits/svhn/train_32x32.mat", read_svhn),
    "usps": ("usps", "digits/usps/usps.bz2", read_usps),
    "npz": ("meter", "digits/meter.npz", read_npz),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("keep", [0, 0.02, 0.5, 0.97])
def test_truncated_file_is_refused_with_path_and_remedy(
    digit_files, kind: str, keep: float
) -> None:
    name, file, read = READERS[kind]
    path = digit_files.write(name) / file
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match=r"fetch it again|at least one image") as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", READERS)
def test_other_content_is_refused(digit_files, kind: str) -> None:
    name, file, read = READERS[kind]
    path = digit_files.write(name) / file
    path.write_bytes(b"<html>404 not found</html>" * 20)
    with pytest.raises(ValueError, match="fetch it again"):
        read(path)


@pytest.mark.parametrize("kind", READERS)
def test_missing_file_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        READERS[kind][2](tmp_path / "nowhere")


def test_fewer_labels_than_images_are_refused(digit_files) -> None:
    path = digit_files.root / "digits" / "meter.npz"
    train = digit_files.meter.train
    digit_files.meter = RawDomain(RawSplit(train.images, train.labels[:-1]), digit_files.meter.test)
    digit_files.write("meter")
    with pytest.raises(ValueError, match=r"got 20 images and labels of shape \(19,\)"):
        read_npz(path)


def test_empty_split_is_refused(digit_files) -> None:
    path = digit_files.root / "digits" / "meter.npz"
    empty = RawSplit(np.zeros((0, 8, 8), np.uint8), np.zeros(0, np.uint8))
    digit_files.meter = RawDomain(digit_files.meter.train, empty)
    digit_files.write("meter")
    with pytest.raises(ValueError, match="at least one image"):
        read_npz(path)


@pytest.mark.parametrize("labels", [[-1.0, 2.0], [0.5, 1.0], [float("nan"), 1.0], [1.0, 300.0]])
def test_labels_that_are_not_small_whole_numbers_are_refused(
    tmp_path: Path, labels: list[float]
) -> None:
    path = tmp_path / "odd.npz"
    images = np.zeros((2, 4, 4), np.uint8)
    arrays = {"train_images": images, "train_labels": np.array(labels)}
    np.savez(path, **arrays, test_images=images, test_labels=np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match="not whole numbers"):
        read_npz(path)


def test_npz_without_test_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.npz"
    np.savez(path, train_images=np.zeros((1, 4, 4), np.uint8), train_labels=np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="test_images"):
        read_npz(path)


def test_mat_file_of_another_data_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train_32x32.mat"
    savemat(str(path), {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="not an SVHN"):
        read_svhn(path)
