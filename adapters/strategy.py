"""The contract between `adapt` and the strategies: one class with one readable `step`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from da_compose import Backbone, Domain


@dataclass(frozen=True)
class AdaptationTask:
    """All that a strategy may use: a frozen backbone, the target, what to train; no labels.

    target: the new domain; only `trained`, parameters of it, may move.
    optimizer: steps `trained`; its learning rate is scheduled by `adapt`.
    extra: a loss that is added to that of every step (`adapters.few_labels`).
    """

    backbone: Backbone
    target: Domain
    trained: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    batch_size: int
    generator: torch.Generator
    extra: Callable[[], Tensor] | None = None

    def descend(self, loss: Tensor) -> None:
        """One optimizer step on the trained parameters; every other gradient is left alone."""
        if self.extra is not None:
            loss = loss + self.extra()
        gradients = torch.autograd.grad(loss, list(self.trained))
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def source_moments(self) -> list[tuple[Tensor, Tensor]]:
        """First and second raw moments (F,), (F,) of every source's embedding: constants."""
        device = self.target.mean.device
        known = self.backbone.knowledge.values()
        return [(source.first.to(device), source.second.to(device)) for source in known]

    def source_sample(self, features: str) -> tuple[Tensor, Tensor]:
        """A random batch of remembered source features, equally from every source, and labels.

        features: "block_features" -> (B, C, S, S), or "embeddings" -> (B, F).
        """
        share = max(1, self.batch_size // len(self.backbone.knowledge))
        batch, labels = [], []
        for known in self.backbone.knowledge.values():
            chosen = torch.randint(len(known.labels), (share,), generator=self.generator)
            batch.append(getattr(known, features)[chosen].float())
            labels.append(known.labels[chosen])
        device = self.target.mean.device
        return torch.cat(batch).to(device), torch.cat(labels).to(device)


class Strategy(Protocol):
    """Finds the target's parameters from batches of its unlabelled images."""

    RATE: ClassVar[float]  # learning rate, as a multiple of the usual one of what is trained

    def __init__(self, task: AdaptationTask) -> None: ...

    def step(self, images: Tensor) -> Mapping[str, float]:
        """One step on target images (B, 3, S, S); returns named figures for the history."""
        ...
