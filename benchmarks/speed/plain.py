"""Adaptation as it is usually written by hand: every source goes through the network each step."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.strategies.adversarial import build_discriminator
from adapters.strategies.losses import (
    discrepancy,
    distance,
    domain_confusion,
    moment_distance,
    moments,
)
from da_compose import CompositionalNetwork, Domain, PretrainedNetwork
from da_compose.model.blocks import isometric_block
from da_compose.model.norms import NormCursor

Batch = tuple[Tensor, Tensor]  # images (B, 3, S, S), labels (B,)


class PlainLoop:
    """Steps on one target with a batch of every source at hand, in plain PyTorch.

    whole: every weight trains and batch norm uses batch statistics, as in the published code of
    ADDA and M3SDA; else only the target's own parameters train, under stored statistics, and
    sources need no gradient.
    """

    def __init__(
        self,
        network: CompositionalNetwork | PretrainedNetwork,
        sources: Sequence[Domain],
        target: Domain,
        learned: Sequence[nn.Parameter],
        *,
        rate: float,
        whole: bool,
    ) -> None:
        self.network, self.sources, self.target, self.whole = network, sources, target, whole
        for domain in (*sources, target):
            domain.use_batch_statistics(whole)
        self.heads = list(network.heads.parameters())
        for parameter in (*learned, *self.heads):
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.Adam(learned, lr=rate)
        self.head_optimizer = torch.optim.Adam(self.heads, lr=1e-3, weight_decay=5e-4)
        self.discriminator = build_discriminator(network.config.channels, torch.Generator())
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=5e-4)

    def adversarial(self, sources: Sequence[Batch], images: Tensor) -> None:
        """ADDA: features of all sources, a step of the discriminator, a step of the target."""
        with torch.no_grad():
            of_sources = [
                self._block_features(batch, domain)
                for (batch, _), domain in zip(sources, self.sources, strict=True)
            ]
        of_target = self._block_features(images, self.target)
        on_source = self.discriminator(torch.cat(of_sources)).squeeze(1)
        on_target = self.discriminator(of_target.detach()).squeeze(1)
        loss = domain_confusion(on_source, True, 0.1) + domain_confusion(on_target, False, 0.1)
        self._descend(loss, self.discriminator_optimizer)
        fooled = domain_confusion(self.discriminator(of_target).squeeze(1), is_source=True)
        self._descend(fooled, self.optimizer)

    def moment_matching(self, sources: Sequence[Batch], images: Tensor) -> None:
        """M3SDA, step A: the sources' cross-entropy and all pairs of moments."""
        embeddings = self._embeddings(sources)
        of_target = self._embed(images, self.target)
        known = [moments(embedding) for embedding in embeddings]
        pairs = list(combinations(known, 2))
        among = [distance(a, b) for one, two in pairs for a, b in zip(one, two, strict=True)]
        apart = moment_distance(moments(of_target), known) + torch.stack(among).sum() / len(pairs)
        loss = self._cross_entropy(embeddings, sources) + 0.5 * apart
        self._descend(loss, self.optimizer, self.head_optimizer)

    def classifier_discrepancy(self, sources: Sequence[Batch], images: Tensor) -> None:
        """M3SDA's steps A, B and C, with as many steps C as ours."""
        self.moment_matching(sources, images)
        with torch.no_grad():
            embeddings = self._embeddings(sources)
            of_target = self._embed(images, self.target)
        loss = self._cross_entropy(embeddings, sources)
        self._descend(loss - discrepancy(self._classify(of_target)), self.head_optimizer)
        for _ in range(2):
            of_target = self._embed(images, self.target)
            self._descend(discrepancy(self._classify(of_target)), self.optimizer)

    def _block_features(self, images: Tensor, domain: Domain) -> Tensor:
        """Autograd and batch norm as PyTorch has them: no folded weights, no backward by hand."""
        if isinstance(self.network, PretrainedNetwork):
            return self.network.block_features(images, domain)
        norms = NormCursor(domain)
        adapter = domain.input_adapter or self.network.input_adapter
        features = adapter(self.network.normalized(images), norms)
        for weights in self.network.templates.mix(domain.mixture()).layers():
            features = isometric_block(features, weights, norms)
        return features

    def _embed(self, images: Tensor, domain: Domain) -> Tensor:
        return self.network.embed_block_features(self._block_features(images, domain), domain)

    def _embeddings(self, sources: Sequence[Batch]) -> list[Tensor]:
        with torch.set_grad_enabled(self.whole and torch.is_grad_enabled()):
            return [
                self._embed(batch, domain)
                for (batch, _), domain in zip(sources, self.sources, strict=True)
            ]

    def _classify(self, embedding: Tensor) -> Tensor:
        return torch.stack([head(embedding) for head in self.network.heads])

    def _cross_entropy(self, embeddings: Sequence[Tensor], sources: Sequence[Batch]) -> Tensor:
        losses = []
        for embedding, (_, labels) in zip(embeddings, sources, strict=True):
            logits = self._classify(embedding)
            losses.append(functional.cross_entropy(logits.flatten(0, 1), labels.repeat(2)))
        return torch.stack(losses).sum()

    def _descend(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        parameters = [p for o in optimizers for group in o.param_groups for p in group["params"]]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
