"""Upper bounds that use the target's labels: what could be learned, never a method to ship."""

from copy import deepcopy

import torch

from adapters.labelled import fit_labelled
from adapters.parts import LEARNING_RATES, unlock
from adapters.start import NEAREST, best_start
from da_compose import Backbone, Domain
from da_compose.images import ImageSet

RATES = LEARNING_RATES | {
    "all": 0.001,  # tuned on development targets
    "batch_norm": 0.01,  # not tuned
}


def train_oracle(
    backbone: Backbone,
    target: ImageSet,
    trains: str,
    *,
    steps: int,
    seed: int,
    learning_rate: float | None = None,
) -> tuple[Backbone, Domain, int]:
    """Train one of `adapters.parts.PARTS` on the target's labelled training split.

    Returns the backbone (a copy where `all` weights were trained), the domain and the number of
    trained parameters. Nothing is chosen by test labels: the last iterate is returned.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(target), generator=generator).numpy()
    domain = best_start(backbone, NEAREST, "target", target.images[order[:1000]], 400).target
    if trains == "all":
        backbone = Backbone(deepcopy(backbone.network), backbone.class_names, backbone.knowledge)
    trained = unlock(backbone.network, domain, trains)
    fit_labelled(
        backbone.network,
        domain,
        trained,
        target,
        steps=steps,
        rate=learning_rate or RATES[trains],
        generator=generator,
    )
    return backbone, domain, sum(parameter.numel() for parameter in trained)
