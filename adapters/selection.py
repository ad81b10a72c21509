"""Label-free scores of a target model: what stands in for accuracy when there are no labels."""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from adapters.strategies.losses import entropy, information
from da_compose import probabilities

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


def certainty(prediction: Tensor) -> float:
    """Information of image and prediction (M, N) over log N, the most of many images: 0 to 1.

    Of M < N images it is at most log M / log N, so few images of many classes count as unsure.
    """
    return information(prediction).item() / log(prediction.shape[1])


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
