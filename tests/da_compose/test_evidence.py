import numpy as np
import pytest
import torch
from torch import Tensor

from da_compose.evidence import (
    FIGURES,
    agreed_information,
    another_view,
    certainty,
    entropy,
    evidence,
)


def random_predictions(count: int, classes: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, generator=generator, dtype=torch.float64).softmax(dim=1)


def of_classes(classes: list[int], count: int = 3) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), count).double()


def test_agreed_information_computed_slowly():
    one, two = random_predictions(7), random_predictions(7, seed=1)
    expected = 0.0
    for c in range(4):
        both = sum(float(one[i, c] * two[i, c]) for i in range(7)) / 7
        frequency = float(one[:, c].mean() + two[:, c].mean()) / 2
        expected += (both - frequency**2) * -np.log(frequency) / np.log(4)
    assert agreed_information(one, two) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], 2 / 3),  # certain, alike, balanced; a third is chance
        ([0, 0, 0], [0, 0, 0], 0.0),  # one class tells nothing
        ([0, 1, 2] * 3, [0, 0, 0, 1, 1, 1, 2, 2, 2], 0.0),  # views have nothing in common
    ],
)
def test_certain_and_alike_views_agree_on_most(one, two, expected):
    found = agreed_information(of_classes(one), of_classes(two))
    assert found == pytest.approx(expected, abs=1e-9)


def test_views_with_nothing_in_common_agree_on_nothing_however_many_the_classes():
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randint(345, (400,), generator=generator).tolist() for _ in range(2))
    assert abs(agreed_information(of_classes(one, 345), of_classes(two, 345))) < 0.01


def test_figures_are_of_the_first_images_where_few_are_viewed():
    predicted, viewed = random_predictions(9), random_predictions(9, seed=1)
    found = dict(zip(FIGURES, evidence(predicted, viewed[:4]).tolist(), strict=True))
    assert found["confidence"] == pytest.approx(predicted.max(dim=1).values.mean().item())
    assert found["certainty"] == pytest.approx(certainty(predicted))
    same = predicted[:4].argmax(dim=1) == viewed[:4].argmax(dim=1)
    assert found["consistency"] == pytest.approx(same.double().mean().item())
    assert found["agreed_information"] == pytest.approx(
        agreed_information(predicted[:4], viewed[:4])
    )


def test_entropy_is_largest_where_all_classes_are_alike():
    assert entropy(torch.full((4,), 0.25)).item() == pytest.approx(np.log(4))
    assert entropy(torch.tensor([1.0, 0.0])).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("shape", [(6, 16, 16), (6, 16, 16, 3)])
def test_another_view_is_moved_by_an_eighth_and_as_bright_by_a_seventh(shape):
    images = np.random.default_rng(0).integers(20, 200, shape, dtype=np.uint8)
    kept, found = images.copy(), another_view(images)
    assert found.shape == images.shape and found.dtype == np.uint8
    assert np.array_equal(images, kept) and np.array_equal(found, another_view(images))
    lighter = np.minimum(np.round(images[0, 2:, 2:].astype(np.float32) * 1.15), 255)
    assert np.array_equal(found[0, :-2, :-2], lighter)  # down and right of the border
    darker = np.round(images[1, :-2, 2:].astype(np.float32) / 1.15)
    assert np.array_equal(found[1, 2:, :-2], darker)
    assert len({found[n].tobytes() for n in range(6)}) == 6


def test_a_view_of_the_first_images_is_the_view_of_all():
    images = np.random.default_rng(0).integers(0, 256, (11, 8, 8), dtype=np.uint8)
    assert np.array_equal(another_view(images)[:5], another_view(images[:5]))
