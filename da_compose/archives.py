"""`.npz` archives: arrays by name, images a part at a time."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from da_compose.images import AT_ONCE
from da_compose.storage.files import BROKEN_ARCHIVE


def is_archive(path: Path) -> bool:
    """Whether a path is read as `.npz`."""
    return path.suffix.lower() == ".npz"


def read_array(path: Path, name: str) -> NDArray[Any]:
    """An array of an `.npz` by name, or as `train_<name>`; ValueError where it is missing."""
    with _refusing(path), np.load(path, allow_pickle=False) as archive:
        found = _member(archive.files, name)
        array = None if found is None else archive[found]
        held = sorted(archive.files)
    if array is None:
        raise _lacking(path, name, held)
    return array


def image_parts(path: Path, name: str = "images") -> Iterator[NDArray[Any]]:
    """Images of such an array a few at a time, with all axes; it is never whole in memory."""
    with _refusing(path), zipfile.ZipFile(path) as archive:
        held = sorted(member.removesuffix(".npy") for member in archive.namelist())
    found = _member(held, name)
    if found is None:
        raise _lacking(path, name, held)
    with _refusing(path), zipfile.ZipFile(path) as archive, archive.open(f"{found}.npy") as file:
        yield from map(with_all_axes, _rows(file))


def with_all_axes(images: NDArray[Any]) -> NDArray[Any]:
    """Grey images of an archive, which are several, with an axis of channels: (M, 1, H, W)."""
    grey = images.ndim == 3 and images.shape[-1] not in (1, 3)
    return images[:, None] if grey else images


def _rows(file: IO[bytes]) -> Iterator[NDArray[Any]]:
    """An `.npy` file along its first axis; in one part where its order does not allow more."""
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds objects, not numbers")
    if not shape:
        raise ValueError("it holds one number")
    row = prod(shape[1:])
    step = max(1, shape[0] if by_columns else AT_ONCE // max(row, 1))
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        content = file.read(count * row * dtype.itemsize)
        if len(content) < count * row * dtype.itemsize:
            raise ValueError(f"its images end in row {start + len(content)}")
        part = np.frombuffer(bytearray(content), dtype)  # theirs who asked, to be written to
        order = "F" if by_columns else "C"
        yield part.reshape((count, *shape[1:]), order=order)
    file.read(1)  # its end, where checksums are compared


def _member(held: Sequence[str], name: str) -> str | None:
    return next((key for key in (name, f"train_{name}") if key in held), None)


def _lacking(path: Path, name: str, held: Sequence[str]) -> ValueError:
    also = "" if name.startswith("test_") else f" or `train_{name}`"
    return ValueError(f"{path} holds {held}, expected `{name}`{also}; rename one")


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Whatever a missing, damaged or foreign archive raises, in one line."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path")
    try:
        yield
    except BROKEN_ARCHIVE as error:
        raise ValueError(
            f"{path} is not a whole .npz file of plain arrays ({error}); "
            "write it again, as np.savez(path, images=images) with uint8 or float images"
        ) from error
