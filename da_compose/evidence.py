"""Evidence of how accurate predictions are, without labels: figures of what a model says.

A model that knows a domain says much about each image and the same of another view of it, and its
classes differ. Each figure alone can mislead; `estimate` weighs them by what they were worth on
mock targets.
"""

from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TINY = 1e-12
FIGURES = ("confidence", "certainty", "consistency", "agreed_information")  # of `evidence`
BRIGHTER, SHIFT = 1.15, 8  # times, and the part of a side that another view is shifted by


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy in nats of each row: (..., N) -> (...)."""
    return -(probabilities * probabilities.clamp_min(TINY).log()).sum(dim=-1)


def certainty(prediction: Tensor) -> float:
    """Information of image and prediction (M, N) over log N, the most of many images: 0 to 1.

    Of M < N images it is at most log M / log N, so few images of many classes count as unsure.
    """
    told = entropy(prediction.mean(dim=0)) - entropy(prediction).mean()
    return told.item() / log(prediction.shape[1])


def agreed_information(prediction: Tensor, viewed: Tensor) -> float:
    """What predictions (M, N) and those on another view (V, N) agree on, beyond chance.

    The probability that both mean a class, less what it would be of views with nothing in common,
    weighed by the information of that class, -log of its frequency over log N. 1 - 1/N where all
    are certain, alike and balanced over the classes, about 0 of noise and of a single class. Unlike
    the mutual information of both it is not larger the fewer images there are to a class.
    """
    seen = prediction[: len(viewed)]
    both = (seen * viewed).mean(dim=0)  # (N,)
    frequency = (seen.mean(dim=0) + viewed.mean(dim=0)) / 2
    information = -frequency.clamp_min(TINY).log() / log(prediction.shape[1])
    return ((both - frequency.square()) * information).sum().item()


def another_view(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images (M, S, S[, 3]) as they may also have been taken; nothing is drawn at random.

    Shifted by an eighth of a side along one of the diagonals, and a little lighter or darker: what
    changes the class in no field that we know of.
    """
    step = max(1, images.shape[1] // SHIFT)
    border = [(0, 0), (step, step), (step, step), *[(0, 0)] * (images.ndim - 3)]
    found = np.empty_like(images)
    for number, (down, right) in enumerate([(1, 1), (-1, 1), (1, -1), (-1, -1)]):
        part = np.pad(images[number::4], border, mode="edge")
        top, left, size = step * (1 + down), step * (1 + right), images.shape[1]
        part = part[:, top : top + size, left : left + size].astype(np.float32)
        part *= BRIGHTER if number in (0, 3) else 1 / BRIGHTER
        found[number::4] = part.clip(0, 255).round().astype(np.uint8)
    return found


def evidence(prediction: Tensor, viewed: Tensor) -> Tensor:
    """`FIGURES` of predictions (M, N) on images and on another view of the first V of them (V, N).

    Each is larger where a model knows more, about 0 to 1: mean largest probability; `certainty`;
    share of images whose class is the same in both views; `agreed_information`.
    """
    seen = prediction[: len(viewed)]
    consistent = (seen.argmax(dim=1) == viewed.argmax(dim=1)).double().mean().item()
    return torch.tensor(
        [
            prediction.max(dim=1).values.mean().item(),
            certainty(prediction),
            consistent,
            agreed_information(prediction, viewed),
        ],
        dtype=torch.float64,
    )
