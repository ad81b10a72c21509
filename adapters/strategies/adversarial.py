"""Adversarial adaptation: the target's late features fool a domain discriminator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from adapters.strategies.contract import AdaptationTask, check_above, draw
from adapters.strategies.losses import domain_confusion
from da_compose.context import Drawing


@final
@dataclass
class Adversarial:
    """ADDA (Tzeng et al. 2017) on the last block's output: a two-player game, inverted labels.

    The discriminator separates remembered source features from the target's; the target's
    parameters maximize its belief that the target is a source.

    discriminator_rate: learning rate of the discriminator.
    smoothing: of its labels, as in the author code: 1 becomes 1 - smoothing, 0 smoothing.
    """

    discriminator_rate: float = 5e-4
    smoothing: float = 0.1

    RATE: ClassVar[float] = 0.2
    WARM_UP: ClassVar[int] = 20  # of the discriminator alone: untrained it has nothing to teach

    def __post_init__(self) -> None:
        check_above(self, 0, "discriminator_rate")
        if not 0 <= self.smoothing < 0.5:
            raise ValueError(f"smoothing must be at least 0 and below 0.5, got {self.smoothing}")

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task
        like = task.target.mean  # device and precision
        channels = task.backbone.network.config.channels
        self.discriminator = build_discriminator(channels, task.generator).to(like)
        self.optimizer = task.adam(
            self.discriminator.parameters(), self.discriminator_rate, betas=(0.5, 0.999)
        )
        self.steps = 0
        remembered = [known.block_features.float() for known in task.remembered]
        features = torch.cat(remembered).to(like)  # (M, C, S, S)
        self.shift = features.mean(dim=(0, 2, 3), keepdim=True)
        self.scale = features.std(dim=(0, 2, 3), keepdim=True) + 1e-6

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        features = self.task.backbone.network.block_features(images, self.task.target)
        figures = self._step_discriminator(features.detach())
        self.steps += 1
        if self.steps > self.WARM_UP:
            fooled = domain_confusion(self._judge(features), is_source=True)
            self.task.descend(fooled)
            figures["fooled"] = fooled.detach()
        return figures

    def _step_discriminator(self, target: Tensor) -> dict[str, Tensor]:
        source, _ = self.task.source_sample("block_features")  # (B, C, S, S)
        on_source, on_target = self._judge(source), self._judge(target)
        loss = domain_confusion(on_source, is_source=True, smoothing=self.smoothing)
        loss = loss + domain_confusion(on_target, is_source=False, smoothing=self.smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        right = ((on_source > 0).float().mean() + (on_target < 0).float().mean()) / 2
        return {"discriminator": loss.detach(), "discriminator_accuracy": 100 * right}

    def _judge(self, features: Tensor) -> Tensor:
        return self.discriminator((features - self.shift) / self.scale).squeeze(
            1
        )  # (B,), above 0: a source


def build_discriminator(channels: int, generator: torch.Generator) -> nn.Module:
    """Two 3x3 convolutions, average pool, dense, as in the author code: (B, C, S, S) -> (B, 1)."""
    with Drawing(int(draw(2**31, 1, generator))):
        return nn.Sequential(
            spectral_norm(nn.Conv2d(channels, 16, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(16, 32, 3, padding=1)),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            spectral_norm(nn.Linear(32, 1)),
        )
