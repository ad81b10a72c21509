"""SHOT: information maximization, and pseudo-labels by the nearest centroid of a class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from adapters.strategies.contract import AdaptationTask, check_above
from adapters.strategies.losses import information
from da_compose import probabilities
from da_compose.evidence import TINY


@final
@dataclass
class Shot:
    """SHOT's whole objective (Liang et al. 2020, section 3): the classifiers stay as they are.

    Classes are expected equally frequent, as published; `InformationMaximization` heeds the start.
    The publication trains all before the classifier and makes pseudo-labels once an epoch, of all
    images; here moves what `adapt` trains, and centroids are made anew at every step, of the
    embeddings that the last steps saw.

    weight: of the cross-entropy on pseudo-labels beside the information. memory: images whose
    embeddings are remembered, at least a batch.
    """

    weight: float = 0.3
    memory: int = 2048

    RATE: ClassVar[float] = 1.0
    WARM_UP: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_above(self, 0, "weight", "memory")

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task
        rows, features = max(self.memory, task.batch_size), task.backbone.network.config.embedding
        classes = len(task.backbone.class_names_of(task.target))
        self.embeddings = task.target.mean.new_zeros(rows, features)
        self.predictions = task.target.mean.new_zeros(rows, classes)

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        network, target = self.task.backbone.network, self.task.target
        _, embedding = network.features(images, target)  # (B, F)
        prediction = probabilities(network.classify(embedding, target))  # (B, N)
        _remember(self.embeddings, embedding)
        _remember(self.predictions, prediction)
        labels = pseudo_labels(self.embeddings, self.predictions)[-len(images) :]
        gain = information(prediction)
        wrong = functional.nll_loss(prediction.clamp_min(TINY).log(), labels)
        self.task.descend(self.weight * wrong - gain)
        return {"information": gain.detach(), "pseudo_label_loss": wrong.detach()}


def pseudo_labels(embeddings: Tensor, predictions: Tensor) -> Tensor:
    """Class (M,) of the centroid that each embedding (M, F) is nearest to by the cosine.

    Centroids are means weighted by the predictions (M, N), and then those of the classes that
    these give (Liang et al. 2020, section 3, self-supervised pseudo-labeling). A class that has no
    image by then has no centroid. Rows of zeros, of a memory that is not full yet, count for none.
    """
    rough = _nearest(embeddings, predictions)[:, None]
    return _nearest(embeddings, torch.zeros_like(predictions).scatter_(1, rough, 1.0))


def _nearest(embeddings: Tensor, weights: Tensor) -> Tensor:
    centroids = functional.normalize(weights.T @ embeddings)  # (N, F): the cosine knows no length
    none = ~centroids.any(dim=1)
    return (embeddings @ centroids.T).masked_fill(none, float("-inf")).argmax(dim=1)


@torch.no_grad()
def _remember(memory: Tensor, rows: Tensor) -> None:
    """Put rows at the end of a memory, in place, as a recorded step needs it; the first go."""
    memory.copy_(torch.cat([memory[len(rows) :], rows]))
