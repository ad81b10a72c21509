from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from da_compose.reading import as_uint8, read_images

SIZE = 8
COLOUR = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
FLOAT = (COLOUR / 255).astype(np.float32)


class Untouchable:
    """A label that may be passed over but not used."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("a label was looked at")


class Items(Dataset):
    """A map-style data set of given items."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        return self.items[position]


class NoLength(Dataset):
    """Ends where its items do."""

    def __getitem__(self, position: int) -> Any:
        return COLOUR[position]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.from_numpy(COLOUR))


class Batches(IterableDataset):
    def __iter__(self):
        return iter(torch.from_numpy(GREY).split(4))


class Counted(Stream):
    def __len__(self) -> int:
        return len(COLOUR)


def first(images: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(images, -1, 1)


COLOUR_SOURCES: dict[str, Any] = {
    "uint8 array": COLOUR,
    "float array": FLOAT,
    "float64 array": COLOUR / 255,
    "channels-first array": first(COLOUR),
    "uint8 tensor": torch.from_numpy(COLOUR),
    "channels-first float tensor": torch.from_numpy(first(FLOAT)),
    "tensor with a gradient": torch.from_numpy(FLOAT).requires_grad_(),
    "dataset of arrays": Items(COLOUR),
    "dataset of channels-first tensors": Items(torch.from_numpy(first(COLOUR))),
    "dataset of pictures": Items([Image.fromarray(image) for image in COLOUR]),
    "dataset of pairs": Items([(image, Untouchable()) for image in FLOAT]),
    "list of pairs": [[image, 3] for image in first(COLOUR)],
    "tensor dataset": TensorDataset(torch.from_numpy(COLOUR), torch.arange(5)),
    "loader of images": DataLoader(Items(torch.from_numpy(COLOUR)), batch_size=2),
    "loader of pairs": DataLoader(TensorDataset(torch.from_numpy(FLOAT), torch.arange(5)), 2),
    "loader of channels-first": DataLoader(Items(torch.from_numpy(first(FLOAT))), batch_size=3),
    "loader without batches": DataLoader(Items(torch.from_numpy(first(COLOUR))), batch_size=None),
    "loader of a stream": DataLoader(Stream(), batch_size=2),
    "loader of a stream that drops the last": DataLoader(Stream(), batch_size=2, drop_last=True),
    "shuffling loader": DataLoader(Items(torch.from_numpy(COLOUR)), batch_size=2, shuffle=True),
    "loader that drops the last": DataLoader(Items(COLOUR), batch_size=2, drop_last=True),
    "loader of lists": DataLoader(Items(first(FLOAT)), batch_size=2, collate_fn=list),
    "loader of lists of one": DataLoader(Items(first(FLOAT)), batch_size=1, collate_fn=list),
    "loader of lists of pairs": DataLoader(
        Items([(image, 1) for image in COLOUR]), batch_size=2, collate_fn=list
    ),
    "loader of images and labels apart": DataLoader(
        Items([(image, 1) for image in COLOUR]),
        batch_size=2,
        collate_fn=lambda items: tuple(zip(*items, strict=True)),
    ),
    "loader of mappings": DataLoader(
        Items([{"label": 1, "image": image} for image in COLOUR]), batch_size=3
    ),
    "dataset of mappings": Items(
        [{"image": Image.fromarray(image), "label": Untouchable()} for image in COLOUR]
    ),
    "list of arrays": [*COLOUR],
    "dataset without a length": NoLength(),
    "list of tensors": [*torch.from_numpy(first(FLOAT))],
    "list of pictures": [Image.fromarray(image) for image in COLOUR],
    "column of a table": pd.Series([*COLOUR], index=[7, 3, 5, 1, 0]),
    "sampled column": pd.Series([COLOUR[0], *COLOUR])[1:],
    "stream with a length": Counted(),
    "stream": Stream(),
    "generator": lambda: (image for image in COLOUR),
}
GREY_SOURCES: dict[str, Any] = {
    "array": GREY,
    "channels-last array": GREY[..., None],
    "channels-first tensor": torch.from_numpy(GREY[:, None]),
    "float tensor": torch.from_numpy(GREY / 255),
    "dataset of (H, W)": Items(GREY),
    "dataset of (1, H, W)": Items(GREY[:, None]),
    "dataset of (H, W, 1)": Items(GREY[..., None]),
    "loader": DataLoader(Items(torch.from_numpy(GREY[:, None])), batch_size=4),
    "loader of batches of three": DataLoader(TensorDataset(torch.from_numpy(GREY)), batch_size=3),
    "loader of lists": DataLoader(Items(torch.from_numpy(GREY[:, None])), 2, collate_fn=list),
    "stream in batches": DataLoader(Batches(), batch_size=None),
    "read-only memory": np.frombuffer(GREY.tobytes(), np.uint8).reshape(GREY.shape),
}


@pytest.mark.parametrize("kind", COLOUR_SOURCES)
def test_every_kind_and_layout_gives_the_same_colour_images(kind: str):
    source = COLOUR_SOURCES[kind]
    before = torch.get_rng_state()
    np.testing.assert_array_equal(
        read_images(source() if callable(source) else source, SIZE), COLOUR
    )
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", GREY_SOURCES)
def test_every_kind_and_layout_gives_the_same_grey_images(kind: str):
    np.testing.assert_array_equal(read_images(GREY_SOURCES[kind], SIZE), GREY)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_to_its_own_accuracy(dtype: torch.dtype):
    found = read_images(torch.from_numpy(FLOAT).to(dtype), SIZE)
    assert np.abs(found.astype(int) - COLOUR).max() <= 1


def test_grey_and_colour_items_may_be_mixed():
    found = read_images(Items([COLOUR[0], GREY[1]]), SIZE)
    np.testing.assert_array_equal(found[0], COLOUR[0])
    np.testing.assert_array_equal(found[1], np.repeat(GREY[1][..., None], 3, axis=-1))


def test_items_of_unequal_sizes_are_resized():
    assert read_images(Items([COLOUR[0], np.zeros((20, 9, 3), np.uint8)]), 6).shape == (2, 6, 6, 3)


def test_a_last_axis_of_three_is_the_channels_even_of_images_three_rows_high():
    images = COLOUR[:2, :3, :3]
    np.testing.assert_array_equal(read_images(images, 3), images)


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (COLOUR[0], "leading axis"),
        (COLOUR[0, 0], "must have shape"),
        (COLOUR[None], "must have shape"),
        (np.zeros((5, 8, 8, 4), np.uint8), r"got \(5, 8, 8, 4\)"),
        (COLOUR[:0], "no images"),
        (np.zeros((5, 0, 8), np.uint8), "no images"),
        (GREY.astype(np.int64), "got int64"),
        (GREY.astype(np.uint16), "got uint16"),
        (GREY > 100, "got bool"),
        (GREY.astype(object), "got object"),
        (GREY.astype(np.float32), r"divide by the largest value a pixel may have, such as 16, 255"),
        (GREY / 127.5 - 1, "undo the normalization"),
        (GREY / 1000 - 0.13, "undo the normalization"),
        (np.full((2, 8, 8), np.nan), "finite"),
        (np.full((2, 8, 8), np.inf), "finite"),
    ],
)
def test_wrong_arrays_are_refused_with_what_was_expected(images: NDArray[Any], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        as_uint8(images)
    if images.dtype not in (np.dtype(object), np.dtype(np.uint16)):
        with pytest.raises(ValueError, match=complaint):
            read_images(torch.from_numpy(images), SIZE)


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (np.ma.masked_greater(COLOUR, 250), r"masked; fill them: array\.filled\(0\)"),
        (torch.from_numpy(FLOAT).to_sparse(), "sparse_coo on cpu is no array of numbers"),
        (torch.empty(5, 8, 8, 3, device="meta"), "on meta is no array of numbers"),
    ],
)
def test_what_has_no_value_for_each_pixel_is_refused(images: Any, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        read_images(images, SIZE)


def test_tensors_of_any_precision_and_sign_are_read():
    negated = torch._neg_view(  # pyright: ignore[reportPrivateImportUsage]
        -torch.from_numpy(FLOAT)
    )
    np.testing.assert_array_equal(read_images(negated, SIZE), COLOUR)
    coarse = read_images(torch.from_numpy(FLOAT).to(torch.float8_e4m3fn), SIZE)
    assert np.abs(coarse.astype(int) - COLOUR).max() <= 255 / 16


def test_workers_of_a_stream_do_not_give_its_images_twice():
    loader = DataLoader(Stream(), batch_size=2, num_workers=2)
    np.testing.assert_array_equal(read_images(loader, SIZE), COLOUR)


@pytest.mark.parametrize("source", [None, 5, {"images": COLOUR}])
def test_what_holds_no_images_is_refused_with_what_is_accepted(source: Any):
    with pytest.raises(ValueError, match="give an array, a tensor, a Dataset"):
        read_images(source, SIZE)


@pytest.mark.parametrize("item", [{"x": COLOUR[0]}, 3, (), None, COLOUR[:2], np.zeros(3)])
def test_items_that_are_no_images_are_refused(item: Any):
    with pytest.raises(ValueError, match="an item must be"):
        read_images(Items([item]), SIZE)


@pytest.mark.parametrize("kind", [list, tuple, pd.Series, "pairs", "mappings"])
def test_paths_give_the_same_as_their_folder(tmp_path: Path, kind: Any):
    large = np.random.default_rng(0).integers(0, 256, (3, 150, 200, 3), dtype=np.uint8)
    for number, image in enumerate(large):
        Image.fromarray(image).save(tmp_path / f"{number}.jpg")
    paths = sorted(tmp_path.iterdir())
    sources = {"pairs": [(path, 1) for path in paths], "mappings": [{"image": p} for p in paths]}
    source = sources[kind] if isinstance(kind, str) else kind(paths)
    np.testing.assert_array_equal(read_images(source, SIZE), read_images(tmp_path, SIZE))


def test_paths_are_read_in_their_order_or_refused(tmp_path: Path):
    for number in (0, 1):
        Image.fromarray(COLOUR[number]).save(tmp_path / f"{number}.png")
    paths = [tmp_path / "1.png", str(tmp_path / "0.png")]
    np.testing.assert_array_equal(read_images(paths, SIZE), COLOUR[[1, 0]])
    with pytest.raises(ValueError, match=r"2\.png: No such file"):
        read_images([*paths, tmp_path / "2.png"], SIZE)


def test_a_table_is_asked_for_one_column():
    with pytest.raises(ValueError, match=r"a table has columns \(\['x', 'y'\]\); give one"):
        read_images(pd.DataFrame({"x": [1], "y": [2]}), SIZE)


THREE = np.stack([GREY[0]] * 3)


class Threes(IterableDataset):
    def __iter__(self):
        return iter([torch.from_numpy(THREE)] * 2)


@pytest.mark.parametrize(
    "source", [THREE, torch.from_numpy(THREE / 255), DataLoader(Threes(), batch_size=None)]
)
def test_one_colour_image_or_three_grey_ones_are_told_apart_by_the_user(source: Any):
    with pytest.raises(ValueError, match=r"Give image\[None\] or images\[:, None\]"):
        read_images(source, SIZE)


@pytest.mark.parametrize(
    "sampler",
    [SubsetRandomSampler([0, 1]), WeightedRandomSampler([1.0] * 5, 5),
     SequentialSampler(COLOUR[:3]), RandomSampler(COLOUR[:3]),
     RandomSampler(COLOUR, replacement=True), RandomSampler(COLOUR, num_samples=3)],
)  # fmt: skip
def test_a_sampler_that_chooses_rows_is_refused(sampler: Any):
    with pytest.raises(ValueError, match=r"chooses rows and their order.*or a Subset"):
        read_images(DataLoader(Items(COLOUR), batch_size=2, sampler=sampler), SIZE)
    batches = BatchSampler(sampler, 2, drop_last=False)
    with pytest.raises(ValueError, match="chooses rows"):
        read_images(DataLoader(Items(COLOUR), batch_sampler=batches), SIZE)


def test_lists_of_pictures_beside_pictures_are_refused():
    pairs = Items([(image, image[..., 0]) for image in COLOUR])
    with pytest.raises(ValueError, match="are they pairs, or images and their masks"):
        read_images(DataLoader(pairs, batch_size=2, collate_fn=list), SIZE)


def test_as_many_images_as_rows_are_read_or_none():
    pairs = TensorDataset(torch.from_numpy(GREY), torch.from_numpy(GREY))  # images and masks
    loader = DataLoader(pairs, batch_size=4, collate_fn=lambda rows: default_collate(rows))
    with pytest.raises(ValueError, match="gave 6 images of 5 rows"):  # the last batch is of one
        read_images(loader, SIZE)


@pytest.mark.parametrize("beyond", [1e-7, 5e-4, 0.086, 0.24])
def test_what_resizing_puts_beyond_the_range_is_cut(beyond: float):
    images = FLOAT.copy()
    images[0, 0, 0], images[1, 1, 1] = -beyond, 1 + beyond
    expected = COLOUR.copy()
    expected[0, 0, 0], expected[1, 1, 1] = 0, 255
    np.testing.assert_array_equal(read_images(images, SIZE), expected)


@pytest.mark.parametrize(
    "images",
    [GREY // 16, (GREY > 100).astype(np.uint8), FLOAT / 255, (COLOUR // 64).astype(np.uint8)],
)
def test_images_that_are_nearly_black_are_said_to_be(images: NDArray[Any], tmp_path: Path):
    np.savez(tmp_path / "target.npz", images=images)
    for source in (images, torch.from_numpy(images), [*images], tmp_path / "target.npz"):
        with pytest.warns(UserWarning, match=r"brightest pixel of all 5 images is \d+ of 255"):
            read_images(source, SIZE)


def test_an_empty_text_is_not_the_folder_one_is_in():
    with pytest.raises(ValueError, match="got an empty text; give an array"):
        read_images("", SIZE)


@pytest.mark.parametrize("source", [[], DataLoader(Items(COLOUR[:0]), batch_size=2)])
def test_an_empty_data_set_is_refused(source: Any):
    with pytest.raises(ValueError, match="no images"):
        read_images(source, SIZE)


def test_reading_does_not_change_the_source():
    images = COLOUR.copy()
    read_images(images, 4)
    np.testing.assert_array_equal(images, COLOUR)
