from typing import Any

import pytest
import torch
from torch import Tensor

from da_compose.training.augmentation import (
    ALL,
    AugmentationConfig,
    Draws,
    augment,
    random_affine,
    random_blur,
    random_thickness,
)

STILL: dict[str, Any] = {
    "log_scale": 0,
    "log_aspect": 0,
    "rotation": 0,
    "shear": 0,
    "shift": 0,
}
KINDS: dict[str, float] = {
    "log_scale": 0.35,
    "log_aspect": 0.15,
    "rotation": 0.2,
    "shear": 0.2,
    "shift": 0.12,
    "blur": 1.0,
    "thickness": 1.0,
    "contrast": 1.0,
    "noise": 0.5,
}


def only(kind: str) -> AugmentationConfig:
    return AugmentationConfig(**(STILL | {kind: KINDS[kind]}))


def pixels(count: int = 6, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_zero_ranges_change_nothing() -> None:
    unchanged = augment(pixels(), AugmentationConfig(**STILL), seeded())
    torch.testing.assert_close(unchanged, pixels(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_images_and_keeps_shape_and_range(kind: str, channels: int) -> None:
    changed = augment(pixels(channels=channels), only(kind), seeded())
    assert changed.shape == (6, channels, 8, 8)
    assert changed.min() >= 0
    assert changed.max() <= 1
    per_image = (changed - pixels(channels=channels)).abs().flatten(1).amax(dim=1)
    assert (per_image > 1e-4).sum() >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_depends_on_the_generator_alone(kind: str) -> None:
    torch.manual_seed(1)
    first = augment(pixels(), only(kind), seeded())
    torch.manual_seed(2)
    assert augment(pixels(), only(kind), seeded()).equal(first)
    assert not augment(pixels(), only(kind), seeded(1)).equal(first)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("noise", "contrast")])
def test_constant_images_stay_constant(kind: str) -> None:
    """Edges are continued outward, kernels sum to 1."""
    constant = torch.full((6, 1, 8, 8), 0.7)
    torch.testing.assert_close(augment(constant, only(kind), seeded()), constant)


@pytest.mark.parametrize("kind", KINDS)
def test_input_is_left_alone(kind: str) -> None:
    batch = pixels()
    augment(batch, only(kind), seeded())
    assert batch.equal(pixels())


def test_every_image_draws_its_own_change() -> None:
    same = pixels(1).expand(6, -1, -1, -1)
    changed = augment(same, AugmentationConfig(), seeded())
    distances = torch.cdist(changed.flatten(1), changed.flatten(1))
    assert (distances + torch.eye(6) > 1e-3).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [slice(0, None, 2), slice(1, None, 2), slice(2, 5)], ids=str)
def test_image_is_changed_as_among_all_others(kind: str, rows: slice) -> None:
    whole = augment(pixels(), only(kind), seeded())
    share = augment(pixels(), only(kind), seeded(), rows)
    torch.testing.assert_close(share, whole[rows], rtol=0, atol=1e-5)


def test_shares_of_zero_blur_and_thicken_nothing() -> None:
    assert random_blur(pixels(), 0.0, Draws(seeded(), 6, ALL)).equal(pixels())
    assert random_thickness(pixels(), 0.0, Draws(seeded(), 6, ALL)).equal(pixels())


def test_thickness_stays_between_the_darkest_and_brightest_neighbour() -> None:
    changed = random_thickness(pixels(), 1.0, Draws(seeded(), 6, ALL))
    for image, before in zip(changed[:, 0], pixels()[:, 0], strict=True):
        for row in range(8):
            for column in range(8):
                cross = [
                    before[r, c]
                    for r, c in ((row, column), (row - 1, column), (row + 1, column),
                                 (row, column - 1), (row, column + 1))
                    if 0 <= r < 8 and 0 <= c < 8
                ]  # fmt: skip
                assert min(cross) - 1e-6 <= image[row, column] <= max(cross) + 1e-6


def test_blur_keeps_the_brightness_of_a_spot() -> None:
    spot = torch.zeros(4, 1, 16, 16)
    spot[:, :, 8, 8] = 1
    blurred = random_blur(spot, 1.0, Draws(seeded(), 4, ALL))
    torch.testing.assert_close(blurred.sum(dim=(1, 2, 3)), torch.ones(4))
    assert (blurred[:, 0, 8, 8] < 1).all()


def test_shift_alone_moves_a_spot_by_at_most_its_range() -> None:
    spot = torch.zeros(20, 1, 33, 33)
    spot[:, :, 16, 16] = 1
    config = AugmentationConfig(**(STILL | {"shift": 0.25}))  # 0.25 x 16.5 pixels
    moved = random_affine(spot, config, Draws(seeded(), 20, ALL))
    mass = moved.sum(dim=(1, 2, 3))
    positions = torch.arange(33.0) - 16
    for axis in (2, 3):
        offset = (moved.sum(dim=(1, 5 - axis)) * positions).sum(dim=1) / mass
        assert offset.abs().max() <= 0.25 * 16.5 + 1e-3
        assert offset.abs().max() > 1


@pytest.mark.parametrize(
    "wrong", [{"rotation": -0.1}, {"noise": -1}, {"blur": 1.5}, {"thickness": float("nan")}]
)
def test_impossible_ranges_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be between 0 and"):
        AugmentationConfig(**wrong)
