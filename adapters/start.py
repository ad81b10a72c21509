"""Where an adaptation starts: whose mixture weights, and whose batch-norm statistics."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters.selection import LEAST_CERTAINTY, certainty, trust
from da_compose import Backbone, Domain, probabilities
from da_compose.inference import batches, predict_logits
from da_compose.model.mixture import MixtureWeights
from da_compose.statistics import (
    Statistics,
    average_statistics,
    blend_statistics,
    estimate_statistics,
    shrunk_share,
)
from da_compose.training.trainer import POOLED

SHARES = (0.0, 0.5, 1.0)  # of the target's own statistics, tried by `best_start`
PRIOR_IMAGES = 64  # a source's statistics weigh like so many images of the target
LEAST_COMPARED = 50  # images, to compare starts on
LEAST_KNOWN = 0.25  # certainty of source only, below which it hardly tells images apart
MOST_GAINED = 0.2  # certainty that their own statistics may add: more is made up there, else real
MEAN, NEAREST = "mean", "nearest"


@dataclass
class Start:
    """A target domain before anything is learned: mixture weights and statistics to blend."""

    name: str  # "mean", or the domain it copies
    target: Domain
    source_statistics: Statistics
    target_statistics: Statistics  # the target's own, shrunk toward the source's
    share: float = 0.0  # of the target's own statistics in use

    def use_statistics(self, share: float) -> None:
        """Blend: 0 is the source's statistics, 1 the target's own."""
        self.share = share
        blend = blend_statistics(self.source_statistics, self.target_statistics, share)
        self.target.set_statistics(*blend)


def plain_start_name(backbone: Backbone) -> str:
    """The start that knows nothing of the target: `pooled` where pretrained, else the mean."""
    return POOLED if POOLED in backbone.network.domains else MEAN


def check_start(backbone: Backbone, start: str) -> None:
    """Raise ValueError where `start` is no start on this backbone, or it knows no source."""
    names = backbone.network.domains.names
    if start not in (MEAN, NEAREST, *names):
        choices = ", ".join((MEAN, NEAREST, *names))
        raise ValueError(f"no start {start!r}; choose from {choices}")
    if not backbone.knowledge:
        raise ValueError(
            "the backbone knows no source domain, expected at least one; give it what "
            "`da_compose.knowledge.collect_knowledge` returns. One made of tasks with classes of "
            "their own has none to adapt from: learn a new labelled task on it (`transfer`)"
        )
    known = [backbone.network.domains[name] for name in backbone.knowledge]
    if own := [d.name for d in known if d.heads is not None or d.gamma is not None]:
        raise ValueError(
            f"{', '.join(own)}: logits or batch norm of their own, which no new domain shares; "
            "expected a backbone of `pretrain`, or learn a new labelled task (`transfer`)"
        )


def make_start(backbone: Backbone, start: str, name: str, images: NDArray[np.uint8]) -> Start:
    """Start from the `mean` of the sources or from one domain of the backbone.

    images: uint8 (M, S, S) or (M, S, S, 3), unlabelled, for the target's own statistics.
    """
    network = backbone.network
    copied = [network.domains[n] for n in (backbone.knowledge if start == MEAN else [start])]
    xi = None
    if network.config.signature is None:
        logits = [d.mixture.xi.detach() for d in copied if isinstance(d.mixture, MixtureWeights)]
        xi = torch.stack(logits).mean(dim=0)
    target = network.new_domain(name, xi).requires_grad_(False)
    source = average_statistics([(domain.mean.clone(), domain.var.clone()) for domain in copied])
    target.set_statistics(*source)
    own = estimate_statistics(network, target, batches(network, images))
    own = blend_statistics(source, own, shrunk_share(len(images), PRIOR_IMAGES))
    return Start(start, target, source, own)


def best_start(
    backbone: Backbone, start: str, name: str, images: NDArray[np.uint8], searched: int
) -> Start:
    """The start and the blend of statistics whose predictions are trusted most: `trust`.

    Fewer than `LEAST_COMPARED` images compare nothing: then it is AdaBN, whose statistics are
    shrunk toward the source's. Where even the most trusted is unsure, predictions do not tell
    domains apart, and only the blend of the plain start is chosen: source only where the images'
    own statistics make classes up, of noise say; those alone where they tell much more.

    start: a name as in `make_start`, or `nearest` to try the mean and every domain.
    searched: images the choice is made on; the statistics are then those of all images.
    """
    plain = plain_start_name(backbone) if start == NEAREST else start
    compared = min(len(images), searched) >= LEAST_COMPARED
    names = [MEAN, *backbone.network.domains.names] if compared and start == NEAREST else [plain]
    few = images[:searched]
    predictions = {}
    for candidate in names:
        made = make_start(backbone, candidate, name, few)
        for share in SHARES:
            made.use_statistics(share)
            logits = predict_logits(backbone.network, made.target, few)
            predictions[candidate, share] = probabilities(logits)
    consensus = torch.stack(list(predictions.values())).mean(dim=0)
    trusted = {one: trust(prediction, consensus) for one, prediction in predictions.items()}
    best, share = max(trusted, key=trusted.__getitem__) if compared else (plain, 1.0)
    if certainty(predictions[best, share]) < LEAST_CERTAINTY:
        if compared:
            best, share = max(((plain, s) for s in SHARES), key=trusted.__getitem__)
        own_statistics, source_only = predictions[plain, 1.0], predictions[plain, 0.0]
        if gain_much(own_statistics, source_only):
            best, share = plain, 0.0 if certainty(source_only) < LEAST_KNOWN else 1.0
    chosen = make_start(backbone, best, name, images)
    chosen.use_statistics(share)
    return chosen


def gain_much(own_statistics: Tensor, source_only: Tensor) -> bool:
    """Whether the images' own statistics are far more certain than source only.

    Both are predictions (M, N). Where source only hardly tells images apart, the gain is made up;
    where it does, it is real, though a blend of the two may agree better with the other starts, of
    which two thirds hold on to a source's statistics.
    """
    return certainty(own_statistics) > certainty(source_only) + MOST_GAINED
