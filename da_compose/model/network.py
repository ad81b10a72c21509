"""The compositional isometric network (paper, sections 3.1 and 3.2)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from da_compose.images import normalize
from da_compose.model.blocks import isometric_block
from da_compose.model.config import NetworkConfig
from da_compose.model.domain import Domain, DomainTable
from da_compose.model.ends import InputAdapter, OutputAdapter, new_heads
from da_compose.model.folded import FoldedWeights, fold, folded_block
from da_compose.model.mixture import FixedSignature, MixtureWeights, initial_xi
from da_compose.model.norms import NormCursor
from da_compose.model.templates import TemplateBank


class CompositionalNetwork(nn.Module):
    """Input adapter, L blocks mixed from K templates by a domain's xi, output adapter, two heads.

    Images are pixels in [0, 1], (B, 3, H, W), or (B, 1, H, W) that become as many equal channels.
    How a domain's batch norms compute is said by the domain (`Domain.batch_statistics`), never by
    `train()` or `eval()`.
    The ordinary isometric network is the same class with `config.unshared()`.
    """

    def __init__(
        self, config: NetworkConfig, seed: int = 0, first_xi: Tensor | None = None
    ) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.trunk, channels = nn.Identity(), config.image_channels
            if config.trunk is not None:
                from da_compose.model.trunk import Trunk  # torchvision takes seconds to import

                self.trunk = Trunk(config.trunk, config.image_size, config.patch_size)
                channels = self.trunk.channels
            self.input_adapter = InputAdapter(config, channels)
            self.output_adapter = OutputAdapter(config)
            self.heads = new_heads(config.embedding, config.num_classes)
        self.templates = TemplateBank(
            config.num_templates,
            config.num_layers,
            config.channels,
            config.expanded,
            max(1, config.expanded // config.squeeze),
            config.mixed_batch_norm,
            generator,
        )
        self.domains = DomainTable(self.blank_domain)
        if first_xi is None:
            first_xi = initial_xi(config.num_layers, config.num_templates, 1.0, generator)
        self.register_buffer("first_xi", first_xi, persistent=False)
        self.block_precision: torch.dtype | None = None  # None: that of the weights

    @property
    def device(self) -> torch.device:
        return self.templates.expand.device

    def new_domain(self, name: str, xi: Tensor | None = None) -> Domain:
        """A domain of this network's shape, not yet added to `domains`.

        xi: logits (L, K) to start from; by default every domain starts from `first_xi`, the
        network's own, which are random where it was given none.
        """
        config = self.config
        if config.signature is not None:
            if xi is not None:
                raise ValueError("this network has a fixed signature: it takes no xi; leave it out")
            mixture = FixedSignature(config.signature, config.num_templates)
        else:
            start = self.get_buffer("first_xi") if xi is None else xi
            if start.shape != (config.num_layers, config.num_templates):
                raise ValueError(
                    f"xi must have shape {(config.num_layers, config.num_templates)} "
                    f"(layers, templates), got {tuple(start.shape)}"
                )
            mixture = MixtureWeights(start)
        domain = Domain(name, mixture, config.num_statistics)
        return domain.to(self.device)

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
        return domain.to(self.device)

    @torch.no_grad()
    def own_batch_norm(self, domain: Domain) -> None:
        """Give a domain gamma and beta (F,) of its own that start as what it uses of the network.

        They are 2 F numbers: 7,728 for the default network.
        """
        if domain.gamma is not None:
            return
        adapter, output = domain.input_adapter or self.input_adapter, self.output_adapter
        blocks = self.templates.mix(domain.mixture())
        gammas = adapter.gamma, blocks.gamma, output.before_gamma, output.after_gamma
        betas = adapter.beta, blocks.beta, output.before_beta, output.after_beta
        domain.gamma = nn.Parameter(torch.cat([part.flatten() for part in gammas]))
        domain.beta = nn.Parameter(torch.cat([part.flatten() for part in betas]))

    def own_heads(self, domain: Domain, class_names: tuple[str, ...], seed: int = 0) -> None:
        """Give a domain two random classifiers of its own, for these classes."""
        if len(class_names) < 2:
            raise ValueError(f"a task needs at least 2 classes, got {len(class_names)}")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            domain.heads = new_heads(self.config.embedding, len(class_names)).to(self.device)
        domain.class_names = class_names

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
        return normalize(pixels, channels)

    def block_features(self, images: Tensor, domain: Domain) -> Tensor:
        """Output of the last block: pixels (B, 3, H, W) in [0, 1] -> (B, C, S, S)."""
        return self._block_features(images, domain, NormCursor(domain))

    def _block_features(self, images: Tensor, domain: Domain, norms: NormCursor) -> Tensor:
        adapter = domain.input_adapter or self.input_adapter
        features = adapter(self.trunk(self.normalized(images)), norms)
        if domain.batch_statistics:
            for block in self.templates.mix(domain.mixture()).layers():
                features = isometric_block(features, block, norms)
            return features
        precision = self.block_precision or features.dtype
        outputs = features.to(precision)
        for block in self.folded_blocks(domain, norms, precision):
            outputs = folded_block(outputs, block)
        return outputs.to(features.dtype)

    @contextmanager
    def computing(self, precision: torch.dtype | None) -> Iterator[None]:
        """Inside, blocks under stored statistics compute in `precision`; weights stay as they are.

        None: as the weights are. bfloat16 is faster on a GPU and on a CPU that has it (AVX-512
        BF16, AMX).
        """
        before, self.block_precision = self.block_precision, precision
        try:
            yield
        finally:
            self.block_precision = before

    def folded_blocks(
        self, domain: Domain, norms: NormCursor, precision: torch.dtype | None = None
    ) -> list[FoldedWeights]:
        """Every block's weights for a domain under its stored statistics, the next of `norms`."""
        weights = self.templates.mix(domain.mixture())
        taken = norms.take(weights.gamma.flatten(), weights.beta.flatten())
        mean, var, gamma, beta = (part.view(weights.gamma.shape) for part in taken)
        folded = fold(weights._replace(gamma=gamma, beta=beta), mean, var)
        return (folded if precision is None else folded.to(precision)).layers()

    def embed_block_features(self, features: Tensor, domain: Domain) -> Tensor:
        """Output adapter alone: (B, C, S, S) -> (B, F)."""
        norms = NormCursor(domain)
        norms.skip(self.config.num_statistics - self.config.hidden - self.config.embedding)
        return self.output_adapter(features, norms)

    def features(self, images: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, H, W) -> output of the last block (B, C, S, S), embedding (B, F)."""
        norms = NormCursor(domain)
        block = self._block_features(images, domain, norms)
        return block, self.output_adapter(block, norms)

    def classify(self, embedding: Tensor, domain: Domain) -> Tensor:
        """Logits of both heads: (B, F) -> (2, B, N)."""
        heads = domain.heads or self.heads
        return torch.stack([head(embedding) for head in heads])

    def forward(self, images: Tensor, domain: Domain) -> Tensor:
        """Logits of both heads: pixels (B, 3, H, W) in [0, 1] -> (2, B, N)."""
        return self.classify(self.features(images, domain)[1], domain)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """All that domains share and train: templates, adapters, heads; no xi, no trunk."""
        for part in (self.templates, self.input_adapter, self.output_adapter, self.heads):
            yield from part.parameters()


def probabilities(logits: Tensor) -> Tensor:
    """Prediction of a two-headed network: logits (2, B, N) -> mean of the softmaxes (B, N)."""
    return logits.softmax(dim=-1).mean(dim=0)
