"""Classifiers that heed centroids are stored as one offset, and come back bit for bit."""

import pytest
import torch
from torch import Tensor, nn

from da_compose.centroids import with_centroids
from da_compose.storage.offsets import OFFSET, packed, unpacked


def classifiers(classes: int = 5, features: int = 64) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(features, classes) for _ in range(2)).requires_grad_(False)


def as_stored(heads: nn.ModuleList) -> dict[str, Tensor]:
    return {"mean": torch.zeros(3), **heads.state_dict(prefix="heads.")}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_an_offset_of_half_precision_is_all_that_is_stored_of_weights(scale: float):
    heads, embeddings = classifiers(), scale * torch.randn(90, 64)
    own = as_stored(with_centroids(heads, embeddings, torch.rand(90, 5).softmax(dim=1)))
    stored = packed(own, heads)
    assert stored.keys() == {"mean", "heads.0.bias", "heads.1.bias", OFFSET}
    assert stored[OFFSET].dtype == torch.float16
    back = unpacked(stored, heads)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], value) for name, value in own.items())


@pytest.mark.parametrize("other", [classifiers(), classifiers(classes=4)])
def test_other_classifiers_are_stored_whole(other: nn.ModuleList):
    heads = classifiers()
    assert packed(as_stored(other), heads).keys() == as_stored(other).keys()
    assert packed({"mean": torch.zeros(3)}, heads).keys() == {"mean"}


def test_an_offset_of_other_classifiers_is_refused():
    with pytest.raises(ValueError, match="of another shape"):
        unpacked({OFFSET: torch.zeros(4, 64, dtype=torch.float16)}, classifiers())
    with pytest.raises(ValueError, match="of another type"):
        unpacked({OFFSET: torch.zeros(5, 64)}, classifiers())
