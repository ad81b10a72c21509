from collections.abc import Callable
from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from da_compose.model.signature import make_signature, signature_of, signature_xi
from da_compose.model.templates import TemplateBank
from da_compose.training.regularizers import (
    LEAST_SCALE,
    Regularization,
    min_entropy,
    template_attraction,
)

LAYERS, TEMPLATES = 4, 3
KERNELS = ("expand", "depthwise", "squeeze", "squeeze_bias", "excite", "excite_bias", "project")
NORMS = ("gamma", "beta")
Make = Callable[..., TemplateBank]


@pytest.fixture
def make_bank() -> Make:
    def make(mixed_batch_norm: bool = True, noise: float = 0.5) -> TemplateBank:
        generator = torch.Generator().manual_seed(0)
        bank = TemplateBank(TEMPLATES, LAYERS, 3, 6, 2, mixed_batch_norm, generator).double()
        with torch.no_grad():
            for parameter in bank.parameters():
                parameter += noise * torch.randn(parameter.shape, generator=generator)
        return bank

    return make


def random_xi(seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(LAYERS, TEMPLATES, generator=generator, dtype=torch.float64)


def scales_of(bank: TemplateBank) -> dict[str, float]:
    names = KERNELS + NORMS if bank.mixed_batch_norm else KERNELS
    tensors = {name: getattr(bank, name).detach() for name in names}
    return {
        name: max(sum(float(x) ** 2 for x in tensor.flatten()) / tensor.numel(), LEAST_SCALE)
        for name, tensor in tensors.items()
    }


def slow_attraction(mixture: Tensor, bank: TemplateBank, scales: dict[str, float]) -> float:
    """One tensor, layer and element at a time, for scales that stay as they are."""
    total = 0.0
    for name, scale in scales.items():
        templates = getattr(bank, name).detach().flatten(1)
        for row in mixture.detach():
            main = max(range(TEMPLATES), key=lambda k, row=row: float(row[k]))
            for column in templates.T:
                generated = sum(float(row[k] * column[k]) for k in range(TEMPLATES))
                off = float(column[main]) - generated
                total += off**2 / scale / templates.shape[1] / LAYERS / len(scales)
    return total


# Minimum entropy


def test_min_entropy_of_known_mixtures() -> None:
    assert min_entropy(torch.full((5, 4), 0.25)).item() == pytest.approx(log(4))
    mixture = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    assert min_entropy(mixture).item() == pytest.approx(-(log(0.5) + log(0.8)) / 2)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), scale=st.floats(0, 20))
def test_min_entropy_lies_between_zero_and_log_k(seed: int, scale: float) -> None:
    value = min_entropy(random_xi(seed, scale).softmax(dim=1)).item()
    assert 0 <= value <= log(TEMPLATES) + 1e-12


def test_min_entropy_has_the_gradient_of_finite_differences() -> None:
    xi = random_xi().requires_grad_()
    assert torch.autograd.gradcheck(lambda xi: min_entropy(xi.softmax(dim=1)), [xi])


# Attraction of templates


@pytest.mark.parametrize("mixed_batch_norm", [True, False])
def test_attraction_equals_a_slow_loop(make_bank: Make, mixed_batch_norm: bool) -> None:
    bank, mixture = make_bank(mixed_batch_norm), random_xi().softmax(dim=1)
    expected = slow_attraction(mixture, bank, scales_of(bank))
    assert template_attraction(mixture, bank).item() == pytest.approx(expected)


@pytest.mark.parametrize("mixed_batch_norm", [True, False])
def test_attraction_has_the_gradients_of_finite_differences(
    make_bank: Make, mixed_batch_norm: bool
) -> None:
    bank, xi = make_bank(mixed_batch_norm), random_xi().requires_grad_()
    assert torch.autograd.gradcheck(lambda xi: template_attraction(xi.softmax(1), bank), [xi])

    mixture, scales, step = xi.detach().softmax(dim=1), scales_of(bank), 1e-5
    template_attraction(mixture, bank).backward()
    for name in KERNELS + NORMS:
        parameter = getattr(bank, name)
        if name not in scales:
            assert parameter.grad is None
            continue
        element = parameter.data.view(-1)[2:3]  # a view
        element += step
        above = slow_attraction(mixture, bank, scales)
        element -= 2 * step
        below = slow_attraction(mixture, bank, scales)
        element += step
        expected = (above - below) / (2 * step)
        assert parameter.grad.view(-1)[2].item() == pytest.approx(expected, rel=1e-5), name


def test_attraction_has_no_unit(make_bank: Make) -> None:
    bank, mixture = make_bank(), random_xi().softmax(dim=1)
    before = template_attraction(mixture, bank).item()
    with torch.no_grad():
        for power, parameter in enumerate(bank.parameters()):
            parameter *= 3**power
    assert template_attraction(mixture, bank).item() == pytest.approx(before)


def test_attraction_pulls_the_main_template_toward_the_generated_weights(make_bank: Make) -> None:
    bank = make_bank()
    mixture = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).repeat(LAYERS, 1)
    template_attraction(mixture, bank).backward()
    generated = bank.mix(mixture)
    for name in KERNELS + NORMS:
        parameter = getattr(bank, name)
        toward = (getattr(generated, name)[0] - parameter[0]).flatten()
        pull = -parameter.grad[0].flatten()
        assert torch.cosine_similarity(pull, toward, dim=0).item() == pytest.approx(1)


def test_tensors_of_zeros_add_nothing(make_bank: Make) -> None:
    bank, xi = make_bank(noise=0.0), random_xi().requires_grad_()
    assert not bank.squeeze_bias.any() and not bank.beta.any()
    value = template_attraction(xi.softmax(dim=1), bank)
    value.backward()
    assert value > 0
    for tensor in (xi, *bank.parameters()):
        assert tensor.grad is not None and tensor.grad.isfinite().all()
    assert bank.beta.grad is not None and not bank.beta.grad.any()


# Both


@pytest.mark.parametrize("kind", ["progressive", "cyclic", "random"])
def test_both_are_exactly_zero_at_one_hot_xi(make_bank: Make, kind: str) -> None:
    bank = make_bank().float()
    xi = signature_xi(make_signature(kind, LAYERS, TEMPLATES), TEMPLATES).requires_grad_()
    loss = Regularization(min_entropy=1.0, template_attraction=1.0).loss(xi.softmax(dim=1), bank)
    loss.backward()
    assert loss.item() == 0
    for tensor in (xi, *bank.parameters()):
        assert tensor.grad is not None and not tensor.grad.any()


@pytest.mark.parametrize("name", ["min_entropy", "template_attraction"])
def test_descent_on_xi_alone_ends_at_one_hot(make_bank: Make, name: str) -> None:
    bank, regularization = make_bank().requires_grad_(False), Regularization(**{name: 1.0})
    xi = random_xi().requires_grad_()
    signature = signature_of(xi)
    optimizer = torch.optim.Adam([xi], lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        regularization.loss(xi.softmax(dim=1), bank).backward()
        optimizer.step()
    mixture = xi.detach().softmax(dim=1)
    assert (mixture.amax(dim=1) > 0.99).all()
    assert signature_of(mixture) == signature


def test_loss_is_the_weighted_sum(make_bank: Make) -> None:
    bank, mixture = make_bank(), random_xi().softmax(dim=1)
    loss = Regularization(min_entropy=0.3, template_attraction=2.0).loss(mixture, bank)
    expected = 0.3 * min_entropy(mixture) + 2.0 * template_attraction(mixture, bank)
    torch.testing.assert_close(loss, expected)


def test_penalties_of_weight_zero_are_left_out(make_bank: Make) -> None:
    bank, mixture = make_bank(), random_xi().softmax(dim=1)
    assert Regularization().loss(mixture, bank).item() == 0
    assert not Regularization(min_entropy=1.0).loss(mixture, bank).requires_grad  # no templates


@pytest.mark.parametrize("name", ["min_entropy", "template_attraction"])
@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_weights_below_zero_or_not_finite_are_refused(name: str, weight: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a weight of at least 0, got {weight}"):
        Regularization(**{name: weight})
