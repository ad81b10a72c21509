"""Label-free scores of a target model: what stands in for accuracy when there are no labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.strategies.losses import information
from da_compose import probabilities
from da_compose.evidence import certainty, entropy

LEAST_CERTAINTY = 0.75  # of predictions on a domain that a model is sure of


@dataclass(frozen=True)
class Scores:
    """Label-free figures of one model on unlabelled images.

    information: mutual information of image and prediction in nats, 0 to log N; larger is better.
    confidence: mean largest probability, 0 to 1.
    agreement: share of images on which both heads choose the same class, 0 to 1.
    diversity: entropy of the mean prediction over log N, 0 (one class only) to 1.
    """

    information: float
    confidence: float
    agreement: float
    diversity: float


def trust(prediction: Tensor, consensus: Tensor) -> float:
    """How far to trust a model's prediction (M, N), 0 to 2, given the mean one of several models.

    Its certainty, and the share of images whose class is the consensus's. Information
    alone is misled by models that are sure of what no other sees.
    """
    agreed = (prediction.argmax(dim=1) == consensus.argmax(dim=1)).float().mean()
    return certainty(prediction) + agreed.item()


def score(logits: Tensor) -> Scores:
    """Scores of logits of both heads (2, M, N)."""
    mean = probabilities(logits)  # (M, N)
    choices = logits.argmax(dim=-1)
    uniform = torch.tensor(float(mean.shape[1])).log()
    return Scores(
        information=information(mean).item(),
        confidence=mean.max(dim=1).values.mean().item(),
        agreement=(choices[0] == choices[1]).float().mean().item(),
        diversity=(entropy(mean.mean(dim=0)) / uniform).item(),
    )
