"""The benchmarks of pictures: DomainNet, PACS, satellite, emoji; each domain may be the target."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.benchmark import BenchmarkData
from benchmarks.harness.plan import Benchmark, Profile
from da_compose.training.pretrained import PRETRAINED_RECIPES, PretrainedRecipe
from da_compose.training.recipes import PICTURE_NETWORK, PICTURE_RECIPES, Recipe
from data_prep import choose_picture_benchmark, load_picture_domain

ALL = "all"
TARGETS: Mapping[str, str] = {
    "domainnet": "sketch", "pacs": ALL, "satellite": ALL, "emoji": "noto_line"
}  # fmt: skip
PROFILES = {
    "quick": Profile(
        name="quick",
        seeds=(0,),
        pretrain_steps=200,
        adapt_steps=20,
        finetuning=1 / 3,
        first_look=True,
    ),
    "full": Profile(name="full", seeds=(0, 1, 2), pretrain_steps=600, adapt_steps=40),
}
# On published weights where it is asked for: that takes minutes a target, and the extra `pictures`
RECIPES: Mapping[str, Recipe | PretrainedRecipe] = {**PICTURE_RECIPES, **PRETRAINED_RECIPES}
PICTURES = {name: Benchmark(name=name, profiles=PROFILES, recipes=RECIPES) for name in TARGETS}


def at_size(benchmark: Benchmark, image_size: int) -> Benchmark:
    """The benchmark on pictures of `image_size` pixels a side, cut into the usual patches."""
    recipes = {name: recipe.at_size(image_size) for name, recipe in benchmark.recipes.items()}
    return replace(benchmark, recipes=recipes)


def load_pictures(
    name: str,
    data_root: Path | None,
    target: str | None = None,
    classes: Path | None = None,
    per_class: int | None = None,
    image_size: int = PICTURE_NETWORK.image_size,
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
