import math
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters import STRATEGIES, Adaptation
from adapters.adapt import conclude, unlearned
from adapters.config import AdaptConfig
from adapters.guard import Verdict
from adapters.loop import Loop, learn
from adapters.parts import ADAPTED
from adapters.prepare import Ready, prepare
from adapters.strategies.contract import AdaptationTask
from adapters.strategies.information_maximization import InformationMaximization
from adapters.strategies.losses import class_frequencies, information
from da_compose import Backbone, Domain, probabilities
from da_compose.evidence import certainty
from da_compose.inference import predict_logits
from da_compose.model.mixture import MixtureWeights
from da_compose.starts import MEAN

QUICK: dict[str, Any] = {"steps": 6, "batch_size": 8, "check_every": 2}


def state(domain: Domain) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in domain.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("trains", ADAPTED)
def test_the_kept_iterate_is_never_below_the_start(backbone, make_pixels, strategy, trains):
    config = AdaptConfig(trains=trains, guard=False, prior_images=0, **QUICK)  # all of it is kept
    ready = prepare(backbone, make_pixels(15), "target", config)
    found = conclude(ready, learn(ready, STRATEGIES[strategy]()))
    kept = probabilities(predict_logits(backbone.network, found.domain, ready.checked))
    start = probabilities(ready.logits)
    assert information(kept, ready.expected) >= information(start, ready.expected)
    assert 0 <= found.notes["kept_step"] <= QUICK["steps"]
    assert found.notes["kept_share"] == 1.0


@pytest.mark.parametrize("trains", ADAPTED)
@pytest.mark.parametrize("count", [1, 40, 300])
def test_the_fewer_images_the_less_of_what_was_learned_is_kept(
    backbone, make_pixels, trains: str, count: int
):
    config = AdaptConfig(trains=trains, guard=False, **QUICK)
    ready = prepare(backbone, make_pixels(count), "target", config)
    learned = learn(ready, InformationMaximization())
    found = conclude(ready, learned)
    share = count / (count + config.prior_images)
    assert found.notes["kept_share"] == pytest.approx(share)
    places = zip(learned.places, learned.started, learned.best, strict=True)
    for place, start, kept in places:
        value = found.domain.get_parameter(place)
        torch.testing.assert_close(value, (1 - share) * start + share * kept)


@pytest.mark.parametrize("prior_images", [0, 15, 1000])
def test_how_many_images_the_start_weighs_like_is_an_option(backbone, make_pixels, prior_images):
    config = AdaptConfig(guard=False, prior_images=prior_images, **QUICK)
    ready = prepare(backbone, make_pixels(15), "target", config)
    found = conclude(ready, learn(ready, InformationMaximization()))
    assert found.notes["kept_share"] == pytest.approx(15 / (15 + prior_images))


@pytest.mark.parametrize("trusted", [True, False])
def test_all_or_nothing_is_kept_by_the_guard(backbone, make_pixels, monkeypatch, trusted: bool):
    verdict = Verdict(trusted, 0.5, 1.0, "so")
    monkeypatch.setattr(import_module("adapters.adapt"), "judge_learning", lambda *_: verdict)
    ready = prepare(backbone, make_pixels(100), "target", AdaptConfig(**QUICK))
    learned = learn(ready, InformationMaximization())
    found = conclude(ready, learned)
    assert found.notes["guard"]["trusted"] is trusted
    assert found.notes["kept_share"] == (0.5 if trusted else 0.0)  # of 100 images a half
    assert (found.notes["kept_step"] > 0) is trusted
    assert same(state(found.domain), state(ready.target)) is not trusted


def test_the_guard_judges_what_is_kept_by_the_limits_it_is_given(
    backbone, make_pixels, monkeypatch
):
    seen: list[tuple[Any, ...]] = []

    def watching(*judged: Any) -> Verdict:
        seen.append(judged)
        return Verdict(True, 0.0, 1.0, "seen")

    monkeypatch.setattr(import_module("adapters.adapt"), "judge_learning", watching)
    ready = prepare(backbone, make_pixels(60), "target", AdaptConfig(**QUICK))
    found = conclude(ready, learn(ready, InformationMaximization()))
    ((start, kept, limits, certain),) = seen
    assert torch.equal(start, predict_logits(backbone.network, ready.target, ready.checked))
    assert torch.equal(kept, predict_logits(backbone.network, found.domain, ready.checked))
    assert limits is ready.config.guard_config
    assert certain == ready.certain == certainty(probabilities(ready.logits))  # no centroids here


@pytest.mark.parametrize("trains", ADAPTED)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_try_begins_alike(backbone, make_pixels, strategy: str, trains: str):
    """Learning leaves the start alone, and draws from a generator of its own."""
    ready = prepare(backbone, make_pixels(15), "target", AdaptConfig(trains=trains, **QUICK))
    before, drawn = state(ready.target), ready.drawn.clone()
    scores, notes = dict(ready.scores), dict(ready.notes)
    learn(ready, STRATEGIES["moment_matching"]())
    one, two = (learn(ready, STRATEGIES[strategy]()) for _ in range(2))
    assert one.history == two.history and one.best_step == two.best_step
    for left, right in ((one.started, two.started), (one.best, two.best), (one.last, two.last)):
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
    outcomes = [conclude(ready, learned) for learned in (one, two, one)]
    assert all(same(state(found.domain), state(outcomes[0].domain)) for found in outcomes)
    assert same(state(ready.target), before) and torch.equal(ready.drawn, drawn)
    assert (dict(ready.scores), dict(ready.notes)) == (scores, notes)


@pytest.mark.parametrize("trains", ADAPTED)
def test_what_was_learned_lies_between_the_start_and_an_iterate(
    backbone, make_pixels, moving, trains: str
):
    ready = prepare(backbone, make_pixels(15), "target", AdaptConfig(trains=trains, **QUICK))
    learned = learn(ready, InformationMaximization())
    assert {place.split(".")[0] for place in learned.places} == moving[trains]
    assert learned.num_parameters == sum(value.numel() for value in learned.started)
    half = learned.between(0.5, learned.last)
    start, end = state(learned.between(0.0)), state(learned.between(1.0, learned.last))
    for name, value in half.state_dict().items():
        if name in learned.places:
            torch.testing.assert_close(value, start[name].lerp(end[name], 0.5))
            assert not torch.equal(start[name], end[name])
        else:
            assert torch.equal(value, start[name]) and torch.equal(value, end[name])
    assert not any(parameter.requires_grad for parameter in half.parameters())
    torch.testing.assert_close(
        predict_logits(backbone.network, learned.between(0.0), ready.checked), ready.logits
    )


def test_a_rate_that_is_asked_for_holds_and_ends_at_nothing(backbone, make_pixels):
    config = AdaptConfig(learning_rate=0.01, **QUICK)
    ready = prepare(backbone, make_pixels(15), "target", config)
    for method in STRATEGIES.values():
        loop = Loop(ready, method())
        (group,) = loop.optimizer.param_groups
        assert loop.rate == group["lr"] == 0.01
        rates = []
        for step in range(config.num_steps):
            loop.before(step)
            rates.append(group["lr"])
        expected = [0.005 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
        assert rates == pytest.approx(expected)


def test_the_start_is_the_outcome_where_nothing_is_learned(backbone, make_pixels):
    ready = prepare(backbone, make_pixels(15), "target", AdaptConfig(strategy="chosen_start"))
    found = unlearned(ready)
    assert same(state(found.domain), state(ready.target))
    assert (found.learned_parameters, found.history) == (0, [])
    assert found.scores["adapted"] == found.scores["start"] == ready.scores["start"]


class Scripted:
    """A stand-in strategy: sets xi to the next of given values each step."""

    def __init__(self, values: list[Tensor]) -> None:
        self.values: Iterator[Tensor] = iter(values)
        self.tasks: list[AdaptationTask] = []  # shared with its copies

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task
        self.tasks.append(task)

    def step(self, images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            self.task.trained[0].copy_(next(self.values))
        return {"images": torch.tensor(float(len(images)))}


def at_zero(ready: Ready) -> Ready:
    """The same with xi = 0 at its start."""
    assert isinstance(ready.target.mixture, MixtureWeights)
    with torch.no_grad():
        ready.target.mixture.xi.zero_()
    logits = predict_logits(ready.backbone.network, ready.target, ready.checked)
    return replace(ready, logits=logits)


def xi_of(domain: Domain | None) -> Tensor:
    assert domain is not None
    return domain.get_parameter("mixture.xi").detach()


def scripted_run(
    backbone: Backbone, images: Any, values: list[Tensor], monkeypatch, check_every: int
) -> Adaptation:
    """`learn` from xi = 0 with information mocked to be the first entry of xi."""
    config = AdaptConfig(
        start=MEAN, steps=len(values), batch_size=4, check_every=check_every, guard=False
    )
    ready = at_zero(prepare(backbone, images, "target", config))
    strategy = Scripted(values)

    def first_entry(prediction: Tensor, expected: Tensor) -> Tensor:
        assert torch.equal(expected, class_frequencies(probabilities(ready.logits)))
        (task,) = strategy.tasks
        return task.trained[0].detach()[0, 0]

    monkeypatch.setattr(import_module("adapters.loop"), "information", first_entry)
    learned = learn(ready, strategy)
    torch.testing.assert_close(learned.last[0], values[-1], rtol=0, atol=0, equal_nan=True)
    found = conclude(ready, learned)
    torch.testing.assert_close(xi_of(found.last), values[-1], rtol=0, atol=0, equal_nan=True)
    assert found.notes["kept_step"] == learned.best_step
    assert all(entry["images"] == 4 for entry in found.history)
    return found


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
    found = scripted_run(backbone, make_pixels(6), values, monkeypatch, check_every)
    assert found.notes["kept_step"] == kept
    kept_share = 6 / (6 + AdaptConfig.prior_images)  # of six images
    start = torch.zeros(3, 2)
    expected = start if kept == 0 else start.lerp(values[kept - 1], kept_share)
    assert torch.equal(xi_of(found.domain), expected)
    assert [entry["step"] for entry in found.history] == list(range(1, len(levels) + 1))
