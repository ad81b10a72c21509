import numpy as np
import pytest
import torch
from torch import Tensor

from da_compose.estimate import (
    DISTANCE,
    FEW,
    LEAST_HALF,
    NORMAL,
    RIDGE,
    SHRINK,
    Estimate,
    Estimator,
    by_agreement,
    temperature_for,
    tempered,
)
from da_compose.knowledge import Rehearsal


def rehearsal(noise: float = 0.0, mocks: int = 30, counts: tuple[int, ...] = (64,)) -> Rehearsal:
    """Accuracy is linear in two figures, another way for each count of images."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for mock in range(mocks):
        for number, count in enumerate(counts):
            figures = torch.rand(2, generator=generator, dtype=torch.float64)
            accuracy = (
                0.2
                + 0.6 * figures[number]
                + noise * (torch.rand((), generator=generator, dtype=torch.float64) - 0.5)
            )
            rows.append((figures, accuracy, torch.tensor(mock), torch.tensor(count)))
    return Rehearsal(*map(torch.stack, zip(*rows, strict=True)))


def test_the_estimate_is_the_ridge_regression_computed_otherwise():
    known, asked = rehearsal(noise=0.2), torch.tensor([0.3, 0.9], dtype=torch.float64)
    x, y = known.figures.numpy(), known.accuracy.numpy()
    scaled = (x - x.mean(0)) / x.std(0, ddof=1)
    stacked = np.vstack([scaled, np.sqrt(RIDGE) * np.eye(2)])
    slopes = np.linalg.lstsq(stacked, np.append(y - y.mean(), [0, 0]), rcond=None)[0]
    expected = ((asked.numpy() - x.mean(0)) / x.std(0, ddof=1)) @ slopes + y.mean()
    assert Estimator(known, 64)(asked).accuracy == pytest.approx(expected)


@pytest.mark.parametrize(("count", "figure"), [(50, 0), (1000, 0), (10, 1)])
def test_figures_of_few_images_are_read_as_those_of_few(count: int, figure: int):
    known = rehearsal(counts=(64, 8))
    estimator = Estimator(known, count)
    low, high = torch.full((2, 2), 0.5, dtype=torch.float64)
    low[figure], high[figure] = 0.1, 0.9
    assert estimator(high).accuracy - estimator(low).accuracy > 0.25
    other = high.clone()
    other[1 - figure] = 0.0
    assert estimator(high).accuracy == pytest.approx(estimator(other).accuracy, abs=0.06)


def test_an_interval_around_agreement_is_wider_the_fewer_the_images():
    many, few = by_agreement(0.5, 100_000), by_agreement(0.5, 10)
    assert (many.low, many.high) == pytest.approx((0.5 - DISTANCE, 0.5 + DISTANCE), abs=1e-3)
    ten = (DISTANCE**2 + NORMAL**2 * 0.5 * 0.5 / 10) ** 0.5
    assert (few.low, few.accuracy, few.high) == pytest.approx((0.5 - ten, 0.5, 0.5 + ten))
    all_alike = by_agreement(1.0, 10)
    assert all_alike.high == 1.0 and all_alike.low < by_agreement(1.0, 1000).low < 1 - DISTANCE
    assert by_agreement(0.05, 10).low == 0.0


def test_intervals_hold_nine_in_ten_of_what_was_not_seen():
    """Those of few images, which are the whole distance."""
    counts = (FEW - 1,)
    known = rehearsal(noise=0.8, mocks=100, counts=counts)
    estimator = Estimator(known, FEW - 1)
    assert estimator.half > LEAST_HALF
    fresh = rehearsal(noise=0.8, mocks=400, counts=counts)
    held = [
        found.low <= true <= found.high
        for figures, true in zip(fresh.figures, fresh.accuracy.tolist(), strict=True)
        for found in [estimator(figures)]
    ]
    assert 0.85 < sum(held) / len(held) <= 1
    assert Estimator(known, FEW).half == max(LEAST_HALF, SHRINK * estimator.half)


def test_intervals_stay_within_0_and_1_and_are_never_too_narrow():
    estimator = Estimator(rehearsal(), 64)
    assert estimator.half >= LEAST_HALF
    for value in (-5.0, 0.5, 5.0):
        found = estimator(torch.full((2,), value, dtype=torch.float64))
        assert 0 <= found.low <= found.accuracy <= found.high <= 1


def test_an_estimate_reads_well():
    assert str(Estimate(0.812, 0.741, 0.868)) == "81 % (90 % interval 74 to 87)"


def predictions() -> Tensor:
    return torch.randn(50, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=1)


@pytest.mark.parametrize("accuracy", [0.3, 0.5, 0.9])
def test_tempered_predictions_are_as_sure_as_is_asked_and_choose_the_same(accuracy: float):
    before = predictions()
    after = tempered(before, temperature_for(before, accuracy))
    assert after.max(dim=1).values.mean().item() == pytest.approx(accuracy, abs=1e-4)
    assert torch.equal(after.argmax(dim=1), before.argmax(dim=1))
    torch.testing.assert_close(after.sum(dim=1), torch.ones(50))
    torch.testing.assert_close(tempered(before, 1.0), before)
