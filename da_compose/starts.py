"""Starts of a new domain: whose mixture weights, and whose batch-norm statistics."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from da_compose.centroids import with_centroids
from da_compose.estimate import Estimate, Estimator, by_agreement
from da_compose.evidence import another_view, evidence
from da_compose.inference import batches, embed
from da_compose.likeness import likeness
from da_compose.model.contract import Network, probabilities
from da_compose.model.domain import POOLED, Domain
from da_compose.model.mixture import LearnedMixture
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.source_heads import SourceHead, agreement, source_heads
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
SHARES = (0.0, 0.5, 1.0)  # of the target's own statistics, that are compared
MOST_VIEWED = 500  # images that are seen in another view


class Start:
    """A target domain before anything is learned: mixture weights and statistics to blend.

    name: "mean", or the domain that the target copies. own: gives the target's own, when they are
    first asked for, shrunk toward the source's.
    """

    def __init__(self, name: str, target: Domain, own: Callable[[], Statistics]) -> None:
        self.name, self.target = name, target
        self.source_statistics: Statistics = target.mean.clone(), target.var.clone()
        self.share = 0.0  # of the target's own statistics in use
        self._own = own
        self.use_statistics(0.0)

    @cached_property
    def target_statistics(self) -> Statistics:
        """The target's own, shrunk toward the source's."""
        return self._own()

    def use_statistics(self, share: float) -> None:
        """Blend: 0 is the source's statistics, 1 the target's own."""
        self.share = share
        if share == 0:
            self.target.set_statistics(*self.source_statistics)
            return
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
    if start == MEAN and is_composed(backbone):
        target = network.new_domain(name).requires_grad_(False)
    else:
        copied = [network.domains[n] for n in (backbone.knowledge if start == MEAN else [start])]
        target = domain_like(network, name, copied)
    source = target.mean.clone(), target.var.clone()

    def own() -> Statistics:
        found = estimate_statistics(network, target, batches(network, images))
        return blend_statistics(source, found, shrunk_share(len(images), prior_images))

    return Start(start, target, own)


def starts_to_compare(
    backbone: Backbone, shares: Sequence[float] = SHARES
) -> list[tuple[str, float]]:
    """Starts by name and share of the target's own statistics, the plain one's first.

    The plain start and the mean of the sources: a source alone is hardly ever better than both
    (benchmarks/LOG.md). Of experts (`compose`) their average and each.
    """
    names = [plain_start_name(backbone), MEAN]
    if unmoved(backbone.network):
        names = names[:1]  # all differ in statistics alone
    elif is_composed(backbone):
        names += backbone.network.domains.names
    return [(name, share) for name in dict.fromkeys(names) for share in shares]


class Tried:
    """Starts on some images: each is made once, and each of its blends predicts them once.

    seen: as many of the first images are predicted to compare starts on, and at most `MOST_VIEWED`
    of those in another view; statistics are of all images.
    """

    def __init__(
        self,
        backbone: Backbone,
        name: str,
        images: NDArray[np.uint8],
        seen: int,
        prior_images: int = PRIOR_IMAGES,
    ) -> None:
        self.backbone, self.name, self.images = backbone, name, images
        self.seen, self.prior_images = images[:seen], prior_images
        self.viewed = another_view(self.seen[:MOST_VIEWED])
        self._starts: dict[str, Start] = {}
        self._embedded: dict[tuple[str, str, float], Tensor] = {}

    def start(self, which: str, share: float) -> Start:
        """A start by its name, with this share of the images' own statistics in use."""
        if which not in self._starts:
            self._starts[which] = make_start(
                self.backbone, which, self.name, self.images, self.prior_images
            )
        self._starts[which].use_statistics(share)
        return self._starts[which]

    def logits(self, which: str, share: float) -> Tensor:
        """Of both heads on all images (2, M, N); without batch norm alike for all shares."""
        return self._predicted("images", which, share)

    def prediction(self, which: str, share: float, heeding: bool = False) -> Tensor:
        """Of the images that are seen to compare starts, (C, N); heeding: with centroids."""
        what = "images" if len(self.seen) == len(self.images) else "seen"
        heads = self.heeding(which, share) if heeding else None
        return probabilities(self._predicted(what, which, share, heads))

    def heeding(self, which: str, share: float) -> nn.ModuleList:
        """Classifiers of this start that heed the centroids of all images (`centroids`)."""
        heads = self.start(which, share).target.heads or self.backbone.network.heads
        said = probabilities(self._predicted("images", which, share, heads))
        return with_centroids(heads, self.embeddings(which, share), said)

    def views(self, which: str, share: float) -> tuple[Tensor, Tensor]:
        """`prediction`, and that of another view of the first images (V, N)."""
        return self.prediction(which, share), probabilities(self._predicted("viewed", which, share))

    @cached_property
    def source_heads(self) -> list[SourceHead]:
        """Classifiers of single sources, of a pretrained network that knows two or more."""
        if not isinstance(self.backbone.network, PretrainedNetwork):
            return []
        return source_heads(self.backbone.knowledge, len(self.backbone.class_names))

    def expected(self, which: str, share: float) -> Estimate | None:
        """How accurate this start is on the images that are seen, where something tells.

        By how often classifiers of single sources agree; where there are none, by the backbone's
        rehearsal.
        """
        if self.source_heads:
            what = "images" if len(self.seen) == len(self.images) else "seen"
            agreed = agreement(self.source_heads, self.embeddings(which, share, what))
            return by_agreement(agreed, len(self.seen))
        if self.backbone.rehearsal is None:
            return None
        estimator = Estimator(self.backbone.rehearsal, len(self.seen))
        return estimator(evidence(*self.views(which, share)))

    @cached_property
    def likeness(self) -> float | None:
        """Of the images that are seen to the sources', under the sources' statistics, as those are.

        None where it tells nothing: from scratch, and of fewer than two sources.
        """
        if not isinstance(self.backbone.network, PretrainedNetwork):
            return None
        plain = plain_start_name(self.backbone), 0.0
        what = "images" if len(self.seen) == len(self.images) else "seen"
        frequencies = self.prediction(*plain).mean(dim=0)
        return likeness(self.backbone.knowledge, self.embeddings(*plain, what), frequencies)

    def embeddings(self, which: str, share: float, what: str = "images") -> Tensor:
        """Of all images, (M, F), on the backbone's device."""
        start = self.start(which, share if self.backbone.network.config.num_statistics else 0.0)
        key = what, which, start.share
        if key not in self._embedded:
            network = self.backbone.network
            self._embedded[key] = embed(network, start.target, getattr(self, what))
        return self._embedded[key]

    @torch.no_grad()
    def _predicted(
        self, what: str, which: str, share: float, heads: nn.ModuleList | None = None
    ) -> Tensor:
        embedding = self.embeddings(which, share, what)
        own = self.start(which, share).target.heads or self.backbone.network.heads
        return torch.stack([head(embedding) for head in heads or own]).float().cpu()
