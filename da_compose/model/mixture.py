"""Mixture weights: how much of each template makes up each layer (paper, section 3.2).

Axis legend of the whole package: B batch, C channels, S resolution, L layers (blocks),
K templates, D domains, F features, N classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MixtureWeights(nn.Module):
    """Learned mixture of one domain: rows of softmax(xi) weigh the K templates of each layer.

    `xi` holds the logits (L, K). Calling the module gives the weights (L, K), rows summing to 1.
    """

    def __init__(self, xi: Tensor) -> None:
        super().__init__()
        if xi.ndim != 2:
            raise ValueError(f"xi must have shape (layers, templates), got {tuple(xi.shape)}")
        self.xi = nn.Parameter(xi.detach().clone())

    def forward(self) -> Tensor:
        return self.xi.softmax(dim=-1)  # (L, K)


class Coefficients(nn.Module):
    """Learned coefficients of one domain: how far each layer goes along each of its K directions.

    `xi` (L, K) is what calling the module gives; 0 leaves the network as it is.
    """

    def __init__(self, xi: Tensor) -> None:
        super().__init__()
        if xi.ndim != 2:
            raise ValueError(f"xi must have shape (layers, directions), got {tuple(xi.shape)}")
        self.xi = nn.Parameter(xi.detach().clone())

    def forward(self) -> Tensor:
        return self.xi  # (L, K)


class FixedSignature(nn.Module):
    """One template a layer, not learned: the ordinary isometric network when K = L.

    `signature[l]` is the template of layer l. Calling the module gives one-hot weights (L, K).
    """

    weights: Tensor

    def __init__(self, signature: Sequence[int], num_templates: int) -> None:
        super().__init__()
        wrong = [template for template in signature if not 0 <= template < num_templates]
        if wrong:
            raise ValueError(f"signature names templates {wrong}, there are 0..{num_templates - 1}")
        one_hot = nn.functional.one_hot(torch.tensor(list(signature)), num_templates)
        self.register_buffer("weights", one_hot.float(), persistent=False)

    def forward(self) -> Tensor:
        return self.weights  # (L, K)


LearnedMixture = MixtureWeights | Coefficients  # those that have an xi
Mixture = LearnedMixture | FixedSignature


def initial_xi(
    num_layers: int, num_templates: int, scale: float, generator: torch.Generator
) -> Tensor:
    """Random start of xi (L, K), deviation `scale`: layers must differ to specialize."""
    return torch.randn(num_layers, num_templates, generator=generator) * scale
