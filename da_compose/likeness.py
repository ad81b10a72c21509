"""How like a domain's images are to what a pretrained backbone remembers of its sources.

In an embedding that many pictures have taught, the images of an unseen domain of the same task lie
nearly as close to the sources' as these to one another, each domain seen from its own middle;
images of another task lie farther from all (deep nearest neighbours, Sun et al. 2022, with domains
for the measure). An embedding that has seen the sources alone does not tell: benchmarks/LOG.md.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from da_compose.knowledge import SourceKnowledge

NEIGHBOURS = 5
MOST = 1000  # remembered images of a source, drawn at random, that are looked at
TINIEST = 1e-6


@torch.no_grad()
def likeness(
    knowledge: Mapping[str, SourceKnowledge], embeddings: Tensor, frequencies: Tensor
) -> float | None:
    """How close embeddings (M, F) are to the sources', over how close these are to one another.

    frequencies: of the classes among the M images, as they are predicted, (N,). The sources are
    weighed alike: from the middle of all classes, images of a few would look strange. About 1 of a
    source again, less of a domain that none of them is like. None where the backbone knows fewer
    than two sources.
    """
    if len(knowledge) < 2:
        return None
    own = embeddings.cpu().float()
    directions, weights = [], []
    for source in knowledge.values():
        found, labels = source.embeddings[:MOST].cpu().float(), source.labels[:MOST].cpu().long()
        counts = labels.bincount(minlength=len(frequencies))
        weight = (frequencies.cpu().float().clamp_min(TINIEST) / counts)[labels]
        weight = weight / weight.sum()
        directions.append(functional.normalize(found - weight @ found))
        weights.append(weight)
    among = [
        weight @ closeness(one, [*directions[:place], *directions[place + 1 :]])
        for place, (one, weight) in enumerate(zip(directions, weights, strict=True))
    ]
    found = closeness(functional.normalize(own - own.mean(dim=0)), directions).mean()
    return found.item() / max(torch.stack(among).mean().item(), TINIEST)


def closeness(directions: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Mean cosine (M,) of each direction (M, F) to the nearest few of all the others (K, F)."""
    near = [
        (directions @ other.T).topk(min(NEIGHBOURS, len(other)), dim=1).values for other in others
    ]
    nearest = torch.cat(near, dim=1)
    return nearest.topk(min(NEIGHBOURS, nearest.shape[1]), dim=1).values.mean(dim=1)
