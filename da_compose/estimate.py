"""How accurate a model is on a domain without labels: an estimate, and an interval around it."""

from dataclasses import dataclass
from math import ceil, sqrt

import torch
from torch import Tensor

from da_compose.evidence import TINY
from da_compose.knowledge import Rehearsal

RIDGE = 10.0  # of figures in units of their spread
COVERAGE = 0.9  # of intervals
# Of intervals, made on the development data sets of `benchmarks.studies.trust`
DISTANCE, NORMAL = 0.11, 1.645
SHRINK, LEAST_HALF, FEW = 0.5, 0.12, 50


@dataclass(frozen=True)
class Estimate:
    """Expected accuracy, and an interval that holds it 9 times in 10: shares, 0 to 1."""

    accuracy: float
    low: float
    high: float

    def __str__(self) -> str:
        accuracy, low, high = (f"{100 * share:.0f}" for share in vars(self).values())
        return f"{accuracy} % (90 % interval {low} to {high})"


def unknown(num_classes: int) -> Estimate:
    """Of a model that tells next to nothing of the images: chance, and anything is possible."""
    return Estimate(1 / num_classes, 0.0, 1.0)


def by_agreement(agreed: float, num_images: int) -> Estimate:
    """Where classifiers of single sources agree this often (`source_heads`), on so many images.

    Nine in ten estimates of each development target lie within `DISTANCE`, as errors are of a
    target more than of its images; to that comes what so few images leave open of a share (as if
    two more were of either kind: Agresti and Coull 1998).
    """
    share = (agreed * num_images + 1) / (num_images + 2)
    half = sqrt(DISTANCE**2 + NORMAL**2 * share * (1 - share) / num_images)
    return Estimate(agreed, max(0.0, agreed - half), min(1.0, agreed + half))


class Estimator:
    """From figures of `da_compose.evidence` to an `Estimate`, by what they meant in a rehearsal.

    Accuracy is a ridge regression on the figures of as many images, as nearly as were rehearsed.
    Half an interval is the distance within which nine in ten estimates of mock targets lie that the
    regression did not see (conformal: Vovk et al. 2005; each mock target is left out in turn),
    times `SHRINK`, as mock targets are stranger than any met; of fewer than `FEW` images the whole.
    """

    def __init__(self, rehearsal: Rehearsal, num_images: int) -> None:
        apart = (rehearsal.images.double() / num_images).log().abs()
        near = apart == apart.min()
        figures, accuracy, mock = (
            part[near] for part in (rehearsal.figures, rehearsal.accuracy, rehearsal.mock)
        )
        self._weights = _ridge(figures, accuracy)
        missed = []
        for number in mock.unique():
            own = mock == number
            expected = _of(_ridge(figures[~own], accuracy[~own]), figures[own])
            missed.append((expected - accuracy[own]).abs())
        distances = torch.cat(missed).sort().values
        rank = min(len(distances), ceil(COVERAGE * (len(distances) + 1)))
        shrink = SHRINK if num_images >= FEW else 1.0
        self.half = max(LEAST_HALF, shrink * distances[rank - 1].item())

    def __call__(self, figures: Tensor) -> Estimate:
        """The estimate where a model says this, (F,)."""
        accuracy = _of(self._weights, figures[None]).item()
        return Estimate(accuracy, max(0.0, accuracy - self.half), min(1.0, accuracy + self.half))


def _ridge(figures: Tensor, accuracy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    middle, spread = figures.mean(dim=0), figures.std(dim=0).clamp_min(1e-6)
    scaled, mean = (figures - middle) / spread, accuracy.mean()
    penalty = RIDGE * torch.eye(figures.shape[1], dtype=figures.dtype)
    slopes = torch.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (accuracy - mean))
    return middle, spread, slopes, mean


def _of(weights: tuple[Tensor, Tensor, Tensor, Tensor], figures: Tensor) -> Tensor:
    middle, spread, slopes, mean = weights
    return ((figures - middle) / spread @ slopes + mean).clamp(0, 1)


def tempered(prediction: Tensor, temperature: float) -> Tensor:
    """Predictions (M, N) at another temperature: the same classes, less sure above 1."""
    powered = prediction.double().clamp_min(TINY).pow(1 / temperature)
    return (powered / powered.sum(dim=1, keepdim=True)).to(prediction.dtype)


def temperature_for(prediction: Tensor, accuracy: float) -> float:
    """The temperature, 0.05 to 20, at which predictions (M, N) are on average as sure as right."""
    low, high = 0.05, 20.0
    for _ in range(30):
        middle = sqrt(low * high)
        sure = tempered(prediction, middle).max(dim=1).values.mean().item() > accuracy
        low, high = (middle, high) if sure else (low, middle)
    return sqrt(low * high)
