"""A compositional network on any pretrained one: its blocks go along learned directions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.modules.batchnorm import _BatchNorm

from da_compose.context import Drawing
from da_compose.model.contract import Network
from da_compose.model.domain import Domain, DomainTable
from da_compose.model.ends import new_heads
from da_compose.model.layouts import Layout, as_map, from_map, layout_of
from da_compose.model.mixture import Coefficients
from da_compose.model.norms import NormCursor
from da_compose.model.pretrained_config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OWN,
    PretrainedConfig,
)
from da_compose.model.sections import affine, batch_norms, run
from da_compose.model.templates import DirectionBank
from da_compose.model.tracing import (
    Sections,
    cut,
    dry_run,
    find_blocks,
    is_norm,
    layer_of,
    layers_before,
)


class PretrainedNetwork(Network):
    """An ordinary network for any domain: stem, L blocks, head up to the embedding, two heads.

    A block's weights are its own plus what a domain's xi takes of K directions (`DirectionBank`);
    those that move are gamma and beta of its norms, and what the configuration names besides. Stem
    and the rest of the head are shared, batch-norm statistics a domain's own. Weights are in
    evaluation: dropout does nothing, gradients flow where asked for.
    A new domain starts at xi = 0 with the statistics that came with the weights: as the ordinary
    network.
    """

    config: PretrainedConfig
    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, config: PretrainedConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config  # pyright: ignore[reportIncompatibleVariableOverride]
        sections = cut(module, config.blocks)
        self.layout: Layout = _check_shape(sections, config)
        self.input_adapter, self.body, self.output_adapter = sections
        with Drawing(seed):
            self.heads = new_heads(config.embedding, config.num_classes)
        self.templates = DirectionBank(
            config.num_templates, displaced_shapes(sections, config.blocks, config.displaced)
        )
        self.to(memory_format=torch.channels_last)  # as the images: a seventh faster on CPU
        self.domains = DomainTable(self.blank_domain)
        start = torch.zeros(config.num_layers, config.num_templates)
        self.register_buffer("first_xi", start, persistent=False)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(config, name)).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def train(self, mode: bool = True) -> "PretrainedNetwork":
        """Weights stay in evaluation, whatever the rest does."""
        super().train(mode)
        for section in (self.input_adapter, self.body, self.output_adapter):
            section.eval()
        return self

    def takes(self, image_size: int) -> bool:
        """Whether the module makes such an embedding of images of `image_size` pixels a side."""
        sections = (self.input_adapter, self.body, self.output_adapter)
        graphs = Sections(*(cast(GraphModule, section) for section in sections))
        try:
            _check_shape(graphs, replace(self.config, image_size=image_size))
        except ValueError:
            return False
        return True

    @contextmanager
    def taking(self, image_size: int) -> Iterator[None]:
        """Inside, images have `image_size` pixels a side; the caller knows that it `takes` them."""
        kept = self.config
        self.config = replace(kept, image_size=image_size)  # pyright: ignore[reportIncompatibleVariableOverride]
        try:
            yield
        finally:
            self.config = kept  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def of(
        cls,
        module: nn.Module,
        *,
        num_classes: int,
        image_size: int,
        name: str | None = None,
        blocks: Sequence[str] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        displaced: Sequence[str] = (),
        weights: str = "unknown",
        seed: int = 0,
    ) -> "PretrainedNetwork":
        """A network on a copy of `module`, with new heads and no directions yet.

        A linear map at the module's end is left out, as a classifier. blocks: names of its parts
        that are layers; None: those of its lists (`find_blocks`). name: that rebuilds it, as of
        `PretrainedConfig`; without one the network cannot be saved. mean, std: of pixels in [0, 1].
        Raises ValueError where the module cannot be traced, cut, or run at `image_size`.
        """
        blocks = tuple(find_blocks(module) if blocks is None else blocks)
        sections = cut(module, blocks)
        block, embedding = dry_run(sections, image_size)
        config = PretrainedConfig(
            name=name or OWN + type(module).__name__,
            blocks=blocks,
            num_classes=num_classes,
            image_size=image_size,
            channels=as_map(block, layout_of(block)).shape[1],
            embedding=embedding.shape[1],
            num_statistics=sum(_num_statistics(section) for section in sections),
            mean=tuple(mean),
            std=tuple(std),
            displaced=tuple(displaced),
            weights=weights,
        )
        return cls(module, config, seed)

    @torch.no_grad()
    def with_directions(self, directions: Tensor) -> "PretrainedNetwork":
        """The same network and domains, all at xi = 0, with these directions (K, n).

        n are the numbers that move, `self.templates.directions.shape[1]`. Raises ValueError where
        domains have moved along other directions.
        """
        if directions.ndim != 2 or directions.shape[1] != self.templates.directions.shape[1]:
            raise ValueError(
                f"expected directions of {self.templates.directions.shape[1]} numbers each, "
                f"got {tuple(directions.shape)}"
            )
        if moved := [d.name for d in self.domains if d.mixture().any()]:
            raise ValueError(
                f"{', '.join(moved)}: moved along other directions; learn directions first"
            )
        new = deepcopy(self)
        new.config = replace(self.config, num_templates=len(directions))
        new.templates.num_templates = len(directions)
        new.templates.directions = directions.detach().clone().to(self.device)
        start = torch.zeros(new.config.num_layers, len(directions), device=self.device)
        new.first_xi = start
        for domain in new.domains:
            domain.mixture = Coefficients(start).requires_grad_(False)
        return new

    def normalization(self) -> tuple[Tensor, Tensor]:
        return self.mean, self.std

    @torch.no_grad()
    def new_domain(self, name: str, xi: Tensor | None = None) -> Domain:
        """See `Network.new_domain`; xi are coefficients, and statistics those of the weights."""
        start = self.get_buffer("first_xi") if xi is None else xi
        self.check_xi(start)
        domain = Domain(name, Coefficients(start), self.config.num_statistics)
        domain = domain.to(self.device, self.dtype)
        if norms := [norm for _, norm in self.norms()]:
            means = [cast(Tensor, norm.running_mean) for norm in norms]
            variances = [cast(Tensor, norm.running_var) for norm in norms]
            domain.set_statistics(torch.cat(means), torch.cat(variances))
        return domain

    @torch.no_grad()
    def set_first_statistics(self, mean: Tensor, var: Tensor) -> None:
        """Overwrite the statistics that new domains start with, both (F,)."""
        norms, position = self.norms(), 0
        for _, norm in norms:
            here = slice(position, position + norm.num_features)
            cast(Tensor, norm.running_mean).copy_(mean[here])
            cast(Tensor, norm.running_var).copy_(var[here])
            position = here.stop

    @torch.no_grad()
    def own_batch_norm(self, domain: Domain) -> None:
        if domain.gamma is not None:
            return
        own = self.values_of(domain)
        gammas, betas = [domain.mean[:0]], [domain.mean[:0]]
        for name, norm in self.norms(domain):
            gamma, beta = affine(norm)
            gammas.append(own.get(f"{name}.weight", gamma))
            betas.append(own.get(f"{name}.bias", beta))
        domain.gamma, domain.beta = nn.Parameter(torch.cat(gammas)), nn.Parameter(torch.cat(betas))

    def norms(self, domain: Domain | None = None) -> list[tuple[str, _BatchNorm]]:
        """Name and module of all batch norms, in order; the domain's own stem."""
        sections = self._stem(domain), self.body, self.output_adapter
        return [named for section in sections for named in batch_norms(section).items()]

    def _stem(self, domain: Domain | None) -> GraphModule:
        own = None if domain is None else domain.input_adapter
        return cast(GraphModule, self.input_adapter if own is None else own)

    def input_parameters(self, domain: Domain) -> list[nn.Parameter]:
        stem = self._stem(domain)
        norms = () if domain.gamma is None else batch_norms(stem)
        named = stem.named_parameters()
        return [value for name, value in named if name.rpartition(".")[0] not in norms]

    def values_of(self, domain: Domain) -> dict[str, Tensor]:
        """The weights that directions move, by name in the module, as of a domain."""
        return self.displaced(self.templates.mix(domain.mixture()))

    def displaced(self, displacement: Tensor) -> dict[str, Tensor]:
        """Those weights after a displacement (n,)."""
        own = weights_after(self.body, self.output_adapter)
        moved = self.templates.by_name(displacement)
        return {name: own[name] + change for name, change in moved.items()}

    def features(self, images: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
        return self.features_with(images, domain, self.values_of(domain))

    def features_with(
        self, images: Tensor, domain: Domain, values: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """As `features`, with `values` of the weights that move in place of the domain's."""
        norms = NormCursor(domain)
        block = self._run_body(images, domain, values, norms)
        embedding = run(self.output_adapter, block, norms, values)
        return as_map(block, self.layout), embedding

    def block_features(self, images: Tensor, domain: Domain) -> Tensor:
        block = self._run_body(images, domain, self.values_of(domain), NormCursor(domain))
        return as_map(block, self.layout)

    def _run_body(
        self, images: Tensor, domain: Domain, values: Mapping[str, Tensor], norms: NormCursor
    ) -> Tensor:
        features = run(self._stem(domain), self.normalized(images), norms, {})
        precision = None if domain.batch_statistics else self.block_precision
        autocast = nullcontext()  # the caller's stays
        if precision is not None:
            autocast = torch.autocast(images.device.type, precision)
        with autocast:
            found = run(self.body, features, norms, values)
        return found.to(features.dtype)

    def embed_block_features(self, features: Tensor, domain: Domain) -> Tensor:
        norms = NormCursor(domain)
        norms.skip(self.config.num_statistics - _num_statistics(self.output_adapter))
        block, values = from_map(features, self.layout), self.values_of(domain)
        return run(self.output_adapter, block, norms, values)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        for part in (self.body, self.input_adapter, self.output_adapter, self.heads):
            yield from part.parameters()


def displaced_shapes(
    sections: Sections, blocks: Sequence[str], patterns: Sequence[str]
) -> dict[int, dict[str, torch.Size]]:
    """Shapes of the weights that directions move, by layer and name: of norms, and by pattern.

    Norms are those of the blocks. What a pattern names beside the blocks is of the layer before it.
    """
    found: dict[int, dict[str, torch.Size]] = {layer: {} for layer in range(len(blocks))}
    norms = {name for name, part in sections.body.named_modules() if is_norm(part)}
    before = layers_before((sections.body, sections.head), blocks) if patterns else {}
    for name, weight in weights_after(sections.body, sections.head).items():
        layer = layer_of(name, blocks)
        norm = layer is not None and name.rpartition(".")[0] in norms
        if norm or any(fnmatchcase(name, pattern) for pattern in patterns):
            found[before[name] if layer is None else layer][name] = weight.shape
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for named in found.values() for name in named):
            raise ValueError(f"displaced: no weight of the blocks is named {pattern!r}")
    return found


def weights_after(body: GraphModule, head: GraphModule) -> dict[str, nn.Parameter]:
    """All weights from the first block to the embedding, by name in the module."""
    return {
        name: weight
        for section in (body, head)
        for name, weight in section.named_parameters(remove_duplicate=False)
    }


def _num_statistics(section: nn.Module) -> int:
    return sum(norm.num_features for norm in batch_norms(cast(GraphModule, section)).values())


def _check_shape(sections: Sections, config: PretrainedConfig) -> Layout:
    """Layout of the last block's output; ValueError where `config` is of another module."""
    block, embedding = dry_run(sections, config.image_size)
    statistics = sum(_num_statistics(section) for section in sections)
    layout = layout_of(block)
    found = as_map(block, layout).shape[1], embedding.shape[1], statistics
    expected = config.channels, config.embedding, config.num_statistics
    if found != expected:
        raise ValueError(
            f"{config.name} has {found} channels, features and batch-norm statistics, expected "
            f"{expected}; was it another version's?"
        )
    return layout
