"""`strategy="auto"`: what is tried, what is kept, and what is said of it."""

from importlib import import_module
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from adapters import AUTO, AdaptConfig, adapt
from adapters.auto import learn_any
from adapters.config import AUTO_TRIES, LEARNING_RATES, STRATEGIES, TRAINS
from adapters.run import prepare
from adapters.strategy import AdaptationTask
from da_compose import Backbone

QUICK: dict[str, Any] = {"steps": 4, "batch_size": 8, "check_every": 2}


def scripted(level: float) -> type:
    """A strategy whose every step sets xi to one value."""

    class Scripted:
        RATE: ClassVar[float] = abs(level)

        def __init__(self, task: AdaptationTask) -> None:
            self.task = task

        def step(self, images: Tensor) -> dict[str, float]:
            with torch.no_grad():
                self.task.trained[0].fill_(level)
            return {"level": level}

    return Scripted


def run_scripted(
    backbone: Backbone, images: Any, monkeypatch: pytest.MonkeyPatch, levels: dict[str, float]
) -> Any:
    """`learn_any` by strategies that set xi to their level, which is how far they are trusted."""
    auto = import_module("adapters.auto")
    run_module = import_module("adapters.run")
    methods = {name: scripted(level) for name, level in levels.items()}
    monkeypatch.setattr(auto, "AUTO_TRIES", tuple(levels))
    monkeypatch.setattr(auto, "STRATEGIES", methods)
    monkeypatch.setattr(run_module, "STRATEGIES", methods)
    run = prepare(backbone, images, "target", AdaptConfig(strategy=AUTO, guard=False, **QUICK))
    with torch.no_grad():
        run.trained[0].zero_()
    run.started = run.values()
    monkeypatch.setattr(run_module, "trust", lambda *_: float(run.trained[0].detach()[0, 0]))
    learn_any(run)
    return run


@pytest.mark.parametrize(
    ("levels", "chosen", "kept", "step"),
    [
        ({"a": 1.0, "b": 2.0}, "b", 2.0, 2),
        ({"a": 2.0, "b": 1.0}, "a", 2.0, 2),
        ({"a": 2.0, "b": 2.0}, "a", 2.0, 2),  # the first of equals
        ({"a": -1.0, "b": -2.0}, "a", 0.0, 0),  # none is better than the start
    ],
)
def test_the_most_trusted_iterate_of_all_is_kept(
    backbone, make_images, monkeypatch, levels, chosen, kept, step
):
    run = run_scripted(backbone, make_images(60), monkeypatch, levels)
    assert run.notes["chosen"] == chosen and run.notes["kept_step"] == step
    assert torch.all(run.trained[0] == kept)
    assert [entry["level"] for entry in run.history] == QUICK["steps"] * [levels[chosen]]
    last = run.last.mixture.get_parameter("xi")
    assert torch.all(last == levels[chosen])


def test_every_strategy_starts_from_the_start_at_its_own_rate(backbone, make_images, monkeypatch):
    seen = {}

    def watching(name: str) -> Any:
        class Watching(STRATEGIES[name]):  # type: ignore[misc]
            def __init__(self, task: AdaptationTask) -> None:
                super().__init__(task)
                (group,) = task.optimizer.param_groups
                seen[name] = (group["lr"], task.trained[0].detach().clone())

        return Watching

    auto = import_module("adapters.auto")
    monkeypatch.setattr(auto, "STRATEGIES", {name: watching(name) for name in AUTO_TRIES})
    run = prepare(backbone, make_images(60), "target", AdaptConfig(strategy=AUTO, **QUICK))
    learn_any(run)
    usual = LEARNING_RATES["mixture_weights"]
    for name in AUTO_TRIES:
        method = STRATEGIES[name]
        assert method is not None
        rate, xi = seen[name]
        assert rate == usual * method.RATE and torch.equal(xi, run.started[0])


@pytest.mark.parametrize("trains", TRAINS)
def test_the_first_strategy_is_what_it_is_alone(backbone, make_images, trains, monkeypatch):
    monkeypatch.setattr(import_module("adapters.auto"), "AUTO_TRIES", AUTO_TRIES[:1])
    images = make_images(60)
    auto = adapt(backbone, images, AUTO, trains=trains, **QUICK)
    alone = adapt(backbone, images, AUTO_TRIES[0], trains=trains, **QUICK)
    for name, value in alone.domain.state_dict().items():
        assert torch.equal(auto.domain.state_dict()[name], value)
    assert auto.history == alone.history and auto.scores == alone.scores
    assert auto.notes == alone.notes | {"strategy": AUTO, "chosen": AUTO_TRIES[0]}


def test_a_rate_that_is_asked_for_holds_for_all(backbone, make_images):
    config = AdaptConfig(strategy=AUTO, learning_rate=0.01, **QUICK)
    run = prepare(backbone, make_images(60), "target", config)
    learn_any(run)
    assert run.rate == 0.01  # of the last one; its own would be another
    assert run.result().learned_parameters == run.trained[0].numel()
