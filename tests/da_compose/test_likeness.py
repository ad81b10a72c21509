"""How like the sources' a domain's embeddings are."""

import pytest
import torch
from torch import Tensor

from da_compose.knowledge import SourceKnowledge
from da_compose.likeness import likeness

CLASSES, WIDTH = 4, 64


def domain(seed: int, classes: Tensor, spread: float = 0.5, count: int = 10) -> Tensor:
    """Embeddings (4 * count, 64) about the centres of the classes, moved a little as a whole."""
    generator = torch.Generator().manual_seed(seed)
    moved = 0.1 * torch.randn(WIDTH, generator=generator)
    found = classes.repeat_interleave(count, dim=0)
    return found + moved + spread * torch.randn(found.shape, generator=generator)


def known(embeddings: Tensor) -> SourceKnowledge:
    moments = embeddings.mean(dim=0), embeddings.square().mean(dim=0)
    labels = torch.arange(CLASSES).repeat_interleave(len(embeddings) // CLASSES)
    return SourceKnowledge(*moments, torch.zeros(0), embeddings, labels, len(embeddings))


CENTRES = 2 * torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(1))
OTHERS = 2 * torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(2))
ALL, ONE = torch.full((CLASSES,), 0.25), torch.tensor([1.0, 0.0, 0.0, 0.0])
SOURCES = {name: known(domain(seed, CENTRES)) for seed, name in enumerate("abc", 3)}


def test_an_unseen_domain_is_as_like_the_sources_as_they_are_to_one_another():
    found = likeness(SOURCES, domain(9, CENTRES), ALL)
    assert found is not None and 0.95 < found < 1.1


def test_a_source_again_is_more_like_them_and_another_task_is_not():
    again = likeness(SOURCES, SOURCES["a"].embeddings, ALL)
    other = likeness(SOURCES, domain(9, OTHERS), ALL)
    assert again is not None and again > 1
    assert other is not None and other < 0.5


def test_one_class_alone_is_as_like_as_the_sources_are_in_that_class():
    one = domain(9, CENTRES, count=40)[:40]
    told, untold = (likeness(SOURCES, one, frequencies) for frequencies in (ONE, ALL))
    assert told is not None and told > 0.8
    assert untold is not None and untold < 0.5


@pytest.mark.parametrize("count", [1, 2])
def test_few_remembered_images_will_do(count: int):
    few = {name: known(domain(seed, CENTRES, count=count)) for seed, name in enumerate("ab")}
    assert likeness(few, domain(9, CENTRES), ALL) is not None


def test_one_source_alone_says_nothing():
    assert likeness({"a": SOURCES["a"]}, domain(9, CENTRES), ALL) is None
