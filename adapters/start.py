"""Which start an adaptation takes: whose mixture weights, and whose batch-norm statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from da_compose import Backbone
from da_compose.estimate import Estimate, unknown
from da_compose.evidence import FIGURES, agreed_information, evidence
from da_compose.progress import phase
from da_compose.starts import (
    MEAN,
    PRIOR_IMAGES,
    SHARES,
    Start,
    Tried,
    is_composed,
    plain_start_name,
    starts_to_compare,
)

NEAREST = "nearest"
INFORMED = FIGURES.index("agreed_information")


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """Limits of the choice of a start, made on development targets (benchmarks/LOG.md)."""

    shares: tuple[float, ...] = SHARES  # of the target's own statistics, tried
    prior_images: int = PRIOR_IMAGES  # a source's statistics weigh like so many of the target
    least_compared: int = 50  # images, to compare starts on
    # Information of the most informed start, below which the images mean nothing to the backbone
    least_informed: float = 0.1
    clearly: float = 0.015  # more accurate, as expected, than the most informed start
    # How like the sources the images are (`da_compose.likeness`), below which they are of no task
    # that the backbone knows
    least_like: float = 0.7

    def __post_init__(self) -> None:
        if not self.shares or not all(0 <= share <= 1 for share in self.shares):
            raise ValueError(f"shares must be one or more from 0 to 1, got {self.shares}")
        for name in ("prior_images", "least_compared"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


USUAL = StartConfig()


def check_start(backbone: Backbone, start: str) -> None:
    """Raise ValueError where `start` is no start on this backbone, or it knows no source."""
    names = backbone.network.domains.names
    if start not in (MEAN, NEAREST, *names):
        choices = ", ".join((MEAN, NEAREST, *names))
        raise ValueError(f"no start {start!r}; choose from {choices}")
    if not (backbone.knowledge or is_composed(backbone)):
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


@dataclass(frozen=True)
class Chosen:
    """The start that was chosen, and logits of both heads (2, M, N) there and of the baselines.

    consensus: mean prediction (C, N) of all that were compared, on the images searched; each with
    centroids of its own where the start has some.
    evidence: figures (`da_compose.evidence`) of the baselines, by name, and of the `start`, before
    it heeds centroids. estimates: of their accuracy, likewise, where something tells. heeding:
    whether it does. likeness: to the sources, where there are images enough and it tells anything.
    """

    start: Start
    logits: Tensor
    consensus: Tensor
    baselines: Mapping[str, Tensor]
    evidence: Mapping[str, Tensor]
    estimates: Mapping[str, Estimate]
    heeding: bool
    likeness: float | None


def choose_start(
    backbone: Backbone,
    start: str,
    name: str,
    images: NDArray[np.uint8],
    searched: int,
    baselines: Mapping[str, float],
    baseline: str | None = None,
    config: StartConfig = USUAL,
    centroids: bool = False,
) -> Chosen:
    """What learns nothing on these images, by name and share of their own statistics, and a start.

    The start is one of the `baselines` where it is named, else `best_start`. centroids: it heeds
    those of its classes (`da_compose.centroids`), unless the images mean nothing to it, or it is a
    domain with classifiers of its own, which heed some already if it was adapted.
    """
    tried = Tried(backbone, name, images, searched, config.prior_images)
    plain = plain_start_name(backbone)
    logits = {named: tried.logits(plain, share) for named, share in baselines.items()}
    if baseline is not None:
        candidates = [(plain, baselines[baseline])]
        best = candidates[0]
    else:
        candidates = compared(tried, start, config)
        best = best_of(tried, candidates, config)
    views = tried.views(*best)
    figures = {named: evidence(*tried.views(plain, share)) for named, share in baselines.items()}
    figures["start"] = evidence(*views)
    models = {named: (plain, share) for named, share in baselines.items()} | {"start": best}
    estimates = {}
    for named, one in models.items():
        if (expected := tried.expected(*one)) is not None:
            deaf = figures[named][INFORMED] < config.least_informed  # its classifiers may agree
            estimates[named] = unknown(len(backbone.class_names)) if deaf else expected
    like = likeness_of(tried, config)
    informed = agreed_information(*views) >= config.least_informed
    means_something = informed and not is_unlike(like, config)
    heeding = centroids and baseline is None and means_something and not _has_heads(backbone, start)
    consensus = torch.stack([tried.prediction(*one, heeding) for one in candidates]).mean(dim=0)
    found = tried.start(*best)
    if heeding:
        found.target.heads = tried.heeding(*best)
    return Chosen(found, tried.logits(*best), consensus, logits, figures, estimates, heeding, like)


def _has_heads(backbone: Backbone, start: str) -> bool:
    """Whether a start is a domain that was named, with classifiers of its own; experts all are."""
    domains = backbone.network.domains
    return start in domains and domains[start].heads is not None and not is_composed(backbone)


def best_start(
    backbone: Backbone,
    start: str,
    name: str,
    images: NDArray[np.uint8],
    searched: int,
    config: StartConfig = USUAL,
) -> Start:
    """The start and the blend of statistics that suit these images best.

    By what predictions on the images and on another view of them agree on, beyond chance
    (`da_compose.evidence.agreed_information`); another where that one is expected to be clearly
    more accurate (`Tried.expected`): of a target that lacks classes, a start that scatters its
    images over all of them can look the more informed. Of experts (`compose`) it is the start that
    chooses as their mean prediction does most often: what was trained apart errs apart. Fewer than
    `least_compared` images compare nothing: then it is AdaBN, whose statistics are shrunk toward
    the source's. Images that mean nothing to any start, or are like no source's, are left to source
    only.

    start: a name as in `make_start`, or `nearest` to compare those of `starts_to_compare`.
    searched: images the choice is made on; the statistics are those of all images.
    """
    tried = Tried(backbone, name, images, searched, config.prior_images)
    return tried.start(*best_of(tried, compared(tried, start, config), config))


def compared(tried: Tried, start: str, config: StartConfig) -> list[tuple[str, float]]:
    """Names and shares of the starts to compare, the plain one's first."""
    shares = sorted({0.0, *config.shares, 1.0})
    if start == NEAREST and len(tried.seen) >= config.least_compared:
        return starts_to_compare(tried.backbone, shares)
    plain = plain_start_name(tried.backbone) if start == NEAREST else start
    return [(plain, share) for share in shares]


def best_of(
    tried: Tried, candidates: Sequence[tuple[str, float]], config: StartConfig
) -> tuple[str, float]:
    """The best of some starts, as `best_start` has it."""
    plain = candidates[0][0]
    if len(tried.seen) < config.least_compared:
        return plain, 1.0
    if is_composed(tried.backbone):
        return nearest_to_all(tried, candidates)
    if is_unlike(likeness_of(tried, config), config):
        return plain, 0.0
    figures = {}
    with phase("choosing a start", len(candidates)) as choosing:
        for one in candidates:
            figures[one] = evidence(*tried.views(*one))
            choosing.advance()
    best = max(candidates, key=lambda one: figures[one][INFORMED].item())
    if figures[best][INFORMED] < config.least_informed:
        return plain, 0.0
    telling = [one for one in candidates if figures[one][INFORMED] >= config.least_informed]
    estimates = {one: tried.expected(*one) for one in telling}  # on one class for all, all agree
    expected = {one: found.accuracy for one, found in estimates.items() if found is not None}
    if not expected:
        return best
    other = max(expected, key=expected.__getitem__)
    return other if expected[other] > expected[best] + config.clearly else best


def likeness_of(tried: Tried, config: StartConfig) -> float | None:
    """How like the sources the images are, where there are enough and it tells anything."""
    return tried.likeness if len(tried.seen) >= config.least_compared else None


def is_unlike(likeness: float | None, config: StartConfig) -> bool:
    """Whether images are so unlike the sources' that they are of another task."""
    return likeness is not None and likeness < config.least_like


def nearest_to_all(tried: Tried, candidates: Sequence[tuple[str, float]]) -> tuple[str, float]:
    """The start that chooses the class of the mean prediction of all on the most images."""
    said = []
    with phase("choosing a start", len(candidates)) as choosing:
        for one in candidates:
            said.append(tried.prediction(*one))
            choosing.advance()
    predictions = torch.stack(said)  # (starts, C, N)
    same = predictions.argmax(dim=2) == predictions.mean(dim=0).argmax(dim=1)
    return candidates[int(same.sum(dim=1).argmax())]
