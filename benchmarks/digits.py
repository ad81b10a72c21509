"""The digits benchmark: its profiles, recipes and networks."""

from benchmarks.plan import Benchmark, Profile
from da_compose import PRESETS
from da_compose.augmentation import AugmentationConfig
from da_compose.pretraining import PretrainConfig

PROFILES = {
    "quick": Profile(
        name="quick", seeds=(0,), pretrain_steps=300, adapt_steps=40, knowledge_images=3_000
    ),
    "full": Profile(name="full", seeds=(0, 1, 2), pretrain_steps=700, adapt_steps=100),
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
DIGITS = Benchmark(name="digits", profiles=PROFILES, recipes=RECIPES, networks=NETWORKS)
