"""TENT: predictions of low entropy, and nothing else asked of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from adapters.strategies.contract import AdaptationTask
from da_compose import probabilities
from da_compose.evidence import entropy


@final
@dataclass
class Tent:
    """Minimize the entropy of each prediction (TENT, Wang et al. 2021, section 3.1).

    The publication trains gamma and beta: `trains="batch_norm"`. It normalizes by each test batch;
    here steps and predictions use the start's stored statistics, as of all strategies, so that a
    prediction depends on one image alone and a step's gradient is that of what is predicted. It
    predicts batch by batch as it goes; here steps come first, and the iterate is chosen and guarded
    as any other. `Adaptation.last` is the one that neither choice touched.
    """

    RATE: ClassVar[float] = 1.0
    WARM_UP: ClassVar[int] = 0

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        logits = self.task.backbone.network(images, self.task.target)  # (2, B, N)
        unsure = entropy(probabilities(logits)).mean()
        self.task.descend(unsure)
        return {"entropy": unsure.detach()}
