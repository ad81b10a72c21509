"""Tiny ordinary networks, as a user has them: with batch norm, with layer norm, with traps."""

import torch
from torch import Tensor, nn

from da_compose.model.pretrained import PretrainedNetwork

SIZE, CLASSES = 8, 3


class Residual(nn.Module):
    """Two convolutions with batch norm, and a way around."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(width, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.norm2(self.second(self.relu(self.norm1(self.first(x))))))


class TinyConv(nn.Module):
    """Stem, three residual blocks, a head that starts in place, a classifier."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(3)))
        self.activation = nn.SELU(inplace=True)
        self.last = nn.Conv2d(width, 10, 1, bias=False)
        self.last_norm = nn.BatchNorm2d(10)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(10, 7)

    def embed(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.norm(self.conv(x))))
        return self.pool(self.last_norm(self.last(self.activation(x)))).flatten(1).relu()

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.classifier(self.dropout(scale * self.embed(x)))


class Attention(nn.Module):
    """A transformer's block, of one head and as few numbers as may be."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mlp = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(dim=-1)
        x = x + weights @ value
        return x + self.mlp(self.norm2(x)).relu()


class TinyTransformer(nn.Module):
    """Patches, positions, two blocks, layer norm, mean of the tokens: no batch norm at all."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 4, width))
        self.blocks = nn.ModuleList(Attention(width) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 7)

    def embed(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


KINDS = {"conv": TinyConv, "transformer": TinyTransformer}


@torch.no_grad()
def tiny_module(kind: str = "conv", seed: int = 0) -> TinyConv | TinyTransformer:
    """A tiny module whose every weight and statistic is random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = KINDS[kind]()
        for name, value in module.named_buffers():
            if value.is_floating_point():
                value.add_(
                    0.3 * (torch.rand_like(value) if "var" in name else torch.randn_like(value))
                )
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def tiny_pretrained(
    kind: str = "conv", num_templates: int = 2, domains: tuple[str, ...] = (), seed: int = 0
) -> PretrainedNetwork:
    """A network on such a module, with random directions; domains have xi and statistics."""
    network = PretrainedNetwork.of(
        tiny_module(kind, seed), num_classes=CLASSES, image_size=SIZE, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    count = network.templates.directions.shape[1]
    network = network.with_directions(0.3 * torch.randn(num_templates, count, generator=generator))
    for name in domains:
        domain = network.new_domain(name)
        with torch.no_grad():
            xi = domain.mixture().detach()
            xi += torch.randn(xi.shape, generator=generator)
            domain.mean += 0.3 * torch.randn(domain.mean.shape, generator=generator)
            domain.var += torch.rand(domain.var.shape, generator=generator)
        network.domains.add(domain)
    return network.eval()
