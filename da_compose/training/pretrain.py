"""`pretrain`: from labelled sources of any kind to a backbone, in one call that resumes."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from da_compose import progress
from da_compose.context import undisturbed
from da_compose.images import ImageSet
from da_compose.knowledge import collect_knowledge
from da_compose.model.contract import Shape
from da_compose.model.network import CompositionalNetwork
from da_compose.options import check_device, whole
from da_compose.parallel import rank
from da_compose.sources import read_sources
from da_compose.storage.backbone import Backbone, load_backbone
from da_compose.storage.files import check_replaceable
from da_compose.storage.schema import check_class_names
from da_compose.training.pretrained import (
    MOCK_DOMAINS,
    PRETRAINED_RECIPES,
    PretrainedRecipe,
    finetune_backbone,
    share_for_rehearsal,
    usual_recipe,
)
from da_compose.training.recipes import RECIPES, Recipe
from da_compose.training.rehearsal import rehearse
from da_compose.training.run import discard_state, run_training
from da_compose.training.sampling import hold_out
from da_compose.training.trainer import PretrainConfig

BACKBONE = "backbone.safetensors"


@undisturbed()
def pretrain(
    sources: Mapping[str, Any],
    *,
    out: str | Path,
    recipe: str | Recipe | PretrainedRecipe | None = None,
    seed: int = 0,
    steps: int | None = None,
    image_size: int | None = None,
    held_out: float | None = None,
    class_names: Sequence[str] | None = None,
    device: str | None = None,
    save_every: int | None = None,
    show_progress: bool = True,
) -> Backbone:
    """Pretrain a compositional network on labelled source domains.

    sources: by name, as of `da_compose.sources.read_sources`: a folder <class>/<picture>, an
    `.npz`, or a pair (images, labels). All images are trained on; hold some back to test with.
    out: folder for `backbone.safetensors`, a log, and a state that an interrupted call goes on
    from, bit for bit on CPU. Where the same backbone is finished there, it is only read.
    recipe: on published weights, with templates that are learned from mock domains, one of
    `da_compose.training.pretrained.PRETRAINED_RECIPES` ("lite0"), or a `PretrainedRecipe`; from
    scratch, one of `da_compose.training.recipes.RECIPES` ("strong": pictures; "digits-strong": no
    mirroring), or a `Recipe`. None: "lite0" where it can be, see `usual_recipe`.
    steps, image_size: in place of the recipe's; pixels a side.
    held_out: share of each source that training does not see: what the accuracy on new domains is
    estimated with (`da_compose.estimate`); None: a tenth, or the recipe's; 0: no estimates. On
    published weights nothing is held out where two sources have all classes: it is not needed.
    class_names: what numbers as labels stand for, and the order of the classes.
    device: "cpu", "cuda", ...; None: a GPU where there is one.
    save_every: steps between states that an interruption can go on from, 50 where it is None.
    Raises ValueError for sources that do not fit together, where `out` holds another backbone, and
    while another run writes there.
    """
    seed = whole("seed", seed)
    steps = None if steps is None else whole("steps", steps, 1)
    save_every = None if save_every is None else whole("save_every", save_every, 1)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(where)
    path = Path(out) / BACKBONE
    check_replaceable(path)
    recipe = usual_recipe(image_size) if recipe is None else recipe
    made = _recipe(recipe)
    if image_size is not None:
        made = made.at_size(whole("image_size", image_size, 1))
    with progress.show_progress(show_progress):
        data, names = read_sources(sources, made.image_size, class_names)
    steps, share = steps or made.num_steps, float(made.held_out if held_out is None else held_out)
    if not 0 <= share < 1:
        raise ValueError(f"held_out must be a share from 0 to below 1, got {share}")
    if isinstance(made, PretrainedRecipe):
        share = share_for_rehearsal(data, len(names), share)
    notes = {
        "recipe": recipe if isinstance(recipe, str) else f"own-{_hash(repr(recipe))}",
        "classes": list(names),
        "steps": steps,
        "seed": seed,
        "held_out": share,
        "data": {name: images.fingerprint for name, images in data.items()},
    }
    from da_compose.storage.locks import alone  # Windows has none, and need not to predict

    with progress.show_progress(show_progress), alone(path.parent):
        if path.exists():
            return finished(path, notes, where)
        if isinstance(made, PretrainedRecipe):
            return finetune_backbone(
                replace(made, held_out=share), data, names, path,
                steps=steps, seed=seed, device=where, notes=notes, save_every=save_every,
            )  # fmt: skip
        shape = replace(made.network, num_classes=len(names))
        config = replace(made.pretraining, steps=steps, seed=seed)
        network = CompositionalNetwork(shape, seed=seed).to(where)
        data, held = hold_out(data, share, seed)
        return train_backbone(
            network, data, config, names, path,
            notes=notes, held_out=held, save_every=save_every,
        )  # fmt: skip


def train_backbone(
    network: CompositionalNetwork,
    sources: Mapping[str, ImageSet],
    config: PretrainConfig,
    class_names: tuple[str, ...],
    path: Path,
    *,
    notes: dict[str, Any],
    held_out: Mapping[str, ImageSet] | None = None,
    knowledge_images: int = 10_000,
    save_every: int | None = None,
) -> Backbone:
    """Train in the folder of `path`, remember the sources, and write the backbone there.

    held_out: labelled images of the sources that training does not see, to rehearse on.
    Several processes of one group call it together; process 0 alone writes.
    """
    started = time.perf_counter()
    check_class_names(class_names)  # before the work, not after
    run_training(
        network, sources, config, path.parent,
        save_every=save_every, classes=class_names,
    )  # fmt: skip
    notes = notes | {"seconds": round(time.perf_counter() - started, 1)}  # of the last call
    knowledge = collect_knowledge(network, sources, max_images=knowledge_images, seed=config.seed)
    backbone = rehearse(Backbone(network, class_names, knowledge, notes), held_out or {})
    if rank() == 0:
        backbone.save(path)
        discard_state(path.parent)
    return backbone


def _recipe(recipe: str | Recipe | PretrainedRecipe) -> Recipe | PretrainedRecipe:
    if not isinstance(recipe, str):
        return recipe
    known = {**RECIPES, **PRETRAINED_RECIPES}
    if recipe not in known:
        raise ValueError(f"no recipe {recipe!r}; choose from {', '.join(known)}")
    return known[recipe]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def finished(
    path: Path, notes: Mapping[str, Any], device: str, config: Shape | None = None
) -> Backbone:
    """The backbone that is there, if it is what was asked for; ValueError if it is another.

    What is beside it is of a run that was killed right after it wrote the backbone, and goes.
    """
    backbone = load_backbone(path, device)
    differ = [key for key, value in notes.items() if backbone.notes.get(key) != value]
    if config is not None and backbone.network.config != config:
        differ.append("network")
    if differ:
        raise ValueError(
            f"{path} is finished and was made with another {', '.join(differ)}; "
            "delete it, or name another folder as out"
        )
    discard_state(path.parent)
    rmtree(path.parent / MOCK_DOMAINS, ignore_errors=True)
    return backbone
