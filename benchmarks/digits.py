"""The digits benchmark: its profiles, recipes, backbones and cells."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from da_compose import PRESETS, NetworkConfig
from da_compose.augmentation import AugmentationConfig
from da_compose.pretraining import PretrainConfig

STRATEGIES = (
    "source_only",
    "batch_norm",
    "adversarial",
    "moment_matching",
    "classifier_discrepancy",
    "information_maximization",
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How much a run of the benchmark spends."""

    name: str
    seeds: tuple[int, ...]
    pretrain_steps: int
    adapt_steps: int
    knowledge_images: int  # of each source, for the moments kept with the backbone


PROFILES = {
    "quick": Profile(
        name="quick", seeds=(0,), pretrain_steps=300, adapt_steps=40, knowledge_images=3_000
    ),
    "full": Profile(
        name="full", seeds=(0, 1, 2), pretrain_steps=700, adapt_steps=100, knowledge_images=10_000
    ),
}
# paper: one xi a source and no augmentation; strong: varied images, and a domain `pooled` that is
# trained on all sources together
RECIPES = {
    "paper": PretrainConfig(batch_size=48),
    "strong": PretrainConfig(
        batch_size=40,
        pooled=True,
        augmentation=AugmentationConfig(blur=0.3, thickness=0.5, contrast=0.3, noise=0.1),
    ),
}
NETWORKS = {"compositional": PRESETS["small"], "unshared": PRESETS["small"].unshared()}
TRAINED = {"compositional": "mixture_weights", "unshared": "input_adapter"}  # as in the paper


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of the table on one backbone."""

    strategy: str
    trains: str
    oracle: bool = False


@dataclass(frozen=True, kw_only=True)
class BackboneJob:
    """One backbone to pretrain and all cells that stand on it."""

    profile: Profile
    recipe: str
    network: str
    seed: int
    sources: tuple[str, ...]
    target: str
    data: str  # files, download, bundled
    data_fingerprint: str

    @property
    def network_config(self) -> NetworkConfig:
        return NETWORKS[self.network]

    @property
    def pretrain_config(self) -> PretrainConfig:
        return replace(RECIPES[self.recipe], steps=self.profile.pretrain_steps, seed=self.seed)

    @property
    def identity(self) -> dict[str, object]:
        """All that the backbone depends on, as JSON holds it."""
        parts = {
            "network": asdict(self.network_config),
            "pretraining": asdict(self.pretrain_config),
            "sources": self.sources,
            "data_fingerprint": self.data_fingerprint,
            "knowledge_images": self.profile.knowledge_images,
        }
        return json.loads(json.dumps(parts))

    @property
    def cell_config(self) -> dict[str, object]:
        """All that a cell's result depends on, besides what its row names."""
        return self.identity | {"adapt_steps": self.profile.adapt_steps}

    def folder(self, runs: Path) -> Path:
        """Where the backbone and its adapters lie; another identity gives another folder."""
        key = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]
        return runs / f"{self.recipe}-{self.network}-{self.seed}-{key}"

    def cells(self, strategies: tuple[str, ...] = STRATEGIES, oracles: bool = True) -> list[Cell]:
        trains = TRAINED[self.network]
        cells = []
        for strategy in strategies:
            learns = strategy not in ("source_only", "batch_norm")
            cells.append(Cell(strategy=strategy, trains=trains if learns else "nothing"))
        if oracles:
            cells += [Cell(strategy="oracle", trains=t, oracle=True) for t in (trains, "all")]
        return cells


def plan(
    profile: Profile,
    *,
    recipes: tuple[str, ...],
    networks: tuple[str, ...],
    sources: tuple[str, ...],
    target: str,
    data: str,
    data_fingerprint: str,
) -> Iterator[BackboneJob]:
    """Every backbone of a run once, seed by seed."""
    for seed in dict.fromkeys(profile.seeds):
        for recipe in dict.fromkeys(recipes):
            for network in dict.fromkeys(networks):
                yield BackboneJob(
                    profile=profile,
                    recipe=recipe,
                    network=network,
                    seed=seed,
                    sources=sources,
                    target=target,
                    data=data,
                    data_fingerprint=data_fingerprint,
                )
