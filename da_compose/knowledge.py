"""What a backbone remembers of its sources, so that adaptation needs none of their images.

Templates and the sources' mixture weights are frozen, so features and moments of the sources are
constants of the checkpoint: computed once, kept in the backbone's file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from da_compose.images import ImageSet, to_pixels
from da_compose.model.contract import Network
from da_compose.model.domain import Domain
from da_compose.pixel_range import Range, pixel_range
from da_compose.progress import Phase, phase

MOST_BYTES = 32 * 2**20  # of features that are kept of a source
MOST_HALF = torch.finfo(torch.half).max


@dataclass(frozen=True)
class SourceKnowledge:
    """Moments and a class-balanced sample of one source's features.

    first, second: raw moments of the embedding (F,), over `num_images` images.
    block_features: float16 outputs of the last block (M, C, S, S), a capped sample.
    embeddings: their embeddings (M, F), recomputed from them when a backbone is loaded.
    labels: their classes (M,).
    pixels: how bright its images are; None in older files.
    """

    first: Tensor
    second: Tensor
    block_features: Tensor
    embeddings: Tensor
    labels: Tensor
    num_images: int
    pixels: Range | None = None

    def to(self, device: torch.device) -> "SourceKnowledge":
        """The same on a device."""
        names = "first", "second", "block_features", "embeddings", "labels"
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class Rehearsal:
    """What predictions said of mock targets, and how accurate they were: `training.rehearsal`.

    figures: (R, F) float64, of `da_compose.evidence`. accuracy: (R,) float64, 0 to 1. mock: (R,)
    int64, the number of the mock target that a row is of. images: (R,) int64, of how many of its
    images the figures are; figures of few are other ones.
    """

    figures: Tensor
    accuracy: Tensor
    mock: Tensor
    images: Tensor


@torch.no_grad()
def collect_knowledge(
    network: Network,
    sources: Mapping[str, ImageSet],
    *,
    per_class: int = 40,
    max_images: int = 10_000,
    most_bytes: int = MOST_BYTES,
    batch_size: int | None = None,
    seed: int = 0,
) -> dict[str, SourceKnowledge]:
    """Knowledge of every source, from at most `max_images` images and `per_class` kept features.

    Fewer are kept where those of all classes would take more than `most_bytes` a source, yet one.
    batch_size: None: the network's `images_at_once`.
    """
    total = sum(min(len(data), max_images) for data in sources.values())
    with phase("collecting knowledge of sources", total) as collecting:
        return {
            name: _of_source(
                network, network.domains[name], data, per_class, max_images, most_bytes,
                batch_size or network.images_at_once, seed, collecting,
            )
            for name, data in sources.items()
        }  # fmt: skip


def _of_source(
    network: Network,
    domain: Domain,
    data: ImageSet,
    per_class: int,
    max_images: int,
    most_bytes: int,
    batch_size: int,
    seed: int,
    collecting: Phase,
) -> SourceKnowledge:
    """Knowledge of one source; see `collect_knowledge`."""
    count = min(len(data), max_images)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).numpy()
    if count < len(data):  # one of each class first, so that none is missed
        first_of_class = np.unique(data.labels[order], return_index=True)[1]
        order = np.concatenate([order[first_of_class], np.delete(order, first_of_class)])
    kept_of_class = torch.zeros(network.config.num_classes, dtype=torch.long)
    first = torch.zeros(network.config.embedding, dtype=torch.float64)
    second = first.clone()
    kept_features, kept_labels = [], []
    for start in range(0, count, batch_size):
        batch = order[start : min(start + batch_size, count)]
        collecting.advance(len(batch))
        pixels = to_pixels(data.images[batch]).to(network.device)
        block, embedding = network.features(pixels, domain)
        embedding = embedding.cpu().double()  # of which some devices have none
        first += embedding.sum(0)
        second += embedding.square().sum(0)
        for position, label in enumerate(data.labels[batch].tolist()):
            size = 2 * block[position].numel()  # float16
            most = max(1, most_bytes // (size * len(kept_of_class)))
            if kept_of_class[label] < min(per_class, most):
                kept_of_class[label] += 1
                kept_features.append(block[position].clamp(-MOST_HALF, MOST_HALF).half().cpu())
                kept_labels.append(label)
    features = torch.stack(kept_features)
    return SourceKnowledge(
        first=(first / count).float(),
        second=(second / count).float(),
        block_features=features,
        embeddings=embed(network, features, domain),
        labels=torch.tensor(kept_labels),
        num_images=count,
        pixels=pixel_range(data.images),
    )


@torch.no_grad()
def embed(network: Network, block_features: Tensor, domain: Domain) -> Tensor:
    """Embeddings (M, F) of stored block features (M, C, S, S)."""
    features = block_features.to(network.device, network.dtype)
    features = features.contiguous(memory_format=torch.channels_last)
    return network.embed_block_features(features, domain).float().cpu()
