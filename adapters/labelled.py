"""Labels of the target, where there are some: a few beside a strategy, or all as a bound.

Neither is unsupervised, and notes and tables say so. A new labelled task: `adapters.transfer`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import cos, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.adapt import conclude, strategy_of
from adapters.adaptation import Adaptation
from adapters.config import AUTO, UNLEARNED, AdaptConfig, with_options
from adapters.loop import learn
from adapters.parts import usual_of
from adapters.prepare import prepare
from adapters.strategies.contract import AdaptationTask, Strategy
from da_compose import Backbone, Domain, Network
from da_compose.context import undisturbed
from da_compose.images import ImageSet, to_pixels
from da_compose.items import labels_of
from da_compose.reading import read_images


@undisturbed()
def adapt_with_labels(
    backbone: Backbone,
    images: Any,
    labelled: tuple[Any, Any],
    strategy: str | Strategy | None = None,
    *,
    name: str = "target",
    config: AdaptConfig | None = None,
    **options: Any,
) -> Adaptation:
    """Adapt as `adapt` does, with the labels of a few images of the domain, 1 to 5 a class, say.

    labelled: images of any kind `adapt` takes, and as many classes, integers from 0 to N - 1.
    They add to the loss each time that what is trained descends; start, iterate and guard are as
    without labels.
    `notes["labels"]` counts them. Raises ValueError for wrong labels, options or images, for
    strategies that learn nothing and for "auto".
    """
    if strategy is not None:
        options["strategy"] = strategy
    config = with_options(config or AdaptConfig(), options)
    if config.strategy is None:
        config = replace(config, strategy=usual_of(backbone.network).tries[0])
    config = config.on(backbone.network)
    if config.method == AUTO:
        raise ValueError(f"{AUTO} tries strategies without labels; name one of them")
    if config.method in UNLEARNED:
        raise ValueError(f"{config.method} learns nothing, with labels or without; choose another")
    if config.cuda_graph:
        raise ValueError("steps with labels are not recorded on a CUDA graph; leave it out")
    few = check_labelled(backbone, *labelled)
    ready = prepare(backbone, images, name, config)
    learned = learn(ready, strategy_of(config.method), extra=partial(supervised, few))
    return conclude(ready, learned, labels=len(few))


def supervised(labelled: ImageSet, task: AdaptationTask) -> Tensor:
    """Cross-entropy of both heads on the labelled images, a random batch where there are more."""
    order = torch.randperm(len(labelled), generator=task.generator, device=task.generator.device)
    chosen = order[: task.batch_size].cpu()
    return cross_entropy(task.backbone.network, task.target, labelled, chosen)


def fit_labelled(
    network: Network,
    domain: Domain,
    trained: Sequence[nn.Parameter],
    labelled: ImageSet,
    *,
    steps: int,
    rate: float,
    generator: torch.Generator,
) -> None:
    """Cross-entropy on random batches, Adam with a cosine, under stored statistics; in place.

    A bound of what `trained`, parameters of the domain or the network, could be by all labels.
    """
    optimizer, batch = torch.optim.Adam(trained, lr=rate), usual_of(network).batch_size
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + cos(pi * step / steps))
        chosen = torch.randint(len(labelled), (batch,), generator=generator)
        loss = cross_entropy(network, domain, labelled, chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def cross_entropy(network: Network, domain: Domain, labelled: ImageSet, chosen: Tensor) -> Tensor:
    """Mean over both heads and the chosen images (B,), indices on CPU."""
    images = to_pixels(labelled.images[chosen.numpy()])
    labels = torch.from_numpy(labelled.labels)[chosen].to(network.device)
    logits = network(images.to(network.device), domain)  # (2, B, N)
    return functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))


def check_labelled(backbone: Backbone, images: Any, classes: Any) -> ImageSet:
    """Images and their classes, read; ValueError where labels are not classes, one an image."""
    labels = labels_of(classes)
    num_classes = backbone.network.config.num_classes
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "labels must be integers of shape (M,), one an image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    wrong = sorted({int(label) for label in labels if not 0 <= label < num_classes})
    if wrong:
        raise ValueError(f"labels must be classes from 0 to {num_classes - 1}, got {wrong}")
    pixels = read_images(images, backbone.network.config.image_size)
    return ImageSet(pixels, labels.astype(np.int64))
