"""The filters against slow per-pixel loops, and their exact properties."""

from math import exp, hypot

import numpy as np
import pytest

from data_prep import filters
from data_prep.filters import FILTERS, blur, edges

every_filter = pytest.mark.parametrize("name", FILTERS)
every_shape = pytest.mark.parametrize("shape", [(28, 28), (9, 14), (8, 8, 3), (1, 1)], ids=str)


def random_images(num_images: int = 3, shape: tuple[int, ...] = (9, 14), seed: int = 0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (num_images, *shape), dtype=np.uint8)


def pixel(image: np.ndarray, row: int, column: int) -> int:
    """The value there, or of the nearest pixel where that is outside."""
    height, width = image.shape
    return int(image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)])


def slow_edges(image: np.ndarray) -> np.ndarray:
    out = np.zeros(image.shape)
    for row, column in np.ndindex(image.shape):
        down = across = 0
        for i, weight in ((-1, 1), (0, 2), (1, 1)):
            down += weight * (pixel(image, row + 1, column + i) - pixel(image, row - 1, column + i))
            across += weight * (
                pixel(image, row + i, column + 1) - pixel(image, row + i, column - 1)
            )
        out[row, column] = min(hypot(down, across) / 4, 255)
    return out


def slow_blur(image: np.ndarray) -> np.ndarray:
    """Weights exp(-d^2 / 2 sigma^2) out to four sigma, 1.5 of 28 pixels along either side."""
    sums, totals = np.zeros(image.shape), np.zeros(image.shape)
    sigmas = [1.5 * side / 28 for side in image.shape]
    reach = [round(4 * sigma) for sigma in sigmas]
    for row, column in np.ndindex(image.shape):
        for i in range(-reach[0], reach[0] + 1):
            for j in range(-reach[1], reach[1] + 1):
                weight = exp(-((i / sigmas[0]) ** 2 + (j / sigmas[1]) ** 2) / 2)
                sums[row, column] += weight * pixel(image, row + i, column + j)
                totals[row, column] += weight
    return sums / totals


@pytest.mark.parametrize(("apply", "slow"), [(edges, slow_edges), (blur, slow_blur)])
def test_filter_equals_a_slow_loop(apply, slow) -> None:
    for image, result in zip(images := random_images(), apply(images), strict=True):
        assert np.abs(result - slow(image)).max() <= 0.51  # rounding to whole numbers


@every_shape
def test_constant_image_has_no_edges_and_is_not_blurred(shape: tuple[int, ...]) -> None:
    plain = np.array([0, 7, 255], dtype=np.uint8).reshape(-1, *(1 for _ in shape))
    plain = np.broadcast_to(plain, (3, *shape))
    assert not edges(plain).any()
    np.testing.assert_array_equal(blur(plain), plain)


def test_step_from_black_to_white_is_white_on_both_sides_and_black_elsewhere() -> None:
    step = np.zeros((1, 10, 10), dtype=np.uint8)
    step[:, 4:] = 255
    across = np.zeros_like(step)
    across[:, 3:5] = 255
    np.testing.assert_array_equal(edges(step), across)
    np.testing.assert_array_equal(edges(step.swapaxes(1, 2)), across.swapaxes(1, 2))


def test_edges_forget_which_side_is_bright() -> None:
    images = random_images()
    np.testing.assert_array_equal(edges(255 - images), edges(images))


def test_blur_keeps_the_mean_of_what_is_far_from_the_border() -> None:
    images = np.zeros((4, 28, 28), dtype=np.uint8)
    images[:, 9:19, 9:19] = random_images(4, (10, 10))
    assert abs(blur(images).mean() - images.mean()) < 0.1
    assert blur(images).std() < images.std()


def test_blur_is_as_strong_in_an_image_of_twice_the_size() -> None:
    small, large = (np.zeros((1, side, side), dtype=np.uint8) for side in (28, 56))
    small[:, :14], large[:, :28] = 255, 255
    pairs = blur(large)[0].reshape(28, 2, 28, 2).mean(axis=(1, 3))
    assert np.abs(pairs - blur(small)[0]).max() < 3  # of 255; pixels have a size of their own


@every_filter
@every_shape
def test_images_and_channels_are_filtered_each_for_itself(name: str, shape, monkeypatch) -> None:
    images = random_images(5, shape)
    together = FILTERS[name](images)
    assert together.dtype == np.uint8 and together.shape == images.shape
    for image, result in zip(images, together, strict=True):
        np.testing.assert_array_equal(FILTERS[name](image[None])[0], result)
    for channel in range(3 if len(shape) == 3 else 0):
        alone = FILTERS[name](images[..., channel])
        np.testing.assert_array_equal(alone, together[..., channel])
    monkeypatch.setattr(filters, "CHUNK", 2 * images[0].size)  # now in three parts
    np.testing.assert_array_equal(FILTERS[name](images), together)


@every_filter
def test_mirrored_and_transposed_images_give_the_same_mirrored_and_transposed(name: str) -> None:
    images = random_images(shape=(12, 12))
    for turn in (lambda x: x[:, ::-1], lambda x: x[:, :, ::-1], lambda x: x.swapaxes(1, 2)):
        difference = FILTERS[name](turn(images)).astype(int) - turn(FILTERS[name](images))
        assert abs(difference).max() <= 1  # float32 may round a tie either way


@every_filter
def test_input_is_left_alone_and_no_images_stay_none(name: str) -> None:
    images = random_images()
    before = images.copy()
    FILTERS[name](images)
    np.testing.assert_array_equal(images, before)
    assert FILTERS[name](images[:0]).shape == (0, 9, 14)


@every_filter
@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8)), np.zeros((8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)],
    ids=["float", "one image", "four channels"],
)
def test_other_arrays_are_refused(name: str, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 images \(N, H, W\)"):
        FILTERS[name](images)
