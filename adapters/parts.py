"""What of a domain may be trained: one vocabulary for adaptation, transfer and bounds by labels."""

from collections.abc import Iterable
from copy import deepcopy

from torch import nn

from da_compose import Domain, Network
from da_compose.model.mixture import MixtureWeights

PARTS = ("mixture_weights", "input_adapter", "batch_norm", "heads", "all")
ADAPTED = ("mixture_weights", "input_adapter", "batch_norm")  # without labels
# Usual ones without labels. Those of batch norm are not tuned: LOG, pretrained networks
LEARNING_RATES = {"mixture_weights": 0.1, "input_adapter": 0.003, "batch_norm": 0.001}
STEPS = {"mixture_weights": 100, "input_adapter": 400, "batch_norm": 100}


def check_parts(parts: Iterable[str], allowed: Iterable[str] = PARTS) -> None:
    """Raise ValueError where a part is none of the allowed ones."""
    if wrong := [part for part in parts if part not in allowed]:
        raise ValueError(f"cannot train {', '.join(wrong)}; choose from {', '.join(allowed)}")


def unlock(network: Network, domain: Domain, *parts: str) -> list[nn.Parameter]:
    """Let these parts of a domain move, and nothing else of it; returns their parameters.

    A part that the domain shares with the network becomes a copy of its own: input adapter, heads,
    gamma and beta of all batch norms. `all` are the network's own weights too: give a copy of it.
    Raises ValueError for mixture weights where the network has a fixed signature.
    """
    check_parts(parts)
    domain.requires_grad_(False)
    found: list[nn.Parameter] = []
    if "heads" in parts:
        domain.heads = domain.heads or deepcopy(network.heads)
        found += domain.heads.parameters()
    if "batch_norm" in parts:
        network.own_batch_norm(domain)
        found += [p for p in (domain.gamma, domain.beta) if p is not None]
    if "mixture_weights" in parts:
        if not isinstance(domain.mixture, MixtureWeights):
            raise ValueError(
                "this backbone has a fixed signature, as an unshared network does, and no mixture "
                "weights to train; "
                'use trains="input_adapter", or a compositional backbone'
            )
        found.append(domain.mixture.xi)
    if "input_adapter" in parts:
        domain.input_adapter = domain.input_adapter or deepcopy(network.input_adapter)
        unused = () if domain.gamma is None else ("gamma", "beta")  # the domain's take their place
        named = domain.input_adapter.named_parameters()
        found += [parameter for name, parameter in named if name not in unused]
    if "all" in parts:
        found = [*network.shared_parameters(), *domain.parameters()]
    for parameter in found:
        parameter.requires_grad_(True)
    return found
