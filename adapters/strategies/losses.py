"""Objectives of unsupervised adaptation: pure functions of features, logits, probabilities."""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor
from torch.nn import functional

from da_compose.evidence import TINY, entropy


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """First and second raw moments over the batch: (..., B, F) -> (..., F), (..., F)."""
    return features.mean(dim=-2), features.square().mean(dim=-2)


def distance(left: Tensor, right: Tensor) -> Tensor:
    """Euclidean distance (...) of vectors (..., F), unsquared; where both coincide, its gradient
    is zero, not NaN."""
    squared = (left - right).square().sum(dim=-1)
    return torch.where(squared > TINY, squared.clamp_min(TINY).sqrt(), 0.0 * squared)


def moment_distance(target: Sequence[Tensor], sources: Sequence[Sequence[Tensor]]) -> Tensor:
    """Target part of the moment distance MD^2 (M3SDA, Peng et al. 2019, eq. 1).

    Sum over the raw moments given, k = 1, 2, of the mean over sources of
    ||E X_i^k - E X_T^k||_2. The source-source part of eq. 1 is left out, a
    constant of a frozen backbone.
    """
    total = target[0].new_zeros(target[0].shape[:-1])
    for source in sources:
        for own, other in zip(target, source, strict=True):
            total = total + distance(own, other)
    return total / len(sources)


def discrepancy(logits: Tensor) -> Tensor:
    """Mean absolute difference of the two heads' probabilities (MCD, Saito et al. 2018, eq. 9).

    logits: (2, B, N).
    """
    first, second = logits.softmax(dim=-1)
    return (first - second).abs().mean()


def information(probabilities: Tensor, expected: Tensor | None = None) -> Tensor:
    """Mutual information of image and prediction, in nats: probabilities (..., B, N) -> (...).

    Entropy of the mean prediction (diverse) minus mean entropy (confident); Krause et al. 2010,
    SHOT (Liang et al. 2020, eq. 2 to 4). Between 0 and log N; larger is better.

    expected: class frequencies (..., N), positive and summing to 1, where classes are not expected
    to be equally frequent. Diverse then means close to them: log N minus the divergence
    KL(mean prediction || expected) stands for the entropy (Krause et al. 2010, section 3).
    """
    mean = probabilities.mean(dim=-2)
    diversity = entropy(mean)
    if expected is not None:
        diversity = diversity + (mean * expected.log()).sum(dim=-1) + log(mean.shape[-1])
    return diversity - entropy(probabilities).mean(dim=-1)


def teaching(probabilities: Tensor, teacher: Tensor) -> Tensor:
    """Mean cross-entropy of predictions to a teacher's, both (..., B, N) -> (...)."""
    return -(teacher * probabilities.clamp_min(TINY).log()).sum(dim=-1).mean(dim=-1)


def class_frequencies(probabilities: Tensor) -> Tensor:
    """How frequent classes are by predictions (M, N), one image more of each: (N,), none is 0."""
    count, classes = probabilities.shape
    return (probabilities.sum(dim=0) + 1) / (count + classes)


def domain_confusion(logits: Tensor, is_source: bool, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy of a discriminator's logits (B,) against one label for all.

    smoothing: the label 1 becomes 1 - smoothing, 0 becomes smoothing (soft labels).
    """
    label = 1 - smoothing if is_source else smoothing
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
