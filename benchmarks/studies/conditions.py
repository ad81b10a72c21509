"""Targets as users have them: tiny, one-sided, hopeless. What studies adapt to.

Each takes a target's training images and a generator: images, with labels where what is tested must
have the same classes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da_compose.images import ImageSet

NOISE_IMAGES = 1_000
Images = NDArray[np.uint8]


def everything(train: ImageSet, generator: np.random.Generator) -> Images:
    """Every image: uint8 (M, S, S) or (M, S, S, 3), as of all conditions."""
    return train.images


def few(train: ImageSet, generator: np.random.Generator, *, count: int) -> Images:
    """Some images, drawn at random."""
    return train.images[generator.permutation(len(train.images))[:count]]


def without_a_class(train: ImageSet, generator: np.random.Generator) -> Images:
    """All images but those of one class."""
    return train.images[train.labels != generator.choice(np.unique(train.labels))]


def unbalanced(train: ImageSet, generator: np.random.Generator) -> Images:
    """All images of half of the classes, a tenth of the others'."""
    classes = generator.permutation(np.unique(train.labels))
    rare = np.isin(train.labels, classes[: len(classes) // 2])
    return train.images[~rare | (generator.random(len(rare)) < 0.1)]


def noise(train: ImageSet, generator: np.random.Generator) -> Images:
    """Uniformly random pixels."""
    return generator.integers(0, 256, (NOISE_IMAGES, *train.images.shape[1:]), dtype=np.uint8)


def half_of_the_classes(train: ImageSet, generator: np.random.Generator) -> ImageSet:
    """All images of half of the classes."""
    classes = generator.permutation(np.unique(train.labels))
    kept = np.isin(train.labels, classes[: max(2, len(classes) // 2)])
    return ImageSet(train.images[kept], train.labels[kept])


def with_strangers(train: ImageSet, generator: np.random.Generator, *, strangers: Images) -> Images:
    """All images, and a fourth as many of something else."""
    chosen = strangers[generator.integers(0, len(strangers), len(train) // 4)]
    if train.images.ndim > chosen.ndim:
        chosen = np.repeat(chosen[..., None], 3, axis=3)
    elif train.images.ndim < chosen.ndim:
        chosen = chosen.mean(axis=3).astype(np.uint8)
    return np.concatenate([train.images, chosen])


def nothing_but(train: ImageSet, generator: np.random.Generator, *, strangers: Images) -> Images:
    """Something else alone, as from a wrong folder."""
    return strangers[generator.permutation(len(strangers))[:NOISE_IMAGES]]


Condition = Callable[[ImageSet, np.random.Generator], Any]
SOURCE, STRANGERS, TASK = "a source again", "a fifth are strangers", "another task"
CONDITIONS: Mapping[str, Condition] = {
    "all": everything,
    "100 images": partial(few, count=100),
    "30 images": partial(few, count=30),
    "10 images": partial(few, count=10),
    "one class missing": without_a_class,
    "half of the classes": half_of_the_classes,
    "10 to 1": unbalanced,
    SOURCE: everything,  # of the first source, in place of the target
    STRANGERS: everything,  # and strangers beside them
    TASK: everything,  # of it alone
    "noise": noise,
}
