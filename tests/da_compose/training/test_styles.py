"""Styles are pure functions of pixels and a generator."""

import pytest
import torch

from da_compose.training.styles import STYLES, restyle

every_style = pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)


def pixels(count: int = 4, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every_style
def test_a_style_is_a_function_of_pixels_and_generator(style):
    before = pixels()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = style(before, seeded())
        torch.manual_seed(2)
        assert torch.equal(style(before, seeded()), first)
    assert torch.equal(before, pixels())
    assert first.shape == before.shape
    assert first.isfinite().all()
    assert not torch.equal(first, before)


@every_style
def test_a_blank_picture_is_no_trouble(style):
    for value in (0.0, 0.5, 1.0):
        assert style(torch.full((2, 3, 8, 8), value), seeded()).isfinite().all()


def test_styles_follow_each_other_and_stay_pixels():
    found = restyle(pixels(), 3, seeded())
    assert torch.equal(found, restyle(pixels(), 3, seeded()))
    assert not torch.equal(found, restyle(pixels(), 3, seeded(1)))
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(restyle(pixels(), 0, seeded()), pixels())


def test_grey_and_negative_do_what_they_say():
    by_name = {style.__name__: style for style in STYLES}
    grey = by_name["grey"](pixels(), seeded())
    assert torch.equal(grey[:, 0], grey[:, 2])
    torch.testing.assert_close(by_name["negative"](pixels(), seeded()), 1 - pixels())
    levels = by_name["posterize"](pixels(), seeded()).unique()
    assert 2 <= len(levels) <= 4
    assert levels[0] == 0
    assert levels[-1] == 1
