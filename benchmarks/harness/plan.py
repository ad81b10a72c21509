"""What a benchmark is made of: profiles, recipes, networks; backbones to train and their cells."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adapters.config import CHOICES, UNLEARNED
from adapters.parts import DIRECTED, STEPS
from da_compose import NetworkConfig
from da_compose.training.pretrained import PretrainedRecipe
from da_compose.training.recipes import Recipe
from da_compose.training.trainer import PretrainConfig

NETWORKS = ("compositional", "unshared")
TRAINED = {"compositional": "mixture_weights", "unshared": "input_adapter"}  # as in the paper
# Methods of others without sources, and what they train; rows of ordinary pretrained networks
PUBLISHED = {"tent": "batch_norm", "shot": "batch_norm", "t3a": "nothing"}
TAUGHT = "consensus"  # usual on pretrained recipes alone
UNTUNED = {*PUBLISHED, TAUGHT}  # where nothing is pretrained
USUAL = tuple(name for name in CHOICES if name not in UNTUNED)  # where none is named
# The same where a first look is asked for and steps take a second: on published weights
FIRST_LOOK = (
    "source_only", "batch_norm", "chosen_start", "moment_matching", "information_maximization"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How much a run of a benchmark spends."""

    name: str
    seeds: tuple[int, ...]
    pretrain_steps: int
    adapt_steps: int  # on mixture weights; on the input adapter more, as by default
    finetuning: float = 1.0  # share of a pretrained recipe's steps; it is adapted as by default
    first_look: bool = False  # on a pretrained recipe run `FIRST_LOOK` where none is named
    knowledge_images: int = 10_000  # of each source, for the moments kept with the backbone


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark apart from its data: how long, how and what is trained, by name."""

    name: str
    profiles: Mapping[str, Profile]
    recipes: Mapping[str, Recipe | PretrainedRecipe]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of the table on one backbone."""

    strategy: str
    trains: str
    oracle: bool = False


@dataclass(frozen=True, kw_only=True)
class BackboneJob:
    """One backbone to pretrain and all cells that stand on it."""

    benchmark: Benchmark
    profile: Profile
    recipe: str
    network: str
    seed: int
    sources: tuple[str, ...]
    target: str
    class_names: tuple[str, ...]
    data: str  # files, download, bundled
    data_fingerprint: str

    @property
    def title(self) -> str:
        """The backbone in words."""
        return f"{self.recipe} {self.network} seed {self.seed}"

    @property
    def pretrained(self) -> PretrainedRecipe | None:
        """The recipe, where it stands on published weights; its ordinary network is xi = 0."""
        recipe = self.benchmark.recipes[self.recipe]
        return recipe if isinstance(recipe, PretrainedRecipe) else None

    @property
    def from_scratch(self) -> Recipe:
        """The recipe, where nothing is trained beforehand."""
        recipe = self.benchmark.recipes[self.recipe]
        assert isinstance(recipe, Recipe)
        return recipe

    @property
    def finetune_steps(self) -> int:
        """Steps on the sources, of a recipe on published weights."""
        assert self.pretrained is not None
        return max(1, round(self.profile.finetuning * self.pretrained.num_steps))

    @property
    def network_config(self) -> NetworkConfig:
        config = self.from_scratch.network_of(self.network)
        return replace(config, num_classes=len(self.class_names))

    @property
    def pretrain_config(self) -> PretrainConfig:
        recipe = self.from_scratch
        steps = recipe.longer * self.profile.pretrain_steps
        return replace(recipe.pretraining, steps=steps, seed=self.seed)

    @property
    def identity(self) -> dict[str, Any]:
        """All that the backbone depends on, as JSON holds it."""
        # Whether a recipe is usual makes no other backbone of it
        trained: dict[str, Any] = (
            {
                "pretrained": asdict(replace(self.pretrained, usual=False)),
                "steps": self.finetune_steps,
                "seed": self.seed,
            }
            if self.pretrained is not None
            else {
                "network": asdict(self.network_config),
                "pretraining": asdict(self.pretrain_config),
            }
        )
        parts = {
            **trained,
            "sources": self.sources,
            "data_fingerprint": self.data_fingerprint,
            "knowledge_images": self.profile.knowledge_images,
        }
        return without_what_is_off(json.loads(json.dumps(parts)))

    def adapt_steps(self, trains: str) -> int:
        """Steps of a cell that trains this; what has no number of its own takes the profile's."""
        if self.pretrained is not None:
            return DIRECTED.steps.get(trains, DIRECTED.steps["mixture_weights"])
        usual = STEPS["mixture_weights"]
        return self.profile.adapt_steps * STEPS.get(trains, usual) // usual

    def cell_config(self, trains: str) -> dict[str, Any]:
        """All that the result of a cell that trains this depends on, besides what its row names."""
        return self.identity | {"adapt_steps": self.adapt_steps(trains)}

    def folder(self, runs: Path) -> Path:
        """Where the backbone and its adapters lie; another identity gives another folder."""
        key = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]
        network = () if self.pretrained is not None else (self.network,)  # one for both
        return runs / "-".join((self.recipe, *network, str(self.seed), key))

    def cells(self, strategies: tuple[str, ...] = USUAL, oracles: bool = True) -> list[Cell]:
        trains = TRAINED[self.network]
        cells = []
        brief = self.profile.first_look and self.pretrained is not None and strategies == USUAL
        if brief:
            strategies, oracles = FIRST_LOOK, False
        if self.pretrained is not None:
            strategies = (*strategies, TAUGHT)
        for strategy in strategies:
            learns = strategy not in UNLEARNED
            cells.append(Cell(strategy=strategy, trains=trains if learns else "nothing"))
        if self.pretrained is not None and self.network == "unshared" and not brief:
            beside = dict.fromkeys(("information_maximization", TAUGHT), "batch_norm") | PUBLISHED
            cells += [Cell(strategy=name, trains=part) for name, part in beside.items()]
        if oracles:
            bounds = dict.fromkeys((trains, "input_adapter", "batch_norm", "all"))
            cells += [Cell(strategy="oracle", trains=t, oracle=True) for t in bounds]
        return list(dict.fromkeys(cells))


def without_what_is_off(config: Any) -> Any:
    """A configuration without options that are None or False.

    So a result stays valid when an option is added that is off in it.
    """
    if not isinstance(config, dict):
        return config
    on = {key: value for key, value in config.items() if value is not None and value is not False}
    return {key: without_what_is_off(value) for key, value in on.items()}


def plan(
    benchmark: Benchmark,
    profile: Profile,
    *,
    recipes: tuple[str, ...],
    networks: tuple[str, ...],
    **domains: Any,
) -> Iterator[BackboneJob]:
    """Every backbone of a run once, seed by seed; `domains` are the other fields of its job."""
    for seed in dict.fromkeys(profile.seeds):
        for recipe in dict.fromkeys(recipes):
            for network in dict.fromkeys(networks):
                yield BackboneJob(
                    benchmark=benchmark,
                    profile=profile,
                    recipe=recipe,
                    network=network,
                    seed=seed,
                    **domains,
                )
