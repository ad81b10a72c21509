import pytest
import torch
from torch import Tensor

from da_compose.training.picture_augmentation import PictureAugmentation

PLAIN = {"crop": 1.0, "flip": 0.0, "jitter": 0.0, "hue": 0.0, "grey": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 6, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, 16, 16, generator=seeded(1))


def test_pictures_change_but_stay_pictures():
    before = pictures()
    after = PictureAugmentation().apply(before, seeded())
    assert after.shape == before.shape and after.dtype == before.dtype
    assert after.min() >= 0 and after.max() <= 1
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_the_generator_decides_and_the_global_one_is_left_alone():
    state = torch.get_rng_state()
    change = PictureAugmentation()
    first = change.apply(pictures(), seeded())
    torch.rand(3)
    assert torch.equal(change.apply(pictures(), seeded()), first)
    assert not torch.equal(change.apply(pictures(), seeded(1)), first)
    torch.set_rng_state(state)
    change.apply(pictures(), seeded())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rows", [slice(0, 6, 2), slice(1, 6, 2), slice(3, 4), slice(6, 6)])
def test_rows_change_as_they_would_among_all(rows):
    change = PictureAugmentation(hue=0.1)
    assert torch.equal(
        change.apply(pictures(), seeded(), rows), change.apply(pictures(), seeded())[rows]
    )


def test_a_flip_mirrors_and_nothing_else():
    before = pictures()
    after = PictureAugmentation(**PLAIN | {"flip": 1.0}).apply(before, seeded())
    assert torch.allclose(after, before.flip(-1), atol=1e-6)


def test_grey_pictures_have_equal_channels():
    after = PictureAugmentation(**PLAIN | {"grey": 1.0}).apply(pictures(), seeded())
    assert torch.equal(after[:, 0], after[:, 1]) and torch.equal(after[:, 0], after[:, 2])


def test_pictures_of_one_channel_are_taken():
    assert PictureAugmentation(hue=0.2).apply(pictures(channels=1), seeded()).shape[1] == 1


@pytest.mark.parametrize(
    ("name", "value"), [("crop", 0.0), ("crop", 1.1), ("flip", -0.1), ("hue", 0.6), ("grey", 2.0)]
)
def test_ranges_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} must be between .* got {value}"):
        PictureAugmentation(**{name: value})
