"""Moment matching: bring the target's feature moments to the sources'."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from adapters.strategies.contract import AdaptationTask, check_above
from adapters.strategies.losses import moment_distance, moments


@final
@dataclass
class MomentMatching:
    """Match raw moments of the embedding (M3SDA, Peng et al. 2019, eq. 1).

    moments: 1 or 2, how many. weight: of the loss, beside that of labels where there are any.
    """

    moments: int = 2
    weight: float = 1.0

    RATE: ClassVar[float] = 0.2
    WARM_UP: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_above(self, 0, "weight")
        if self.moments not in (1, 2):
            raise ValueError(f"moments must be 1 or 2, as sources are known by, got {self.moments}")

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task
        self.source_moments = [known[: self.moments] for known in task.source_moments()]

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        _, embedding = self.task.backbone.network.features(images, self.task.target)  # (B, F)
        loss = moment_distance(moments(embedding)[: self.moments], self.source_moments)
        self.task.descend(self.weight * loss)
        return {"moment_distance": loss.detach()}
