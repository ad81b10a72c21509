"""Templates learned beforehand: the directions along which a pretrained network adapts.

The frozen network is fitted, with labels, to mock domains made of the sources: a source in a few
random styles. What gamma and beta of its blocks did is a displacement a mock domain; a block's
templates are the leading directions of all of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import cos, pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from da_compose.context import undisturbed
from da_compose.images import ImageSet, to_pixels, with_channels
from da_compose.model.domain import Domain
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.progress import phase
from da_compose.sources import read_sources
from da_compose.statistics import blend_statistics, estimate_statistics
from da_compose.storage.backbone import FORMAT, Backbone
from da_compose.storage.files import load_tensors, save_tensors, understood
from da_compose.storage.schema import (
    SHARE,
    TEXT,
    Field,
    check_metadata,
    check_tensors,
    one_of,
    whole,
)
from da_compose.training.sampling import seeded
from da_compose.training.styles import restyle

KIND = "mock domain"  # of a file
SCHEMA = {
    "kind": one_of(KIND),
    "format": whole(1, FORMAT),
    "source": TEXT,
    "before": SHARE,
    "after": SHARE,
}


@dataclass(frozen=True, kw_only=True)
class DirectionsConfig:
    """How templates are learned; 4 to 6 minutes on one core for 16 mock domains of 160 pixels."""

    templates: int = 4  # K directions a layer
    mock_domains: int = 16  # M
    pictures: int = 288  # of a source, in a mock domain
    styles: tuple[int, int] = (2, 3)  # least and most of them, one after another
    steps: int = 15  # of a fit
    batch_size: int = 48
    learning_rate: float = 4e-3  # Adam, cosine to 0
    own_share: float = 0.5  # of a mock domain's own statistics, the rest is that of a new domain
    # Mock domains of which another share is right beforehand are left out: too easy or too hard
    right: tuple[float, float] = (0.0, 1.0)
    most_left_out: int = 32  # of those; later ones are taken as they come
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("templates", "mock_domains", "pictures", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.templates > self.mock_domains:
            raise ValueError(
                f"{self.mock_domains} mock domains have no {self.templates} directions; take more"
            )
        if not 0 <= self.own_share <= 1:
            raise ValueError(f"own_share must be from 0 to 1, got {self.own_share}")
        for name in ("styles", "right"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be (least, most), got {getattr(self, name)}")


@dataclass(frozen=True)
class Mock:
    """What one mock domain taught. displacement: of the blocks' weights, (n,); None: left out."""

    source: str
    before: float  # share that is right, 0 to 1
    after: float
    displacement: Tensor | None


@undisturbed()
def learn_templates(
    backbone: Backbone,
    sources: Mapping[str, Any],
    config: DirectionsConfig | None = None,
    folder: str | Path | None = None,
) -> Backbone:
    """A backbone on the same network with K templates a layer; the given one stays as it is.

    sources: labelled, as of `da_compose.pretrain`, with the backbone's classes. folder: keeps what
    each mock domain taught, so that an interrupted call goes on, bit for bit on CPU.
    Raises ValueError for another kind of network, and where the folder holds what was learned
    otherwise.
    """
    network, config = backbone.network, config or DirectionsConfig()
    if not isinstance(network, PretrainedNetwork):
        raise ValueError(
            f"templates are learned of a pretrained network, a {type(network).__name__} has its own"
        )
    data, _ = read_sources(sources, network.config.image_size, backbone.class_names)
    identity = {
        "fingerprint": backbone.fingerprint,
        "config": asdict(config),
        "sources": {name: images.fingerprint for name, images in data.items()},
    }
    learned: list[Mock] = []
    left_out = number = 0
    with phase("learning templates from mock domains", config.mock_domains) as learning:
        while len(learned) < config.mock_domains:
            if left_out >= config.most_left_out:
                config = replace(config, right=(0.0, 1.0))
            path = None if folder is None else Path(folder) / f"mock-{number:03}.safetensors"
            mock = _kept(path, identity, len(network.templates.layers)) or fit_mock(
                network, data, number, config
            )
            _keep(path, identity, mock)
            number += 1
            left_out += mock.displacement is None
            if mock.displacement is not None:
                learned.append(mock)
            now = "left out" if mock.displacement is None else f"now {100 * mock.after:.0f} %"
            right = f"{mock.source}: {100 * mock.before:.0f} % right, {now}"
            learning.to(len(learned), right)
    moved = torch.stack([m.displacement for m in learned if m.displacement is not None])
    directions = leading_directions(moved, network.templates.layers, config.templates)
    notes = {
        "templates": {
            **identity["config"],
            "right_before": sum(mock.before for mock in learned) / len(learned),
            "right_after": sum(mock.after for mock in learned) / len(learned),
        }
    }
    made = network.with_directions(directions)
    return replace(backbone, network=made, notes=backbone.notes | notes)


def leading_directions(displacements: Tensor, layers: Tensor, count: int) -> Tensor:
    """The `count` leading directions of each layer's part of displacements (M, n) -> (count, n).

    layers: the layer of each number, (n,). Right singular vectors, each times its singular value
    over the root of M: as long as displacements are along it, by root mean square. The largest
    entry of each is positive.
    """
    found = displacements.new_zeros(count, displacements.shape[1])
    for layer in layers.unique().tolist():
        part = displacements[:, layers == layer]
        _, lengths, vectors = torch.linalg.svd(part, full_matrices=False)
        scaled = vectors * lengths[:, None] / sqrt(len(displacements))
        sign = scaled.gather(1, scaled.abs().argmax(dim=1, keepdim=True)).sign()
        kept = (scaled * torch.where(sign == 0, 1.0, sign))[:count]
        found[: len(kept), layers == layer] = kept
    return found


def fit_mock(
    network: PretrainedNetwork,
    sources: Mapping[str, ImageSet],
    number: int,
    config: DirectionsConfig,
) -> Mock:
    """One mock domain, a function of its number: made, and the frozen network fitted to it."""
    generator = seeded(config.seed, number)
    name = list(sources)[number % len(sources)]
    pixels, labels = _mock_pictures(sources[name], generator, config)
    pixels, labels = pixels.to(network.device), labels.to(network.device)
    domain = network.new_domain("mock").requires_grad_(False)
    of_sources = domain.mean.clone(), domain.var.clone()
    own = estimate_statistics(network, domain, pixels.split(network.images_at_once))
    domain.set_statistics(*blend_statistics(of_sources, own, config.own_share))
    displacement = torch.zeros(len(network.templates.layers), device=network.device)
    before = _share_right(network, domain, displacement, pixels, labels)
    if not config.right[0] <= before <= config.right[1]:
        return Mock(name, before, before, None)
    displacement.requires_grad_(True)
    optimizer = torch.optim.Adam([displacement], lr=config.learning_rate)
    order = torch.empty(0, dtype=torch.long)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + cos(pi * step / config.steps))
        while len(order) < min(config.batch_size, len(labels)):
            order = torch.cat([order, torch.randperm(len(labels), generator=generator)])
        chosen, order = order[: config.batch_size], order[config.batch_size :]
        logits = _logits(network, domain, displacement, pixels[chosen])
        loss = functional.cross_entropy(logits.flatten(0, 1), labels[chosen].repeat(len(logits)))
        (displacement.grad,) = torch.autograd.grad(loss, [displacement])
        optimizer.step()
    displacement = displacement.detach()
    after = _share_right(network, domain, displacement, pixels, labels)
    return Mock(name, before, after, displacement.cpu())


def _mock_pictures(
    source: ImageSet, generator: torch.Generator, config: DirectionsConfig
) -> tuple[Tensor, Tensor]:
    """Some pictures of a source in a few random styles, pixels in [0, 1], and their labels."""
    chosen = torch.randperm(len(source), generator=generator)[: config.pictures].numpy()
    low, high = config.styles
    number = int(torch.randint(low, high + 1, (), generator=generator))
    pixels = with_channels(to_pixels(np.asarray(source.images[chosen])), 3)
    return restyle(pixels, number, generator), torch.from_numpy(source.labels[chosen])


def _logits(
    network: PretrainedNetwork, domain: Domain, displacement: Tensor, pixels: Tensor
) -> Tensor:
    values = network.displaced(displacement)
    return network.classify(network.features_with(pixels, domain, values)[1], domain)


@torch.no_grad()
def _share_right(
    network: PretrainedNetwork,
    domain: Domain,
    displacement: Tensor,
    pixels: Tensor,
    labels: Tensor,
) -> float:
    parts = [
        _logits(network, domain, displacement, part)
        for part in pixels.split(network.images_at_once)
    ]
    predicted = torch.cat(parts, dim=1).softmax(dim=-1).mean(dim=0).argmax(dim=1)
    return (predicted == labels).cpu().double().mean().item()  # of which some devices have none


def _kept(path: Path | None, identity: Mapping[str, Any], size: int) -> Mock | None:
    """What an earlier call learned of a mock domain, where it did; `size` numbers move."""
    if path is None or not path.exists():
        return None
    tensors, metadata = load_tensors(path, KIND)
    with understood(path):
        given = {key: Field("what was learned from", lambda _: True) for key in identity}
        check_metadata(metadata, SCHEMA | given)
        check_tensors(tensors, {"displacement": torch.empty(size)} if tensors else {})
    for key, value in identity.items():
        if metadata[key] != _as_read(value):
            raise ValueError(
                f"{path} was learned with another {key}; delete it, or name another folder"
            )
    return Mock(
        metadata["source"], metadata["before"], metadata["after"], tensors.get("displacement")
    )


def _keep(path: Path | None, identity: Mapping[str, Any], mock: Mock) -> None:
    if path is None or path.exists():
        return
    tensors = {} if mock.displacement is None else {"displacement": mock.displacement}
    figures = {"source": mock.source, "before": mock.before, "after": mock.after}
    save_tensors(path, tensors, {"kind": KIND, "format": FORMAT, **identity, **figures})


def _as_read(value: Any) -> Any:
    """Tuples as JSON has them."""
    if isinstance(value, dict):
        return {key: _as_read(one) for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
