"""Images in every form that is read: of each the form, and what a slow reader makes of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

Held = list[NDArray[Any]]  # one image each: uint8 or float, (H, W) or (H, W, 3)


@dataclass
class Drawn:
    """Images to be given in some form, and choices of the form by a generator.

    pictures: whether they were given as pictures, which are read in colour; paths: as files.
    """

    images: Held
    folder: Path  # for files
    random: Generator
    pictures: bool = False
    paths: bool = False

    @property
    def alike(self) -> bool:
        """Whether all are of one size, grey or colour, and so fit into one array."""
        return len({image.shape for image in self.images}) == 1

    @property
    def grey(self) -> bool:
        return self.images[0].ndim == 2

    def chance(self) -> bool:
        return bool(self.random.random() < 0.5)


class Rows(Dataset[Any]):
    """A data set of items as they are."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        return self.items[place]


class Stream(IterableDataset[Any]):
    """A data set that only goes on."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class LongStream(Stream):
    """One that also says how long it is."""

    def __len__(self) -> int:
        return len(self.items)


def array(drawn: Drawn) -> Any:
    """(M, H, W), (M, H, W, C) or (M, C, H, W); contiguous or not, writable or not."""
    stacked = np.stack(drawn.images)
    if drawn.grey and (len(stacked) == 3 or drawn.chance()):  # three grey ones need the axis
        stacked = stacked[..., None]
    if stacked.ndim == 4 and drawn.chance():
        stacked = np.moveaxis(stacked, -1, 1)
    if drawn.chance():
        stacked = np.repeat(stacked, 2, axis=0)[::2]
    if stacked.dtype != np.uint8 and drawn.chance():
        stacked = stacked.astype(stacked.dtype.newbyteorder(">"))
    stacked.flags.writeable = drawn.chance()
    return stacked


def tensor(drawn: Drawn) -> torch.Tensor:
    """Likewise; now and then with a gradient."""
    made = torch.from_numpy(np.ascontiguousarray(_native(array(drawn))).copy())
    if made.is_floating_point() and drawn.chance():
        made.requires_grad_()
    return made


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("="))


def items(drawn: Drawn) -> list[Any]:
    """Each image as an array, a tensor, a picture or a path; alone, first of a pair, in a mapping.

    Pictures and paths of uint8 images alone.
    """
    files = drawn.images[0].dtype == np.uint8
    form = drawn.random.choice(["array", "tensor", *(["picture", "path"] if files else [])])
    drawn.pictures, drawn.paths = form in ("picture", "path"), form == "path"
    around = drawn.random.choice(["nothing", "pair", "list", "image", "img"])
    made = []
    for number, image in enumerate(drawn.images):
        one = _one(drawn, image, str(form), number)
        wrapped = {"nothing": one, "pair": (one, number), "list": [one, number]}
        made.append(wrapped.get(str(around), {str(around): one, "label": number}))
    return made


def _one(drawn: Drawn, image: NDArray[Any], form: str, number: int) -> Any:
    if form == "picture":
        return Image.fromarray(image)
    if form == "path":
        path = drawn.folder / f"{number}.png"
        Image.fromarray(image).save(path)
        return path if drawn.chance() else str(path)
    shaped = image[None] if image.ndim == 2 and drawn.chance() else image
    shaped = np.moveaxis(image, -1, 0) if image.ndim == 3 and drawn.chance() else shaped
    return torch.from_numpy(np.ascontiguousarray(shaped)) if form == "tensor" else shaped


def column(drawn: Drawn) -> Any:
    """A table's column, its index shuffled or with gaps, of a part of the rows."""
    made = items(drawn)
    spread = [one for item in made for one in (item, None)]
    table = pd.DataFrame({"image": pd.Series(spread, dtype=object), "n": range(len(spread))})
    table.index = pd.Index(drawn.random.permutation(len(spread)))
    return table[table["n"] % 2 == 0]["image"]


def loader(drawn: Drawn) -> DataLoader[Any]:
    """A DataLoader of any batches, shuffling or not, of pairs, mappings or images alone."""
    pixels = torch.from_numpy(np.stack([_first(image) for image in drawn.images]))
    labels = torch.arange(len(pixels))
    around = drawn.random.integers(3)
    data: Any = TensorDataset(pixels, labels)
    if around:
        pairs = [pixels[n] if around == 1 else {"image": pixels[n], "label": n} for n in labels]
        data = Rows(pairs)
    collate = list if around == 1 and drawn.chance() else None
    return DataLoader(
        data,
        batch_size=int(drawn.random.integers(1, len(pixels) + 2)),
        shuffle=drawn.chance(),
        drop_last=drawn.chance(),
        collate_fn=collate,
    )


def _first(image: NDArray[Any]) -> NDArray[Any]:
    """Channels first, as torch has them."""
    return np.ascontiguousarray(image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0))


def unbatched(drawn: Drawn) -> DataLoader[Any]:
    """A loader that makes no batches, of rows or of a stream of channels-last images."""
    pairs = [(image, 0) for image in drawn.images]
    return DataLoader(Rows(pairs), batch_size=None, shuffle=drawn.chance())


def archive(drawn: Drawn) -> Path:
    """An `.npz` file."""
    path = drawn.folder / "images.npz"
    name = "images" if drawn.chance() else "train_images"
    arrays: dict[str, Any] = {name: _native(np.stack(drawn.images))}
    np.savez(path, **arrays)
    return path


def folder(drawn: Drawn) -> Path | str:
    """A folder of pictures, in folders or not, their names in order."""
    place = drawn.folder / "pictures"
    for number, image in enumerate(drawn.images):
        path = place / f"{number // 3:03}" / f"{number:03}.{drawn.random.choice(['png', 'bmp'])}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return place if drawn.chance() else str(place)


@dataclass(frozen=True)
class Dress:
    """A form of images; alike: only for images of one shape; files: only for uint8 ones."""

    make: Callable[[Drawn], Any]
    alike: bool = False
    files: bool = False


READ: Mapping[str, Dress] = {
    "array": Dress(array, alike=True),
    "tensor": Dress(tensor, alike=True),
    "list": Dress(items),
    "tuple": Dress(lambda drawn: tuple(items(drawn))),
    "Dataset": Dress(lambda drawn: Rows(items(drawn))),
    "DataLoader": Dress(loader, alike=True),
    "DataLoader without batches": Dress(unbatched),
    "IterableDataset": Dress(lambda drawn: Stream(items(drawn))),
    "IterableDataset with a length": Dress(lambda drawn: LongStream(items(drawn))),
    "column of a table": Dress(column),
    "generator": Dress(lambda drawn: (item for item in items(drawn))),
    ".npz": Dress(archive, alike=True),
    "folder": Dress(folder, files=True),
}


def _sampled(drawn: Drawn) -> Any:
    weights = torch.utils.data.WeightedRandomSampler([1.0] * 9, 9)
    return DataLoader(Rows([drawn.images[0]] * 9), sampler=weights)


def _floats(drawn: Drawn) -> NDArray[Any]:
    return np.stack([drawn.images[0].astype(np.float64)] * 2)


def _one_value(drawn: Drawn, value: float) -> NDArray[Any]:
    floats = _floats(drawn) / 300
    floats.reshape(-1)[int(drawn.random.integers(floats.size))] = value
    return floats


REFUSED: Mapping[str, Callable[[Drawn], Any]] = {
    "NaN": lambda drawn: _one_value(drawn, np.nan),
    "infinity": lambda drawn: _one_value(drawn, -np.inf),
    "normalized": lambda drawn: (_floats(drawn) / 255 - 0.5) / 0.2 - 5,
    "0 to 255 as floats": lambda drawn: 5 + _floats(drawn) / 1.1,
    "two channels": lambda drawn: np.zeros((2, 2, 9, 9), np.uint8),
    "five axes": lambda drawn: np.zeros((1, 2, 9, 9, 3), np.uint8),
    "one axis": lambda drawn: drawn.images[0].reshape(-1),
    "three grey or one colour": lambda drawn: np.zeros((3, 9, 9), np.uint8),
    "one image without its axis": lambda drawn: np.zeros((9, 9, 3), np.uint8),
    "text": lambda drawn: np.full((2, 9, 9), "x"),
    "complex": lambda drawn: np.zeros((2, 9, 9), complex),
    "objects": lambda drawn: np.full((2, 9, 9), None),
    "an empty list": lambda drawn: [],
    "no images": lambda drawn: np.zeros((0, 9, 9), np.uint8),
    "no pixels": lambda drawn: np.zeros((2, 0, 9), np.uint8),
    "a mapping": lambda drawn: {"images": drawn.images},
    "a number": lambda drawn: 7,
    "nothing": lambda drawn: None,
    "a table": lambda drawn: pd.DataFrame({"a": [1], "b": [2]}),
    "a list with a hole": lambda drawn: [drawn.images[0], None],
    "a list of batches": lambda drawn: [np.stack(drawn.images[:1] * 2)] * 2,
    "a missing path": lambda drawn: drawn.folder / "nowhere",
    "a missing path in a list": lambda drawn: [drawn.folder / "nowhere.png"],
    "a loader that chooses rows": _sampled,
}
