"""Everything of an adaptation that comes before its first step."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters.config import BASELINES, T3A, AdaptConfig, with_options
from adapters.selection import Scores, score
from adapters.start import check_start, choose_start, is_unlike
from adapters.strategies.losses import class_frequencies
from da_compose import Backbone, Domain, probabilities
from da_compose.estimate import Estimate
from da_compose.evidence import FIGURES
from da_compose.model.domain import check_name
from da_compose.reading import read_images
from da_compose.storage.backbone import check_backbone

# Options that a start does not depend on, but for `starting` of a strategy
AFTERWARDS = {"strategy", "trains", "steps", "learning_rate"}


@dataclass(frozen=True)
class Ready:
    """An adaptation at its start. Learning works on copies, so that each try begins alike.

    target: the domain at its start. logits: of both heads on the checked images, (2, M, N).
    consensus: mean prediction of all starts (C, N), of the first C checked images.
    pixels: all images, uint8; `checked` those of them that iterates are compared on, unlabelled.
    evidence: figures of the baselines, by name, and of the `start`: `da_compose.evidence`.
    estimates: of their accuracy, where something tells: `da_compose.starts.Tried.expected`.
    likeness: of the images to the sources': `da_compose.starts.Tried.likeness`.
    drawn: state of the random generator after the images were ordered.
    """

    config: AdaptConfig
    backbone: Backbone
    target: Domain
    logits: Tensor
    consensus: Tensor
    pixels: NDArray[np.uint8]
    checked: NDArray[np.uint8]
    scores: Mapping[str, Scores]
    evidence: Mapping[str, Tensor]
    estimates: Mapping[str, Estimate]
    likeness: float | None
    notes: Mapping[str, Any]
    drawn: Tensor

    def asking(self, **options: Any) -> "Ready":
        """The same start, made once, for another strategy, what it trains, or how long.

        As `prepare` would find it with these options beside its own. Raises ValueError for those
        that another start would be chosen with.
        """
        asked = with_options(self.config, options)
        if not options.keys() <= AFTERWARDS or starting(asked) != starting(self.config):
            raise ValueError(f"{', '.join(options)}: another start than the one that is made")
        return replace(self, config=asked, notes=dict(self.notes) | strategy_notes(asked))

    @cached_property
    def expected(self) -> Tensor:
        """Class frequencies (N,), by the start's predictions."""
        return class_frequencies(probabilities(self.logits))

    @property
    def meaningless(self) -> bool:
        """Whether the images mean nothing to any start, as noise does, or are like no source's."""
        limits, place = self.config.start_config, FIGURES.index("agreed_information")
        informed = max(figures[place].item() for figures in self.evidence.values())
        return informed < limits.least_informed or is_unlike(self.likeness, limits)

    @property
    def unsure(self) -> bool:
        """Whether the start's predictions carry too little information to learn much from."""
        return self.certain < self.config.guard_config.least_certainty

    @property
    def certain(self) -> float:
        """Their information, as a share of what there could be, before they heeded centroids."""
        return self.evidence["start"][FIGURES.index("certainty")].item()


def prepare(backbone: Backbone, images: Any, name: str, config: AdaptConfig) -> Ready:
    """Read the images, score the baselines, and choose the start.

    images: of any kind that `da_compose.reading.read_images` takes. name: of the new domain.
    """
    check_backbone(backbone)
    check_start(backbone, config.start)
    check_name(name)  # before any work
    if backbone.network.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"this backbone is of {backbone.network.dtype}, too coarse to learn in; make it "
            "float32: backbone.network.float(); bfloat16=True computes its blocks in bfloat16"
        )
    config = config.on(backbone.network)
    pixels = read_images(images, backbone.network.config.image_size)
    backbone.doubt_range(pixels)
    generator = torch.Generator().manual_seed(config.seed)
    order = torch.randperm(len(pixels), generator=generator).numpy()
    checked = pixels[order[: config.check_images]]
    chosen = choose_start(
        backbone,
        config.start,
        name,
        checked,
        config.num_start_images,
        BASELINES,
        config=config.start_config,
        **starting(config),
    )
    logits, start = chosen.logits, chosen.start
    if not logits.isfinite().all():
        raise ValueError(
            "the backbone's predictions are not finite, so it is damaged or its pretraining "
            "diverged; pretrain it again"
        )
    return Ready(
        config=config,
        backbone=backbone,
        target=start.target,
        logits=logits,
        consensus=chosen.consensus,
        pixels=pixels,
        checked=checked,
        scores={name: score(found) for name, found in chosen.baselines.items()}
        | {"start": score(logits)},
        evidence=chosen.evidence,
        estimates=chosen.estimates,
        likeness=chosen.likeness,
        notes=strategy_notes(config)
        | {
            "start": start.name,
            "target_share": start.share,
            "centroids": chosen.heeding,
            "likeness": chosen.likeness,
        },
        drawn=generator.get_state(),
    )


def starting(config: AdaptConfig) -> dict[str, Any]:
    """What the strategy says of its start, as `choose_start` takes it."""
    heeding = config.centroids and config.method != T3A  # which has prototypes of its own
    return {"baseline": config.baseline, "centroids": heeding}


def strategy_notes(config: AdaptConfig) -> dict[str, Any]:
    """What notes say of a strategy: its name, and its options where an instance was given."""
    notes: dict[str, Any] = {"strategy": config.strategy_name}
    if is_dataclass(config.method) and not isinstance(config.method, type):
        notes["strategy_options"] = asdict(config.method)
    return notes
