"""The contract between `adapt` and a strategy: options, then one readable `step`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Adam

from da_compose import Backbone, Domain
from da_compose.knowledge import SourceKnowledge


@dataclass(frozen=True)
class AdaptationTask:
    """All that a strategy may use: a frozen backbone, the target, what to train; no labels.

    target: the new domain; only `trained`, parameters of it, may move.
    optimizer: steps `trained`; its learning rate is scheduled by `adapt`.
    generator: of all random draws, which happen on its device.
    expected: class frequencies (N,) to expect of the target; None: all alike.
    extra: a loss that is added to that of every step (`adapters.labelled`).
    recorded: steps are to be recorded on a CUDA graph (`adapters.replay`).
    """

    backbone: Backbone
    target: Domain
    trained: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    batch_size: int
    generator: torch.Generator
    expected: Tensor | None = None
    extra: Callable[[], Tensor] | None = None
    recorded: bool = False

    def adding(self, extra: Callable[["AdaptationTask"], Tensor]) -> "AdaptationTask":
        """The same task whose every descent has one loss more, which is given the task."""
        return replace(self, extra=partial(extra, self))

    def adam(self, parameters: Iterable[nn.Parameter], rate: float, **options: Any) -> Adam:
        """An optimizer for what a strategy trains besides, such as a discriminator."""
        return Adam(parameters, lr=rate, capturable=self.recorded, **options)

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
        like = self.target.mean  # device and precision
        known = known_sources(self.backbone)
        return [(source.first.to(like), source.second.to(like)) for source in known]

    @cached_property
    def remembered(self) -> list[SourceKnowledge]:
        """What is known of each source, where samples of it are drawn."""
        return [known.to(self.generator.device) for known in known_sources(self.backbone)]

    def source_sample(self, features: str) -> tuple[Tensor, Tensor]:
        """A random batch of remembered source features, equally from every source, and labels.

        features: "block_features" -> (B, C, S, S), or "embeddings" -> (B, F).
        """
        share = max(1, self.batch_size // len(self.remembered))
        batch, labels = [], []
        for known in self.remembered:
            chosen = draw(len(known.labels), share, self.generator)
            batch.append(getattr(known, features)[chosen].float())
            labels.append(known.labels[chosen])
        like = self.target.mean  # device and precision
        return torch.cat(batch).to(like), torch.cat(labels).to(like.device)


def known_sources(backbone: Backbone) -> list[SourceKnowledge]:
    """What is known of each source; ValueError where nothing is."""
    if not backbone.knowledge:
        raise ValueError(
            "this strategy needs to know the sources, and a backbone that is composed of experts "
            "knows none; take one without, such as information_maximization"
        )
    return [*backbone.knowledge.values()]


def draw(count: int, size: int, generator: torch.Generator) -> Tensor:
    """`size` random numbers below `count`, on the generator's device."""
    return torch.randint(count, (size,), generator=generator, device=generator.device)


class Strategy(Protocol):
    """Finds the target's parameters from batches of its unlabelled images.

    An instance holds options; `adapt` works on a copy of it. A class may also have `RATE`, its
    learning rate as a multiple of the usual one of what is trained, and `WARM_UP`, how many of its
    first steps are not like the later ones. With `TAUGHT` its steps are given a second argument,
    the mean prediction of all starts on the images (B, N).
    """

    def prepare(self, task: AdaptationTask) -> None:
        """Make anew all that steps on this task need."""
        ...

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        """One step on target images (B, 3, S, S); returns named figures for the history.

        Figures are detached tensors of no dimension: a number would wait for the device. Nothing
        else in a step may wait either.
        """
        ...


def rate_of(strategy: Strategy) -> float:
    """The learning rate that suits a strategy, over the usual one of what is trained."""
    return getattr(strategy, "RATE", 1.0)


def warm_up_of(strategy: Strategy) -> int:
    """First steps that are not like the later ones."""
    return getattr(strategy, "WARM_UP", 0)


def is_taught(strategy: Strategy) -> bool:
    """Whether steps are also given the mean prediction of all starts."""
    return getattr(strategy, "TAUGHT", False)


def begun(strategy: Strategy, task: AdaptationTask) -> Strategy:
    """A copy of a strategy, ready to step on a task; the given one stays as it is."""
    own = copy(strategy)
    own.prepare(task)
    return own


def check_above(strategy: object, least: float, *names: str) -> None:
    """Raise ValueError where an option of a strategy is not above `least`."""
    for name in names:
        if not getattr(strategy, name) > least:
            raise ValueError(f"{name} must be above {least}, got {getattr(strategy, name)}")
