"""What of a domain may be trained: one vocabulary for adaptation, transfer and bounds by labels."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from da_compose import Domain, Network, PretrainedNetwork
from da_compose.model.mixture import LearnedMixture

PARTS = ("mixture_weights", "input_adapter", "batch_norm", "heads", "all")
ADAPTED = ("mixture_weights", "input_adapter", "batch_norm")  # without labels
# Usual ones without labels. Those of batch norm are not tuned: LOG, pretrained networks
LEARNING_RATES = {"mixture_weights": 0.1, "input_adapter": 0.003, "batch_norm": 0.001}
STEPS = {"mixture_weights": 100, "input_adapter": 400, "batch_norm": 100}


@dataclass(frozen=True, kw_only=True)
class Usual:
    """How a kind of network is adapted where nothing else is asked for; rates, steps by part."""

    strategy: str
    tries: tuple[str, ...]  # of `auto`, one after another; the first where steps are asked for
    rates: Mapping[str, float]
    steps: Mapping[str, int]
    batch_size: int
    start_images: int  # to compare starts on


MIXED = Usual(
    strategy="information_maximization",
    tries=("information_maximization", "moment_matching"),
    rates=LEARNING_RATES,
    steps=STEPS,
    batch_size=128,
    start_images=400,
)
# On coefficients of directions, not logits. There the start has what there is to gain: LOG, "on
# ImageNet weights nothing is learned by default"
DIRECTED = Usual(
    strategy="chosen_start",
    tries=("consensus", "information_maximization"),
    rates={"mixture_weights": 0.1, "input_adapter": 0.003, "batch_norm": 0.001},
    steps={"mixture_weights": 60, "input_adapter": 60, "batch_norm": 60},
    batch_size=64,
    start_images=1000,
)


def usual_of(network: Network) -> Usual:
    """How this network is adapted where nothing else is asked for."""
    return DIRECTED if isinstance(network, PretrainedNetwork) else MIXED


def check_parts(parts: Iterable[str], allowed: Iterable[str] = PARTS) -> None:
    """Raise ValueError where a part is none of the allowed ones."""
    if wrong := [part for part in parts if part not in allowed]:
        raise ValueError(f"cannot train {', '.join(wrong)}; choose from {', '.join(allowed)}")


def unlock(network: Network, domain: Domain, *parts: str) -> list[nn.Parameter]:
    """Let these parts of a domain move, and nothing else of it; returns their parameters.

    A part that the domain shares with the network becomes a copy of its own: input adapter, heads,
    gamma and beta of all batch norms. `all` are the network's own weights too: give a copy of it.
    Raises ValueError for mixture weights where the network has a fixed signature or no templates,
    and for batch norm where it has none.
    """
    check_parts(parts)
    domain.requires_grad_(False)
    found: list[nn.Parameter] = []
    if "heads" in parts:
        domain.heads = domain.heads or deepcopy(network.heads)
        found += domain.heads.parameters()
    if "batch_norm" in parts:
        if not network.config.num_statistics:
            raise ValueError(
                "this network has no batch norm; train mixture_weights or input_adapter"
            )
        network.own_batch_norm(domain)
        found += [p for p in (domain.gamma, domain.beta) if p is not None]
    if "mixture_weights" in parts:
        if not isinstance(domain.mixture, LearnedMixture):
            raise ValueError(
                "this backbone has a fixed signature, as an unshared network does, and no mixture "
                "weights to train; "
                'use trains="input_adapter", or a compositional backbone'
            )
        if not network.config.num_templates:
            raise ValueError(
                "this network has no templates yet, so no mixture weights to train; learn them "
                "(`da_compose.learn_templates`), or train input_adapter or batch_norm"
            )
        found.append(domain.mixture.xi)
    if "input_adapter" in parts:
        domain.input_adapter = domain.input_adapter or deepcopy(network.input_adapter)
        found += network.input_parameters(domain)
    if "all" in parts:
        found = [*network.shared_parameters(), *domain.parameters()]
    for parameter in found:
        parameter.requires_grad_(True)
    return found
