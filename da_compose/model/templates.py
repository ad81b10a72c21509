"""How a layer's weights come from templates, in both kinds of network.

TemplateBank: templates are whole blocks, shared by all layers, θ_l = Σ_k w_lk θ_k, where w are the
weights of `MixtureWeights`. DirectionBank: templates are directions from a pretrained block's
weights, K for each layer, θ_l(ξ) = θ_l + Σ_k ξ_lk Δ_lk, where ξ are `Coefficients`.
"""

from collections.abc import Mapping
from math import prod, sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn


class BlockWeights(NamedTuple):
    """Weights of one inverted-residual block, or of L of them with a leading L.

    E is the expanded width, R the squeezed width.
    """

    expand: Tensor  # (E, C, 1, 1)
    depthwise: Tensor  # (E, 1, 3, 3)
    squeeze: Tensor  # (R, E)
    squeeze_bias: Tensor  # (R,)
    excite: Tensor  # (E, R)
    excite_bias: Tensor  # (E,)
    project: Tensor  # (C, E, 1, 1)
    gamma: Tensor  # (E + E + C,), scales of the three batch norms
    beta: Tensor  # (E + E + C,), shifts; they are the convolutions' biases

    def layers(self) -> list["BlockWeights"]:
        """One block's weights each, from those with a leading L."""
        columns = [value.unbind() for value in self]
        return [BlockWeights(*layer) for layer in zip(*columns, strict=True)]


class TemplateBank(nn.Module):
    """Weights of K template blocks, mixed into the weights of each real block (paper, section 3.2).

    With `mixed_batch_norm` the batch norms' gamma and beta belong to the templates and are mixed
    like every other weight; without it each of the L layers has its own, shared by all domains.
    Moving statistics are never part of a template.
    """

    def __init__(
        self,
        num_templates: int,
        num_layers: int,
        channels: int,
        expanded: int,
        squeezed: int,
        mixed_batch_norm: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.num_templates = num_templates
        self.mixed_batch_norm = mixed_batch_norm

        def random(*shape: int, fan_in: int) -> nn.Parameter:
            values = torch.randn(num_templates, *shape, generator=generator)
            return nn.Parameter(values * sqrt(2 / fan_in))

        self.expand = random(expanded, channels, 1, 1, fan_in=channels)
        self.depthwise = random(expanded, 1, 3, 3, fan_in=9)
        self.squeeze = random(squeezed, expanded, fan_in=expanded)
        self.squeeze_bias = nn.Parameter(torch.zeros(num_templates, squeezed))
        self.excite = random(expanded, squeezed, fan_in=squeezed)
        self.excite_bias = nn.Parameter(torch.zeros(num_templates, expanded))
        self.project = random(channels, expanded, 1, 1, fan_in=expanded)
        norm_rows = num_templates if mixed_batch_norm else num_layers
        self.gamma = nn.Parameter(torch.ones(norm_rows, 2 * expanded + channels))
        self.beta = nn.Parameter(torch.zeros(norm_rows, 2 * expanded + channels))

    def mix(self, mixture: Tensor) -> BlockWeights:
        """Weights of every block: mixture (L, K), rows summing to 1 -> tensors with a leading L."""
        if mixture.shape[-1] != self.num_templates:
            raise ValueError(
                f"the mixture weighs {mixture.shape[-1]} templates, this bank holds "
                f"{self.num_templates}; was it saved with another backbone?"
            )

        def mixed(template: Tensor) -> Tensor:  # (K, ...) -> (L, ...)
            return torch.tensordot(mixture, template, dims=1)

        own_norms = not self.mixed_batch_norm
        return BlockWeights(
            expand=mixed(self.expand),
            depthwise=mixed(self.depthwise),
            squeeze=mixed(self.squeeze),
            squeeze_bias=mixed(self.squeeze_bias),
            excite=mixed(self.excite),
            excite_bias=mixed(self.excite_bias),
            project=mixed(self.project),
            gamma=self.gamma if own_norms else mixed(self.gamma),
            beta=self.beta if own_norms else mixed(self.beta),
        )


class DirectionBank(nn.Module):
    """K directions Δ_lk for the named weights of each layer; they are learned beforehand, frozen.

    shapes: of the weights, by layer, then by name. They are laid out one after another, n numbers
    in all; `directions` is (K, n). K = 0: nothing is displaced.
    """

    directions: Tensor

    def __init__(self, num_templates: int, shapes: Mapping[int, Mapping[str, torch.Size]]) -> None:
        super().__init__()
        self.num_templates = num_templates
        self.names = tuple(name for layer in shapes.values() for name in layer)
        self.shapes = tuple(shape for layer in shapes.values() for shape in layer.values())
        self.sizes = tuple(map(prod, self.shapes))
        self.of_layer = {layer: sum(map(prod, named.values())) for layer, named in shapes.items()}
        layers = [torch.full((size,), layer) for layer, size in self.of_layer.items()]
        self.layers: Tensor
        self.register_buffer(
            "layers", torch.cat([torch.empty(0, dtype=torch.long), *layers]), persistent=False
        )
        self.register_buffer("directions", torch.zeros(num_templates, len(self.layers)))

    def mix(self, coefficients: Tensor) -> Tensor:
        """Displacements of all weights: coefficients (L, K) -> (n,)."""
        if coefficients.shape[-1] != self.num_templates:
            raise ValueError(
                f"xi goes along {coefficients.shape[-1]} directions a layer, this bank holds "
                f"{self.num_templates}; was it saved with another backbone?"
            )
        # Layer by layer: a row of coefficients for each number would take ten times as long
        parts = self.directions.split([*self.of_layer.values()], dim=1)
        rows = [coefficients[layer][:, None] for layer in self.of_layer]
        return torch.cat([(row * part).sum(0) for row, part in zip(rows, parts, strict=True)])

    def by_name(self, displacement: Tensor) -> dict[str, Tensor]:
        """(n,) as one tensor a weight."""
        parts = displacement.split(self.sizes)
        named = zip(self.names, parts, self.shapes, strict=True)
        return {name: part.view(shape) for name, part, shape in named}
