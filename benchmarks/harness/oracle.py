"""Upper bounds that use the target's labels: what could be learned, never a method to ship."""

from collections.abc import Iterator
from copy import deepcopy
from math import cos, pi

import torch
from torch import nn
from torch.nn import functional

from adapters.config import LEARNING_RATES
from adapters.loop import trainable_parameters
from adapters.start import NEAREST, best_start
from da_compose import Backbone, Domain
from da_compose.images import ImageSet, to_pixels

RATE_OF_ALL = 0.001  # learning rate where all weights are trained
RATE_OF_AFFINE = 0.01  # where gamma and beta of every batch norm are, layer by layer; not tuned


def train_oracle(
    backbone: Backbone,
    target: ImageSet,
    trains: str,
    *,
    steps: int,
    seed: int,
    learning_rate: float | None = None,
) -> tuple[Backbone, Domain, int]:
    """Train on the target's labelled training split: mixture_weights, input_adapter, affine or all.

    Returns the backbone (a copy where `all` weights were trained), the domain and the number of
    trained parameters. Nothing is chosen by test labels: the last iterate is returned.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(target), generator=generator).numpy()
    domain = best_start(backbone, NEAREST, "target", target.images[order[:1000]], 400).target
    if trains == "all":
        backbone = Backbone(deepcopy(backbone.network), backbone.class_names, backbone.knowledge)
        trained = list(_all_parameters(backbone, domain))
        rate = learning_rate or RATE_OF_ALL
    elif trains == "affine":
        backbone.network.own_batch_norm(domain)
        trained = [p for p in (domain.gamma, domain.beta) if p is not None]
        rate = learning_rate or RATE_OF_AFFINE
    else:
        trained = trainable_parameters(backbone, domain, trains)
        rate = learning_rate or LEARNING_RATES[trains]
    optimizer = torch.optim.Adam(trained, lr=rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + cos(pi * step / steps))
        chosen = torch.randint(len(target), (128,), generator=generator).numpy()
        labels = torch.from_numpy(target.labels[chosen]).to(backbone.network.device)
        images = to_pixels(target.images[chosen])
        logits = backbone.network(images.to(backbone.network.device), domain)  # (2, B, N)
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return backbone, domain, sum(parameter.numel() for parameter in trained)


def _all_parameters(backbone: Backbone, domain: Domain) -> Iterator[nn.Parameter]:
    for parameter in (*backbone.network.shared_parameters(), *domain.parameters()):
        parameter.requires_grad_(True)
        yield parameter
