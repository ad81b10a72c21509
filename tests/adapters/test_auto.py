"""`strategy="auto"`: what is tried in which order, what is kept, and what is said of it."""

from importlib import import_module
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from adapters import AUTO, AdaptConfig, adapt
from adapters.auto import learn_trusted
from adapters.config import AUTO_TRIES, LEARNING_RATES, STRATEGIES, TRAINS
from adapters.guard import Verdict
from adapters.loop import Run, prepare
from adapters.strategies.contract import AdaptationTask
from da_compose import Backbone

QUICK: dict[str, Any] = {"steps": 4, "batch_size": 8, "check_every": 2}
CLASSES = torch.arange(60) % 10
SURE = 20 * torch.nn.functional.one_hot(CLASSES).float().expand(2, -1, -1)  # logits (2, 60, 10)


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


@pytest.fixture
def run_scripted(backbone: Backbone, make_pixels, monkeypatch: pytest.MonkeyPatch):
    """`learn_trusted` by strategies that set xi to a level: its information, and its harm above 5.

    Levels above 5 are refused by the guard; negative ones are less informative than the start.
    Images are so many that all of what was learned is kept.
    """

    def run_them(levels: dict[str, float], certain: bool = True) -> Run:
        module = import_module("adapters.loop")
        methods = {name: scripted(level) for name, level in levels.items()}
        monkeypatch.setattr("adapters.auto.AUTO_TRIES", tuple(levels))
        monkeypatch.setattr("adapters.auto.STRATEGIES", methods)
        monkeypatch.setattr(module, "STRATEGIES", methods)
        config = AdaptConfig(strategy=AUTO, **QUICK)
        run = prepare(backbone, make_pixels(60), "target", config)
        run.start = SURE if certain else torch.zeros_like(SURE)
        with torch.no_grad():
            run.trained[0].zero_()
        run.started = run.values()

        def level() -> float:
            return float(run.trained[0].detach()[0, 0])

        def level_of(prediction: Tensor, expected: Tensor) -> Tensor:
            return torch.tensor(level())

        def judge(*_: Tensor) -> Verdict:
            return Verdict(level() <= 5, 0.1, 1.0, f"level {level():g}")

        monkeypatch.setattr(module, "information", level_of)
        monkeypatch.setattr(module, "PRIOR_IMAGES", 0)
        monkeypatch.setattr(module, "judge_learning", judge)
        learn_trusted(run)
        return run

    return run_them


@pytest.mark.parametrize(
    ("levels", "chosen", "kept", "step", "seen"),
    [
        ({"a": 1.0, "b": 2.0}, "a", 1.0, 2, 1.0),  # the first that is trusted, not the best
        ({"a": 9.0, "b": 2.0}, "b", 2.0, 2, 2.0),
        ({"a": -1.0, "b": 2.0}, "b", 2.0, 2, 2.0),  # the first has learned nothing
        ({"a": 9.0, "b": 8.0}, "start", 0.0, 0, 8.0),
        ({"a": -1.0, "b": -2.0}, "start", 0.0, 0, -2.0),
    ],
)
def test_the_first_that_is_trusted_is_kept(run_scripted, levels, chosen, kept, step, seen):
    run = run_scripted(levels)
    assert run.notes["chosen"] == chosen and run.notes["kept_step"] == step
    assert torch.all(run.trained[0] == kept)
    assert run.notes["guard"]["reason"] == f"level {0 if seen < 0 else seen:g}"
    assert [entry["level"] for entry in run.history] == QUICK["steps"] * [seen]
    assert [entry["step"] for entry in run.history] == [1, 2, 3, 4]
    assert torch.all(run.last.mixture.get_parameter("xi") == seen)


@pytest.mark.parametrize(
    ("first", "chosen", "kept"), [(1.0, "a", 1.0), (9.0, "start", 0.0), (-1.0, "start", 0.0)]
)
def test_an_unsure_start_is_worth_one_try(run_scripted, first, chosen, kept):
    run = run_scripted({"a": first, "b": 2.0}, certain=False)
    assert run.notes["chosen"] == chosen
    assert torch.all(run.trained[0] == kept)


def test_every_strategy_starts_from_the_start_at_its_own_rate(backbone, make_pixels, monkeypatch):
    seen = {}

    def watching(name: str) -> Any:
        class Watching(STRATEGIES[name]):  # type: ignore[misc]
            def __init__(self, task: AdaptationTask) -> None:
                super().__init__(task)
                (group,) = task.optimizer.param_groups
                seen[name] = (group["lr"], task.trained[0].detach().clone())

        return Watching

    refused = Verdict(False, 1.0, 1.0, "never")
    monkeypatch.setattr(import_module("adapters.loop"), "judge_learning", lambda *_: refused)
    monkeypatch.setattr("adapters.auto.STRATEGIES", {name: watching(name) for name in AUTO_TRIES})
    run = prepare(backbone, make_pixels(60), "target", AdaptConfig(strategy=AUTO, **QUICK))
    run.start = SURE
    learn_trusted(run)
    assert torch.equal(run.trained[0], run.started[0])
    for name in AUTO_TRIES:
        method = STRATEGIES[name]
        assert method is not None
        rate, xi = seen[name]
        assert rate == LEARNING_RATES["mixture_weights"] * method.RATE
        assert torch.equal(xi, run.started[0])


@pytest.mark.parametrize("trains", TRAINS)
def test_what_is_trusted_is_what_it_is_alone(backbone, make_pixels, trains, monkeypatch):
    trusted = Verdict(True, 0.0, 1.0, "always")
    monkeypatch.setattr(import_module("adapters.loop"), "judge_learning", lambda *_: trusted)
    images = make_pixels(60)
    auto = adapt(backbone, images, AUTO, trains=trains, **QUICK)
    alone = adapt(backbone, images, AUTO_TRIES[0], trains=trains, **QUICK)
    assert alone.notes["kept_step"] > 0
    for name, value in alone.domain.state_dict().items():
        assert torch.equal(auto.domain.state_dict()[name], value)
    assert auto.history == alone.history and auto.scores == alone.scores
    assert auto.notes == alone.notes | {"strategy": AUTO, "chosen": AUTO_TRIES[0]}


def test_a_rate_that_is_asked_for_holds_for_all(backbone, make_pixels):
    config = AdaptConfig(strategy=AUTO, learning_rate=0.01, **QUICK)
    run = prepare(backbone, make_pixels(60), "target", config)
    for name in AUTO_TRIES:
        run.restart(name)
        assert run.rate == 0.01


def test_auto_needs_the_guard():
    with pytest.raises(ValueError, match="auto chooses by the guard"):
        AdaptConfig(strategy=AUTO, guard=False)
