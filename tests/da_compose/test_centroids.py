"""Centroids beside the classifiers: they find the classes that lie together."""

import pytest
import torch
from torch import Tensor, nn

from da_compose.centroids import PRIOR_IMAGES, SHARPNESS, with_centroids

MIDDLES = 3 * torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]) + 5


def domain(count: int) -> tuple[Tensor, Tensor]:
    """Embeddings (count, 4) of three classes that lie apart, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    return MIDDLES[labels] + 0.4 * torch.randn(count, 4, generator=generator), labels


def shifted_heads() -> nn.ModuleList:
    """Classifiers of another domain: they take many images of the others for class 0."""
    heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(2)).requires_grad_(False)
    for head in heads:
        assert isinstance(head, nn.Linear)
        head.weight.copy_(MIDDLES[:, :].sub(MIDDLES.mean(dim=0)) / 3)
        head.bias.copy_(torch.tensor([4.0, 0.0, 0.0]) - head.weight @ MIDDLES.mean(dim=0))
    return heads


def said(heads: nn.ModuleList, embeddings: Tensor) -> Tensor:
    return torch.stack([head(embeddings) for head in heads]).softmax(dim=-1).mean(dim=0)


def right(heads: nn.ModuleList, embeddings: Tensor, labels: Tensor) -> float:
    return (said(heads, embeddings).argmax(dim=1) == labels).double().mean().item()


def test_classes_that_lie_together_are_found_where_the_classifiers_cut_elsewhere():
    heads, (embeddings, labels) = shifted_heads(), domain(300)
    before = {name: value.clone() for name, value in heads.state_dict().items()}
    new = with_centroids(heads, embeddings, said(heads, embeddings))
    assert right(heads, embeddings, labels) < 0.8
    assert right(new, embeddings, labels) > 0.95
    assert all(torch.equal(value, before[name]) for name, value in heads.state_dict().items())
    assert all(isinstance(head, nn.Linear) for head in new)


def test_a_cosine_counts_less_the_fewer_images_a_class_has():
    """Of images all of one length from their middle the classifiers gain the cosine itself."""
    heads = shifted_heads()
    embeddings = torch.cat([torch.eye(4), -torch.eye(4)]).repeat(2, 1) + 7  # 16 images
    prediction = torch.zeros(16, 3)
    prediction[:, 0] = 1.0
    prediction[0] = torch.tensor([0.0, 1.0, 0.0])  # class 1 has one image, class 2 none
    new = with_centroids(heads, embeddings, prediction)
    gained = new[0](embeddings) - heads[0](embeddings)
    share = 1 / (1 + PRIOR_IMAGES)
    torch.testing.assert_close(gained[0, 1].item(), SHARPNESS * share, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(gained[4, 1].item(), -SHARPNESS * share, rtol=1e-3, atol=1e-5)
    assert gained[:, 2].abs().max() < 1e-5


@pytest.mark.parametrize("one", [torch.zeros(4), torch.tensor([0.1, 0.7, 1.3, 2.9])])
def test_images_that_are_all_alike_change_nothing(one: Tensor):
    """Nor does what rounding leaves between them."""
    heads, embeddings = shifted_heads(), one.repeat(61, 1)
    new = with_centroids(heads, embeddings, said(heads, embeddings))
    torch.testing.assert_close(said(new, MIDDLES), said(heads, MIDDLES))
