"""A convolution and the batch norm after it as one, under stored statistics, on a CPU.

Gamma and the statistics are folded into the frozen kernel. The gradients of gamma and beta, which
adaptation asks for, are read off the output: no pass is spent on normalizing, and what autograd
keeps of it is the output that the next layer takes anyway.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.fx import GraphModule, Node
from torch.nn import functional

UNLIMITED = float("-inf"), float("inf")
LEAST_GAMMA = 1e-4  # a smaller one could not be divided by, to find its gradient


class Fusion(NamedTuple):
    """A convolution, the norm that alone takes its output, and the activation that alone takes its.

    By the names of their nodes. limits: what the activation clamps to, in the norm's own module
    (timm's) or in the next node.
    """

    convolution: str
    norm: str
    activation: str | None
    limits: tuple[float, float]


def fusions(section: GraphModule) -> list[Fusion]:
    """All of a section, looked for once.

    What is changed in place afterwards is left out: its gradients are read off it.
    """
    if section not in _FOUND:
        _FOUND[section] = list(_find(section))
    return _FOUND[section]


_FOUND = WeakKeyDictionary[GraphModule, list[Fusion]]()


def _find(section: GraphModule) -> Iterator[Fusion]:
    for node in section.graph.nodes:
        if not _is_plain(_module(section, node)) or len(node.users) != 1:
            continue
        (norm,) = node.users
        module = _module(section, norm)
        if not isinstance(module, nn.BatchNorm2d) or norm.args != (node,) or norm.kwargs:
            continue
        if not isinstance(getattr(module, "drop", nn.Identity()), nn.Identity):
            continue
        limits, activation = _limits(getattr(module, "act", nn.Identity())), None
        if limits == UNLIMITED and len(norm.users) == 1:
            (user,) = norm.users
            limits = _limits(_called(section, user)) or UNLIMITED
            activation = user if limits != UNLIMITED else None
        if limits and not any(_in_place(section, user) for user in (activation or norm).users):
            yield Fusion(node.name, norm.name, activation and activation.name, limits)


def _is_plain(module: nn.Module | None) -> bool:
    """Whether it convolves with its weight as it is, so that a scaled one scales the output.

    One that standardizes its weight first, or has it from a parametrization or a hook, does not.
    """
    if not isinstance(module, nn.Conv2d) or "weight" not in module._parameters:
        return False
    kind = type(module)
    own = kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward
    padded = kind.__module__ == "timm.layers.conv2d_same" and kind.__name__ == "Conv2dSame"
    return (own or padded) and not (module._forward_hooks or module._forward_pre_hooks)


def _module(section: GraphModule, node: Node) -> nn.Module | None:
    return section.get_submodule(str(node.target)) if node.op == "call_module" else None


def _called(section: GraphModule, node: Node) -> Any:
    return node.target if node.op == "call_function" else _module(section, node)


def _limits(activation: Any) -> tuple[float, float] | None:
    """What an activation clamps to; None where it does anything else."""
    if isinstance(activation, nn.Hardtanh):  # ReLU6 too
        return activation.min_val, activation.max_val
    if isinstance(activation, nn.ReLU) or activation in (torch.relu, functional.relu):
        return 0.0, float("inf")
    if activation is functional.relu6:
        return 0.0, 6.0
    return UNLIMITED if isinstance(activation, nn.Identity) else None


def _in_place(section: GraphModule, node: Node) -> bool:
    """Whether a node may write into what it takes."""
    name = getattr(node.target, "__name__", str(node.target))
    written = name.endswith("_") or (name.startswith("i") and hasattr(operator, name))
    inside = getattr(_module(section, node), "inplace", False)
    return written or bool(inside) or bool(node.kwargs.get("inplace"))


def fits(features: Tensor, kernel: Tensor, gamma: Tensor) -> bool:
    """Whether they can be one: on a CPU, of a frozen kernel, with no gamma near 0."""
    frozen = not (kernel.requires_grad and torch.is_grad_enabled())
    return frozen and features.device.type == "cpu" and gamma.abs().min().item() > LEAST_GAMMA


def fused(
    convolution: nn.Conv2d,
    features: Tensor,
    values: Sequence[Tensor],
    epsilon: float,
    limits: tuple[float, float] = UNLIMITED,
) -> Tensor:
    """The activation's output (B, C', ...) for the convolution's input (B, C, ...).

    values: mean, variance, gamma and beta (C',) of the norm.
    """
    mean, var, gamma, beta = values
    scale = gamma * (var + epsilon).rsqrt()
    shift = beta - mean * scale
    with torch.no_grad():
        bias = shift.detach()
        if convolution.bias is not None:
            bias = bias + convolution.bias * scale
        kernel = convolution.weight * scale[:, None, None, None]
    folded = with_values(convolution, {"weight": kernel, "bias": bias})
    slow = convolution.groups > 1 and max(convolution.stride) > 1 and torch.is_grad_enabled()
    if slow and torch.is_autocast_enabled("cpu"):  # backward, seventy times as long in bfloat16
        with torch.autocast("cpu", enabled=False):
            output = folded(features.float()).to(torch.get_autocast_dtype("cpu"))
    else:
        output = folded(features)
    return _Folded.apply(output, scale, shift, limits)


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


class _Folded(Function):
    """The activation, in place, of an output that scale and shift (C',) are in already."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, scale: Tensor, shift: Tensor, limits: tuple[float, float]
    ) -> Tensor:
        ctx.mark_dirty(output)
        ctx.limits = limits
        if limits != UNLIMITED:
            output.clamp_(*limits)
        ctx.save_for_backward(output, scale, shift)
        return output

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        output, scale, shift = ctx.saved_tensors
        if ctx.limits != UNLIMITED:
            gradient = torch.ops.aten.hardtanh_backward(gradient, output, *ctx.limits)
        on_scale = on_shift = None
        if any(ctx.needs_input_grad[1:3]):
            # Sums over positions, in one pass: of gradient * (output - shift), and of the gradient
            one = torch.ones_like(scale)
            _, on_scale, on_shift = torch.ops.aten.native_batch_norm_backward(
                gradient, output, one, shift, one, None, None, False, 0.0, [False, True, True]
            )
            on_scale = on_scale / scale
        return gradient, on_scale, on_shift, None
