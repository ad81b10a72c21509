"""Starts that cells of a benchmark share."""

import numpy as np
from numpy.typing import NDArray

from adapters.config import AdaptConfig
from adapters.prepare import Ready, prepare, starting
from benchmarks.harness import measure
from da_compose import Backbone


class Starts:
    """Starts on the target's training images; cells whose strategies begin alike share one."""

    def __init__(self, backbone: Backbone, images: NDArray[np.uint8], seed: int) -> None:
        self.backbone, self.images, self.seed = backbone, images, seed
        self._made: dict[str, tuple[Ready, measure.Measurement]] = {}

    def ready(self, strategy: str, trains: str, steps: int) -> tuple[Ready, measure.Measurement]:
        """The start for a strategy, and what it took to make."""
        config = AdaptConfig(strategy=strategy, trains=trains, steps=steps, seed=self.seed)
        alike = repr(starting(config))
        if alike not in self._made:
            with measure.measured() as spent:
                made = prepare(self.backbone, self.images, "target", config)
            self._made[alike] = made, spent
        ready, spent = self._made[alike]
        return ready.asking(strategy=strategy, trains=trains, steps=steps), spent
