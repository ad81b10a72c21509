"""Both ends of an isometric network: input adapter and output adapter (paper, section 3.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from da_compose.model.config import NetworkConfig
from da_compose.model.norms import NormCursor

NUM_HEADS = 2  # two classifiers from the start: classifier discrepancy needs them (MCD, M3SDA)


class InputAdapter(nn.Module):
    """Image (B, 3, H, W), or a trunk's map of it (B, Ct, h, w) -> (B, C, S, S).

    Convolution with kernel = stride, batch norm, ReLU.
    """

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, config.channels, config.patch_size, config.patch_size)
        self.gamma = nn.Parameter(torch.ones(config.channels))
        self.beta = nn.Parameter(torch.zeros(config.channels))

    def forward(self, images: Tensor, norms: NormCursor) -> Tensor:
        return functional.relu_(norms.norm(self.conv(images), self.gamma, self.beta))


class OutputAdapter(nn.Module):
    """(B, C, S, S) -> (B, F): nonlinear 1x1 convolution, average pool, another 1x1 convolution."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.before = nn.Conv2d(config.channels, config.hidden, 1, bias=False)
        self.after = nn.Linear(config.hidden, config.embedding, bias=False)
        self.before_gamma = nn.Parameter(torch.ones(config.hidden))
        self.before_beta = nn.Parameter(torch.zeros(config.hidden))
        self.after_gamma = nn.Parameter(torch.ones(config.embedding))
        self.after_beta = nn.Parameter(torch.zeros(config.embedding))

    def forward(self, features: Tensor, norms: NormCursor) -> Tensor:
        hidden = norms.norm(self.before(features), self.before_gamma, self.before_beta)
        pooled = functional.relu_(hidden).mean(dim=(2, 3))  # (B, hidden)
        embedding = norms.norm(self.after(pooled), self.after_gamma, self.after_beta)
        return functional.relu_(embedding)


def new_heads(embedding: int, num_classes: int) -> nn.ModuleList:
    """Two linear classifiers (B, F) -> (B, N), drawn from the global random state."""
    return nn.ModuleList(nn.Linear(embedding, num_classes) for _ in range(NUM_HEADS))
