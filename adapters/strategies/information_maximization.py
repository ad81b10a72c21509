"""Information maximization: confident and diverse predictions, no source needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from adapters.strategies.contract import AdaptationTask
from adapters.strategies.losses import information
from da_compose import probabilities


@final
@dataclass
class InformationMaximization:
    """Maximize the mutual information of image and prediction (SHOT, Liang et al. 2020).

    Classes are expected as frequent as the start's predictions say, not equally frequent: else rare
    ones grow until they are (regularized information maximization, Krause et al. 2010).

    equal_classes: expect all classes to be equally frequent, as SHOT does.
    """

    equal_classes: bool = False

    RATE: ClassVar[float] = 1.0
    WARM_UP: ClassVar[int] = 0

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task
        self.expected = None if self.equal_classes else task.expected

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        logits = self.task.backbone.network(images, self.task.target)  # (2, B, N)
        gain = information(probabilities(logits), self.expected)
        self.task.descend(-gain)
        return {"information": gain.detach()}
