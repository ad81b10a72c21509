"""Moment matching: bring the target's feature moments to the sources'."""

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor

from adapters.strategies.contract import AdaptationTask
from adapters.strategies.losses import moment_distance, moments


@final
class MomentMatching:
    """Match first and second raw moments of the embedding (M3SDA, Peng et al. 2019, eq. 1)."""

    RATE: ClassVar[float] = 0.2
    WARM_UP: ClassVar[int] = 0

    def __init__(self, task: AdaptationTask) -> None:
        self.task = task
        self.source_moments = task.source_moments()

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        _, embedding = self.task.backbone.network.features(images, self.task.target)  # (B, F)
        loss = moment_distance(moments(embedding), self.source_moments)
        self.task.descend(loss)
        return {"moment_distance": loss.detach()}
