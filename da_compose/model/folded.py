"""Blocks under stored statistics: batch norm folded into the weights, backward pass by hand.

Every evaluation and every adaptation step goes through here. Folding takes batch norm out of the
step; the hand-written backward writes fewer intermediate results than autograd's.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from da_compose.model.norms import EPSILON
from da_compose.model.templates import BlockWeights


class FoldedWeights(NamedTuple):
    """Weights of one block without batch norm, or of many of them with leading axes."""

    expand: Tensor  # (E, C)
    expand_bias: Tensor  # (E,)
    depthwise: Tensor  # (E, 1, 3, 3)
    depthwise_bias: Tensor  # (E,)
    squeeze: Tensor  # (R, E)
    squeeze_bias: Tensor  # (R,)
    excite: Tensor  # (E, R)
    excite_bias: Tensor  # (E,)
    project: Tensor  # (C, E)
    project_bias: Tensor  # (C,)

    def to(self, dtype: torch.dtype) -> "FoldedWeights":
        """The same in another precision."""
        return FoldedWeights(*(value.to(dtype) for value in self))

    def layers(self, axis: int = 0) -> list["FoldedWeights"]:
        """One layer's weights each, from those with an axis L at `axis`."""
        columns = [value.unbind(axis) for value in self]
        return [FoldedWeights(*layer) for layer in zip(*columns, strict=True)]


def fold(weights: BlockWeights, mean: Tensor, var: Tensor) -> FoldedWeights:
    """Weights (..., L, ...) and their batch norms' statistics (..., L, 2E + C), folded."""
    expanded, channels = weights.expand.shape[-4:-2]
    scale = weights.gamma * (var + EPSILON).rsqrt()  # (..., L, 2E + C)
    sizes = [expanded, expanded, channels]
    scales = scale.split(sizes, dim=-1)
    shifts = (weights.beta - mean * scale).split(sizes, dim=-1)
    return FoldedWeights(
        expand=weights.expand.flatten(-3) * scales[0][..., None],
        expand_bias=shifts[0],
        depthwise=weights.depthwise * scales[1][..., None, None, None],
        depthwise_bias=shifts[1],
        squeeze=weights.squeeze,
        squeeze_bias=weights.squeeze_bias,
        excite=weights.excite,
        excite_bias=weights.excite_bias,
        project=weights.project.flatten(-3) * scales[2][..., None],
        project_bias=shifts[2],
    )


def folded_block(features: Tensor, weights: FoldedWeights) -> Tensor:
    """Inverted residual with squeeze-excite: (B, C, S, S) -> (B, C, S, S), channels-last.

    Features and weights share one precision, float32 or bfloat16.
    """
    return _Block.apply(features, *weights)


class _Block(Function):
    """Gradients of the weights, and of the features, where they are needed.

    P is the number of positions, B * S * S; rows of a matrix are positions, columns channels. The
    gate of squeeze-excite scales the projection, image by image: (B, C, E) are fewer numbers than
    the expanded features.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, *parts: Tensor) -> Tensor:
        weights = FoldedWeights(*parts)
        inputs = _rows(features)  # (P, C)
        first = torch.addmm(weights.expand_bias, inputs, weights.expand.t()).relu_()  # (P, E)
        second = functional.conv2d(
            _image(first, features),
            weights.depthwise,
            weights.depthwise_bias,
            padding=1,
            groups=len(weights.depthwise),
        ).relu_()  # (B, E, S, S)
        pooled = second.mean(dim=(2, 3))  # (B, E)
        squeezed = torch.addmm(weights.squeeze_bias, pooled, weights.squeeze.t()).relu_()  # (B, R)
        gate = torch.addmm(weights.excite_bias, squeezed, weights.excite.t()).sigmoid_()  # (B, E)
        gated = weights.project * gate[:, None]  # (B, C, E)
        outputs = torch.baddbmm(_each(inputs, features), _each(_rows(second), features), gated.mT)
        ctx.save_for_backward(features, first, second, pooled, squeezed, gate, gated, *parts)
        return _image(outputs.flatten(0, 1).add_(weights.project_bias), features)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        features, first, second, pooled, squeezed, gate, gated, *parts = ctx.saved_tensors
        weights = FoldedWeights(*parts)
        learns = any(ctx.needs_input_grad[1:])

        def of_map(outputs: Tensor, inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
            """Gradients of a linear map's weight and bias."""
            return (outputs.t() @ inputs, outputs.sum(dim=0)) if learns else (None, None)

        ahead = _rows(gradient)  # (P, C)
        on_gated = _each(ahead, features).mT @ _each(_rows(second), features)  # (B, C, E)
        project = (None, None)
        if learns:
            project = (on_gated * gate[:, None]).sum(dim=0), ahead.sum(dim=0)
        on_gate = (on_gated * weights.project).sum(dim=1) * gate * (1 - gate)  # before sigmoid
        excite = of_map(on_gate, squeezed)
        on_squeezed = (on_gate @ weights.excite).where(squeezed > 0, 0.0)  # (B, R)
        squeeze = of_map(on_squeezed, pooled)
        on_pooled = on_squeezed @ weights.squeeze / second.shape[2:].numel()  # (B, E)
        behind = torch.baddbmm(on_pooled[:, None], _each(ahead, features), gated)  # (B, S * S, E)
        behind = _relu_backward_(behind.flatten(0, 1), _rows(second))  # (P, E)
        depthwise_bias = behind.sum(dim=0) if learns else None
        behind, depthwise, _ = torch.ops.aten.convolution_backward(
            _image(behind, features), _image(first, features), weights.depthwise, None,
            [1, 1], [1, 1], [1, 1], False, [0, 0], first.shape[1], [True, learns, False],
        )  # fmt: skip
        behind = _relu_backward_(_rows(behind), first)  # (P, E)
        expand = of_map(behind, _rows(features))
        on_features = None
        if ctx.needs_input_grad[0]:
            on_features = _image(torch.addmm(ahead, behind, weights.expand), features)
        return (
            on_features, *expand, depthwise, depthwise_bias, *squeeze, *excite, *project
        )  # fmt: skip


def _relu_backward_(gradient: Tensor, output: Tensor) -> Tensor:
    """In place: the gradient where the output of the ReLU is above 0."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, output, 0.0, grad_input=gradient)


def _rows(image: Tensor) -> Tensor:
    """(B, C, S, S) as a matrix (P, C); a view where the image is channels-last."""
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])


def _each(rows: Tensor, like: Tensor) -> Tensor:
    """A matrix (P, C) as one matrix an image, (B, S * S, C)."""
    batch, _, height, width = like.shape
    return rows.view(batch, height * width, rows.shape[1])


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """A matrix (P, C) as a channels-last view (B, C, S, S)."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, rows.shape[1]).permute(0, 3, 1, 2)
