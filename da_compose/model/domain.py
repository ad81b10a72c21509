"""What is private to one domain: its mixture, its batch-norm statistics, and any replaced part."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn

from da_compose.model.mixture import Mixture

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
SHOWN_NAMES = 20  # at most, in an error
POOLED = "pooled"  # name of the domain that is trained on all sources together


def check_name(name: str) -> None:
    """Raise ValueError where no domain can have this name."""
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueError(
            f"domain name {str(name)[:300]!r}: use letters, digits, '_', '-' and "
            "'.', at most one word, at most 255 letters"
        )


class Domain(nn.Module):
    """One domain of a compositional network.

    Its batch norms use stored statistics, so a prediction depends on one image alone. Only where
    `use_batch_statistics` was called do they use the batch's, and move the stored ones by
    `momentum`; `train()` and `eval()`, of the domain or of a network, change nothing.
    `mean` and `var` (F,) concatenate the statistics of every batch norm, in network order.
    `input_adapter`, `heads`, and `gamma` and `beta` (F,) of every batch norm, when set, take the
    place of the network's own. `class_names` are those of its own heads.
    `synchronized`: the batch is then that of all processes together (`parallel`).
    """

    mean: Tensor
    var: Tensor

    def __init__(self, name: str, mixture: Mixture, num_statistics: int) -> None:
        super().__init__()
        check_name(name)
        self.name = name
        self.mixture = mixture
        self.register_buffer("mean", torch.zeros(num_statistics))
        self.register_buffer("var", torch.ones(num_statistics))
        self.input_adapter: nn.Module | None = None
        self.heads: nn.ModuleList | None = None
        self.class_names: tuple[str, ...] | None = None
        self.gamma: nn.Parameter | None = None
        self.beta: nn.Parameter | None = None
        self.momentum = 0.1
        self.batch_statistics = False
        self.synchronized = False

    def use_batch_statistics(self, use: bool = True) -> "Domain":
        """Normalize by each batch, which moves the stored statistics; False: by those alone."""
        self.batch_statistics = use
        return self

    @property
    def own_parts(self) -> dict[str, Any]:
        """Which of the network's parts this domain replaces by its own, in JSON values."""
        return {
            "input_adapter": self.input_adapter is not None,
            "heads": self.heads is not None,
            "batch_norm": self.gamma is not None,
            "own_classes": self.class_names,
        }

    def set_statistics(self, mean: Tensor, var: Tensor) -> None:
        """Overwrite the stored batch-norm statistics, both (F,)."""
        if mean.shape != self.mean.shape or var.shape != self.var.shape:
            raise ValueError(
                f"statistics must have shape {tuple(self.mean.shape)}, "
                f"got {tuple(mean.shape)} and {tuple(var.shape)}"
            )
        self.mean.copy_(mean)
        self.var.copy_(var)


class DomainTable(nn.Module):
    """The domains a network knows, by name, in the order they were added.

    A state dict names them, so that a network without domains can load it: `make` is then given
    a name and `own_parts` for each.
    """

    def __init__(self, make: Callable[[str, Mapping[str, Any]], Domain]) -> None:
        super().__init__()
        self._make = make
        self._domains = nn.ModuleList()
        self._by_name: dict[str, Domain] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def __iter__(self) -> Iterator[Domain]:
        return cast(Iterator[Domain], iter(self._domains))

    def __len__(self) -> int:
        return len(self._domains)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Domain:
        if name not in self._by_name:
            known = ", ".join(islice(self._by_name, SHOWN_NAMES)) or "none"
            more = f", and {len(self) - SHOWN_NAMES} more" if len(self) > SHOWN_NAMES else ""
            raise ValueError(f"no domain {name!r}; there are: {known}{more}")
        return self._by_name[name]

    def get_extra_state(self) -> Tensor:
        """Names and own parts of all, as JSON in uint8: a state dict holds tensors alone."""
        known = [[domain.name, domain.own_parts] for domain in self]
        return torch.tensor([*json.dumps(known).encode()], dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Make the domains that a state dict holds, where there are none."""
        known = json.loads(bytes(state.tolist()))
        names = tuple(name for name, _ in known)
        if self.names and self.names != names:
            raise ValueError(
                f"the state is of domains {', '.join(names)}, this network has "
                f"{', '.join(self.names)}; load it into a new network"
            )
        for name, parts in known[len(self) :]:
            self.add(self._make(name, parts))

    def add(self, domain: Domain) -> None:
        if domain.name in self:
            raise ValueError(f"a domain {domain.name!r} exists already; choose another name")
        self._domains.append(domain)
        self._by_name[domain.name] = domain
