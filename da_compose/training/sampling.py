"""Seeded orders of labelled images: every batch is a function of its step alone."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from da_compose.images import ImageSet, to_pixels


class Sampler:
    """Endless seeded permutations of one image set; a batch is a function of the step alone.

    balanced: in each permutation every class comes equally often, rare ones again and again.
    """

    def __init__(
        self, data: ImageSet, batch_size: int, seed: int, *, balanced: bool = False
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.balanced = balanced
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.data))
        if epoch != self._epoch:
            self._order = self._permutation(seeded(self.seed, epoch))
            self._epoch = epoch
        return int(self._order[offset])

    def _permutation(self, generator: torch.Generator) -> Tensor:
        """Indices of one epoch (M,)."""
        order = torch.randperm(len(self.data), generator=generator)
        if not self.balanced:
            return order
        labels = torch.from_numpy(self.data.labels)[order]
        classes = labels.unique()
        share = -(-len(order) // len(classes))  # of each class, rounded up
        chosen = torch.cat(
            [repeated(order[labels == label], share, generator) for label in classes]
        )
        return chosen[torch.randperm(len(chosen), generator=generator)[: len(order)]]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels in [0, 1] (B, 1 or 3, S, S) and labels (B,) of one step."""
        first = step * self.batch_size
        chosen = [self._index(first + offset) for offset in range(self.batch_size)]
        return to_pixels(self.data.images[chosen]), torch.from_numpy(self.data.labels[chosen])


def hold_out(
    sources: Mapping[str, ImageSet], share: float, seed: int
) -> tuple[dict[str, ImageSet], dict[str, ImageSet]]:
    """Each source without a random share of its images, and those: for what training must not see.

    The share is of each class and rounded down, so that training sees all classes; a source of
    which nothing is held out is missing among the latter.
    """
    train, held = {}, {}
    for number, (name, data) in enumerate(sources.items()):
        order = torch.randperm(len(data), generator=seeded(seed, number, 3)).numpy()
        labels = data.labels[order]
        chosen = np.zeros(len(data), dtype=bool)
        for label in np.unique(labels):
            of_class = order[labels == label]
            chosen[of_class[: int(share * len(of_class))]] = True
        for part, which in ((train, ~chosen), (held, chosen)):
            if which.any():
                part[name] = ImageSet(data.images[which], data.labels[which])
    return train, held


def repeated(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the values (M,), each as often as any other, or once more."""
    rounds = -(-count // len(values))
    orders = [torch.randperm(len(values), generator=generator) for _ in range(rounds)]
    return values[torch.cat(orders)[:count]]


def seeded(*numbers: int) -> torch.Generator:
    """A generator that depends on all of the numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 0x9E3779B9) % (1 << 62)
    return torch.Generator().manual_seed(mixed)
