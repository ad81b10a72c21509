"""Many targets on one backbone: in one pass on a GPU, one after another on CPU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adapters.adapt import adapt
from adapters.adaptation import Adaptation
from adapters.config import AdaptConfig
from adapters.loop import Run, prepare
from adapters.strategies.losses import information, moment_distance, moments
from da_compose import Backbone, Domain, probabilities
from da_compose.model.batched import features_many, forward_many

# images (D, B, 3, S, S), expected class frequencies (D, N) -> losses (D,)
Objective = Callable[[Backbone, Sequence[Domain], Tensor, Tensor], Tensor]


def uninformed(
    backbone: Backbone, targets: Sequence[Domain], images: Tensor, expected: Tensor
) -> Tensor:
    """Loss of information maximization, a value a target; see `Objective`."""
    return -information(probabilities(forward_many(backbone.network, targets, images)), expected)


def moments_apart(
    backbone: Backbone, targets: Sequence[Domain], images: Tensor, expected: Tensor
) -> Tensor:
    """Loss of moment matching, a value a target; see `Objective`."""
    sources = [(source.first, source.second) for source in backbone.knowledge.values()]
    return moment_distance(moments(features_many(backbone.network, targets, images)[1]), sources)


TOGETHER: Mapping[str, Objective] = {  # strategies whose step is one descent of one loss
    "information_maximization": uninformed,
    "moment_matching": moments_apart,
}


def adapt_many(
    backbone: Backbone,
    targets: Mapping[str, Any],
    strategy: str = "information_maximization",
    *,
    together: bool | None = None,
    **options: Any,
) -> dict[str, Adaptation]:
    """Adapt to every target, by name; each result is that of `adapt`, within float tolerance.

    together: take each step for all targets in one pass, which pays on a GPU; on CPU the grouped
    convolutions are slower than one target after another. None: by the backbone's device. Only
    strategies of `TOGETHER` that train mixture weights can; others raise ValueError if it is True.
    options: fields of `AdaptConfig`.
    """
    config = AdaptConfig(strategy=strategy, **options)
    able = strategy in TOGETHER and config.trains == "mixture_weights"
    if together and not able:
        raise ValueError(
            f"{strategy} on {config.trains} cannot adapt targets together; "
            f"choose from {', '.join(TOGETHER)} on mixture_weights, or leave `together` out"
        )
    if not able or not (together or (together is None and backbone.network.device.type == "cuda")):
        return {
            name: adapt(backbone, images, strategy, name=name, **options)
            for name, images in targets.items()
        }
    if config.cuda_graph or config.bfloat16:
        raise ValueError("targets at once take neither cuda_graph nor bfloat16; leave them out")
    runs = [prepare(backbone, images, name, config) for name, images in targets.items()]
    if runs:
        device = backbone.network.device
        known = {name: source.to(device) for name, source in backbone.knowledge.items()}
        step_together(replace(backbone, knowledge=known), runs, TOGETHER[strategy], config)
    return {run.target.name: run.result() for run in runs}


def step_together(
    backbone: Backbone, runs: Sequence[Run], objective: Objective, config: AdaptConfig
) -> None:
    """All steps of all runs: gradients of different targets' xi do not mix in a sum of losses."""
    xi = [parameter for run in runs for parameter in run.trained]
    optimizer = torch.optim.Adam(xi, lr=runs[0].rate)
    for run in runs:
        run.optimizer = optimizer
    targets = [run.target for run in runs]
    expected = torch.stack([run.expected for run in runs]).to(backbone.network.device)
    for step in range(config.num_steps):
        for run in runs:
            run.before(step)
        images = torch.stack([run.batch() for run in runs])
        losses = objective(backbone, targets, images, expected)
        gradients = torch.autograd.grad(losses.sum(), xi)
        for parameter, gradient in zip(xi, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        for run, loss in zip(runs, losses.detach(), strict=True):
            run.after({"loss": loss})
    for run in runs:
        run.keep_best()
