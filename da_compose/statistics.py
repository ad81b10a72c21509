"""Batch-norm statistics of a domain: estimates, averages and blends."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from da_compose.model.contract import Network
from da_compose.model.domain import Domain

Statistics = tuple[Tensor, Tensor]  # mean (F,), var (F,) of every batch norm in network order


@torch.no_grad()
def estimate_statistics(network: Network, domain: Domain, batches: Iterable[Tensor]) -> Statistics:
    """Statistics of `domain` over all batches (B, 3, H, W); the domain itself is left as it was.

    Every batch weighs by its size. Means are those over all images under the given normalization;
    variances are means of the batches' (unbiased) ones, so batches should be drawn at random. A
    batch of one image is doubled: its pooled features have no variance of their own, and the
    caller leans on a prior (`shrunk_share`). Raises ValueError where there are no images.
    Where the domain is `synchronized`, every process calls with its share of the same batches.
    """
    if not network.config.num_statistics:  # no batch norm: nothing to look at images for
        if not any(len(images) for images in batches):
            raise ValueError("no images to estimate batch-norm statistics from")
        return domain.mean.clone(), domain.var.clone()
    kept = domain.mean.clone(), domain.var.clone()
    momentum, used = domain.momentum, domain.batch_statistics
    domain.use_batch_statistics()
    seen = 0
    try:
        for images in batches:
            if not len(images):
                continue
            seen += len(images)
            domain.momentum = len(images) / seen
            alone = len(images) == 1 and not domain.synchronized
            network.features(images.repeat(2, 1, 1, 1) if alone else images, domain)
        if not seen:
            raise ValueError("no images to estimate batch-norm statistics from")
        return domain.mean.clone(), domain.var.clone()
    finally:
        domain.momentum = momentum
        domain.use_batch_statistics(used)
        domain.set_statistics(*kept)


def average_statistics(statistics: Sequence[Statistics]) -> Statistics:
    """Statistics of an equal mixture of domains: variances include the spread of the means."""
    means = torch.stack([mean for mean, _ in statistics])
    variances = torch.stack([var for _, var in statistics])
    if not means.numel():  # no batch norm
        return statistics[0]
    return means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, unbiased=False)


def blend_statistics(source: Statistics, target: Statistics, target_share: float) -> Statistics:
    """Between a source's statistics (share 0) and the target's own (share 1)."""
    return (
        source[0].lerp(target[0], target_share),
        source[1].lerp(target[1], target_share),
    )


def shrunk_share(num_images: int, prior_images: float) -> float:
    """Share of the target's own statistics when the source's count as `prior_images` images.

    Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift
    adaptation": n / (n + N).
    """
    return num_images / (num_images + prior_images)
