"""The digits benchmark: its profiles and recipes."""

from dataclasses import replace

from benchmarks.harness.plan import Benchmark, Profile, Recipe
from da_compose import PRESETS
from da_compose.training.augmentation import AugmentationConfig
from da_compose.training.trainer import PretrainConfig

PROFILES = {
    "quick": Profile(
        name="quick", seeds=(0,), pretrain_steps=300, adapt_steps=40, knowledge_images=3_000
    ),
    "full": Profile(name="full", seeds=(0, 1, 2), pretrain_steps=700, adapt_steps=100),
}
# paper: one xi a source and no augmentation; strong: varied images, a domain `pooled` that is
# trained on all sources together, and as many templates as layers, so that the bank has as many
# weights as the unshared network; strong-long: the same for twice as many steps, as varied images
# are not learned by then
RECIPES = {
    "paper": Recipe(pretraining=PretrainConfig(batch_size=48), network=PRESETS["small"]),
    "strong": Recipe(
        pretraining=PretrainConfig(
            batch_size=40,
            pooled=True,
            augmentation=AugmentationConfig(blur=0.3, thickness=0.5, contrast=0.3, noise=0.1),
        ),
        network=replace(PRESETS["small"], num_layers=8, num_templates=8, channels=32),
    ),
}
RECIPES["strong-long"] = replace(RECIPES["strong"], longer=2, usual=False)
DIGITS = Benchmark(name="digits", profiles=PROFILES, recipes=RECIPES)
