"""Few labelled images, drawn from many."""

import numpy as np
from numpy.typing import NDArray

from da_compose.images import ImageSet


def draw_labelled(
    labelled: ImageSet, count: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`count` random images of every class, or all where there are fewer, and their labels."""
    order = np.random.default_rng(seed).permutation(len(labelled))
    classes = labelled.labels[order]
    chosen = np.concatenate([order[classes == c][:count] for c in np.unique(classes)])
    return labelled.images[chosen], labelled.labels[chosen]
