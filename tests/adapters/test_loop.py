import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from adapters import STRATEGIES
from adapters.config import TRAINS, AdaptConfig
from adapters.guard import Verdict
from adapters.loop import PRIOR_IMAGES, Run, learn, prepare
from adapters.start import MEAN, make_start
from adapters.strategies.contract import AdaptationTask
from adapters.strategies.information_maximization import InformationMaximization
from adapters.strategies.losses import class_frequencies, information
from da_compose import Backbone, probabilities
from da_compose.inference import predict_logits
from da_compose.model.mixture import MixtureWeights

LEARNED = [name for name, strategy in STRATEGIES.items() if strategy is not None]
QUICK: dict[str, Any] = {"steps": 6, "batch_size": 8, "check_every": 2}


@pytest.mark.parametrize("strategy", LEARNED)
@pytest.mark.parametrize("trains", TRAINS)
def test_the_kept_iterate_is_never_below_the_start(
    backbone, make_pixels, monkeypatch, strategy, trains
):
    monkeypatch.setattr(import_module("adapters.loop"), "PRIOR_IMAGES", 0)  # all of it is kept
    images = make_pixels(15)
    run = prepare(backbone, images, "target", AdaptConfig(trains=trains, guard=False, **QUICK))
    method = STRATEGIES[strategy]
    assert method is not None
    learn(run, method)
    kept = probabilities(predict_logits(backbone.network, run.target, run.checked))
    start = probabilities(run.start)
    assert information(kept, run.expected) >= information(start, run.expected)
    assert 0 <= run.notes["kept_step"] <= QUICK["steps"]
    assert run.notes["kept_share"] == 1.0


@pytest.mark.parametrize("trains", TRAINS)
@pytest.mark.parametrize("count", [1, 40, 300])
def test_the_fewer_images_the_less_of_what_was_learned_is_kept(
    backbone, make_pixels, trains: str, count: int
):
    config = AdaptConfig(trains=trains, guard=False, **QUICK)
    run = prepare(backbone, make_pixels(count), "target", config)
    learn(run, InformationMaximization)
    share = count / (count + PRIOR_IMAGES)
    assert run.notes["kept_share"] == pytest.approx(share)
    for found, start, kept in zip(run.trained, run.started, run.kept, strict=True):
        torch.testing.assert_close(found.detach(), (1 - share) * start + share * kept)


@pytest.mark.parametrize("trusted", [True, False])
def test_all_or_nothing_is_kept_by_the_guard(backbone, make_pixels, monkeypatch, trusted: bool):
    verdict = Verdict(trusted, 0.5, 1.0, "so")
    monkeypatch.setattr(import_module("adapters.loop"), "judge_learning", lambda *_: verdict)
    run = prepare(backbone, make_pixels(100), "target", AdaptConfig(**QUICK))
    learn(run, InformationMaximization)
    assert run.notes["guard"]["trusted"] is trusted
    assert run.notes["kept_share"] == (0.5 if trusted else 0.0)  # of 100 images a half
    assert (run.notes["kept_step"] > 0) is trusted
    kept = torch.equal(run.trained[0], run.started[0])
    assert kept is not trusted


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

    def first_entry(prediction: Tensor, expected: Tensor) -> Tensor:
        assert torch.equal(expected, class_frequencies(probabilities(run.start)))
        return xi.detach()[0, 0]

    monkeypatch.setattr(import_module("adapters.loop"), "information", first_entry)
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
    backbone, make_pixels, monkeypatch, levels: list[float], check_every: int, kept: int
):
    values = [torch.full((3, 2), level) for level in levels]
    xi, history, found = scripted_run(backbone, make_pixels(6), values, monkeypatch, check_every)
    assert found == kept
    kept_share = 6 / (6 + PRIOR_IMAGES)  # of six images
    start = torch.zeros(3, 2)
    assert torch.equal(xi, start if kept == 0 else start.lerp(values[kept - 1], kept_share))
    assert [entry["step"] for entry in history] == list(range(1, len(levels) + 1))
