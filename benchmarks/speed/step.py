"""`step/...`: one adaptation step against loops by hand and against peers."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from adapters.strategies import STRATEGIES
from adapters.strategies.contract import warm_up_of
from benchmarks.speed.compare import Comparison, SpeedRow
from benchmarks.speed.peers import compare_peers
from benchmarks.speed.setting import Setting

TARGETS = {"adversarial": 3.0, "moment_matching": 4.0, "classifier_discrepancy": 4.0}


def compare_steps(setting: Setting) -> Iterator[SpeedRow]:
    """Ours trains 64 xi of the compositional network; see each row's `against`."""
    count = len(setting.data.sources)
    for strategy, least in TARGETS.items():
        ours = our_step(setting, strategy)
        for whole, words in (
            (False, f"plain PyTorch: {count} sources forward without gradient, 64 xi train"),
            (
                True,
                f"plain PyTorch as published: {count} sources, the whole network trains",
            ),
        ):
            network = "unshared" if whole else "compositional"
            loop = setting.plain_loop(network, strategy, whole=whole)
            step = getattr(loop, strategy)
            sources, images = setting.source_batches(), setting.target_images()
            row = Comparison(
                name=f"step/{strategy}/{'published' if whole else 'plain'}",
                against=words,
                target=least,
            )
            yield row.of_calls(ours, lambda: step(sources, images))  # noqa: B023
    backbone, name = setting.backbone("unshared"), setting.data.sources[0]
    yield from compare_peers(
        partial(our_step, setting),
        backbone.network,
        backbone.network.domains[name],
        setting.batch(name),
        setting.target_images(),
        suite="step",
    )


def compare_precisions(setting: Setting) -> Iterator[SpeedRow]:
    """Steps whose blocks compute in bfloat16, as `adapt(..., bfloat16=True)` takes them."""
    for strategy, method in STRATEGIES.items():
        if method is not None:
            row = Comparison(
                name=f"precision/{strategy}/bfloat16", against="the same step in float32"
            )
            fast = our_step(setting, strategy, torch.bfloat16)
            yield row.of_calls(fast, our_step(setting, strategy))


def our_step(
    setting: Setting, strategy: str, precision: torch.dtype | None = None
) -> Callable[[], object]:
    """A step on 64 xi, past the first ones, which differ; its blocks compute in `precision`."""
    made = setting.our_strategy("compositional", strategy)
    network, images = setting.backbone("compositional").network, setting.target_images()

    def step() -> object:
        with network.computing(precision):
            return made.step(images)

    for _ in range(warm_up_of(made) + 1):
        step()
    return step
