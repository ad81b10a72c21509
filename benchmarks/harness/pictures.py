"""The benchmarks of pictures: DomainNet, PACS and emoji, one domain after another the target."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.benchmark import BenchmarkData
from benchmarks.harness.plan import Benchmark, Profile, Recipe
from da_compose import PRESETS
from da_compose.training.picture_augmentation import PictureAugmentation
from da_compose.training.trainer import PretrainConfig
from data_prep import choose_picture_benchmark, load_picture_domain

ALL = "all"
TARGETS: Mapping[str, str] = {"domainnet": "sketch", "pacs": ALL, "emoji": "noto_line"}
# 8 layers x 8 templates: as many mixture weights as 16 x 4, in 60 % of the time
NETWORK = replace(PRESETS["large"], num_layers=8, num_templates=8, image_size=64, patch_size=8)
STRONG = Recipe(
    pretraining=PretrainConfig(
        batch_size=32, pooled=True, balanced=True, augmentation=PictureAugmentation()
    ),
    network=NETWORK,
)
RECIPES = {
    "strong": STRONG,
    # twice the templates, so twice the mixture weights and the bank, at the same time a step
    "strong-128": replace(STRONG, network=replace(NETWORK, num_templates=16), usual=False),
}
PROFILES = {
    "quick": Profile(name="quick", seeds=(0,), pretrain_steps=200, adapt_steps=20),
    "full": Profile(name="full", seeds=(0, 1, 2), pretrain_steps=600, adapt_steps=40),
}
PICTURES = {name: Benchmark(name=name, profiles=PROFILES, recipes=RECIPES) for name in TARGETS}
MAP_SIZE = 8  # side of the maps that the usual patches make


def usual_patch_size(image_size: int) -> int:
    """The side that divides the image into whole patches, as near to 8 x 8 of them as may be."""
    sides = (side for side in range(1, image_size + 1) if image_size % side == 0)
    return min(sides, key=lambda side: abs(side - image_size / MAP_SIZE))


def at_size(benchmark: Benchmark, image_size: int) -> Benchmark:
    """The benchmark on pictures of `image_size` pixels a side, cut into the usual patches."""
    patches = {"image_size": image_size, "patch_size": usual_patch_size(image_size)}
    recipes = {
        name: replace(recipe, network=replace(recipe.network, **patches))
        for name, recipe in benchmark.recipes.items()
    }
    return replace(benchmark, recipes=recipes)


def load_pictures(
    name: str,
    data_root: Path | None,
    target: str | None = None,
    classes: Path | None = None,
    per_class: int | None = None,
    image_size: int = NETWORK.image_size,
) -> list[BenchmarkData]:
    """The rotations of a benchmark of pictures: one for the target, or for all domains in turn."""
    chosen = choose_picture_benchmark(name, data_root, classes=classes, per_class=per_class)
    target = target or TARGETS[name]
    if target not in (ALL, *chosen.domains):
        choices = ", ".join((ALL, *chosen.domains))
        raise ValueError(f"no target {target!r} in {name}; choose from {choices}")
    prepared = {
        domain: load_picture_domain(chosen, domain, size=image_size) for domain in chosen.domains
    }
    notes = [f"{domain}: {note}" for domain, d in prepared.items() for note in d.notes]
    return [
        BenchmarkData(
            sources=tuple(domain for domain in chosen.domains if domain != each),
            target=each,
            class_names=chosen.class_names,
            origin=chosen.origin,
            prepared=prepared,
            notes=(*chosen.notes, *notes),
        )
        for each in (chosen.domains if target == ALL else (target,))
    ]
