"""Images from data sets, loaders and other iterables, in their own order; what one item is.

- An item of a data set or of an iterable is one image: (H, W), (H, W, 1 or 3), (1 or 3, H, W), a
  picture of Pillow, or the path of one. It may be the first of a tuple or list, or a mapping's
  `image`; what stands beside it is never looked at.
- What a loader gives is a batch of images, (B, ...), likewise; or, by a `collate_fn` of its own, a
  list of such items. Without batches (`batch_size=None`) it gives the items of its data set.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from da_compose.pictures import read_picture, to_rgb

ACCEPTED = "an array, a tensor, a Dataset, a DataLoader, an .npz file or a folder of pictures"
IMAGE_KEYS = ("image", "images", "img")  # of mappings
COLOUR_OR_GREY = (
    "one colour image or three grey ones? Give image[None] or images[:, None], with an axis each "
    "for images and channels"
)
NUMPYS = (torch.float16, torch.float32, torch.float64)  # of floats
KEPT = ("batch_size", "num_workers", "collate_fn", "timeout", "worker_init_fn",
        "multiprocessing_context", "prefetch_factor")  # fmt: skip


def iterate(source: Any, size: int) -> Iterator[NDArray[Any]]:
    """Batches of images with all axes, (B, H, W, 1 or 3) or (B, 1 or 3, H, W), as many as rows.

    size: to which files are read, as those of a folder are; other images come at their own.
    Raises ValueError for what is no image, and for a loader whose rows are not those of its data.
    """
    if isinstance(source, DataLoader):
        rows, data = 0, source.dataset
        for batch in _of_loader(source, size):
            rows += len(batch)
            yield batch
        if not isinstance(data, IterableDataset) and rows != len(cast(Any, data)):
            raise ValueError(
                f"the DataLoader gave {rows} images of {len(cast(Any, data))} rows, so results "
                "would not belong to them; let its collate_fn give (images, labels), or give the "
                "data set"
            )
        return
    if hasattr(source, "iloc"):  # pandas: by position, whatever the index says
        if getattr(source, "ndim", 1) != 1:
            raise ValueError(f"a table has columns ({[*source][:5]}); give one of them, of images")
        source = list(source)
    indexed = hasattr(source, "__getitem__")
    if isinstance(source, Mapping) or not (indexed or isinstance(source, Iterable)):
        raise ValueError(f"cannot read images from {type(source).__name__}; give {ACCEPTED}")
    if indexed and hasattr(source, "__len__") and not isinstance(source, IterableDataset):
        data: Any = source
        source = (data[position] for position in range(len(data)))
    elif indexed and not isinstance(source, Iterable):  # without a length: to the IndexError
        source = iter(cast(Any, source))
    for item in source:
        yield _alone(image_of(item, size))


def paths_of(source: Any) -> list[Path] | None:
    """The paths of a list, tuple or column whose items are all pictures' paths, or pairs with one.

    None of anything else.
    """
    if not (isinstance(source, (list, tuple)) or getattr(source, "ndim", 0) == 1):
        return None
    found = [_first(item) for item in source]
    if found and all(isinstance(one, (str, Path)) for one in found):
        return [Path(one) for one in found]
    return None


def image_of(item: Any, size: int) -> NDArray[Any]:
    """The one image of an item: (H, W), (H, W, 1 or 3) or (1 or 3, H, W); a file's at `size`."""
    image = _first(item)
    if isinstance(image, (str, Path)):
        return read_picture(Path(image), size)
    if isinstance(image, Image.Image):
        return np.asarray(to_rgb(image))
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(
            f"an item must be an image (array, tensor, picture or path), an (image, label) pair or "
            f"a mapping with {IMAGE_KEYS[0]!r}, got {_named(image)}"
        )
    if image.ndim not in (2, 3):
        raise ValueError(
            f"an item must be one image, (H, W), (H, W, 3) or (3, H, W), got {tuple(image.shape)}; "
            "give a batch as an array, a tensor or by a DataLoader"
        )
    return as_array(image)


def as_array(images: NDArray[Any] | torch.Tensor) -> NDArray[Any]:
    """A tensor as an array; precision that numpy lacks as float32. ValueError where it is none."""
    if isinstance(images, np.ma.MaskedArray) and np.ma.is_masked(images):
        raise ValueError("some values of the array are masked; fill them: array.filled(0)")
    if not isinstance(images, torch.Tensor):
        return images
    try:
        held = images.detach().cpu().resolve_neg()
        precise = held.dtype in NUMPYS or not held.dtype.is_floating_point
        return (held if precise else held.float()).numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized or meta
        raise ValueError(
            f"a tensor of {images.dtype} and {images.layout} on {images.device} is no array of "
            f"numbers ({str(error).splitlines()[0]}); make it a dense one"
        ) from error


def labels_of(labels: Any) -> NDArray[Any]:
    """Labels of any kind as an array; texts as such, whatever holds them."""
    if isinstance(labels, torch.Tensor):
        return as_array(labels)
    if isinstance(labels, (list, tuple)):
        labels = [one.item() if isinstance(one, torch.Tensor) else one for one in labels]
    found = np.asarray(labels)
    texts = found.dtype == object and all(isinstance(one, str) for one in found.reshape(-1))
    return found.astype(str) if texts else found


def _of_loader(loader: DataLoader[Any], size: int) -> Iterator[NDArray[Any]]:
    batched = loader.batch_sampler is not None or loader.batch_size is not None
    streams = isinstance(loader.dataset, IterableDataset)
    usual = loader.collate_fn is default_collate
    for item in _in_order(loader):
        if not batched:
            yield _of_stream(item, size) if streams else _alone(image_of(item, size))
        elif usual or not isinstance(item, (tuple, list)):
            yield _whole(item)
        else:
            yield from _of_list(item, size)


def _in_order(loader: DataLoader[Any]) -> Iterable[Any]:
    """A loader of all rows of the same data, in their order, that leaves global generators alone.

    Raises ValueError where a sampler or a class of the user's own may choose other rows.
    """
    chooser: Any = loader.batch_sampler if loader.batch_size is None else loader.sampler
    if chooser is None:  # neither batches nor a sampler of batches
        chooser = loader.sampler
    data: Any = loader.dataset
    shuffles = type(chooser) is RandomSampler and not chooser.replacement
    known = shuffles or type(chooser) is SequentialSampler
    if not isinstance(data, IterableDataset) and not (known and len(chooser) == len(data)):
        raise ValueError(
            f"the DataLoader's {type(chooser).__name__} chooses rows and their order, so results "
            "would not belong to the data set's rows; give the data set, or a Subset of it"
        )
    if type(loader).__iter__ is not DataLoader.__iter__:
        if loader.drop_last or shuffles:
            raise ValueError(
                f"a {type(loader).__name__} that shuffles or drops the last batch is not read, as "
                "rows would be lost; give its data set"
            )
        return loader
    kept = {name: getattr(loader, name) for name in KEPT}
    if isinstance(data, IterableDataset):  # each worker would give all of it, or in another order
        kept = {name: kept[name] for name in ("batch_size", "collate_fn")}
    return DataLoader(data, generator=torch.Generator(), **kept)


def _of_stream(item: Any, size: int) -> NDArray[Any]:
    """What a loader without batches passes on: one image, or a batch."""
    image = _first(item)
    if not isinstance(image, (np.ndarray, torch.Tensor)) or image.ndim < 3:
        return _alone(image_of(item, size))
    if image.ndim > 3:
        return _whole(image)
    channels_last = image.shape[-1] in (1, 3)
    if image.shape[0] == 3 and not channels_last:
        raise ValueError(f"the DataLoader gives {tuple(image.shape)}: {COLOUR_OR_GREY}")
    return _alone(as_array(image)) if channels_last else _whole(image)


def _of_list(items: tuple[Any, ...] | list[Any], size: int) -> Iterator[NDArray[Any]]:
    """What a `collate_fn` of the user's own made of a batch: images, pairs, or both apart."""
    first = items[0] if items else None
    if all(map(_is_image, items)):
        yield from (_alone(image_of(item, size)) for item in items)
    elif isinstance(first, (tuple, list)) and all(map(_is_image, first)):
        if any(isinstance(other, (tuple, list)) and other and _is_image(other[0])
               for other in items[1:]):  # fmt: skip
            raise ValueError(
                "the DataLoader gives several lists of pictures: are they pairs, or images and "
                "their masks? Give the data set itself"
            )
        yield from (_alone(image_of(item, size)) for item in first)
    elif all(isinstance(item, (tuple, list, Mapping)) for item in items):
        yield from (_alone(image_of(item, size)) for item in items)
    else:
        yield _whole(items)


def _first(item: Any) -> Any:
    """The image of an item, or the images of a batch, apart from what stands beside."""
    if isinstance(item, (tuple, list)) and item:
        return item[0]
    if isinstance(item, Mapping):
        return next((item[key] for key in IMAGE_KEYS if key in item), item)
    return item


def _whole(item: Any) -> NDArray[Any]:
    """A batch of images (B, ...); grey ones get an axis of channels."""
    images = _first(item)
    if not isinstance(images, (np.ndarray, torch.Tensor)):
        raise ValueError(
            f"a batch must be images (array or tensor), an (images, labels) pair or a mapping with "
            f"{IMAGE_KEYS[0]!r}, got {_named(images)}"
        )
    array = as_array(images)
    return array[:, None] if array.ndim == 3 else array


def _alone(image: NDArray[Any]) -> NDArray[Any]:
    """One image as a batch of one, with an axis of channels."""
    return image[None, None] if image.ndim == 2 else image[None]


def _is_image(value: Any) -> bool:
    if isinstance(value, Image.Image):
        return True
    if not isinstance(value, (np.ndarray, torch.Tensor)):
        return False
    channels = value.ndim == 3 and bool({1, 3} & {value.shape[0], value.shape[-1]})
    return value.ndim == 2 or channels


def _named(value: Any) -> str:
    keys = f" with {[*value][:5]}" if isinstance(value, Mapping) else ""
    return type(value).__name__ + keys
