"""What all examples share: digits as three sites draw them, and a backbone of two of the sites.

The first example that runs pretrains the backbone, in seconds; the others find its file.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from da_compose import RECIPES, Backbone, pretrain

digits = load_digits()
pixels, labels = (digits.images * 15.9).astype(np.uint8), digits.target  # (1797, 8, 8), (1797,)

# Two sites with labels; a third that draws paler, darker digits, whose labels only test
sources = {
    "site-1": (pixels[:600], labels[:600]),
    "site-2": (pixels[600:1200] // 2 + 60, labels[600:1200]),
}
target, truth = pixels[1200:1500] // 3 + 120, labels[1200:1500]  # (300, 8, 8), (300,)

# Half the layers of the recipe for digits, on maps of 4 x 4: enough for these, and fast
strong = RECIPES["digits-strong"]
RECIPE = replace(
    strong,
    network=replace(strong.network, num_layers=4, num_templates=4, image_size=16, patch_size=4),
    pretraining=replace(strong.pretraining, batch_size=24),
)


def make_backbone(folder: Path) -> Backbone:
    """Pretrained on the two sites; read from the folder where it is there."""
    return pretrain(sources, recipe=RECIPE, out=folder / "backbone", steps=100)


def right(classes: object) -> str:
    """The share of the target's pictures whose class is the true one."""
    return f"{np.mean(np.asarray(classes) == truth):.0%} right"
