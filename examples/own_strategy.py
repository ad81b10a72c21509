"""A strategy of one's own, given to `adapt` as an instance: nothing of the package is touched."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from torch import Tensor

from adapters import AdaptationTask, adapt
from da_compose import pretrain


class LowEntropy:
    """Confident predictions, and nothing else (Tent, Wang et al. 2021, here on 64 numbers)."""

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        logits = self.task.backbone.network(images, self.task.target)[0]  # first head: (B, N)
        entropy = -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()
        self.task.descend(entropy)
        return {"entropy": entropy.detach()}


def main(folder: Path) -> None:
    """Pretrain on two kinds of digits, adapt to a third."""
    digits = load_digits()
    pixels, labels = (digits.images * 15.9).astype(np.uint8), digits.target  # (1797, 8, 8)
    sources = {
        "plain": (pixels[:600], labels[:600]),
        "faint": (pixels[600:1200] // 2 + 60, labels[600:1200]),
    }
    backbone = pretrain(
        sources, recipe="digits-strong", out=folder / "runs", steps=80, image_size=16
    )
    images, truth = pixels[1200:] // 3 + 120, labels[1200:]
    for strategy in ("source_only", LowEntropy(), "information_maximization"):
        adaptation = adapt(backbone, images, strategy=strategy, steps=40, seed=0)
        right = np.mean(np.asarray(adaptation.predict(images)) == truth)
        print(f"{strategy if isinstance(strategy, str) else 'LowEntropy'}: {right:.0%} right")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-strategy"))
