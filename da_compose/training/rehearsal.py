"""Rehearsal: how accurate a backbone is on domains that it has never seen, and what it says there.

Mock targets are made of labelled images of the sources that no step of training saw: others look,
other poses, other class frequencies. On each, every blend of the plain start predicts, as on a
target; what it says (`da_compose.evidence`) and how often it is right are kept with the backbone.
From these, `da_compose.estimate` tells the accuracy on a domain without labels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from da_compose.evidence import evidence
from da_compose.images import ImageSet, to_pixels, with_channels
from da_compose.knowledge import Rehearsal
from da_compose.progress import phase
from da_compose.starts import SHARES, Tried, plain_start_name
from da_compose.storage.backbone import Backbone
from da_compose.training.sampling import seeded
from da_compose.training.styles import restyle

LEAST_HELD_OUT = 20  # images of all sources together, to rehearse on
PARTS = (1, 2, 4, 8, 16)  # figures are also those of this part of a mock target


@dataclass(frozen=True, kw_only=True)
class RehearsalConfig:
    """How much is rehearsed; about a minute on one core for digits, five for 128-pixel pictures."""

    mock_targets: int = 16
    images: int = 192  # of a mock target, or half of its source's
    most_styles: int = 3
    posed: float = 0.4  # share of the mock targets whose images are scaled, turned, sheared, moved
    seed: int = 0


def rehearse(
    backbone: Backbone,
    held_out: Mapping[str, ImageSet],
    config: RehearsalConfig | None = None,
) -> Backbone:
    """The backbone with its rehearsal; without one where fewer than `LEAST_HELD_OUT` are held out.

    held_out: labelled images of the sources, by name, that training has not seen.
    """
    config = config or RehearsalConfig()
    if sum(len(images) for images in held_out.values()) < LEAST_HELD_OUT:
        return backbone
    rows = []
    with phase("rehearsing on mock targets", config.mock_targets) as rehearsing:
        for number in range(config.mock_targets):
            images, labels = mock_target(held_out, number, len(backbone.class_names), config)
            tried, plain = Tried(backbone, "mock", images, len(images)), plain_start_name(backbone)
            for share in SHARES if backbone.network.config.num_statistics else SHARES[:1]:
                predicted, viewed = tried.views(plain, share)
                accuracy = (predicted.argmax(dim=1) == labels).double().mean()
                for count in [max(1, len(images) // part) for part in PARTS]:
                    told = evidence(predicted[:count], viewed[:count])
                    rows.append((told, accuracy, torch.tensor(number), torch.tensor(count)))
            rehearsing.advance(note=f"{100 * rows[-1][1]:.0f} % right")
    found = Rehearsal(*map(torch.stack, zip(*rows, strict=True)))
    return replace(backbone, rehearsal=found)


def mock_target(
    held_out: Mapping[str, ImageSet], number: int, num_classes: int, config: RehearsalConfig
) -> tuple[NDArray[np.uint8], Tensor]:
    """Images (M, S, S, 3) and labels (M,) of a mock target, a function of its number.

    Drawn of one source, of every other with class frequencies of its own, or lacking half of the
    classes; in up to `most_styles` random styles, of which a change of pose is one; every tenth as
    it is.
    """
    generator = seeded(config.seed, number, 11)
    source = held_out[list(held_out)[number % len(held_out)]]
    labels = torch.from_numpy(source.labels)
    weights = torch.ones(num_classes)
    if number % 4 == 1:
        weights = -torch.rand(num_classes, generator=generator).clamp_min(1e-3).log()
    elif number % 4 == 3:
        held = labels.unique()
        lacking = held[torch.randperm(len(held), generator=generator)[: len(held) // 2]]
        weights[lacking] = 0
    count = min(config.images, (len(labels) + 1) // 2)  # more would leave no choice of classes
    count = min(count, int(weights[labels].count_nonzero()))
    chosen = torch.multinomial(weights[labels], count, generator=generator)
    pixels = with_channels(to_pixels(np.asarray(source.images[chosen.numpy()])), 3)
    styles = int(torch.randint(1, config.most_styles + 1, (), generator=generator))
    if number % 10 < 9:
        if torch.rand((), generator=generator) < config.posed:
            pixels, styles = posed(pixels, generator), styles - 1
        pixels = restyle(pixels, styles, generator)
    images = (255 * pixels.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1)
    return images.contiguous().numpy(), labels[chosen]


def posed(pixels: Tensor, generator: Generator) -> Tensor:
    """Scaled by up to 1.4, turned by up to 20 degrees, sheared and moved a little, all alike."""
    draws = 2 * torch.rand(5, generator=generator) - 1
    scale, angle = math.exp(0.35 * draws[0].item()), math.radians(20 * draws[1].item())
    turn = scale * torch.tensor(
        [[math.cos(angle), 0.25 * draws[2].item() - math.sin(angle)],
         [math.sin(angle), math.cos(angle)]]
    )  # fmt: skip
    change = torch.cat([turn, 0.12 * draws[3:, None]], dim=1).expand(len(pixels), 2, 3)
    grid = functional.affine_grid(change, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
