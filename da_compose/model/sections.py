"""Runs a part of a traced network for one domain, and leaves the part as it is."""

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter
from torch.nn.modules.batchnorm import _BatchNorm

from da_compose.model.norms import NormCursor


class _Run(Interpreter):
    """One pass through a section: made anew for each, so that threads can share the section."""

    def __init__(
        self, section: GraphModule, norms: NormCursor, values: Mapping[str, Tensor]
    ) -> None:
        super().__init__(section)
        self.norms, self.values = norms, values

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, _BatchNorm):
            gamma, beta = affine(module)
            return after_norm(
                module,
                self.norms.norm(
                    args[0],
                    self.values.get(f"{target}.weight", gamma),
                    self.values.get(f"{target}.bias", beta),
                    module.eps,
                ),
            )
        own = {
            name: self.values[f"{target}.{name}"]
            for name, _ in module.named_parameters()
            if f"{target}.{name}" in self.values
        }
        return (with_values(module, own) if own else module)(*args, **kwargs)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in self.values:
            return self.values[target]
        return super().get_attr(target, args, kwargs)


def run(
    section: GraphModule, value: Tensor, norms: NormCursor, values: Mapping[str, Tensor]
) -> Tensor:
    """A section's output. norms: what its batch norms use of the domain, in order.

    values: tensors in place of those of the section with these names.
    """
    return _Run(section, norms, values).run(value)


def batch_norms(section: GraphModule) -> dict[str, _BatchNorm]:
    """The batch norms that a section calls, by name, in order."""
    called = [str(node.target) for node in section.graph.nodes if node.op == "call_module"]
    found = {name: section.get_submodule(name) for name in called}
    return {name: part for name, part in found.items() if isinstance(part, _BatchNorm)}


def affine(module: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Gamma and beta (C,) of a batch norm, 1 and 0 where it has none."""
    assert isinstance(module.running_mean, Tensor)
    gamma = torch.ones_like(module.running_mean) if module.weight is None else module.weight
    beta = torch.zeros_like(module.running_mean) if module.bias is None else module.bias
    return gamma, beta


def after_norm(module: _BatchNorm, normalized: Tensor) -> Tensor:
    """What a batch norm of timm does besides."""
    for name in ("drop", "act"):
        after = getattr(module, name, None)
        normalized = normalized if after is None else after(normalized)
    return normalized


def with_values(module: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """A module that shares all with `module` but these parameters, its own or its parts'."""
    changed = copy(module)
    own = {name: value for name, value in values.items() if name in module._parameters}
    object.__setattr__(changed, "_parameters", {**module._parameters, **own})
    parts = dict(module.named_children())
    for part, child in parts.items():
        below = {
            name.removeprefix(f"{part}."): value
            for name, value in values.items()
            if name.startswith(f"{part}.")
        }
        parts[part] = with_values(child, below) if below else child
    object.__setattr__(changed, "_modules", {**module._modules, **parts})
    return changed
