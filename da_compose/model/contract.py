"""What every network here is to the rest: features, embedding, two classifiers, new domains."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from da_compose.context import Drawing
from da_compose.images import PIXEL_MEAN, PIXEL_STD, normalize
from da_compose.model.domain import Domain, DomainTable
from da_compose.model.ends import new_heads

MOST_IMAGES = 256  # in a forward pass
MOST_PIXELS = 2**20  # in one on a CPU: more take more memory, and time to get it from the system
PRECISION: ContextVar[torch.dtype | None] = ContextVar("precision of blocks", default=None)


class Shape(Protocol):
    """What may be asked of any network's configuration, a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def num_layers(self) -> int: ...  # L
    @property
    def num_templates(self) -> int: ...  # K
    @property
    def image_size(self) -> int: ...  # pixels a side
    @property
    def image_channels(self) -> int: ...
    @property
    def num_classes(self) -> int: ...  # N
    @property
    def channels(self) -> int: ...  # C, of the last block's output
    @property
    def embedding(self) -> int: ...  # F
    @property
    def num_statistics(self) -> int: ...  # channels of all batch norms; 0: there are none
    @property
    def signature(self) -> tuple[int, ...] | None: ...  # None: xi is learned


class Network(nn.Module, ABC):
    """A network whose blocks' weights come from templates by a domain's mixture.

    Images are pixels in [0, 1], (B, 3, H, W), or (B, 1, H, W) that become as many equal channels.
    How a domain's batch norms compute is said by the domain (`Domain.batch_statistics`), never by
    `train()` or `eval()`. A buffer `first_xi` (L, K) is where new domains start.
    """

    config: Shape
    input_adapter: nn.Module
    heads: nn.ModuleList
    domains: DomainTable

    @property
    def device(self) -> torch.device:
        return next(self.heads.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, and of what is computed by them."""
        return next(self.heads.parameters()).dtype

    @abstractmethod
    def new_domain(self, name: str, xi: Tensor | None = None) -> Domain:
        """A domain of this network's shape, not yet added to `domains`.

        xi: (L, K) to start from; by default every domain starts from `first_xi`.
        """

    @abstractmethod
    def own_batch_norm(self, domain: Domain) -> None:
        """Give a domain gamma and beta (F,) of its own that start as what it uses of the network.

        They are as many as `num_statistics`, twice.
        """

    @abstractmethod
    def features(self, images: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, H, W) -> output of the last block (B, C, S, S), embedding (B, F)."""

    @abstractmethod
    def block_features(self, images: Tensor, domain: Domain) -> Tensor:
        """Output of the last block: pixels (B, 3, H, W) in [0, 1] -> (B, C, S, S)."""

    @abstractmethod
    def embed_block_features(self, features: Tensor, domain: Domain) -> Tensor:
        """Output adapter alone: (B, C, S, S) -> (B, F)."""

    @abstractmethod
    def input_parameters(self, domain: Domain) -> list[nn.Parameter]:
        """Of the domain's input adapter those that are used: no gamma, beta beside its own."""

    @abstractmethod
    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """All that domains share and train, heads among it; nothing of a domain."""

    def blank_domain(self, name: str, parts: Mapping[str, Any]) -> Domain:
        """A domain with `Domain.own_parts` of its own, for a saved state to be loaded into."""
        domain = self.new_domain(name)
        if parts.get("input_adapter"):
            domain.input_adapter = deepcopy(self.input_adapter)
        if parts.get("own_classes"):
            self.own_heads(domain, tuple(parts["own_classes"]))
        elif parts.get("heads"):
            domain.heads = deepcopy(self.heads)
        if parts.get("batch_norm"):
            self.own_batch_norm(domain)
        return domain.to(self.device, self.dtype)

    def own_heads(self, domain: Domain, class_names: tuple[str, ...], seed: int = 0) -> None:
        """Give a domain two random classifiers of its own, for these classes."""
        if len(class_names) < 2:
            raise ValueError(f"a task needs at least 2 classes, got {len(class_names)}")
        with Drawing(seed):
            heads = new_heads(self.config.embedding, len(class_names))
        domain.heads = heads.to(self.device, self.dtype)
        domain.class_names = class_names

    @property
    def images_at_once(self) -> int:
        """How many are passed forward together where no gradient is: fewer large ones on a CPU."""
        if self.device.type != "cpu":
            return MOST_IMAGES
        return min(MOST_IMAGES, max(1, MOST_PIXELS // self.config.image_size**2))

    def normalization(self) -> tuple[float | Tensor, float | Tensor]:
        """Mean and deviation of pixels that the weights expect: numbers, or (3, 1, 1)."""
        return PIXEL_MEAN, PIXEL_STD

    def normalized(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], float (B, 1 or 3, H, W) -> normalized (B, 3, H, W), channels last.

        Raises ValueError for another shape or for integers; the range is not looked at, as that
        would wait for a GPU.
        """
        size, channels = self.config.image_size, self.config.image_channels
        if pixels.shape[1:] not in ((1, size, size), (channels, size, size)):
            raise ValueError(
                f"images must have shape (batch, {channels}, {size}, {size}), "
                f"got {tuple(pixels.shape)}"
            )
        if not pixels.is_floating_point():
            raise ValueError(
                f"images must be float pixels in [0, 1], got {pixels.dtype}; "
                "uint8 arrays become so by `da_compose.images.to_pixels`"
            )
        return normalize(pixels.to(self.dtype), channels, *self.normalization())

    @contextmanager
    def computing(self, precision: torch.dtype | None) -> Iterator[None]:
        """Inside, blocks under stored statistics compute in `precision`; weights stay as they are.

        None: as the weights are. bfloat16 is faster on a GPU and on a CPU that has it (AVX-512
        BF16, AMX).
        """
        before = PRECISION.set(precision)
        try:
            yield
        finally:
            PRECISION.reset(before)

    @property
    def block_precision(self) -> torch.dtype | None:
        """What `computing` asks for here and now; other threads have their own."""
        return PRECISION.get()

    def check_xi(self, xi: Tensor) -> None:
        """Raise ValueError where xi is not (L, K)."""
        expected = (self.config.num_layers, self.config.num_templates)
        if xi.shape != expected:
            raise ValueError(
                f"xi must have shape {expected} (layers, templates), got {tuple(xi.shape)}"
            )

    def classify(self, embedding: Tensor, domain: Domain) -> Tensor:
        """Logits of both heads: (B, F) -> (2, B, N)."""
        heads = domain.heads or self.heads
        return torch.stack([head(embedding) for head in heads])

    def forward(self, images: Tensor, domain: Domain) -> Tensor:
        """Logits of both heads: pixels (B, 3, H, W) in [0, 1] -> (2, B, N)."""
        return self.classify(self.features(images, domain)[1], domain)


def probabilities(logits: Tensor) -> Tensor:
    """Prediction of a two-headed network: logits (2, B, N) -> mean of the softmaxes (B, N)."""
    return logits.softmax(dim=-1).mean(dim=0)
