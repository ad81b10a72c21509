import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from adapters.strategies.losses import (
    class_frequencies,
    discrepancy,
    distance,
    domain_confusion,
    entropy,
    information,
    moment_distance,
    moments,
)

FEW = settings(max_examples=40, deadline=None)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tables(rows: int, columns: int, lowest: float, highest: float) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, (rows, columns), elements=st.floats(lowest, highest))


def simplex(table: np.ndarray) -> Tensor:
    """Rows of non-negative numbers as probabilities, zeros included."""
    table = table + (table.sum(axis=1, keepdims=True) == 0)
    return torch.from_numpy(table / table.sum(axis=1, keepdims=True))


def test_moments_equal_a_slow_loop():
    features = random(7, 4)
    first, second = moments(features)
    for column in range(4):
        values = [float(features[row, column]) for row in range(7)]
        assert float(first[column]) == pytest.approx(sum(values) / 7, abs=1e-12)
        assert float(second[column]) == pytest.approx(sum(v * v for v in values) / 7, abs=1e-12)


def test_distance_is_the_unsquared_euclidean_norm():
    assert float(distance(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]))) == 5.0


def slow_moment_distance(target: Tensor, sources: list[Tensor]) -> float:
    """The target's part of eq. 1 of M3SDA, from raw features."""
    total = 0.0
    for power in (1, 2):
        for source in sources:
            squared = 0.0
            for column in range(target.shape[1]):
                own = sum(float(row[column]) ** power for row in target) / len(target)
                other = sum(float(row[column]) ** power for row in source) / len(source)
                squared += (own - other) ** 2
            total += math.sqrt(squared) / len(sources)
    return total


@pytest.mark.parametrize("num_sources", [1, 2, 3])
def test_moment_distance_equals_a_slow_loop_over_eq_1(num_sources: int):
    target = random(6, 5)
    sources = [random(4 + number, 5, seed=number + 1) for number in range(num_sources)]
    found = moment_distance(moments(target), [moments(source) for source in sources])
    assert float(found) == pytest.approx(slow_moment_distance(target, sources), rel=1e-10)


@FEW
@given(table=tables(9, 3, -5, 5), order=st.permutations([1, 2, 3]))
def test_order_of_the_sources_does_not_matter(table: np.ndarray, order: list[int]):
    parts = torch.from_numpy(table).split(2)
    target = moments(parts[0])
    straight = moment_distance(target, [moments(parts[number]) for number in (1, 2, 3)])
    permuted = moment_distance(target, [moments(parts[number]) for number in order])
    torch.testing.assert_close(straight, permuted, rtol=1e-12, atol=1e-12)


def test_coinciding_moments_are_at_zero_distance_with_zero_gradient():
    features = random(6, 5).requires_grad_()
    same = moments(features.detach())
    found = moment_distance(moments(features), [same, same])
    found.backward()
    assert found.item() == 0.0
    assert features.grad is not None and torch.equal(features.grad, torch.zeros(6, 5).double())


def test_one_coinciding_source_leaves_the_gradient_of_the_others():
    features = random(6, 5).requires_grad_()
    other = moments(random(6, 5, seed=1))
    both = moment_distance(moments(features), [moments(features.detach()), other])
    alone = moment_distance(moments(features), [other]) / 2
    (expected,) = torch.autograd.grad(alone, features)
    (found,) = torch.autograd.grad(both, features)
    torch.testing.assert_close(found, expected)


def test_moment_distance_has_the_gradient_of_finite_differences():
    sources = [moments(random(6, 3, seed=1)), moments(random(4, 3, seed=2))]
    features = random(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: moment_distance(moments(x), sources), (features,))


def test_discrepancy_equals_a_slow_loop():
    logits = random(2, 4, 3)
    total = 0.0
    for row in range(4):
        shares = []
        for head in range(2):
            powers = [math.exp(float(logits[head, row, number])) for number in range(3)]
            shares.append([power / sum(powers) for power in powers])
        total += sum(abs(one - two) for one, two in zip(*shares, strict=True))
    assert float(discrepancy(logits)) == pytest.approx(total / (4 * 3), rel=1e-12)


@FEW
@given(table=tables(8, 5, -50, 50))
def test_discrepancy_is_symmetric_zero_for_equal_heads_and_at_most_two_over_n(table: np.ndarray):
    first, second = torch.from_numpy(table).split(4)
    found = float(discrepancy(torch.stack([first, second])))
    assert 0 <= found <= 2 / 5 + 1e-12
    assert found == float(discrepancy(torch.stack([second, first])))
    assert float(discrepancy(torch.stack([first, first]))) == 0.0


def test_opposite_certain_heads_reach_the_largest_discrepancy():
    sure = 1000 * torch.eye(5, dtype=torch.float64)
    assert float(discrepancy(torch.stack([sure, sure.roll(1, 0)]))) == pytest.approx(2 / 5)


@FEW
@given(table=tables(6, 4, 0, 1))
def test_entropy_equals_a_slow_loop_and_lies_between_zero_and_log_n(table: np.ndarray):
    probabilities = simplex(table)
    found = entropy(probabilities)
    for row, value in zip(probabilities.tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(-sum(p * math.log(p) for p in row if p > 0), abs=1e-9)
        assert -1e-9 <= value <= math.log(4) + 1e-9


@FEW
@given(table=tables(6, 4, 0, 1))
def test_information_is_the_mean_divergence_from_the_mean_prediction(table: np.ndarray):
    rows = simplex(table).tolist()
    mean = [sum(row[number] for row in rows) / len(rows) for number in range(4)]
    divergence = 0.0
    for row in rows:
        terms = (p * math.log(p / m) for p, m in zip(row, mean, strict=True) if p > 0)
        divergence += sum(terms) / len(rows)
    found = float(information(torch.tensor(rows, dtype=torch.float64)))
    assert found == pytest.approx(divergence, abs=1e-9)
    assert -1e-9 <= found <= math.log(4) + 1e-9


@FEW
@given(table=tables(6, 4, 0, 1), frequencies=tables(1, 4, 0.01, 1))
def test_information_beside_expected_frequencies(table: np.ndarray, frequencies: np.ndarray):
    predictions = simplex(table)
    expected = simplex(frequencies)[0]
    mean = predictions.mean(dim=0)
    divergence = sum(
        float(m) * math.log(float(m) / float(q))
        for m, q in zip(mean, expected, strict=True)
        if m > 0
    )
    wanted = math.log(4) - divergence - float(entropy(predictions).mean())
    assert float(information(predictions, expected)) == pytest.approx(wanted, abs=1e-6)
    alike = torch.full_like(expected, 0.25)
    assert float(information(predictions, alike)) == pytest.approx(
        float(information(predictions)), abs=1e-6
    )


def test_frequencies_as_expected_are_no_reason_to_move():
    """Where the mean prediction is the expected one, only confidence has a gradient."""
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    predictions = logits.softmax(dim=-1)
    expected = predictions.mean(dim=0).detach()
    gradients = [
        torch.autograd.grad(value, logits, retain_graph=True)[0]
        for value in (information(predictions, expected), -entropy(predictions).mean())
    ]
    torch.testing.assert_close(*gradients)


def test_class_frequencies_are_of_the_mean_prediction_and_none_is_zero():
    predictions = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    assert class_frequencies(predictions).tolist() == pytest.approx([2.5 / 5, 1.5 / 5, 1 / 5])
    assert class_frequencies(predictions).sum().item() == pytest.approx(1)


def test_one_hot_diverse_predictions_carry_log_n():
    assert float(information(torch.eye(5).repeat(3, 1))) == pytest.approx(math.log(5), abs=1e-6)


@pytest.mark.parametrize("row", [[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
def test_equal_predictions_carry_no_information(row: list[float]):
    assert float(information(torch.tensor([row] * 4))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("function", [information, lambda p: entropy(p).sum()])
def test_the_gradient_at_zero_probabilities_is_finite(function):
    probabilities = torch.eye(4).requires_grad_()
    function(probabilities).backward()
    assert probabilities.grad is not None and probabilities.grad.isfinite().all()


@pytest.mark.parametrize("is_source", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_domain_confusion_equals_a_slow_loop(is_source: bool, smoothing: float):
    logits = random(6)
    label = 1 - smoothing if is_source else smoothing
    total = 0.0
    for logit in logits.tolist():
        believed = 1 / (1 + math.exp(-logit))
        total -= label * math.log(believed) + (1 - label) * math.log(1 - believed)
    found = float(domain_confusion(logits, is_source=is_source, smoothing=smoothing))
    assert found == pytest.approx(total / 6, rel=1e-12)


def test_labels_are_inverted_between_the_players():
    logits = random(6)
    as_source = domain_confusion(logits, is_source=True, smoothing=0.1)
    as_target = domain_confusion(-logits, is_source=False, smoothing=0.1)
    torch.testing.assert_close(as_source, as_target)


def test_smoothing_is_least_at_the_soft_label():
    right = torch.tensor([math.log(0.9 / 0.1)], dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(domain_confusion(right, is_source=True, smoothing=0.1), right)
    assert slope.item() == pytest.approx(0, abs=1e-12)


def test_domain_confusion_is_finite_for_a_discriminator_that_is_sure_and_wrong():
    assert float(domain_confusion(torch.tensor([-500.0]), is_source=True)) == 500.0
