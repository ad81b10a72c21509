from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from da_compose.knowledge import SourceKnowledge
from da_compose.source_heads import SHRINKAGE, agreement, fitted, source_heads

CLASSES, WIDTH = 3, 8


def source(shift: float = 0.0, classes: int = CLASSES, seed: int = 0) -> SourceKnowledge:
    """Classes in three directions, which a shift turns towards one another."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(90) % classes
    embeddings = 0.3 * torch.randn(90, WIDTH, generator=generator) + middles(shift)[labels]
    none = torch.zeros(WIDTH)
    return SourceKnowledge(none, none, torch.zeros(90, 1, 1, 1), embeddings, labels, 90)


def middles(shift: float) -> Tensor:
    one = torch.eye(CLASSES, WIDTH)
    return (1 - shift) * one + shift * one.roll(1, dims=0)


def test_a_head_is_scikit_learns_ridge_on_one_hot_labels():
    known = source()
    x, wanted = known.embeddings.double().numpy(), np.eye(CLASSES)[known.labels]
    alpha = SHRINKAGE * CLASSES**2 * np.square(x - x.mean(0)).sum(1).mean()
    ridge = Ridge(alpha=alpha).fit(x, wanted)
    head = fitted(known.embeddings, known.labels, CLASSES)
    np.testing.assert_allclose(head.weight.numpy(), ridge.coef_, atol=1e-9)
    np.testing.assert_allclose(head.bias.numpy(), ridge.intercept_, atol=1e-9)


def test_agreement_is_the_mean_over_pairs():
    heads = source_heads({str(n): source(n / 4, seed=n) for n in range(3)}, CLASSES)
    embeddings = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(9))
    chosen = [head.choose(embeddings.double()).numpy() for head in heads]
    expected = np.mean([(one == other).mean() for one, other in combinations(chosen, 2)])
    assert agreement(heads, embeddings) == pytest.approx(expected)
    assert agreement(heads[:1] * 2, embeddings) == 1.0


def test_sources_that_differ_agree_less():
    embeddings = middles(0.5).repeat(20, 1) + 0.3 * torch.randn(
        60, WIDTH, generator=torch.Generator().manual_seed(9)
    )
    alike = source_heads({"a": source(), "b": source(seed=1)}, CLASSES)
    apart = source_heads({"a": source(), "b": source(0.9, seed=1)}, CLASSES)
    assert agreement(alike, embeddings) > agreement(apart, embeddings) + 0.2


def test_a_source_without_all_classes_has_no_say_and_one_alone_no_other():
    whole, half = source(), source(classes=2)
    assert source_heads({"a": whole}, CLASSES) == source_heads({}, CLASSES) == []
    assert source_heads({"a": whole, "b": half}, CLASSES) == []
    assert len(source_heads({"a": whole, "b": half, "c": source(seed=1)}, CLASSES)) == 2


def test_embeddings_that_are_all_alike_make_a_head_that_is_finite():
    known = source()
    head = fitted(torch.ones_like(known.embeddings), known.labels, CLASSES)
    assert head.weight.isfinite().all() and head.bias.isfinite().all()
