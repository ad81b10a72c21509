"""Unlabelled target images from whatever a user has: array, tensor, Dataset, file or folder."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader

from da_compose.images import resize

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def read_images(source: Any, size: int) -> NDArray[np.uint8]:
    """Images as uint8 (M, S, S) or (M, S, S, 3), S = size.

    source: uint8 or float (in [0, 1]) array or tensor of shape (M, H, W), (M, H, W, 1 or 3) or
    (M, 1 or 3, H, W); a Dataset or DataLoader of images or (image, label) pairs, whose labels are
    never looked at; a path to a `.npz`, to one picture or to a folder of pictures.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.suffix == ".npz":
            return resize(as_uint8(_read_npz(path)), size)
        return read_pictures(list_pictures(path), size)[0]
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return resize(as_uint8(source), size)
    parts = [resize(as_uint8(part), size) for part in _iterate(source)]
    if not parts:
        raise ValueError("the target has no images; adaptation needs at least one")
    if len({part.ndim for part in parts}) > 1:
        parts = [_as_colour(part) for part in parts]
    return np.concatenate(parts)


def as_uint8(images: NDArray[Any] | torch.Tensor) -> NDArray[np.uint8]:
    """An array or tensor of images as uint8 (M, H, W) or (M, H, W, 3)."""
    array = images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else images
    if array.ndim == 4 and array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        array = np.moveaxis(array, 1, -1)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] != 3):
        raise ValueError(
            "images must have shape (M, H, W), (M, H, W, 3) or (M, 3, H, W), "
            f"got {tuple(images.shape)}; one image needs a leading axis: image[None]"
        )
    if 0 in array.shape:
        raise ValueError(f"the target has no images (shape {tuple(images.shape)})")
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


def list_pictures(path: Path) -> list[Path]:
    """All picture files below a folder, sorted; or the one file that `path` is."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no file or folder at {path}; check the path")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not found:
        raise ValueError(f"no pictures below {path}; looked for {', '.join(sorted(PICTURES))}")
    return found


def read_pictures(paths: Iterable[Path], size: int) -> tuple[NDArray[np.uint8], list[Path]]:
    """Pictures as uint8 (M, S, S, 3), and their paths; unreadable ones are left out and warned of."""
    images, kept, broken = [], [], []
    for path in paths:
        try:
            with Image.open(path) as picture:
                small = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
                images.append(np.asarray(small))
                kept.append(path)
        except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            broken.append(f"{path}: {error}")
    if broken:
        warnings.warn(
            f"{len(broken)} unreadable pictures left out:\n" + "\n".join(broken), stacklevel=2
        )
    if not images:
        raise ValueError(f"none of {len(broken)} pictures could be read; the first: {broken[0]}")
    return np.stack(images), kept


def _read_npz(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path")
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in ("images", "train_images"):
                if key in archive:
                    return archive[key]
            raise ValueError(f"{path} holds {sorted(archive)}, expected `images` or `train_images`")
    except (OSError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is not a whole .npz file ({error}); write it again") from error


def _iterate(source: Any) -> Iterator[NDArray[Any] | torch.Tensor]:
    """Batches of images from a DataLoader, or from a Dataset by its items."""
    if isinstance(source, DataLoader):
        for item in source:
            yield _image_of(item)
        return
    if not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        raise ValueError(
            f"cannot read images from {type(source).__name__}; "
            "give an array, a tensor, a Dataset, a DataLoader, an .npz file or a folder"
        )
    for position in range(len(source)):
        yield _single(_image_of(source[position]))


def _image_of(item: Any) -> Any:
    return item[0] if isinstance(item, (tuple, list)) else item  # a label is dropped unseen


def _single(image: Any) -> NDArray[Any]:
    """One image with a leading axis: (H, W), (H, W, 3) or (3, H, W), or a PIL picture."""
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    return array[None]


def _as_colour(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(images[..., None], 3, axis=-1) if images.ndim == 3 else images
