"""Runs a part of a traced network for one domain, and leaves the part as it is."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.nn.modules.batchnorm import _BatchNorm

from da_compose.model.fused import clamped, convolved, fits, fused, is_plain, plan, with_values
from da_compose.model.norms import NormCursor


class _Waiting(NamedTuple):
    """A convolution that has not run yet: with the norm after it, it may be one."""

    convolution: nn.Conv2d
    features: Tensor


class _Run(Interpreter):
    """One pass through a section: made anew for each, so that threads can share the section."""

    def __init__(
        self, section: GraphModule, norms: NormCursor, values: Mapping[str, Tensor]
    ) -> None:
        super().__init__(section)
        self.norms, self.values = norms, values
        learned = norms.domain.batch_statistics  # then there is nothing to fold in yet
        found = [] if learned else plan(section).fusions
        self.waiting = {fusion.convolution for fusion in found}
        self.fusions = {fusion.norm: fusion for fusion in found}
        self.done = set[str]()  # that came with their convolution

    def run_node(self, n: Node) -> Any:
        if n.name in self.done:
            return self.env[cast(Node, n.args[0])]
        if n.op != "call_module":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        target = str(n.target)
        module = self.fetch_attr(target)
        if isinstance(module, _BatchNorm):
            return self._norm(n, module, *args, *kwargs.values())
        own = {
            name: self.values[f"{target}.{name}"]
            for name, _ in module.named_parameters()
            if f"{target}.{name}" in self.values
        }
        module = with_values(module, own) if own else module
        if n.name in self.waiting and is_plain(module):
            return _Waiting(cast(nn.Conv2d, module), *args)
        return module(*args, **kwargs)

    def _norm(self, node: Node, norm: _BatchNorm, features: Tensor | _Waiting) -> Tensor:
        gamma, beta = affine(norm)
        gamma = self.values.get(f"{node.target}.weight", gamma)
        beta = self.values.get(f"{node.target}.bias", beta)
        if isinstance(features, _Waiting):
            values, after = self.norms.look(gamma, beta), self.fusions[node.name].after
            called = [self.fetch_attr(f) if isinstance(f, str) else f for f in after.values()]
            limits = clamped(norm, called)
            if limits and fits(features.features, features.convolution, values[2]):
                self.norms.skip(len(gamma))
                self.done.update(after)
                return fused(*features, values, norm.eps, limits)
            features = convolved(*features)
        return after_norm(norm, self.norms.norm(features, gamma, beta, norm.eps))

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in self.values:
            return self.values[target]
        return super().get_attr(target, args, kwargs)


def run(
    section: GraphModule, value: Tensor, norms: NormCursor, values: Mapping[str, Tensor]
) -> Tensor:
    """A section's output; what it takes stays as it is. norms: what its batch norms use, in order.

    values: tensors in place of those of the section with these names.
    """
    value = value.clone() if plan(section).writes else value
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
