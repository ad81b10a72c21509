"""Starts of a new domain: whose mixture weights, and whose batch-norm statistics."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from da_compose.inference import batches
from da_compose.model.contract import Network
from da_compose.model.domain import POOLED, Domain
from da_compose.model.mixture import LearnedMixture
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.statistics import (
    Statistics,
    average_statistics,
    blend_statistics,
    estimate_statistics,
    shrunk_share,
)
from da_compose.storage.backbone import Backbone

MEAN = "mean"
PRIOR_IMAGES = 64  # a source's statistics weigh like so many images of a target


@dataclass
class Start:
    """A target domain before anything is learned: mixture weights and statistics to blend."""

    name: str  # "mean", or the domain it copies
    target: Domain
    source_statistics: Statistics
    target_statistics: Statistics  # the target's own, shrunk toward the source's
    share: float = 0.0  # of the target's own statistics in use
    least_share: float = 0.0  # 1 where no others fit the weights

    def use_statistics(self, share: float) -> None:
        """Blend: 0 is the source's statistics, 1 the target's own."""
        self.share = share = max(share, self.least_share)
        blend = blend_statistics(self.source_statistics, self.target_statistics, share)
        self.target.set_statistics(*blend)


def plain_start_name(backbone: Backbone) -> str:
    """The start that knows nothing of the target: `pooled` where pretrained, else the mean."""
    return POOLED if POOLED in backbone.network.domains else MEAN


def is_composed(backbone: Backbone) -> bool:
    """Whether it is of experts (`compose`): no source is known, a new domain is their average."""
    network = backbone.network
    experts = isinstance(network, PretrainedNetwork) and len(network.domains) > 0
    return experts and not backbone.knowledge


def unmoved(network: Network) -> bool:
    """Whether this is a pretrained network all of whose domains are at xi = 0."""
    pretrained = isinstance(network, PretrainedNetwork)
    return pretrained and not any(domain.mixture().any() for domain in network.domains)


def domain_like(network: Network, name: str, known: Sequence[Domain]) -> Domain:
    """A new domain as one known domain is, with all parts of its own, or as several are on average.

    On average: of the logits xi, of the statistics (with the spread of their means), and of gamma
    and beta where all have their own; input adapter and heads are then the network's.
    """
    if len(known) == 1:
        domain = deepcopy(known[0])
        domain.name = network.new_domain(name).name  # checked
        return domain.requires_grad_(False)
    mixtures = [d.mixture.xi.detach() for d in known if isinstance(d.mixture, LearnedMixture)]
    domain = network.new_domain(name, torch.stack(mixtures).mean(dim=0) if mixtures else None)
    domain.set_statistics(*average_statistics([(d.mean.clone(), d.var.clone()) for d in known]))
    for part in ("gamma", "beta"):
        own = [value.detach() for d in known if (value := getattr(d, part)) is not None]
        if len(own) == len(known):
            setattr(domain, part, nn.Parameter(torch.stack(own).mean(dim=0)))
    return domain.requires_grad_(False)


def make_start(
    backbone: Backbone,
    start: str,
    name: str,
    images: NDArray[np.uint8],
    prior_images: int = PRIOR_IMAGES,
) -> Start:
    """Start from the `mean` of the sources or experts, or from one domain of the backbone.

    images: uint8 (M, S, S) or (M, S, S, 3), unlabelled, for the target's own statistics.
    prior_images: a source's statistics weigh like so many of them.
    """
    network = backbone.network
    of_experts = start == MEAN and is_composed(backbone)  # their statistics fit no average of them
    if of_experts:
        target = network.new_domain(name).requires_grad_(False)
    else:
        copied = [network.domains[n] for n in (backbone.knowledge if start == MEAN else [start])]
        target = domain_like(network, name, copied)
    source = target.mean.clone(), target.var.clone()
    own = estimate_statistics(network, target, batches(network, images))
    if not of_experts:
        own = blend_statistics(source, own, shrunk_share(len(images), prior_images))
    return Start(start, target, source, own, least_share=float(of_experts))
