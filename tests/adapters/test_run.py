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
from adapters.information_maximization import InformationMaximization
from adapters.losses import class_frequencies, information
from adapters.run import PRIOR_IMAGES, Run, learn, prepare
from adapters.selection import predict_logits
from adapters.start import MEAN, make_start
from adapters.strategy import AdaptationTask
from da_compose import Backbone, probabilities
from da_compose.mixture import MixtureWeights

LEARNED = [name for name, strategy in STRATEGIES.items() if strategy is not None]
QUICK: dict[str, Any] = {"steps": 6, "batch_size": 8, "check_every": 2}


@pytest.mark.parametrize("strategy", LEARNED)
@pytest.mark.parametrize("trains", TRAINS)
def test_the_kept_iterate_is_never_below_the_start(
    backbone, make_images, monkeypatch, strategy, trains
):
    monkeypatch.setattr(import_module("adapters.run"), "PRIOR_IMAGES", 0)  # all of it is kept
    images = make_images(15)
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
    backbone, make_images, trains: str, count: int
):
    config = AdaptConfig(trains=trains, guard=False, **QUICK)
    run = prepare(backbone, make_images(count), "target", config)
    learn(run, InformationMaximization)
    share = count / (count + PRIOR_IMAGES)
    assert run.notes["kept_share"] == pytest.approx(share)
    for found, start, kept in zip(run.trained, run.started, run.kept, strict=True):
        torch.testing.assert_close(found.detach(), (1 - share) * start + share * kept)


@pytest.mark.parametrize(
    ("most", "part"), [(8.0, 1.0), (4.0, 0.5), (3.9, 0.25), (2.0, 0.25), (1.9, 0.0)]
)
def test_as_much_is_kept_as_the_guard_trusts(
    backbone, make_images, monkeypatch, most: float, part: float
):
    """xi is moved from 0 to 8, and the guard trusts what is `most` at most."""
    module = import_module("adapters.run")
    run = prepare(backbone, make_images(6), "target", AdaptConfig(guard=False, **QUICK))
    run.started, run.kept = [torch.zeros(3, 2)], [torch.full((3, 2), 8.0)]
    run.notes["kept_step"] = 4

    def judge(*_: Tensor) -> Verdict:
        level = float(run.trained[0].detach()[0, 0])
        return Verdict(level <= most, level / 8, 1.0, f"at {level:g}")

    monkeypatch.setattr(module, "judge_learning", judge)
    run.keep(1.0)
    run.heed_guard()
    assert torch.all(run.trained[0] == 8 * part)
    assert run.notes["kept_share"] == part
    assert run.notes["kept_step"] == (4 if part else 0)
    said = run.notes["guard"]
    assert said["trusted"] is (part > 0)
    assert said["changed"] == (part or 1.0)  # where nothing is kept, that of all that was learned
    whole = "at 8"
    partly = f"{100 * part:g} % of what was learned is kept: at {8 * part:g}; all of it: at 8"
    assert said["reason"] == (partly if 0 < part < 1 else whole)


def test_a_part_weighs_what_few_images_leave(backbone, make_images, monkeypatch):
    verdicts = iter([Verdict(False, 1.0, 1.0, "no"), Verdict(True, 0.0, 1.0, "yes")])
    monkeypatch.setattr(import_module("adapters.run"), "judge_learning", lambda *_: next(verdicts))
    run = prepare(backbone, make_images(100), "target", AdaptConfig(**QUICK))
    run.kept, run.notes["kept_step"] = [start + 8 for start in run.started], 2
    run.keep(0.5)
    run.heed_guard()
    assert run.notes["kept_share"] == 0.25
    torch.testing.assert_close(run.trained[0].detach(), run.started[0] + 2)


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

    monkeypatch.setattr(import_module("adapters.run"), "information", first_entry)
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
    kept_share = 6 / (6 + PRIOR_IMAGES)  # of six images
    start = torch.zeros(3, 2)
    assert torch.equal(xi, start if kept == 0 else start.lerp(values[kept - 1], kept_share))
    assert [entry["step"] for entry in history] == list(range(1, len(levels) + 1))
