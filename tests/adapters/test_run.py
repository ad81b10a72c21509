import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from adapters import STRATEGIES, adapt
from adapters.config import TRAINS, AdaptConfig
from adapters.run import Run, learn
from adapters.selection import predict_logits
from adapters.start import MEAN, make_start
from adapters.strategy import AdaptationTask
from da_compose import Backbone
from da_compose.mixture import MixtureWeights

LEARNED = [name for name, strategy in STRATEGIES.items() if strategy is not None]
QUICK: dict[str, Any] = {"steps": 6, "batch_size": 8, "check_every": 2}


@pytest.mark.parametrize("strategy", LEARNED)
@pytest.mark.parametrize("trains", TRAINS)
def test_the_kept_iterate_is_never_below_the_start(backbone, make_images, strategy, trains):
    found = adapt(backbone, make_images(15), strategy, trains=trains, **QUICK)
    assert found.scores["adapted"].information >= found.scores["start"].information
    assert 0 <= found.notes["kept_step"] <= QUICK["steps"]


class Scripted:
    """A stand-in strategy: sets xi to the next of given values each step."""

    RATE: ClassVar[float] = 1.0
    WARM_UP: ClassVar[int] = 0

    def __init__(self, task: AdaptationTask) -> None:
        self.task = task
        self.values: Iterator[Tensor] = iter(())

    def step(self, images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            self.task.trained[0].copy_(next(self.values))
        return {"images": torch.tensor(float(len(images)))}


def scripted_run(
    backbone: Backbone, images: np.ndarray, values: list[Tensor], monkeypatch, check_every: int
) -> tuple[Tensor, list[dict[str, float]], int]:
    """`learn` from xi = 0 with information mocked to be the first entry of xi; xi at the end."""
    target = make_start(backbone, MEAN, "target", images).target
    assert isinstance(target.mixture, MixtureWeights)
    xi = target.mixture.xi
    with torch.no_grad():
        xi.zero_()

    class Found:
        def __init__(self, logits: Tensor) -> None:
            self.information = float(xi.detach()[0, 0])

    monkeypatch.setattr(import_module("adapters.run"), "score", Found)
    generator = torch.Generator().manual_seed(0)
    steps = len(values)
    config = AdaptConfig(steps=steps, batch_size=4, check_every=check_every, guard=False)
    run = Run(
        config=config,
        backbone=backbone,
        target=target,
        trained=[xi],
        rate=1.0,
        start=predict_logits(backbone.network, target, images),
        draws=generator,
        pixels=images,
        checked=images,
        scores={},
        notes={},
    )

    def scripted(task: AdaptationTask) -> Scripted:
        strategy = Scripted(task)
        strategy.values = iter(values)
        return strategy

    learn(run, scripted)
    assert run.last is not None
    last_xi = run.last.mixture.get_parameter("xi").detach()
    torch.testing.assert_close(last_xi, values[-1], rtol=0, atol=0, equal_nan=True)
    return xi.detach(), run.history, run.notes["kept_step"]


@pytest.mark.parametrize(
    ("levels", "check_every", "kept"),
    [
        ([-1.0, -2.0, -3.0], 1, 0),  # every step is worse than the start
        ([1.0, 3.0, 2.0], 1, 2),
        ([1.0, 3.0, 2.0], 2, 2),
        ([9.0, 1.0, 2.0, 3.0, 4.0], 2, 5),  # the first is not checked, the last always is
        ([1.0, 1.0, 1.0], 1, 1),  # the earliest of equals
        ([math.nan, math.nan, math.nan], 1, 0),
    ],
)
def test_the_best_checked_iterate_is_kept(
    backbone, make_images, monkeypatch, levels: list[float], check_every: int, kept: int
):
    values = [torch.full((3, 2), level) for level in levels]
    xi, history, found = scripted_run(backbone, make_images(6), values, monkeypatch, check_every)
    assert found == kept
    assert torch.equal(xi, torch.zeros(3, 2) if kept == 0 else values[kept - 1])
    assert [entry["step"] for entry in history] == list(range(1, len(levels) + 1))
