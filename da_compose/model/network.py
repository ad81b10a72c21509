"""The compositional isometric network (paper, sections 3.1 and 3.2)."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from da_compose.context import Drawing
from da_compose.model.blocks import isometric_block
from da_compose.model.config import NetworkConfig
from da_compose.model.contract import Network
from da_compose.model.domain import Domain, DomainTable
from da_compose.model.ends import InputAdapter, OutputAdapter, new_heads
from da_compose.model.folded import FoldedWeights, fold, folded_block
from da_compose.model.mixture import FixedSignature, MixtureWeights, initial_xi
from da_compose.model.norms import NormCursor
from da_compose.model.templates import TemplateBank


class CompositionalNetwork(Network):
    """Input adapter, L blocks mixed from K templates by a domain's xi, output adapter, two heads.

    The ordinary isometric network is the same class with `config.unshared()`.
    """

    config: NetworkConfig
    input_adapter: InputAdapter

    def __init__(
        self, config: NetworkConfig, seed: int = 0, first_xi: Tensor | None = None
    ) -> None:
        super().__init__()
        # A subclass's are narrower, and never set again
        self.config = config  # pyright: ignore[reportIncompatibleVariableOverride]
        generator = torch.Generator().manual_seed(seed)
        with Drawing(seed):
            self.trunk, channels = nn.Identity(), config.image_channels
            if config.trunk is not None:
                from da_compose.model.trunk import Trunk  # torchvision takes seconds to import

                self.trunk = Trunk(config.trunk, config.image_size, config.patch_size)
                channels = self.trunk.channels
            self.input_adapter = InputAdapter(  # pyright: ignore[reportIncompatibleVariableOverride]
                config, channels
            )
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
            if first_xi is None:
                first_xi = initial_xi(config.num_layers, config.num_templates, 1.0, generator)
        self.domains = DomainTable(self.blank_domain)
        self.register_buffer("first_xi", first_xi, persistent=False)

    def new_domain(self, name: str, xi: Tensor | None = None) -> Domain:
        """See `Network.new_domain`; xi are logits. `first_xi` is random where none was given."""
        config = self.config
        if config.signature is not None:
            if xi is not None:
                raise ValueError("this network has a fixed signature: it takes no xi; leave it out")
            mixture = FixedSignature(config.signature, config.num_templates)
        else:
            start = self.get_buffer("first_xi") if xi is None else xi
            self.check_xi(start)
            mixture = MixtureWeights(start)
        domain = Domain(name, mixture, config.num_statistics)
        return domain.to(self.device, self.dtype)

    @torch.no_grad()
    def own_batch_norm(self, domain: Domain) -> None:
        """Give a domain gamma and beta (F,) of its own that start as what it uses of the network.

        They are 2 F numbers: 7,728 for the default network.
        """
        if domain.gamma is not None:
            return
        adapter, output = self.input_adapter_of(domain), self.output_adapter
        blocks = self.templates.mix(domain.mixture())
        gammas = adapter.gamma, blocks.gamma, output.before_gamma, output.after_gamma
        betas = adapter.beta, blocks.beta, output.before_beta, output.after_beta
        domain.gamma = nn.Parameter(torch.cat([part.flatten() for part in gammas]))
        domain.beta = nn.Parameter(torch.cat([part.flatten() for part in betas]))

    def input_adapter_of(self, domain: Domain) -> InputAdapter:
        """The domain's own, or else the network's."""
        return cast(InputAdapter, domain.input_adapter or self.input_adapter)

    def input_parameters(self, domain: Domain) -> list[nn.Parameter]:
        unused = () if domain.gamma is None else ("gamma", "beta")
        named = self.input_adapter_of(domain).named_parameters()
        return [parameter for name, parameter in named if name not in unused]

    def block_features(self, images: Tensor, domain: Domain) -> Tensor:
        """Output of the last block: pixels (B, 3, H, W) in [0, 1] -> (B, C, S, S)."""
        return self._block_features(images, domain, NormCursor(domain))

    def _block_features(self, images: Tensor, domain: Domain, norms: NormCursor) -> Tensor:
        features = self.input_adapter_of(domain)(self.trunk(self.normalized(images)), norms)
        if domain.batch_statistics:
            for block in self.templates.mix(domain.mixture()).layers():
                features = isometric_block(features, block, norms)
            return features
        precision = self.block_precision or features.dtype
        outputs = features.to(precision)
        for block in self.folded_blocks(domain, norms, precision):
            outputs = folded_block(outputs, block)
        return outputs.to(features.dtype)

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

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """All that domains share and train: templates, adapters, heads; no xi, no trunk."""
        for part in (self.templates, self.input_adapter, self.output_adapter, self.heads):
            yield from part.parameters()
