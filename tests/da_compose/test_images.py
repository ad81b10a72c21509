import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da_compose import images as images_module
from da_compose.images import (
    PIXEL_MEAN,
    PIXEL_STD,
    ImageSet,
    normalize,
    of_floats,
    resize,
    to_pixels,
)


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 8, 8, 3)])
def test_normalization_can_be_undone(shape: tuple[int, ...]) -> None:
    images = random_images(*shape)
    inputs = normalize(to_pixels(images))
    assert inputs.shape == (5, 3, 8, 8)
    restored = ((inputs * PIXEL_STD + PIXEL_MEAN) * 255).round().byte().permute(0, 2, 3, 1)
    expected = images if len(shape) == 4 else np.repeat(images[..., None], 3, axis=3)
    assert (restored.numpy() == expected).all()


def test_every_pixel_value_survives_normalization() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    restored = (
        ((normalize(to_pixels(images), channels=1) * PIXEL_STD + PIXEL_MEAN) * 255).round().byte()
    )
    assert restored.numpy().ravel().tolist() == list(range(256))


def test_black_is_minus_one_and_white_is_one() -> None:
    images = np.array([0, 255], np.uint8).repeat(4).reshape(2, 2, 2)
    assert normalize(to_pixels(images))[0].unique().tolist() == [-1]
    assert normalize(to_pixels(images))[1].unique().tolist() == [1]


def test_colours_keep_their_channels() -> None:
    images = np.zeros((1, 4, 4, 3), np.uint8)
    images[..., 1] = 255
    pixels = to_pixels(images)
    assert pixels.shape == (1, 3, 4, 4)
    assert pixels.mean(dim=(0, 2, 3)).tolist() == [0, 1, 0]


def test_grey_images_stay_grey_for_a_network_of_one_channel() -> None:
    assert normalize(torch.rand(2, 1, 4, 4), channels=1).shape == (2, 1, 4, 4)


def test_read_only_memory_mapped_images_are_read_without_a_warning(tmp_path: Path) -> None:
    """Prepared domains are; a slice of one is no copy. Warnings are errors here."""
    images = random_images(6, 8, 8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert to_pixels(mapped[2:5]).equal(to_pixels(images[2:5]))
    assert (resize(mapped, 4) == resize(images, 4)).all()


def test_flipped_images_are_read_as_they_look() -> None:
    images = random_images(2, 8, 8)
    assert to_pixels(images[:, :, ::-1]).equal(to_pixels(images).flip(3))
    assert (resize(images[:, :, ::-1], 4) == resize(images[:, :, ::-1].copy(), 4)).all()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8), np.float32),
        np.zeros((2, 8), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),  # channels first
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 8, 8, 3, 1), np.uint8),
    ],
    ids=lambda images: f"{images.dtype} {images.shape}",
)
def test_images_of_another_type_or_shape_are_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"images must be uint8 of shape .* got"):
        ImageSet(images, np.zeros(2, np.int64))


@pytest.mark.parametrize(
    "labels",
    [np.zeros(2, np.uint8), np.zeros(2), np.zeros((2, 1), np.int64)],
    ids=lambda labels: f"{labels.dtype} {labels.shape}",
)
def test_labels_of_another_type_or_shape_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"labels must be int64 of shape \(M,\), got"):
        ImageSet(np.zeros((2, 8, 8), np.uint8), labels)


@pytest.mark.parametrize(("images", "labels"), [(0, 0), (2, 3), (2, 0)])
def test_wrong_number_of_labels_is_refused(images: int, labels: int) -> None:
    with pytest.raises(ValueError, match=f"got {images} images and {labels} labels"):
        ImageSet(np.zeros((images, 8, 8), np.uint8), np.zeros(labels, np.int64))


@settings(deadline=None, max_examples=25)
@given(
    value=st.integers(0, 255),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 40),
    colour=st.booleans(),
)
def test_constant_images_stay_constant(
    value: int, height: int, width: int, size: int, colour: bool
) -> None:
    channels = (3,) if colour else ()
    resized = resize(np.full((2, height, width, *channels), value, np.uint8), size)
    assert resized.dtype == np.uint8
    assert resized.shape == (2, size, size, *channels)
    assert (resized == value).all()


def test_images_of_the_right_size_are_not_touched() -> None:
    images = random_images(3, 8, 8)
    assert resize(images, 8) is images


def test_halving_averages_within_the_range_of_neighbours() -> None:
    images = np.zeros((1, 8, 8), np.uint8)
    images[:, :, 4:] = 200
    halved = resize(images, 4)
    assert halved[0, :, 0].tolist() == [0] * 4
    assert halved[0, :, 3].tolist() == [200] * 4
    assert (np.diff(halved.astype(int), axis=2) >= 0).all()


def test_many_images_are_converted_and_resized_as_each(monkeypatch) -> None:
    monkeypatch.setattr(images_module, "AT_ONCE", 5 * 4 * 4)
    images = random_images(5 + 3, 4, 4)
    assert (of_floats(images / 255) == images).all()
    resized = resize(images, 2)
    for position in (0, 4, 5, 7):
        assert (resized[position] == resize(images[position : position + 1], 2)[0]).all()


def test_large_images_take_little_memory_beside_them() -> None:
    images = np.ones((24, 1_000, 1_000), np.float32)
    tracemalloc.start()
    resize(of_floats(images), 8)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.25 * images.nbytes + 12 * images_module.AT_ONCE < 2 * images.nbytes
