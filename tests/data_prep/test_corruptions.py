"""The corruptions against slow per-pixel loops, and their exact properties."""

import time
from math import cos, floor, sin

import numpy as np
import pytest

from data_prep.corruptions import CORRUPTIONS, scale, shear, shot_noise, warp

SEVERITIES = range(1, 6)
SHOT_COUNTS = {1: 60, 2: 25, 3: 12, 4: 5, 5: 3}
ANGLES = {1: 0.2, 2: 0.4, 3: 0.6, 4: 0.8, 5: 1.0}
REMAINING = {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6, 5: 0.5}


def random_images(num_images: int = 3, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (num_images, 28, 28), dtype=np.uint8)


def slow_warp(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """Bilinear sampling with black outside, one pixel and one neighbour at a time, in float64."""
    (a, b), (c, d) = matrix
    out = np.zeros((28, 28))
    for row in range(28):
        for column in range(28):
            x = a * (column - 13.5) + b * (row - 13.5) + 13.5
            y = c * (column - 13.5) + d * (row - 13.5) + 13.5
            for i in (floor(y), floor(y) + 1):
                for j in (floor(x), floor(x) + 1):
                    if 0 <= i < 28 and 0 <= j < 28:
                        out[row, column] += (1 - abs(x - j)) * (1 - abs(y - i)) * image[i, j]
    return out


@pytest.mark.parametrize("severity", SEVERITIES)
def test_scale_equals_a_slow_loop(severity: int) -> None:
    images = random_images()
    factor = 1 / REMAINING[severity]
    scaled = scale(images, severity, np.random.default_rng(0))
    for image, result in zip(images, scaled, strict=True):
        expected = slow_warp(image, [[factor, 0], [0, factor]])
        assert np.abs(result - expected).max() <= 0.51  # rounding to whole numbers


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shear_equals_a_slow_loop_with_either_sign(severity: int) -> None:
    images = random_images(8)
    sheared = shear(images, severity, np.random.default_rng(0))
    signs = set()
    for image, result in zip(images, sheared, strict=True):
        for sign in (-1, 1):
            angle = sign * ANGLES[severity]
            expected = slow_warp(image, [[1, -sin(angle)], [0, cos(angle)]])
            if np.abs(result - expected).max() <= 0.51:
                signs.add(sign)
                break
        else:
            pytest.fail("the image is sheared by neither sign")
    assert signs == {-1, 1}


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_takes_the_values_of_a_clipped_count(severity: int) -> None:
    count = SHOT_COUNTS[severity]
    noisy = shot_noise(random_images(), severity, np.random.default_rng(0))
    allowed = {round(min(k / count, 1) * 255) for k in range(count + 1)}
    assert set(np.unique(noisy).tolist()) <= allowed


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_equals_a_slow_loop_over_the_same_draws(severity: int) -> None:
    image = random_images(1)
    generator, count = np.random.default_rng(7), SHOT_COUNTS[severity]
    expected = [
        round(min(generator.poisson(count * (int(x) / 255)) / count, 1) * 255)
        for x in image.ravel()
    ]
    noisy = shot_noise(image, severity, np.random.default_rng(7))
    assert noisy.ravel().tolist() == expected


def test_shot_noise_keeps_the_mean_of_dark_grey() -> None:
    grey = np.full((200, 28, 28), 51, dtype=np.uint8)  # a fifth of white: clipping is rare
    noisy = shot_noise(grey, 1, np.random.default_rng(0))
    assert abs(noisy.mean() - 51) < 0.2
    assert abs(noisy.std() - 255 * (0.2 / 60) ** 0.5) < 0.2


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_black_image_stays_black(name: str) -> None:
    black = np.zeros((5, 28, 28), dtype=np.uint8)
    for severity in SEVERITIES:
        assert not CORRUPTIONS[name].apply(black, severity, np.random.default_rng(0)).any()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_seed_same_result_and_the_input_is_left_alone(name: str) -> None:
    images = random_images(50)
    before = images.copy()
    first, second = (CORRUPTIONS[name].apply(images, 3, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(images, before)
    assert first.dtype == np.uint8


@pytest.mark.parametrize("name", ["shot_noise", "shear"])
def test_another_seed_gives_another_result(name: str) -> None:
    images = random_images(50)
    first, second = (
        CORRUPTIONS[name].apply(images, 3, np.random.default_rng(seed)) for seed in (0, 1)
    )
    assert (first != second).any()


@pytest.mark.parametrize("name", ["shear", "scale"])
def test_centre_stays_fixed(name: str) -> None:
    # An image symmetric about (13.5, 13.5) stays symmetric only if that point does not move.
    images = random_images(6)
    images = np.maximum(images, images[:, ::-1, ::-1])
    for severity in SEVERITIES:
        moved = CORRUPTIONS[name].apply(images, severity, np.random.default_rng(0))
        difference = moved.astype(int) - moved[:, ::-1, ::-1]
        assert abs(difference).max() <= 1  # float32 may round a tie either way


def test_scale_to_half_leaves_the_outer_quarter_black_and_averages_the_rest() -> None:
    white = np.full((1, 28, 28), 255, dtype=np.uint8)
    half = scale(white, 5, np.random.default_rng(0))[0]
    assert (half[7:21, 7:21] == 255).all()
    assert not half[:6].any() and not half[-6:].any() and not half[:, :6].any()


def test_identity_warp_changes_nothing() -> None:
    images = random_images(2_001)  # more than one chunk
    np.testing.assert_array_equal(warp(images, np.eye(2)), images)


def test_severity_strengthens_every_corruption() -> None:
    digit = np.zeros((40, 28, 28), dtype=np.uint8)
    digit[:, 5:23, 12:16] = 200
    for corruption in CORRUPTIONS.values():
        errors = [
            np.abs(corruption.apply(digit, s, np.random.default_rng(0)) - digit.astype(int)).mean()
            for s in SEVERITIES
        ]
        assert errors == sorted(errors)


def test_defaults_are_those_of_mnist_c() -> None:
    assert {name: row.severity for name, row in CORRUPTIONS.items()} == {
        "shot_noise": 5,
        "shear": 2,
        "scale": 3,
    }


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_all_of_mnist_takes_seconds(name: str) -> None:
    images = np.tile(random_images(10) // 4, (1_000, 1, 1))
    start = time.perf_counter()
    CORRUPTIONS[name].apply(images, 3, np.random.default_rng(0))
    assert time.perf_counter() - start < 5  # 10,000 images; measured well below 1 s


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", [0, 6])
def test_unknown_severity_is_refused(name: str, severity: int) -> None:
    with pytest.raises(ValueError, match=f"severity in 1..5, got {severity}"):
        CORRUPTIONS[name].apply(random_images(), severity, np.random.default_rng(0))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_resized_images_are_refused(name: str) -> None:
    images = np.zeros((2, 32, 32), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"\(N, 28, 28\).*\(2, 32, 32\)"):
        CORRUPTIONS[name].apply(images, 3, np.random.default_rng(0))
