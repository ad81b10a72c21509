"""`strategy="auto"`: what is tried in which order, what is kept, and what is said of it."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from adapters import AUTO, STRATEGIES, Adaptation, AdaptConfig, GuardConfig, adapt
from adapters.adapt import first_trusted
from adapters.guard import Verdict
from adapters.loop import Loop
from adapters.parts import ADAPTED, LEARNING_RATES, MIXED
from adapters.prepare import prepare
from adapters.strategies.contract import AdaptationTask, rate_of
from da_compose import Backbone, Domain
from da_compose.evidence import FIGURES

QUICK: dict[str, Any] = {"steps": 4, "batch_size": 8, "check_every": 2}
CLASSES = torch.arange(60) % 3
SURE = 20 * torch.nn.functional.one_hot(CLASSES).float().expand(2, -1, -1)  # logits (2, 60, 3)
ALWAYS_SURE = GuardConfig(least_certainty=0.0)  # of any start


def module(name: str) -> Any:
    """A module whose name a function of its package may hide."""
    return import_module(f"adapters.{name}")


def scripted(level: float) -> type:
    """A strategy whose every step sets xi to one value."""

    class Scripted:
        RATE: ClassVar[float] = abs(level)

        def prepare(self, task: AdaptationTask) -> None:
            self.task = task

        def step(self, images: Tensor) -> dict[str, float]:
            with torch.no_grad():
                self.task.trained[0].fill_(level)
            return {"level": level}

    return Scripted


def xi_of(domain: Domain | None) -> Tensor:
    assert domain is not None
    return domain.get_parameter("mixture.xi").detach()


def judging(*trusted: bool) -> Callable[..., Verdict]:
    """In the place of the guard: what it says in turn, the last for ever."""
    answers = list(trusted)
    return lambda *_: Verdict(answers.pop(0) if len(answers) > 1 else answers[0], 0.1, 1.0, "said")


@pytest.fixture
def run_scripted(backbone: Backbone, make_pixels, monkeypatch: pytest.MonkeyPatch):
    """`first_trusted` by strategies that set xi to a level: its information, its harm above 5.

    Levels above 5 are refused by the guard; negative ones are less informative than the start.
    All of what was learned is kept.
    """

    def level_of(network: Any, domain: Domain, images: Any) -> Tensor:
        return torch.full((2, len(images), 3), xi_of(domain)[0, 0].item())

    def judge(start: Tensor, kept: Tensor, limits: GuardConfig) -> Verdict:
        level = kept[0, 0, 0].item()
        return Verdict(level <= 5, 0.1, 1.0, f"level {level:g}")

    def run_them(levels: dict[str, float], certain: bool = True) -> Adaptation:
        config = AdaptConfig(strategy=AUTO, prior_images=0, **QUICK)
        ready = prepare(backbone, make_pixels(60), "target", config)
        told = torch.full((len(FIGURES),), float(certain), dtype=torch.float64)
        ready = replace(ready, logits=SURE, evidence={**ready.evidence, "start": told})
        with torch.no_grad():
            ready.target.get_parameter("mixture.xi").zero_()
        loop, ending = module("loop"), module("adapt")
        methods = {name: scripted(level) for name, level in levels.items()}
        monkeypatch.setattr(ending, "usual_of", lambda _: replace(MIXED, tries=tuple(levels)))
        monkeypatch.setattr(ending, "STRATEGIES", methods)
        monkeypatch.setattr(ending, "judge_learning", lambda *given: judge(*given[:3]))
        monkeypatch.setattr(ending, "predict_logits", level_of)
        monkeypatch.setattr(loop, "predict_logits", level_of)
        monkeypatch.setattr(loop, "probabilities", lambda logits: logits)
        start = ready.logits
        monkeypatch.setattr(
            loop,
            "information",
            lambda levels, _: torch.zeros(()) if levels is start else levels[0, 0, 0],
        )
        return first_trusted(ready)

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
    found = run_scripted(levels)
    assert found.notes["chosen"] == chosen and found.notes["kept_step"] == step
    assert torch.all(xi_of(found.domain) == kept)
    assert found.notes["guard"]["reason"] == f"level {0 if seen < 0 else seen:g}"
    assert [entry["level"] for entry in found.history] == QUICK["steps"] * [seen]
    assert [entry["step"] for entry in found.history] == [1, 2, 3, 4]
    assert torch.all(xi_of(found.last) == seen)


@pytest.mark.parametrize(
    ("first", "chosen", "kept"), [(1.0, "a", 1.0), (9.0, "start", 0.0), (-1.0, "start", 0.0)]
)
def test_an_unsure_start_is_worth_one_try(run_scripted, first, chosen, kept):
    found = run_scripted({"a": first, "b": 2.0}, certain=False)
    assert found.notes["chosen"] == chosen
    assert torch.all(xi_of(found.domain) == kept)


def test_every_strategy_starts_from_the_start_at_its_own_rate(backbone, make_pixels, monkeypatch):
    seen = {}

    def watching(name: str) -> Any:
        method: Any = STRATEGIES[name]

        class Watching(method):
            def prepare(self, task: AdaptationTask) -> None:
                super().prepare(task)
                (group,) = task.optimizer.param_groups
                drawn = task.generator.get_state()
                seen[name] = (group["lr"], task.trained[0].detach().clone(), drawn)

        return Watching

    monkeypatch.setattr(module("adapt"), "judge_learning", judging(False))
    monkeypatch.setattr(
        module("adapt"), "STRATEGIES", {name: watching(name) for name in MIXED.tries}
    )
    config = AdaptConfig(strategy=AUTO, **QUICK)
    ready = prepare(backbone, make_pixels(60), "target", config)
    told = torch.ones(len(FIGURES), dtype=torch.float64)  # a sure start
    ready = replace(ready, logits=SURE, evidence={**ready.evidence, "start": told})
    start = xi_of(ready.target).clone()
    found = first_trusted(ready)
    assert torch.equal(xi_of(found.domain), start)
    assert list(seen) == list(MIXED.tries)
    for name, (rate, xi, drawn) in seen.items():
        assert rate == LEARNING_RATES["mixture_weights"] * rate_of(STRATEGIES[name]())
        assert torch.equal(xi, start)
        assert torch.equal(drawn, ready.drawn)


def outcome(found: Adaptation) -> dict[str, Any]:
    """All of an adaptation but the notes on how it was chosen."""
    notes = {name: note for name, note in found.notes.items() if name not in ("strategy", "chosen")}
    return {"notes": notes, "history": found.history, "scores": found.scores}


@pytest.mark.parametrize("trains", ADAPTED)
@pytest.mark.parametrize("tried", range(len(MIXED.tries)))
def test_what_is_trusted_is_what_it_is_alone(backbone, make_pixels, monkeypatch, trains, tried):
    """Whichever try it is: each starts from the same generator state."""
    images, options = make_pixels(60), {"guard_config": ALWAYS_SURE, "trains": trains, **QUICK}
    rising = iter(range(10_000))
    monkeypatch.setattr(module("loop"), "information", lambda *_: torch.tensor(float(next(rising))))
    monkeypatch.setattr(module("adapt"), "judge_learning", judging(*tried * [False], True))
    auto = adapt(backbone, images, AUTO, **options)
    rising = iter(range(tried * 3, 10_000))
    alone = adapt(backbone, images, MIXED.tries[tried], **options)
    assert alone.notes["kept_step"] > 0
    for which in ("domain", "last"):
        one, two = (getattr(found, which).state_dict() for found in (auto, alone))
        assert one.keys() == two.keys()
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert outcome(auto) == outcome(alone)
    assert auto.notes["strategy"] == AUTO and auto.notes["chosen"] == MIXED.tries[tried]


def test_a_rate_that_is_asked_for_holds_for_all(backbone, make_pixels):
    config = AdaptConfig(strategy=AUTO, learning_rate=0.01, **QUICK)
    ready = prepare(backbone, make_pixels(60), "target", config)
    for name in MIXED.tries:
        assert Loop(ready, STRATEGIES[name]()).rate == 0.01


def test_how_unsure_a_start_may_be_is_an_option(backbone, make_pixels):
    images = make_pixels(60)
    for least, unsure in ((0.0, False), (1.0, True)):
        limits = GuardConfig(least_certainty=least)
        config = AdaptConfig(strategy=AUTO, guard_config=limits, **QUICK)
        assert prepare(backbone, images, "target", config).unsure is unsure


def test_auto_needs_the_guard():
    with pytest.raises(ValueError, match="auto chooses by the guard"):
        AdaptConfig(strategy=AUTO, guard=False)
