"""`adapt`: from a backbone and unlabelled images of a new domain to a few learned numbers."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from torch import Tensor

from adapters.adaptation import Adaptation
from adapters.config import AUTO, OUTCOME, T3A, UNLEARNED, AdaptConfig, with_options
from adapters.estimates import estimates
from adapters.guard import judge_learning
from adapters.loop import Learned, learn
from adapters.parts import usual_of
from adapters.prepare import Ready, prepare
from adapters.prototypes import with_prototypes
from adapters.selection import score
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import Strategy
from da_compose import Backbone, Domain, probabilities
from da_compose.context import undisturbed
from da_compose.estimate import temperature_for
from da_compose.inference import predict_logits
from da_compose.statistics import shrunk_share

START = "start"


@undisturbed()
def adapt(
    backbone: Backbone,
    images: Any,
    strategy: str | Strategy | None = None,
    *,
    name: str = "target",
    config: AdaptConfig | None = None,
    **options: Any,
) -> Adaptation:
    """Adapt a frozen backbone to unlabelled images of a new domain.

    images: of any kind that `da_compose.reading.read_images` takes, such as a folder of pictures;
    labels in them are never looked at.
    strategy: one of `adapters.config.CHOICES`, by default "information_maximization"; on a
    pretrained network "chosen_start", which learns nothing, or "consensus" where options say how to
    learn; "auto": the first of several to learn what the guard trusts; or an instance with options
    of its own, such as MomentMatching(moments=1), or of a class of yours that keeps
    `adapters.Strategy`.
    name: of the new domain, one word. config, options: fields of `AdaptConfig`, such as
    trains="input_adapter", steps=200, seed=1; options come before those of `config`.
    The backbone is left bit-identical. Raises ValueError for wrong options or images.
    """
    if strategy is not None:
        options["strategy"] = strategy
    return adapted(prepare(backbone, images, name, with_options(config or AdaptConfig(), options)))


def adapted(ready: Ready) -> Adaptation:
    """What comes of a start by the strategy that it is prepared for."""
    if ready.config.method == AUTO:
        return first_trusted(ready)
    if ready.config.method == T3A:
        return prototyped(ready)
    if ready.config.method in UNLEARNED:
        return unlearned(ready)
    return conclude(ready, learn(ready, strategy_of(ready.config.method)))


def strategy_of(strategy: str | Strategy) -> Strategy:
    """A strategy that learns, by its name or as it is given."""
    if not isinstance(strategy, str):
        return strategy
    if strategy not in STRATEGIES:
        raise ValueError(f"{strategy} learns nothing; choose from {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy]()


def unlearned(ready: Ready) -> Adaptation:
    """The start as the outcome."""
    return _result(ready, ready.target, ready.logits, {}, learned_parameters=0, last=ready.target)


def prototyped(ready: Ready) -> Adaptation:
    """The start with prototypes for classifiers, or as it is where the guard says so."""
    last = with_prototypes(ready.backbone.network, ready.target, ready.pixels)
    logits = predict_logits(ready.backbone.network, last, ready.checked)
    domain, notes = last, {}
    if ready.config.guard:
        verdict = judge_learning(ready.logits, logits, ready.config.guard_config, ready.certain)
        notes = {"guard": asdict(verdict)}
        if not verdict.trusted:
            domain, logits = ready.target, ready.logits
    return _result(ready, domain, logits, notes, learned_parameters=0, last=last)


def conclude(ready: Ready, learned: Learned, **notes: Any) -> Adaptation:
    """Keep most of the way from the start to the best iterate, or nothing where the guard says so.

    The fewer images, the less of it (`AdaptConfig.prior_images`). notes: more of them.
    """
    config = ready.config
    share, step = shrunk_share(len(ready.pixels), config.prior_images), learned.best_step
    domain, guard = learned.between(share), {}
    logits = predict_logits(ready.backbone.network, domain, ready.checked)
    if config.guard:
        verdict = judge_learning(ready.logits, logits, config.guard_config, ready.certain)
        guard = {"guard": asdict(verdict)}
        if not verdict.trusted:
            domain, logits, share, step = learned.between(0.0), ready.logits, 0.0, 0
    return _result(
        ready,
        domain,
        logits,
        {"kept_step": step, "kept_share": share} | guard | notes,
        learned_parameters=learned.num_parameters,
        history=learned.history,
        last=learned.between(1.0, learned.last),
    )


def first_trusted(ready: Ready) -> Adaptation:
    """`auto`: the first of `Usual.tries` to learn what the guard trusts, each from the start.

    The guard alone chooses: a criterion that compares outcomes was tried, and kept what had learned
    least. From an unsure start only the first is tried: where predictions hardly tell images apart,
    what passes the guard changes little, and as often for the worse (benchmarks/LOG.md).
    `notes["chosen"]` names it, or says `start`: then none has learned anything that is trusted, and
    history, guard and last iterate are the last one's.
    """
    found = None
    for name, found in _tries(ready):
        if found.notes["kept_step"] > 0:
            found.notes["chosen"] = name
            return found
    assert found is not None
    found.notes["chosen"] = START
    return found


def _tries(ready: Ready) -> Iterator[tuple[str, Adaptation]]:
    tries = usual_of(ready.backbone.network).tries
    for name in tries[:1] if ready.unsure else tries:
        yield name, conclude(ready, learn(ready, STRATEGIES[name]()))


def _result(
    ready: Ready, domain: Domain, logits: Tensor, notes: dict[str, Any], **outcome: Any
) -> Adaptation:
    how: dict[str, Any] = {
        "learned_parameters": outcome["learned_parameters"],
        "trains": ready.config.trains,
        "seed": ready.config.seed,
    }
    found = estimates(ready, logits)
    if ready.meaningless:
        how["meaningless"] = True
    if found:
        how["estimates"] = {name: asdict(estimate) for name, estimate in found.items()}
        how["temperature"] = temperature_for(probabilities(logits), found[OUTCOME].accuracy)
    return Adaptation(
        ready.backbone,
        domain,
        scores=dict(ready.scores) | {OUTCOME: score(logits)},
        notes=dict(ready.notes) | notes | how,
        **outcome,
    )
