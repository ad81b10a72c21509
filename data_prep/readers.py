"""Readers for digit data sets in the files their publishers ship.

Every reader gives uint8 images, (N, H, W) grey or (N, H, W, 3) colour, and uint8 labels (N,).
A file that is missing raises `FileNotFoundError`, one that is damaged `ValueError` with its path.
"""

import bz2
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from da_compose.storage.files import BROKEN_ARCHIVE

Bytes = NDArray[np.uint8]

IDX_UBYTE = 0x08
USPS_SIDE = 16


class RawSplit(NamedTuple):
    """Images (N, H, W) or (N, H, W, 3) and labels (N,), both uint8, as published."""

    images: Bytes
    labels: Bytes


class RawDomain(NamedTuple):
    """The two official splits of a data set."""

    train: RawSplit
    test: RawSplit


def read_idx(path: Path) -> Bytes:
    """Array of one idx file of unsigned bytes, gzipped or not (MNIST's format)."""
    with _reading(path, "an idx file of unsigned bytes"):
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != IDX_UBYTE:
                raise ValueError(f"its magic number is {magic.hex() or 'missing'}")
            shape = tuple(int(n) for n in np.frombuffer(file.read(4 * magic[3]), dtype=">u4"))
            most = prod(shape)
            content = file.read(most + 1)  # one more, to see that there is none
        if len(shape) != magic[3] or len(content) != most:
            came = "more" if len(content) > most else f"{len(content)} bytes"
            raise ValueError(f"its header promises shape {shape}, {came} came")
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def read_idx_pair(images: Path, labels: Path) -> RawSplit:
    """One split kept as an idx file of images and an idx file of labels."""
    return checked_split(RawSplit(read_idx(images), read_idx(labels)), str(images))


def read_svhn(path: Path) -> RawSplit:
    """One split of SVHN's cropped digits (`train_32x32.mat`), whose label 10 means the digit 0."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    with _reading(path, "an SVHN .mat file with X (32, 32, 3, N) and y (N, 1)", MatReadError):
        content = loadmat(str(path), variable_names=("X", "y"))
        images = np.ascontiguousarray(np.moveaxis(content["X"], -1, 0))  # (N, 32, 32, 3)
        return _split(images, np.ravel(content["y"]) % 10, path)


def read_usps(path: Path) -> RawSplit:
    """One split of USPS in libsvm's text format (`usps.bz2`): labels 1..10, values in [-1, 1]."""
    from sklearn.datasets import load_svmlight_file

    with (
        _reading(path, "a bzip2 file of libsvm lines with 256 values in [-1, 1]"),
        bz2.open(path) as f,
    ):
        values, labels = load_svmlight_file(f, n_features=USPS_SIDE**2)[:2]
        pixels = np.rint((values.toarray() + 1) * 127.5)  # libsvm leaves zeros out: mid grey
        return _split(pixels.reshape(-1, USPS_SIDE, USPS_SIDE), labels - 1, path)


def read_npz(path: Path) -> RawDomain:
    """Both splits from `train_images`, `train_labels`, `test_images`, `test_labels`."""
    what = "an .npz with train_images, train_labels, test_images, test_labels"
    with _reading(path, what), path.open("rb") as file, np.load(file) as content:
        return RawDomain(
            train=_split(content["train_images"], content["train_labels"], path),
            test=_split(content["test_images"], content["test_labels"], path),
        )


def checked_split(split: RawSplit, where: str) -> RawSplit:
    """The split itself, or `ValueError` where images and labels are empty or do not fit."""
    images, labels = split
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise ValueError(
            f"{where}: expected images (N, H, W) or (N, H, W, 3), got shape {images.shape}; "
            "save grey images without a channel axis, colour ones with channels last"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{where}: expected one label an image, got {len(images)} images and labels of "
            f"shape {labels.shape}; do the two belong to the same split?"
        )
    if 0 in images.shape:
        raise ValueError(
            f"{where}: expected at least one image, got images of shape {images.shape}; "
            "fetch or make the data set again"
        )
    return split


def _split(images: np.ndarray, labels: np.ndarray, path: Path) -> RawSplit:
    """Whole numbers 0..255 of any dtype as a checked split; anything else is refused."""
    arrays = []
    for name, values in (("images", images), ("labels", labels)):
        if values.dtype != np.uint8:
            if not np.all((values >= 0) & (values <= 255) & (values == np.rint(values))):
                raise ValueError(f"its {name} ({values.dtype}) are not whole numbers in 0..255")
            values = values.astype(np.uint8)
        arrays.append(values)
    return checked_split(RawSplit(*arrays), str(path))


@contextmanager
def _reading(path: Path, what: str, *damage: type[Exception]) -> Iterator[None]:
    """Turn the many ways a damaged file fails into one `ValueError` with path and remedy."""
    if not path.is_file():
        raise FileNotFoundError(f"expected {what} at {path}, found no file; check the path")
    try:
        yield
    except PermissionError:
        raise
    except (*BROKEN_ARCHIVE, TypeError, *damage) as error:
        raise ValueError(
            f"{path} is damaged or not {what}: {error}. Delete it and fetch it again"
        ) from error
