"""Adaptation helped by a few labels of the target: not unsupervised, and its notes say so."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adapters.adaptation import Adaptation
from adapters.config import AUTO, STRATEGIES, AdaptConfig
from adapters.loop import learn, prepare
from adapters.strategies.contract import AdaptationTask
from da_compose import Backbone
from da_compose.images import ImageSet, to_pixels
from da_compose.reading import read_images


def supervised(task: AdaptationTask, labelled: ImageSet) -> Tensor:
    """Cross-entropy of both heads on the labelled images, a random batch where there are more."""
    network = task.backbone.network
    order = torch.randperm(len(labelled), generator=task.generator, device=task.generator.device)
    chosen = order[: task.batch_size].cpu()
    images = to_pixels(labelled.images[chosen.numpy()])
    labels = torch.from_numpy(labelled.labels)[chosen].to(network.device)
    logits = network(images.to(network.device), task.target)  # (2, B, N)
    return functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))


def adapt_with_labels(
    backbone: Backbone,
    images: Any,
    labelled: tuple[Any, Any],
    strategy: str = "information_maximization",
    *,
    name: str = "target",
    **options: Any,
) -> Adaptation:
    """Adapt as `adapt` does, with the labels of a few images of the domain, 1 to 5 a class, say.

    labelled: images of any kind `adapt` takes, and as many classes, integers from 0 to N - 1.
    They add to the loss each time that what is trained descends; start, iterate and guard are as
    without labels.
    `notes["labels"]` counts them. Raises ValueError for wrong labels, options or images, for
    strategies that learn nothing and for "auto".
    """
    config = AdaptConfig(strategy=strategy, **options)
    if strategy == AUTO:
        raise ValueError(f"{AUTO} tries strategies without labels; name one of them")
    method = STRATEGIES[strategy]
    if method is None:
        raise ValueError(f"{strategy} learns nothing, with labels or without; choose another")
    if config.cuda_graph:
        raise ValueError("steps with labels are not recorded on a CUDA graph; leave it out")
    few = check_labelled(backbone, *labelled)
    run = prepare(backbone, images, name, config)
    run.notes["labels"] = len(few)
    learn(run, lambda task: method(replace(task, extra=partial(supervised, task, few))))
    return run.result()


def check_labelled(backbone: Backbone, images: Any, classes: Any) -> ImageSet:
    """Images and their classes, read; ValueError where labels are not classes, one an image."""
    labels = np.asarray(classes)
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
