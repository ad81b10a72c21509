"""One domain of a pretrained network as an ordinary module: weights, statistics written in."""

from collections.abc import Mapping
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from da_compose.images import normalize
from da_compose.model.domain import Domain
from da_compose.model.norms import NormCursor
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.sections import affine, batch_norms


class PlainPretrained(nn.Module):
    """An ordinary network for one domain: pixels in [0, 1] (B, 3, S, S) -> logits (2, B, N)."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, stem: nn.Module, body: nn.Module, head: nn.Module, heads: nn.ModuleList,
        mean: Tensor, std: Tensor,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = stem
        self.body = body
        self.head = head
        self.heads = heads
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, pixels: Tensor) -> Tensor:
        images = normalize(pixels, len(self.mean), self.mean, self.std)
        embedding = self.head(self.body(self.stem(images)))
        return torch.stack([head(embedding) for head in self.heads])


@torch.no_grad()
def materialize_pretrained(network: PretrainedNetwork, domain: Domain) -> PlainPretrained:
    """The plain network that computes what `network` computes for `domain` in evaluation.

    Batch norms stay, as ordinary ones that hold the domain's statistics, gamma and beta.
    """
    norms, values = NormCursor(domain), network.values_of(domain)
    stem = domain.input_adapter or network.input_adapter
    plain = PlainPretrained(
        stem=_written(cast(GraphModule, stem), norms, {}),
        body=_written(network.body, norms, values),
        head=_written(network.output_adapter, norms, values),
        heads=deepcopy(domain.heads or network.heads),
        mean=network.mean.clone(),
        std=network.std.clone(),
    )
    return plain.requires_grad_(False).to(memory_format=torch.channels_last).eval()


def _written(section: GraphModule, norms: NormCursor, values: Mapping[str, Tensor]) -> GraphModule:
    """A copy of a section with these values for its weights, and the next norms of a domain."""
    section = deepcopy(section)
    for name, parameter in section.named_parameters(remove_duplicate=False):
        if name in values:
            parameter.copy_(values[name])
    for norm in batch_norms(section).values():
        mean, var, gamma, beta = norms.take(*affine(norm))
        norm.running_mean, norm.running_var = mean.clone(), var.clone()
        norm.weight, norm.bias = nn.Parameter(gamma.clone()), nn.Parameter(beta.clone())
    return section.eval()
