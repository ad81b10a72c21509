"""A strategy of one's own, given to `adapt` as an instance: nothing of the package is touched."""

import sys
from collections.abc import Mapping
from pathlib import Path

from digits_at_sites import make_backbone, right, target
from torch import Tensor

from adapters import AdaptationTask, adapt


class LowEntropy:
    """Confident predictions, and nothing else (Tent, Wang et al. 2021, here on mixture weights)."""

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task

    def step(self, images: Tensor) -> Mapping[str, Tensor]:
        logits = self.task.backbone.network(images, self.task.target)[0]  # first head: (B, N)
        entropy = -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()
        self.task.descend(entropy)
        return {"entropy": entropy.detach()}  # figures for the history


def main(folder: Path) -> None:
    """Compare it with what is there."""
    backbone = make_backbone(folder)
    for strategy in ("source_only", LowEntropy(), "information_maximization"):
        adaptation = adapt(backbone, target, strategy=strategy, steps=30)
        name = strategy if isinstance(strategy, str) else type(strategy).__name__
        print(f"{name}: {right(adaptation.predict(target))}")
        if adaptation.history:
            first, last = adaptation.history[0], adaptation.history[-1]
            figures = [key for key in first if key not in ("step", "checked")]
            print("  " + ", ".join(f"{key} {first[key]:.2f} -> {last[key]:.2f}" for key in figures))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-made"))
