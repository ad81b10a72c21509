"""One domain as an ordinary network: its mixture's weights, batch norm folded in."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init  # the global random state stays as it is

from da_compose.images import normalize
from da_compose.model.contract import Network, probabilities
from da_compose.model.domain import Domain
from da_compose.model.network import CompositionalNetwork
from da_compose.model.norms import EPSILON, NormCursor
from da_compose.model.plain_pretrained import materialize_pretrained
from da_compose.model.pretrained import PretrainedNetwork


class PlainBlock(nn.Module):
    """Inverted residual with squeeze-excite and no batch norm: (B, C, S, S) -> (B, C, S, S)."""

    def __init__(
        self,
        *,
        expand: nn.Module,
        depthwise: nn.Module,
        squeeze: nn.Module,
        excite: nn.Module,
        project: nn.Module,
    ) -> None:
        super().__init__()
        self.expand = expand
        self.depthwise = depthwise
        self.squeeze = squeeze
        self.excite = excite
        self.project = project

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.depthwise(self.expand(features).relu_()).relu_()
        gate = self.excite(self.squeeze(hidden.mean(dim=(2, 3))).relu_()).sigmoid()
        return features + self.project(hidden * gate[:, :, None, None])


class PlainNetwork(nn.Module):
    """An ordinary isometric network for one domain: pixels in [0, 1] -> logits (2, B, N).

    Pixels are float (B, image channels, H, W), or (B, 1, H, W).
    """

    def __init__(
        self,
        *,
        input_adapter: nn.Module,
        blocks: Sequence[PlainBlock],
        before: nn.Module,
        after: nn.Module,
        heads: nn.ModuleList,
        image_channels: int,
    ) -> None:
        super().__init__()
        self.input_adapter = input_adapter
        self.blocks = nn.Sequential(*blocks)
        self.before = before
        self.after = after
        self.heads = heads
        self.image_channels = image_channels

    def forward(self, pixels: Tensor) -> Tensor:
        images = normalize(pixels, self.image_channels)
        features = self.blocks(self.input_adapter(images).relu())
        embedding = self.after(self.before(features).relu().mean(dim=(2, 3))).relu()
        return torch.stack([head(embedding) for head in self.heads])


class Classifier(nn.Module):
    """A plain network's prediction: pixels in [0, 1] (B, 3, S, S) -> probabilities (B, N)."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, pixels: Tensor) -> Tensor:
        return probabilities(self.plain(pixels))


def materialize(network: Network, domain: Domain) -> nn.Module:
    """The plain network that computes what `network` computes for `domain` in evaluation."""
    if isinstance(network, PretrainedNetwork):
        return materialize_pretrained(network, domain)
    assert isinstance(network, CompositionalNetwork)
    return materialize_mixed(network, domain)


@torch.no_grad()
def materialize_mixed(network: CompositionalNetwork, domain: Domain) -> PlainNetwork:
    """As `materialize`, of templates that are mixed: batch norm is folded in."""
    config, norms = network.config, NormCursor(domain)

    def folded(
        kernel: Tensor, gamma: Tensor, beta: Tensor, bias: Tensor | None = None, stride: int = 1
    ) -> nn.Module:
        """A convolution or linear map with the next batch norm folded in."""
        mean, var, gamma, beta = norms.take(gamma, beta)
        scale = gamma / (var + EPSILON).sqrt()
        shift = beta - mean * scale + (0 if bias is None else bias * scale)
        return _layer(kernel * scale.view(-1, *[1] * (kernel.ndim - 1)), shift, stride)

    adapter, output = network.input_adapter_of(domain), network.output_adapter
    first = folded(
        adapter.conv.weight, adapter.gamma, adapter.beta, adapter.conv.bias, config.patch_size
    )
    blocks = [
        PlainBlock(
            expand=_layer(layer.expand[:, :, None, None], layer.expand_bias),
            depthwise=_layer(layer.depthwise, layer.depthwise_bias),
            squeeze=_layer(layer.squeeze, layer.squeeze_bias),
            excite=_layer(layer.excite, layer.excite_bias),
            project=_layer(layer.project[:, :, None, None], layer.project_bias),
        )
        for layer in network.folded_blocks(domain, norms)
    ]
    plain = PlainNetwork(
        input_adapter=nn.Sequential(deepcopy(network.trunk), first) if config.trunk else first,
        blocks=blocks,
        before=folded(output.before.weight, output.before_gamma, output.before_beta),
        after=folded(output.after.weight, output.after_gamma, output.after_beta),
        heads=deepcopy(domain.heads or network.heads),
        image_channels=config.image_channels,
    )
    return plain.requires_grad_(False).to(memory_format=torch.channels_last).eval()


def _layer(kernel: Tensor, bias: Tensor, stride: int = 1) -> nn.Module:
    """The layer with this kernel: (out, in) linear, (out, in, s, s) convolution; (E, 1, 3, 3) with
    stride 1 is depthwise."""
    if kernel.ndim == 2:
        layer = skip_init(nn.Linear, kernel.shape[1], kernel.shape[0])
    elif stride == 1 and kernel.shape[1:] == (1, 3, 3):
        layer = skip_init(nn.Conv2d, len(kernel), len(kernel), 3, padding=1, groups=len(kernel))
    else:
        layer = skip_init(nn.Conv2d, kernel.shape[1], len(kernel), kernel.shape[-1], stride=stride)
    layer.weight = nn.Parameter(kernel.detach().clone())
    layer.bias = nn.Parameter(bias.detach().clone())
    return layer
