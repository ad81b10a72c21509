"""Classifiers of single sources: where two of them contradict each other, one is wrong.

Each is fitted to what the backbone remembers of one source. On a domain that none of them has seen
they agree about as often as the backbone is right there: generalization disagreement (Jiang et al.
2022), with domains in the place of random seeds. So it is on pretrained networks, whose features
suit all domains; on those from scratch a rehearsal tells as much. Both are measured by
`benchmarks.studies.trust`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from da_compose.knowledge import SourceKnowledge

# Of weights, in mean squared lengths of an embedding, by the square of how many classes there are;
# made on PACS and emoji, of 7 and 54: LOG
SHRINKAGE = 1e-4


@dataclass(frozen=True)
class SourceHead:
    """A linear classifier of embeddings: weight (N, F) and bias (N,), float64."""

    weight: Tensor
    bias: Tensor

    def choose(self, embeddings: Tensor) -> Tensor:
        """Classes (M,) of embeddings (M, F)."""
        return functional.linear(embeddings, self.weight, self.bias).argmax(dim=1)


def source_heads(knowledge: Mapping[str, SourceKnowledge], num_classes: int) -> list[SourceHead]:
    """One of each source that has all classes; none where fewer than two have."""
    if not comparable([known.labels for known in knowledge.values()], num_classes):
        return []
    return [
        fitted(known.embeddings, known.labels, num_classes)
        for known in knowledge.values()
        if _whole(known.labels, num_classes)
    ]


def comparable(labels: Iterable[Tensor], num_classes: int) -> bool:
    """Whether two sources or more, by their labels (M,), have all classes."""
    return sum(_whole(of_source, num_classes) for of_source in labels) > 1


def _whole(labels: Tensor, num_classes: int) -> bool:
    return labels.unique().numel() == num_classes


def fitted(embeddings: Tensor, labels: Tensor, num_classes: int) -> SourceHead:
    """Least squares to one-hot labels (M,) from embeddings (M, F), shrunk."""
    labels = labels.cpu()
    features = embeddings.cpu().double()
    wanted = functional.one_hot(labels.long(), num_classes).double()
    middle, share = features.mean(dim=0), wanted.mean(dim=0)
    features = features - middle
    spread = features.T @ features
    length = features.square().sum(dim=1).mean().clamp_min(1e-12)
    spread.diagonal().add_(SHRINKAGE * num_classes**2 * length)
    weight = torch.linalg.solve(spread, features.T @ (wanted - share)).T
    return SourceHead(weight, share - weight @ middle)


def agreement(heads: Sequence[SourceHead], embeddings: Tensor) -> float:
    """Share of embeddings (M, F) of which two heads choose the same class, mean over all pairs."""
    found = embeddings.cpu().double()
    chosen = [head.choose(found) for head in heads]
    same = [(one == other).double().mean() for one, other in combinations(chosen, 2)]
    return torch.stack(same).mean().item()
