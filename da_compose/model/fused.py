"""A convolution and the batch norm after it as one, under stored statistics, on a CPU.

Gamma and the statistics are folded into the frozen kernel. The gradients of gamma and beta, which
adaptation asks for, are read off the output: no pass is spent on normalizing, and what autograd
keeps of it is the output that the next layer takes anyway.
"""

import inspect
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.fx import GraphModule, Node
from torch.nn import functional

Part = TypeVar("Part", bound=nn.Module)
UNLIMITED = float("-inf"), float("inf")
LEAST_GAMMA = 1e-4  # a smaller one could not be divided by, to find its gradient
# Whose classes and functions say, by their names or `inplace`, where they write
KNOWN = ("torch", "timm", "torchvision", "_operator", "builtins", "math")
# Give no part of what they take
ANEW = {"add", "sub", "mul", "truediv", "matmul", "cat", "mean", "sum", "size", "dim"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Fusion(NamedTuple):
    """A convolution, the norm that alone takes its output, and what alone takes that in turn.

    By the names of their nodes. after: of nodes that clamp at most, what they call: a function, or
    a part by its name.
    """

    convolution: str
    norm: str
    after: Mapping[str, Any]


class Plan(NamedTuple):
    """What is known of a section: its fusions, and whether it may write into what it takes."""

    fusions: list[Fusion]
    writes: bool


def plan(section: GraphModule) -> Plan:
    """Of a section, made once.

    What may be changed in place afterwards is left out: its gradients are read off it.
    """
    if section not in _KNOWN:
        takes = [node for node in section.graph.nodes if node.op == "placeholder"]
        writes = any(_written(section, node) for node in takes)
        _KNOWN[section] = Plan([*_find(section)], writes)
    return _KNOWN[section]


_KNOWN = WeakKeyDictionary[GraphModule, Plan]()


def _find(section: GraphModule) -> Iterator[Fusion]:
    for node in section.graph.nodes:
        if not is_plain(_module(section, node)) or len(node.args) != 1 or len(node.users) != 1:
            continue
        (norm,) = node.users
        module = _module(section, norm)
        if not isinstance(module, nn.BatchNorm2d) or norm.args != (node,) or norm.kwargs:
            continue
        last, after, called = norm, dict[str, Any](), list[Any]()
        while clamped(module, called) == UNLIMITED and len(last.users) == 1:
            (user,) = last.users
            activation = user.target if user.op == "call_function" else _module(section, user)
            if user.args[:1] != (last,) or clamped(module, [*called, activation]) is None:
                break
            last = user
            called.append(activation)
            after[user.name] = user.target
        if clamped(module, called) is not None and not _written(section, last):
            yield Fusion(node.name, norm.name, after)


def is_plain(module: nn.Module | None) -> bool:
    """Whether it convolves with its weight as it is, so that a scaled one scales the output.

    One that standardizes its weight first, or has it from a parametrization or a hook, does not.
    """
    if not isinstance(module, nn.Conv2d) or "weight" not in module._parameters:
        return False
    kind = type(module)
    own = kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward
    padded = kind.__module__ == "timm.layers.conv2d_same" and kind.__name__ == "Conv2dSame"
    return (own or padded) and not _is_hooked(module)


def clamped(norm: nn.Module, after: Sequence[Any]) -> tuple[float, float] | None:
    """What a norm's own parts (timm's) and what is called after it clamp to, one of them at most.

    None where they do anything else. Hooks, and other parts in their place, may come at any time.
    """
    limits, own = UNLIMITED, (getattr(norm, "drop", None), getattr(norm, "act", None))
    for called in (*(part for part in own if part is not None), *after):
        found = _limits(called)
        if found is None or UNLIMITED not in (limits, found):
            return None
        limits = found if limits == UNLIMITED else limits
    return limits


def _is_hooked(module: nn.Module) -> bool:
    """Or has a forward of its own, apart from its class."""
    return "forward" in vars(module) or any(getattr(module, hooks) for hooks in HOOKS)


def _module(section: GraphModule, node: Node) -> nn.Module | None:
    return section.get_submodule(str(node.target)) if node.op == "call_module" else None


def _limits(activation: Any) -> tuple[float, float] | None:
    """What an activation clamps to; None where it does anything else."""
    if activation in (torch.relu, functional.relu):
        return 0.0, float("inf")
    if activation is functional.relu6:
        return 0.0, 6.0
    if not isinstance(activation, nn.Module) or _is_hooked(activation):
        return None
    does = type(activation).forward  # a class derived from these may do more
    if does is nn.Hardtanh.forward:  # ReLU6 too
        hard = cast(nn.Hardtanh, activation)
        return hard.min_val, hard.max_val
    if does is nn.ReLU.forward:
        return 0.0, float("inf")
    return UNLIMITED if does is nn.Identity.forward else None


def _written(section: GraphModule, node: Node) -> bool:
    """Whether what a node gives may be written into later, by itself, a part or another name."""
    seen, waiting = set[Node](), [node]
    while waiting:
        for user in waiting.pop().users:
            if user in seen:
                continue
            seen.add(user)
            if _in_place(section, user):
                return True
            if not _is_new(section, user):
                waiting.append(user)
    return False


def _is_new(section: GraphModule, node: Node) -> bool:
    """Whether what a node gives is surely no part of what it takes; dropout, say, gives that."""
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim", "dtype", "device")
    if node.op != "call_module":
        return getattr(node.target, "__name__", str(node.target)) in ANEW
    module = section.get_submodule(str(node.target))
    of_torch = type(module).forward.__module__ in ("torch.nn.modules.activation",
                                                   "torch.nn.modules.pooling")  # fmt: skip
    return of_torch or any(True for _ in module.parameters())


def _in_place(section: GraphModule, node: Node) -> bool:
    """Whether a node may write into what it takes."""
    target: Any = node.target
    name = getattr(target, "__name__", str(target))
    if name.endswith("_") or (name.startswith("i") and hasattr(operator, name)):
        return True
    if node.op == "call_module":
        module = section.get_submodule(str(target))
        return bool(getattr(module, "inplace", False)) or not _is_known(type(module).forward)
    if node.op != "call_function":
        return False
    given = dict(node.kwargs)
    with suppress(TypeError, ValueError):  # of what is written in C, which says it by its name
        given = inspect.signature(target).bind(*node.args, **node.kwargs).arguments
    return bool(given.get("inplace")) or not _is_known(target)


def _is_known(function: Any) -> bool:
    return (function.__module__ or "torch").partition(".")[0] in KNOWN


def fits(features: Tensor, convolution: nn.Conv2d, gamma: Tensor) -> bool:
    """Whether they can be one: on a CPU, of frozen weights, with no gamma near 0.

    Nor one that learns in half precision: beside a larger beta its part of the output is rounded
    away, and its gradient could not be read off.
    """
    if features.device.type != "cpu" or not gamma.abs().min().item() > LEAST_GAMMA:
        return False
    if not torch.is_grad_enabled():
        return True
    precise = features.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(
        "cpu"
    )
    frozen = not any(parameter.requires_grad for parameter in convolution.parameters())
    return frozen and (precise or not gamma.requires_grad)


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
    return _Folded.apply(convolved(folded, features), scale, shift, limits)


def convolved(convolution: nn.Conv2d, features: Tensor) -> Tensor:
    """A convolution's output; of one whose backward takes seventy times as long in bfloat16, so."""
    slow = convolution.groups > 1 and max(convolution.stride) > 1 and torch.is_grad_enabled()
    if not slow or not torch.is_autocast_enabled("cpu"):
        return convolution(features)
    with torch.autocast("cpu", enabled=False):
        return convolution(features.float()).to(torch.get_autocast_dtype("cpu"))


def with_values(module: Part, values: Mapping[str, Tensor]) -> Part:
    """A module that shares all with `module` but these parameters, its own or its parts'."""
    changed = object.__new__(type(module))  # `copy` refuses a parametrized one
    vars(changed).update(vars(module))
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
