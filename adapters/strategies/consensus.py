"""Consensus: informative predictions that agree with the mean prediction of all starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from adapters.strategies.contract import AdaptationTask, check_above
from adapters.strategies.losses import information, teaching
from da_compose import probabilities


@final
@dataclass
class Consensus:
    """Information maximization with a teacher: the mean prediction of the starts, on each image.

    The starts differ in whose batch-norm statistics they use, and their mean is mostly as right as
    the best of them. Information alone is as high where a model is sure and wrong.
    Distillation of an ensemble (Hinton et al. 2015), without labels.

    weight: of the cross-entropy to the teacher, beside the information.
    """

    weight: float = 1.0

    RATE: ClassVar[float] = 1.0
    WARM_UP: ClassVar[int] = 0
    TAUGHT: ClassVar[bool] = True

    def prepare(self, task: AdaptationTask) -> None:
        check_above(self, 0, "weight")
        self.task = task

    def step(self, images: Tensor, consensus: Tensor | None = None) -> Mapping[str, Tensor]:
        """One step on images (B, 3, S, S) and the starts' mean prediction on them (B, N).

        Without a teacher it is a step of information maximization.
        """
        found = probabilities(self.task.backbone.network(images, self.task.target))
        loss = -information(found, self.task.expected)
        if consensus is not None:
            loss = loss + self.weight * teaching(found, consensus)
        self.task.descend(loss)
        return {"loss": loss.detach()}
