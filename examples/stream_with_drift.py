"""A site that changes while it is served: the adapted model follows its stream of pictures.

Pictures come a few at a time and darken; what follows is compared with the model as it was adapted.
The drift is made up, and mild: an illustration, no result.
"""

import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
from digits_at_sites import labels, make_backbone, pixels, target

from adapters import adapt

STAGES = 5


def darken(pictures: np.ndarray, stage: int) -> np.ndarray:
    """As the site draws them at first (0), and darker and darker."""
    return ((pictures / 3 + 120) * (1 - 0.08 * stage)).astype(np.uint8)


def main(folder: Path) -> None:
    """Adapt once, then follow."""
    backbone = make_backbone(folder)
    adaptation = adapt(backbone, target, steps=30)
    as_adapted = deepcopy(adaptation)

    draws = np.random.default_rng(0)
    for stage in range(STAGES):
        chosen = draws.integers(1500, len(pixels), 128)  # pictures that nobody has seen
        came, truth = darken(pixels[chosen], stage), labels[chosen]
        said = adaptation.update(came)  # unlabelled; single pictures are as good: came[:1]
        right = [
            np.mean(np.asarray(model.predict(came)) == truth) for model in (as_adapted, adaptation)
        ]
        print(
            f"stage {stage}: as adapted {right[0]:.0%}, following {right[1]:.0%} right; "
            f"drift of statistics {said.statistics_drift:.2f}, {said.changed:.0%} changed class"
        )
        if said.refused:
            print(f"  not followed: {said.reason}")

    adaptation.reset()  # back to the domain as adapted
    same = (adaptation.predict(target) == as_adapted.predict(target)).all()
    print(f"after reset() as it was adapted: {bool(same)}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-made"))
