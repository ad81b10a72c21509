"""Centroids of a target's classes, found without labels, beside what the classifiers say.

Images of one class lie together in a domain's embedding, though the classifiers, made on others,
cut it elsewhere. Pseudo-labels by the nearest centroid are SHOT's (Liang et al. 2020, section 3.3);
here the classifiers stay, and the cosine to the centroids is added to their logits.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

# Made on digits and PACS; read on satellite and other digits (benchmarks/LOG.md)
SHARPNESS = 10.0  # logits between a cosine of 0 and of 1
PRIOR_IMAGES = 20  # images of a class, from which on its centroid counts more than half
ALIKE = 1e-4  # of an embedding: images that are less apart are one, but for rounding


@torch.no_grad()
def with_centroids(heads: nn.ModuleList, embeddings: Tensor, prediction: Tensor) -> nn.ModuleList:
    """Copies of two linear classifiers that heed the centroids of a domain's classes too.

    embeddings: of unlabelled images, (M, F). prediction: what is said of them, (M, N). A centroid
    is the mean direction of the embeddings from their middle, weighted by the prediction, and
    counts less the fewer images are taken for its class. The classifiers stay linear: the length
    of an embedding from the middle is taken for the average one. Images that are all alike have
    no centroids. What is added is of half precision, which files are made of.
    """
    middle = embeddings.mean(dim=0)
    apart = embeddings - middle
    length = apart.norm(dim=1).mean()
    new = deepcopy(heads).requires_grad_(False)
    if not length > ALIKE * embeddings.norm(dim=1).mean():
        return new
    directions = functional.normalize(
        prediction.to(apart).T @ functional.normalize(apart)
    )  # (N, F)
    images = prediction.to(apart).sum(dim=0)
    weights = directions * (SHARPNESS / length * images / (images + PRIOR_IMAGES))[:, None]
    rounded = weights.half().to(weights)
    weights = rounded if rounded.isfinite().all() else weights
    for head in new:
        assert isinstance(head, nn.Linear)
        head.weight.add_(weights)
        head.bias.sub_(weights @ middle)
    return new
