"""Many targets on one backbone: in one pass on a GPU, one after another on CPU."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adapters.adapt import adapt, conclude
from adapters.adaptation import Adaptation
from adapters.config import AdaptConfig, with_options
from adapters.loop import Loop
from adapters.prepare import prepare
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import Strategy, known_sources
from adapters.strategies.losses import information, moment_distance, moments, teaching
from da_compose import Backbone, Domain, probabilities
from da_compose.context import undisturbed
from da_compose.model.batched import features_many, forward_many
from da_compose.model.domain import check_name
from da_compose.progress import phase
from da_compose.storage.backbone import check_backbone


def uninformed(
    backbone: Backbone, targets: Sequence[Domain], expected: Tensor, images: Tensor
) -> Tensor:
    """Loss of information maximization, a value a target; see `Objective`."""
    return -information(probabilities(forward_many(backbone.network, targets, images)), expected)


def taught(
    backbone: Backbone,
    targets: Sequence[Domain],
    expected: Tensor,
    images: Tensor,
    consensus: Tensor,
) -> Tensor:
    """Loss of the consensus, a value a target; see `Objective`."""
    found = probabilities(forward_many(backbone.network, targets, images))
    return teaching(found, consensus) - information(found, expected)


def moments_apart(
    backbone: Backbone, targets: Sequence[Domain], expected: Tensor, images: Tensor
) -> Tensor:
    """Loss of moment matching, a value a target; see `Objective`."""
    sources = [(source.first, source.second) for source in known_sources(backbone)]
    return moment_distance(moments(features_many(backbone.network, targets, images)[1]), sources)


@dataclass(frozen=True)
class Objective:
    """One loss whose descent is a strategy's step, for many targets at once.

    losses: expected class frequencies (D, N), then what a step of the strategy is given, pixels
    (D, B, 3, S, S) first -> (D,). The history has it as `figure`, with this sign, as of the
    strategy alone.
    """

    losses: Callable[..., Tensor]
    figure: str
    sign: int


TOGETHER: Mapping[str, Objective] = {
    "information_maximization": Objective(uninformed, "information", -1),
    "consensus": Objective(taught, "loss", 1),
    "moment_matching": Objective(moments_apart, "moment_distance", 1),
}


@undisturbed()
def adapt_many(
    backbone: Backbone,
    targets: Mapping[str, Any],
    strategy: str | Strategy | None = None,
    *,
    together: bool | None = None,
    finished: Callable[[Adaptation], object] | None = None,
    config: AdaptConfig | None = None,
    **options: Any,
) -> dict[str, Adaptation]:
    """Adapt to every target, by name; each result is that of `adapt`, within float tolerance.

    together: take each step for all targets in one pass, which pays on a GPU; on CPU the grouped
    convolutions are slower than one target after another. None: by the backbone's device. Only
    strategies of `TOGETHER` that train mixture weights can; others raise ValueError if it is True.
    finished: called with each as it is there, to save it: an error of a later target ends the call.
    strategy, config, options: as of `adapt`.
    """
    check_backbone(backbone)
    if strategy is not None:
        options["strategy"] = strategy
    config = with_options(config or AdaptConfig(), options).on(backbone.network)
    if not isinstance(targets, Mapping):
        raise ValueError(f"targets must be a mapping by name, got a {type(targets).__name__}")
    for name in targets:
        check_name(name)  # before any work
    finished, done = finished or (lambda adaptation: None), dict[str, Adaptation]()
    method = config.method
    named = isinstance(method, str) and method in TOGETHER
    able = named and config.trains == "mixture_weights"
    if together and not able:
        raise ValueError(
            f"{config.strategy_name} on {config.trains} cannot adapt targets together; "
            f"choose from {', '.join(TOGETHER)} on mixture_weights, or leave `together` out"
        )
    if not able or not (together or (together is None and backbone.network.device.type == "cuda")):
        with phase("adapting to all domains", len(targets)) as adapting:
            for name, images in targets.items():
                with naming(name):
                    done[name] = adapt(backbone, images, name=name, config=config)
                    finished(done[name])
                adapting.advance(note=name)
        return done
    if config.cuda_graph or config.bfloat16:
        raise ValueError("targets at once take neither cuda_graph nor bfloat16; leave them out")
    assert isinstance(method, str)
    loops = []
    for name, images in targets.items():
        with naming(name):
            loops.append(Loop(prepare(backbone, images, name, config), STRATEGIES[method]()))
    if loops:
        device = backbone.network.device
        known = {name: source.to(device) for name, source in backbone.knowledge.items()}
        step_together(
            replace(backbone, knowledge=known),
            loops,
            TOGETHER[method],
            loops[0].config.num_steps,
        )
    for loop in loops:
        done[loop.target.name] = conclude(loop.ready, loop.end())
        finished(done[loop.target.name])
    return done


@contextmanager
def naming(target: str) -> Iterator[None]:
    """Say in an error which of the targets it is of."""
    try:
        yield
    except Exception as error:
        error.add_note(f"of target {target!r}")
        raise


def step_together(
    backbone: Backbone, loops: Sequence[Loop], objective: Objective, steps: int
) -> None:
    """All steps of all loops: gradients of different targets' xi do not mix in a sum of losses."""
    xi = [parameter for loop in loops for parameter in loop.trained]
    optimizer = torch.optim.Adam(xi, lr=loops[0].rate)
    for loop in loops:
        loop.optimizer = optimizer
    targets = [loop.target for loop in loops]
    expected = torch.stack([loop.expected for loop in loops]).to(backbone.network.device)
    with phase(f"adapting to {len(loops)} domains at once", steps) as adapting:
        for step in range(steps):
            for loop in loops:
                loop.before(step)
            inputs = zip(*(loop.inputs() for loop in loops), strict=True)
            losses = objective.losses(backbone, targets, expected, *map(torch.stack, inputs))
            gradients = torch.autograd.grad(losses.sum(), xi)
            for parameter, gradient in zip(xi, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            for loop, loss in zip(loops, losses.detach(), strict=True):
                loop.after({objective.figure: objective.sign * loss})
            adapting.advance()
