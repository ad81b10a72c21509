"""Unlabelled target images from whatever a user has: array, tensor, Dataset, file or folder."""

import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from da_compose.images import resize
from da_compose.pictures import BrokenPicture, list_pictures, read_all, to_rgb
from da_compose.storage.files import BROKEN_ARCHIVE

ACCEPTED = "an array, a tensor, a Dataset, a DataLoader, an .npz file or a folder of pictures"
IN_MEMORY = 64 * 2**20  # bytes of pictures; more of them lie in a temporary file


def read_images(source: Any, size: int) -> NDArray[np.uint8]:
    """Images as uint8 (M, S, S) or (M, S, S, 3), S = size.

    source: uint8 or float (in [0, 1]) array or tensor of shape (M, H, W), (M, H, W, 1 or 3) or
    (M, 1 or 3, H, W), where a last axis of 1 or 3 is always the channels; a Dataset or DataLoader
    of images or (image, label) pairs, whose labels are never looked at; a path to a `.npz` with
    `images` or `train_images`, to one picture or to a folder of pictures.
    A shuffling DataLoader comes in one fixed order, but for one with a generator of its own, and
    leaves torch's global generator alone.
    Many pictures come memory-mapped, from a temporary file that is gone with the array.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.suffix.lower() == ".npz":
            return resize(as_uint8(read_arrays(path, ("images",))[0]), size)
        return read_pictures(list_pictures(path), size)[0]
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return resize(as_uint8(source), size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        parts = [resize(as_uint8(part), size) for part in _iterate(source)]
    if not parts:
        raise ValueError("the target has no images; adaptation needs at least one")
    if len({part.ndim for part in parts}) > 1:
        parts = [_as_colour(part) for part in parts]
    return np.concatenate(parts)


def as_uint8(images: NDArray[Any] | torch.Tensor) -> NDArray[np.uint8]:
    """An array or tensor of images as uint8 (M, H, W) or (M, H, W, 3)."""
    array = _to_array(images)
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
    if 0 in array.shape:
        raise ValueError(
            f"the target has no images (shape {tuple(images.shape)}); adaptation needs at least one"
        )
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"images must be uint8 in [0, 255] or float in [0, 1], got {array.dtype}")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"float images must be finite and lie in [0, 1], got {array.min()} to {array.max()}; "
            "divide by 255, or undo the normalization: the backbone applies its own"
        )
    return (array * 255).round().astype(np.uint8)


def read_pictures(paths: Sequence[Path], size: int) -> tuple[NDArray[np.uint8], list[Path]]:
    """Readable pictures as uint8 (M, S, S, 3), and their paths; see `picture_batches`."""
    (batch,) = picture_batches(paths, size, max(len(paths), 1))
    return batch


def picture_batches(
    paths: Sequence[Path], size: int, at_once: int
) -> Iterator[tuple[NDArray[np.uint8], list[Path]]]:
    """Readable pictures as uint8 (M, S, S, 3) with their paths, of `at_once` paths at a time.

    After the last one, one warning names every picture that was left out, and says why;
    ValueError where none could be read.
    """
    broken: list[str] = []
    for start in range(0, len(paths), at_once):
        images, kept = _read_some(paths[start : start + at_once], size, broken)
        if kept:
            yield images, kept
    if len(broken) == len(paths):
        raise ValueError(
            f"none of {len(broken)} pictures could be read; give pictures or {ACCEPTED}; "
            f"the first: {broken[0] if broken else 'none given'}"
        )
    if broken:
        lines = "\n".join(broken)
        warnings.warn(f"{len(broken):,} unreadable pictures left out:\n{lines}", stacklevel=2)


def _read_some(
    paths: Sequence[Path], size: int, broken: list[str]
) -> tuple[NDArray[np.uint8], list[Path]]:
    """Pictures (M, S, S, 3) and their paths; what cannot be read is added to `broken`."""
    kept = []
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file:
        for path, found in zip(paths, read_all(paths, size), strict=True):
            if isinstance(found, BrokenPicture):
                broken.append(str(found))
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


def read_arrays(path: Path, names: Sequence[str]) -> tuple[NDArray[Any], ...]:
    """Arrays of an `.npz` by name, or as `train_<name>`; ValueError where one is missing."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path")
    found = []
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            held = sorted(archive)
            for name in names:
                key = next((key for key in (name, f"train_{name}") if key in archive), None)
                found.append(None if key is None else archive[key])
    except BROKEN_ARCHIVE as error:
        raise ValueError(
            f"{path} is not a whole .npz file of plain arrays ({error}); "
            "write it again, as np.savez(path, images=images) with uint8 or float images"
        ) from error
    for name, array in zip(names, found, strict=True):
        if array is None:
            raise ValueError(
                f"{path} holds {held}, expected `{name}` or `train_{name}`; rename one"
            )
    return tuple(found)


def _iterate(source: Any) -> Iterator[NDArray[Any] | torch.Tensor]:
    """Batches of images from a DataLoader, or from a Dataset by its items."""
    if isinstance(source, DataLoader):
        for item in source:
            image = _image_of(item)
            single = source.batch_sampler is None and image.ndim < 4  # batching is switched off
            yield image[None] if single else image
        return
    indexed = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    if not indexed or isinstance(source, Mapping):
        raise ValueError(f"cannot read images from {type(source).__name__}; give {ACCEPTED}")
    for position in range(len(source)):
        yield _image_of(source[position])[None]


def _image_of(item: Any) -> NDArray[Any]:
    """The image of an item, which is it or starts with it; a label is dropped unseen."""
    image = item[0] if isinstance(item, (tuple, list)) and item else item
    if isinstance(image, Image.Image):
        return np.asarray(to_rgb(image))
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(
            f"an item must be an image (array, tensor or picture) or an (image, label) pair, "
            f"got {type(image).__name__}"
        )
    return _to_array(image)


def _to_array(images: NDArray[Any] | torch.Tensor) -> NDArray[Any]:
    if not isinstance(images, torch.Tensor):
        return images
    images = images.detach().cpu()
    return (images.float() if images.dtype == torch.bfloat16 else images).numpy()


def _as_colour(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(images[..., None], 3, axis=-1) if images.ndim == 3 else images
