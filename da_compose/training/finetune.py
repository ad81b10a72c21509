"""Fine-tuning a pretrained network on labelled sources, all in one mixed batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from da_compose.images import ImageSet, to_pixels, with_channels
from da_compose.model.domain import POOLED, Domain
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.tracing import layer_of
from da_compose.parallel import world
from da_compose.statistics import estimate_statistics
from da_compose.training.picture_batches import crop_and_colour
from da_compose.training.sampling import seeded
from da_compose.training.styles import restyle


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How to fine-tune; defaults: 12 minutes on one core at 160 pixels."""

    steps: int = 450
    head_steps: int = 30  # first ones, on the classifiers alone
    batch_size: int = 72  # pictures a step, of all sources in equal parts
    learning_rate: float = 8e-4  # AdamW, warm-up, cosine to 0
    head_rate: float = 5.0  # that of the classifiers, as a multiple
    warm_up: int = 20  # steps
    weight_decay: float = 0.01
    frozen: float = 0.2  # share of blocks that stay as they are, with the stem: the first ones
    # Side of the crops that train, as a share of the network's image size, where it takes both:
    # a crop shows objects larger than the whole picture does (Touvron et al. 2019, FixRes)
    crop_size: float = 0.8
    chunks: int = 6  # equal parts of a batch, a draw of styles each
    style_share: float = 0.65  # of the parts that get one or two styles
    dropout: float = 0.2  # of the embedding
    label_smoothing: float = 0.1
    clip: float = 5.0  # largest gradient norm
    statistics_pictures: int = 384  # of each source, for the final batch-norm statistics
    bfloat16: bool = False  # matrix products in it: faster on GPUs
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("head_steps", 0), ("batch_size", 2), ("chunks", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.crop_size <= 1:
            raise ValueError(f"crop_size must be above 0 and at most 1, got {self.crop_size}")
        for name in ("frozen", "style_share", "dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1 + (name == "style_share"):
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")


class Finetuner:
    """Fine-tunes a network in place; a step is a function of its number alone.

    Batches mix all sources under one set of batch statistics, those of the domain `pooled`: a
    source's own were measured worse. In the end each source has a domain with statistics of its own
    plain pictures, `pooled` those of all together, as has the network for new domains.
    """

    def __init__(
        self,
        network: PretrainedNetwork,
        sources: Mapping[str, ImageSet],
        config: FinetuneConfig,
    ) -> None:
        if not sources or POOLED in sources:
            raise ValueError(f"expected sources, none of them named {POOLED!r}, got {[*sources]}")
        if len(sources) > config.batch_size:
            raise ValueError(
                f"a batch of {config.batch_size} has no picture of each of {len(sources)} sources; "
                "take a larger batch_size"
            )
        if world() > 1:
            raise ValueError("fine-tuning takes one process; start it without torchrun")
        self.network, self.config, self.sources = network, config, dict(sources)
        whole = network.config.image_size
        size = round(config.crop_size * whole)
        self.size = size if network.takes(size) else whole  # pixels a side of what trains
        for name in (*sources, POOLED):
            if name not in network.domains:
                network.domains.add(network.new_domain(name))
        self.domains: dict[str, Domain] = {n: network.domains[n] for n in (*sources, POOLED)}
        network.requires_grad_(False)
        self.body = body_parameters(network, config.frozen)
        self.heads = list(network.heads.parameters())
        for parameter in (*self.body, *self.heads):
            parameter.requires_grad_(True)
        rate = config.learning_rate
        self.optimizer = torch.optim.AdamW(
            [{"params": self.body}, {"params": self.heads, "lr": config.head_rate * rate}],
            lr=rate,
            weight_decay=config.weight_decay,
        )
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.step_number = 0

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, `size`, `size`) and labels (B,) of all sources, in crops and styles."""
        config, generator = self.config, seeded(self.config.seed, step)
        parts, labels = [], []
        for data in self.sources.values():
            count = config.batch_size // len(self.sources)
            chosen = torch.randint(len(data), (count,), generator=generator).numpy()
            parts.append(crop_and_colour(plain_pixels(data, chosen), generator, self.size))
            labels.append(torch.from_numpy(data.labels[chosen]))
        order = torch.randperm(sum(map(len, labels)), generator=generator)
        chunks = []
        for chunk in torch.cat(parts)[order].chunk(config.chunks):
            draw, number = torch.rand(2, generator=generator).tolist()
            styled = draw < config.style_share
            chunks.append(restyle(chunk, 1 + (number < 0.5), generator) if styled else chunk)
        device = self.network.device
        return torch.cat(chunks).to(device), torch.cat(labels)[order].to(device)

    def step(self) -> dict[str, float]:
        """One optimizer step: cross-entropy of both heads on one mixed batch."""
        config, number = self.config, self.step_number
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self._rate(number)
        pixels, labels = self.batch(number)
        domain = self.domains[POOLED].use_batch_statistics()
        whole = number >= config.head_steps
        autocast = torch.autocast(pixels.device.type, torch.bfloat16, enabled=config.bfloat16)
        with torch.set_grad_enabled(whole), autocast, self.network.taking(self.size):
            embedding = self.network.features(pixels, domain)[1].float()
        domain.use_batch_statistics(False)
        generator = seeded(config.seed, number, 1)
        kept = torch.rand(embedding.shape, generator=generator) >= config.dropout
        embedding = embedding * kept.to(embedding.device) / (1 - config.dropout)
        logits = self.network.classify(embedding, domain)  # (2, B, N)
        loss = functional.cross_entropy(
            logits.flatten(0, 1),
            labels.repeat(len(logits)),
            label_smoothing=config.label_smoothing,
        )
        self.optimizer.zero_grad()
        loss.backward()
        if whole:
            nn.utils.clip_grad_norm_(self.body, config.clip)
        self.optimizer.step()
        self.step_number += 1
        right = (logits.detach().sum(dim=0).argmax(dim=1) == labels).cpu().double().mean().item()
        return {"loss": loss.item(), "accuracy": 100 * right, "images": len(labels)}

    def _rate(self, step: int) -> float:
        """Multiplier of the peak learning rates."""
        config, after = self.config, step - self.config.head_steps
        if after < 0:
            return 1.0
        decay = 0.5 * (1 + cos(pi * after / max(1, config.steps - config.head_steps)))
        return decay * min(1.0, (after + 1) / max(1, config.warm_up))

    def finish(self) -> None:
        """Statistics of plain pictures, of each source and of all; weights stay from here on."""
        self.network.requires_grad_(False)
        generator, plain = seeded(self.config.seed, self.config.steps, 2), []
        for name, data in self.sources.items():
            order = torch.randperm(len(data), generator=generator)
            chosen = order[: self.config.statistics_pictures].numpy()
            plain.append(plain_pixels(data, chosen))
            self._set_statistics(name, plain[-1])
        mixed = torch.cat(plain)
        self._set_statistics(POOLED, mixed[torch.randperm(len(mixed), generator=generator)])
        pooled = self.domains[POOLED]
        self.network.set_first_statistics(pooled.mean, pooled.var)

    def _set_statistics(self, name: str, pixels: Tensor) -> None:
        network, domain = self.network, self.domains[name]
        batches = (part.to(network.device) for part in pixels.split(network.images_at_once))
        domain.set_statistics(*estimate_statistics(network, domain, batches))


def body_parameters(network: PretrainedNetwork, frozen: float) -> list[nn.Parameter]:
    """Weights that are trained, heads aside: without the stem and the first share of blocks."""
    blocks = network.config.blocks
    first = round(frozen * len(blocks))
    found = [] if first else list(network.input_adapter.parameters())
    for name, parameter in network.body.named_parameters():
        layer = layer_of(name, blocks)
        if layer is None or layer >= first:
            found.append(parameter)
    return [*found, *network.output_adapter.parameters()]


def plain_pixels(data: ImageSet, chosen: np.ndarray) -> Tensor:
    """Pixels (B, 3, S, S) of some images, grey ones as three equal channels."""
    return with_channels(to_pixels(np.asarray(data.images[chosen])), 3)
