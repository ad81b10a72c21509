"""Which start an adaptation takes: whose mixture weights, and whose batch-norm statistics."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters.selection import LEAST_CERTAINTY, certainty, trust
from da_compose import Backbone, probabilities
from da_compose.inference import predict_logits
from da_compose.starts import MEAN, Start, is_composed, make_start, plain_start_name, unmoved

NEAREST = "nearest"


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """Limits of the choice of a start, made on development targets (benchmarks/LOG.md)."""

    shares: tuple[float, ...] = (0.0, 0.5, 1.0)  # of the target's own statistics, tried
    prior_images: int = 64  # a source's statistics weigh like so many images of the target
    least_compared: int = 50  # images, to compare starts on
    least_certainty: float = LEAST_CERTAINTY  # below which predictions do not tell domains apart
    least_known: float = 0.25  # certainty of source only, below which it hardly tells images apart
    # Certainty that their own statistics may add: more is made up there, else real
    most_gained: float = 0.2

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

    consensus: mean prediction (C, N) of all that were compared, on the images searched.
    """

    start: Start
    logits: Tensor
    consensus: Tensor
    baselines: Mapping[str, Tensor]


def choose_start(
    backbone: Backbone,
    start: str,
    name: str,
    images: NDArray[np.uint8],
    searched: int,
    baselines: Mapping[str, float],
    baseline: str | None = None,
    config: StartConfig = USUAL,
) -> Chosen:
    """What learns nothing on these images, by name and share of their own statistics, and a start.

    The start is one of the `baselines` where it is named, else `best_start`.
    """
    tried, plain = Tried(backbone, name, images, config), plain_start_name(backbone)
    logits = {named: tried.logits(plain, share) for named, share in baselines.items()}
    if baseline is not None:
        best, share, consensus = plain, baselines[baseline], probabilities(logits[baseline])
    else:
        best, share, consensus = search(tried.on_first(searched), start)
    return Chosen(tried.start(best, share), tried.logits(best, share), consensus, logits)


class Tried:
    """Starts on some images: each is made once, and each of its blends predicted once."""

    def __init__(
        self, backbone: Backbone, name: str, images: NDArray[np.uint8], config: StartConfig
    ) -> None:
        self.backbone, self.name, self.images, self.config = backbone, name, images, config
        self._starts: dict[str, Start] = {}
        self._logits: dict[tuple[str, float], Tensor] = {}

    def on_first(self, count: int) -> "Tried":
        """On the first images alone; the same where there are no more."""
        if count >= len(self.images):
            return self
        return Tried(self.backbone, self.name, self.images[:count], self.config)

    def start(self, which: str, share: float) -> Start:
        """A start by its name, with this share of the images' own statistics in use."""
        if which not in self._starts:
            self._starts[which] = make_start(
                self.backbone, which, self.name, self.images, self.config.prior_images
            )
        self._starts[which].use_statistics(share)
        return self._starts[which]

    def logits(self, which: str, share: float) -> Tensor:
        """Of both heads on the images (2, M, N); without batch norm alike for all shares."""
        if not self.backbone.network.config.num_statistics:
            share = 0.0
        if (which, share) not in self._logits:
            target = self.start(which, share).target
            self._logits[which, share] = predict_logits(self.backbone.network, target, self.images)
        return self._logits[which, share]


def best_start(
    backbone: Backbone,
    start: str,
    name: str,
    images: NDArray[np.uint8],
    searched: int,
    config: StartConfig = USUAL,
) -> Start:
    """The start and the blend of statistics whose predictions are trusted most: `trust`.

    Fewer than `least_compared` images compare nothing: then it is AdaBN, whose statistics are
    shrunk toward the source's. Where even the most trusted is unsure, predictions do not tell
    domains apart, and only the blend of the plain start is chosen: source only where the images'
    own statistics make classes up, of noise say; those alone where they tell much more.

    start: a name as in `make_start`, or `nearest` to try the mean and every domain.
    Where no domain of a pretrained network has moved along its directions, all differ from the
    plain start in statistics alone, and only its blends are tried.
    searched: images the choice is made on; the statistics are then those of all images.
    """
    tried = Tried(backbone, name, images, config)
    best, share, _ = search(tried.on_first(searched), start)
    return tried.start(best, share)


def search(tried: Tried, start: str) -> tuple[str, float, Tensor]:
    """As `best_start`: name, share, and the mean prediction (C, N) of all that were compared."""
    backbone, config = tried.backbone, tried.config
    plain = plain_start_name(backbone) if start == NEAREST else start
    compared = len(tried.images) >= config.least_compared
    names = [plain]
    if compared and start == NEAREST and not unmoved(backbone.network):
        # A task with classes of its own is no start
        names = [MEAN, *(d.name for d in backbone.network.domains if d.class_names is None)]
    predictions = {
        (one, share): probabilities(tried.logits(one, share))
        for one in names
        for share in sorted({0.0, *config.shares, 1.0})
    }
    consensus = torch.stack(list(predictions.values())).mean(dim=0)
    trusted = {one: trust(prediction, consensus) for one, prediction in predictions.items()}
    best, share = max(trusted, key=trusted.__getitem__) if compared else (plain, 1.0)
    if certainty(predictions[best, share]) < config.least_certainty:
        if compared:
            best, share = max(((plain, s) for s in config.shares), key=trusted.__getitem__)
        own_statistics, source_only = predictions[plain, 1.0], predictions[plain, 0.0]
        if gain_much(own_statistics, source_only, config):
            known = certainty(source_only) >= config.least_known
            best, share = plain, 1.0 if known else 0.0
    return best, share, consensus


def gain_much(own_statistics: Tensor, source_only: Tensor, config: StartConfig = USUAL) -> bool:
    """Whether the images' own statistics are far more certain than source only.

    Both are predictions (M, N). Where source only hardly tells images apart, the gain is made up;
    where it does, it is real, though a blend of the two may agree better with the other starts, of
    which two thirds hold on to a source's statistics.
    """
    return certainty(own_statistics) > certainty(source_only) + config.most_gained
