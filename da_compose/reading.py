"""Unlabelled target images from whatever a user has: array, tensor, Dataset, file or folder."""

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from da_compose.archives import image_parts, is_archive
from da_compose.folders import list_pictures
from da_compose.images import NEARLY_BLACK, of_floats, resize
from da_compose.items import ACCEPTED, COLOUR_OR_GREY, as_array, iterate, paths_of
from da_compose.pictures import BrokenPicture, named, read_all
from da_compose.progress import phase

IN_MEMORY = 64 * 2**20  # bytes of pictures; more of them lie in a temporary file


def read_images(source: Any, size: int) -> NDArray[np.uint8]:
    """Images as uint8 (M, S, S) or (M, S, S, 3), S = size; a word where all are nearly black.

    source: uint8 or float (in [0, 1]) array or tensor of shape (M, H, W), (M, H, W, 1 or 3) or
    (M, 1 or 3, H, W), where a last axis of 1 or 3 is always the channels; a Dataset, DataLoader,
    list, column of a table or iterable, of images, pictures, paths, (image, label) pairs or
    mappings with `image` (`da_compose.items`), whose labels are never looked at; a path to a `.npz`
    with `images` or `train_images`, to one picture or to a folder of pictures.
    Rows are those of the source in its order, of a DataLoader those of its data set, also where it
    shuffles or drops the last batch; torch's global generator is left alone.
    Many pictures come memory-mapped, from a temporary file that is gone with the array.
    """
    if isinstance(source, (str, Path)):
        if not str(source):
            raise ValueError(f"expected images, got an empty text; give {ACCEPTED}")
        if is_archive(Path(source)):
            return read_archive(Path(source), size)
        return read_pictures(list_pictures(Path(source)), size)[0]
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return _small([source], size)
    paths = paths_of(source)
    return _small(iterate(source, size), size) if paths is None else _of_paths(paths, size)


def read_archive(path: Path, size: int, name: str = "images") -> NDArray[np.uint8]:
    """Images of an `.npz` by name, or as `train_<name>`, as of `read_images`."""
    return _small(image_parts(path, name), size)


def _small(parts: Iterable[Any], size: int) -> NDArray[np.uint8]:
    """Images of all parts at size x size; in colour where some are."""
    small = [resize(as_uint8(part), size) for part in parts]
    if not small:
        raise ValueError("the target has no images; adaptation needs at least one")
    if len({part.ndim for part in small}) > 1:
        small = [_as_colour(part) for part in small]
    images = small[0] if len(small) == 1 else np.concatenate(small)
    warn_of_darkness(len(images), int(images.max()))
    return images


def as_uint8(images: NDArray[Any] | torch.Tensor) -> NDArray[np.uint8]:
    """An array or tensor of images as uint8 (M, H, W) or (M, H, W, 3)."""
    array = as_array(images)
    if array.ndim == 4 and array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        array = np.moveaxis(array, 1, -1)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    one_image = images.ndim == 3 and images.shape[-1] in (1, 3) and min(images.shape[:2]) > 3
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] != 3) or one_image:
        raise ValueError(
            "images must have shape (M, H, W), (M, H, W, 3) or (M, 3, H, W), "
            f"got {tuple(images.shape)}; one image needs a leading axis: image[None]"
        )
    if images.ndim == 3 and len(array) == 3 and min(array.shape[1:]) > 3:
        raise ValueError(f"{tuple(images.shape)}: {COLOUR_OR_GREY}")
    if 0 in array.shape:
        raise ValueError(
            f"the target has no images (shape {tuple(images.shape)}); adaptation needs at least one"
        )
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"images must be uint8 in [0, 255] or float in [0, 1], got {array.dtype}")
    return of_floats(array)


def warn_of_darkness(count: int, brightest: int) -> None:
    """Warn where all of `count` images are nearly black: they may have been divided twice."""
    if brightest < NEARLY_BLACK:
        warnings.warn(
            f"the brightest pixel of all {count:,} images is {brightest} of 255, so they are "
            "nearly black; uint8 images go from 0 to 255, float ones from 0 to 1, deeper files "
            "from 0 to 65535: if white is less here, such as 16, or 4095 of 12 bits, give floats: "
            "the values as they were recorded, divided by it once",
            stacklevel=4,
        )


def read_pictures(paths: Sequence[Path], size: int) -> tuple[NDArray[np.uint8], list[Path]]:
    """Readable pictures as uint8 (M, S, S, 3), and their paths; see `picture_batches`."""
    (batch,) = picture_batches(paths, size, max(len(paths), 1))
    return batch


def _of_paths(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """A row for each path, as of `read_pictures`; raises `BrokenPicture` for one without."""
    broken: list[BrokenPicture] = []
    images, _ = _read_some(paths, size, broken)
    if broken:
        raise broken[0]
    warn_of_darkness(len(images), int(images.max()))
    return images


def picture_batches(
    paths: Sequence[Path], size: int, at_once: int
) -> Iterator[tuple[NDArray[np.uint8], list[Path]]]:
    """Readable pictures as uint8 (M, S, S, 3) with their paths, of `at_once` paths at a time.

    After the last one, one warning names every picture that was left out, and says why, and one
    says where all are nearly black; ValueError where none could be read.
    """
    broken: list[BrokenPicture] = []
    brightest = 0
    for start in range(0, len(paths), at_once):
        images, kept = _read_some(paths[start : start + at_once], size, broken)
        if kept:
            brightest = max(brightest, int(images.max()))
            yield images, kept
    if len(broken) == len(paths):
        raise ValueError(
            f"none of {len(broken)} pictures could be read; give pictures or {ACCEPTED}; "
            f"the first: {broken[0] if broken else 'none given'}"
        )
    warn_of_darkness(len(paths) - len(broken), brightest)
    if broken:
        lines = "\n".join(named(broken))
        warnings.warn(f"{len(broken):,} unreadable pictures left out:\n{lines}", stacklevel=2)


def _read_some(
    paths: Sequence[Path], size: int, broken: list[BrokenPicture]
) -> tuple[NDArray[np.uint8], list[Path]]:
    """Pictures (M, S, S, 3) and their paths; what cannot be read is added to `broken`."""
    kept = []
    with (
        tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file,
        phase("reading pictures", len(paths)) as reading,
    ):
        for path, found in zip(paths, read_all(paths, size), strict=True):
            reading.advance()
            if isinstance(found, BrokenPicture):
                broken.append(found)
            else:
                _write(file, found)
                kept.append(path)
        shape = (len(kept), size, size, 3)
        if file.tell() > IN_MEMORY:
            file.flush()
            return np.memmap(file, np.uint8, "r+", shape=shape), kept
        file.seek(0)
        return np.frombuffer(bytearray(file.read()), np.uint8).reshape(shape), kept


def _write(file: IO[bytes], image: NDArray[np.uint8]) -> None:
    try:
        file.write(image.data)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; pictures need more room than {tempfile.gettempdir()} has: "
            "set TMPDIR to another folder",
        ) from error


def _as_colour(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(images[..., None], 3, axis=-1) if images.ndim == 3 else images
