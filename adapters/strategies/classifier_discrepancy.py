"""Moment matching with a min-max game on the disagreement of two classifiers."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.strategies.contract import AdaptationTask, check_above
from adapters.strategies.losses import discrepancy, moment_distance, moments


@final
@dataclass
class ClassifierDiscrepancy:
    """M3SDA's three steps (Peng et al. 2019, section 4.2; MCD, Saito et al. 2018).

    A: features match moments. B: critic heads stay right on the sources and disagree on the
    target. C: features make them agree. In A and C only the target's parameters move; the heads
    that move in B are copies that end with the adaptation: predictions stay with the backbone's.

    moment_weight: lambda of M3SDA. critic_rate: learning rate of the critics. feature_steps: of C.
    """

    moment_weight: float = 0.5
    critic_rate: float = 1e-3
    feature_steps: int = 2

    RATE: ClassVar[float] = 0.2
    WARM_UP: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_above(self, 0, "critic_rate", "feature_steps")
        if not self.moment_weight >= 0:
            raise ValueError(f"moment_weight must be at least 0, got {self.moment_weight}")

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task
        self.source_moments = task.source_moments()
        self.critics = deepcopy(task.backbone.network.heads).requires_grad_(True)
        self.critic_optimizer = task.adam(
            self.critics.parameters(), self.critic_rate, weight_decay=5e-4
        )

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        features = self.task.backbone.network.features
        _, embedding = features(images, self.task.target)  # (B, F)
        apart = moment_distance(moments(embedding), self.source_moments)
        self.task.descend(self.moment_weight * apart)  # step A
        self._step_critics(embedding.detach())  # step B
        disagreement = apart
        for _ in range(self.feature_steps):
            _, embedding = features(images, self.task.target)
            disagreement = discrepancy(self._criticize(embedding))
            self.task.descend(disagreement)  # step C
        return {"moment_distance": apart.detach(), "discrepancy": disagreement.detach()}

    def _step_critics(self, embedding: Tensor) -> None:
        """Step B: right on remembered source features, as far apart as possible on the target."""
        source, labels = self.task.source_sample("embeddings")
        logits = self._criticize(source)
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))
        loss = loss - discrepancy(self._criticize(embedding))
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()

    def _criticize(self, embedding: Tensor) -> Tensor:
        assert isinstance(self.critics, nn.ModuleList)
        return torch.stack([head(embedding) for head in self.critics])  # (2, B, N)
