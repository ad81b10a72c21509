"""`time_to_accuracy/...`: seconds until the accuracy that a loop by hand ends with."""

import time
from collections.abc import Iterator

import torch

from adapters import adapt
from benchmarks.harness.cells import accuracy
from benchmarks.harness.plan import TRAINED
from benchmarks.speed.compare import Comparison, SpeedRow
from benchmarks.speed.setting import BATCH, Setting
from da_compose import Backbone
from da_compose.images import to_pixels

TARGET = 5.0
BUDGET = 100  # steps of the loop by hand
TRIED_STEPS = (1, 5, 10, 20, 40, 70, 100)  # of ours; the first that is accurate enough counts


def compare_time_to_accuracy(setting: Setting) -> Iterator[SpeedRow]:
    """Labels only say when an accuracy is reached; ours is the whole of `adapt`, start included."""
    for strategy in ("moment_matching", "adversarial"):
        spent, reached = by_hand(setting, strategy)
        for ours in dict.fromkeys((strategy, "information_maximization")):
            seconds, steps = time_until(setting, ours, reached)
            took = f"{steps} steps" if steps else f"not reached in {TRIED_STEPS[-1]} steps"
            row = Comparison(
                name=f"time_to_accuracy/{strategy}/{ours}",
                against=f"{strategy} by hand, {BUDGET} steps, to {reached:.1f} %; ours: {took}",
                target=TARGET,
            )
            yield row.of_values(seconds, spent, unit="s")


def by_hand(setting: Setting, strategy: str) -> tuple[float, float]:
    """Seconds and final test accuracy (percent) of the loop by hand on 64 xi."""
    loop = setting.plain_loop("compositional", strategy, whole=False)
    step = getattr(loop, strategy)
    train = setting.target.train
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for number in range(BUDGET):
        chosen = torch.randint(len(train), (BATCH,), generator=generator).numpy()
        sources = [setting.batch(name, number) for name in setting.data.sources]
        step(sources, to_pixels(train.images[chosen]))
    seconds = time.perf_counter() - started
    backbone = Backbone(loop.network, tuple(map(str, range(10))), {})
    return seconds, accuracy(backbone, loop.target, setting.target.test)


def time_until(setting: Setting, strategy: str, reached: float) -> tuple[float, int]:
    """Seconds of the shortest `adapt` that is as accurate, and its steps; infinity, 0 if none."""
    backbone = setting.backbone("compositional")
    for steps in TRIED_STEPS:
        started = time.perf_counter()
        found = adapt(
            backbone,
            setting.target.train.images,
            strategy,
            trains=TRAINED["compositional"],
            steps=steps,
        )
        seconds = time.perf_counter() - started
        if accuracy(backbone, found.domain, setting.target.test) >= reached:
            return seconds, steps
    return float("inf"), 0
