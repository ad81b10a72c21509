"""The digits benchmark and its profiles."""

from benchmarks.harness.plan import Benchmark, Profile
from da_compose.training.recipes import DIGIT_RECIPES

PROFILES = {
    "quick": Profile(
        name="quick", seeds=(0,), pretrain_steps=300, adapt_steps=40, knowledge_images=3_000
    ),
    "full": Profile(name="full", seeds=(0, 1, 2), pretrain_steps=700, adapt_steps=100),
}
DIGITS = Benchmark(name="digits", profiles=PROFILES, recipes=DIGIT_RECIPES)
