"""Outputs of blocks as maps, and back."""

import pytest
import torch

from da_compose.model.layouts import as_map, from_map, layout_of


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((2, 5, 3, 3), "map", (2, 5, 3, 3)),
        ((2, 3, 3, 5), "channels last", (2, 5, 3, 3)),
        ((2, 4, 5), "tokens", (2, 5, 4, 1)),
        ((2, 5), "vector", (2, 5, 1, 1)),
    ],
)
def test_a_map_is_made_and_undone(shape: tuple[int, ...], layout, expected: tuple[int, ...]):
    features = torch.rand(shape)
    assert layout_of(features) == layout
    found = as_map(features, layout)
    assert found.shape == expected
    assert torch.equal(from_map(found, layout), features)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="the last block gives"):
        layout_of(torch.rand(2, 3, 4, 5, 6))
