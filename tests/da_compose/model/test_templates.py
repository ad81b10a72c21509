import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from da_compose import Domain
from da_compose.model.mixture import FixedSignature, MixtureWeights
from da_compose.model.templates import BlockWeights, TemplateBank

LAYERS, TEMPLATES = 3, 2
KERNELS = ("expand", "depthwise", "squeeze", "squeeze_bias", "excite", "excite_bias", "project")
NORMS = ("gamma", "beta")


def make_bank(
    mixed_batch_norm: bool = True, num_templates: int = TEMPLATES, seed: int = 0
) -> TemplateBank:
    generator = torch.Generator().manual_seed(seed)
    bank = TemplateBank(num_templates, LAYERS, 4, 8, 2, mixed_batch_norm, generator)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    return bank


@pytest.mark.parametrize("mixed_batch_norm", [True, False])
def test_one_hot_xi_makes_each_block_its_template(mixed_batch_norm: bool) -> None:
    bank = make_bank(mixed_batch_norm)
    signature = [1, 0, 1]
    for layer, weights in enumerate(bank.mix(FixedSignature(signature, TEMPLATES)()).layers()):
        for name in KERNELS:
            assert getattr(weights, name).equal(getattr(bank, name)[signature[layer]]), name
        for name in NORMS:
            row = signature[layer] if mixed_batch_norm else layer
            assert getattr(weights, name).equal(getattr(bank, name)[row]), name


def test_saturated_softmax_makes_each_block_its_template() -> None:
    bank = make_bank()
    xi = torch.tensor([[200.0, 0.0], [0.0, 200.0], [200.0, 0.0]])
    for template, weights in zip((0, 1, 0), bank.mix(MixtureWeights(xi)()).layers(), strict=True):
        assert all(value.equal(getattr(bank, name)[template]) for name, value in named(weights))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), templates=st.integers(1, 4), scale=st.floats(0, 5))
def test_mixing_equals_a_slow_float64_loop(seed: int, templates: int, scale: float) -> None:
    bank = make_bank(num_templates=templates, seed=seed)
    xi = scale * torch.randn(LAYERS, templates, generator=torch.Generator().manual_seed(seed))
    mixed = bank.mix(MixtureWeights(xi)()).layers()
    for layer in range(LAYERS):
        powers = [xi[layer, k].double().exp() for k in range(templates)]
        for name, value in named(mixed[layer]):
            expected = torch.zeros(value.shape, dtype=torch.float64)
            for k in range(templates):
                expected += powers[k] / sum(powers) * getattr(bank, name)[k].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)


def test_uniform_xi_makes_each_block_the_mean_of_the_templates() -> None:
    bank = make_bank()
    for weights in bank.mix(MixtureWeights(torch.full((LAYERS, TEMPLATES), 7.0))()).layers():
        for name, value in named(weights):
            torch.testing.assert_close(value, getattr(bank, name).mean(dim=0))


def test_permuting_templates_together_with_xi_changes_nothing() -> None:
    bank, permuted = make_bank(num_templates=4), make_bank(num_templates=4)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for parameter in permuted.parameters():
            parameter.copy_(parameter[order])
    xi = torch.randn(LAYERS, 4, generator=torch.Generator().manual_seed(1))
    before = bank.mix(MixtureWeights(xi)()).layers()
    after = permuted.mix(MixtureWeights(xi[:, order])()).layers()
    for first, second in zip(before, after, strict=True):
        for name, value in named(first):
            torch.testing.assert_close(value, getattr(second, name))


@pytest.mark.parametrize("mixed_batch_norm", [True, False])
def test_gradient_of_xi_is_the_inner_product_of_weight_gradient_and_template(
    mixed_batch_norm: bool, make_network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(("a",), mixed_batch_norm=mixed_batch_norm).double()
    bank, domain = network.templates, network.domains["a"]
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64, generator=torch.Generator())

    def loss() -> Tensor:
        return network(images, domain).square().sum()

    (by_autograd,) = torch.autograd.grad(loss(), [domain.mixture.xi])
    mixture = domain.mixture().detach().requires_grad_()
    with monkeypatch.context() as patch:
        patch.setattr(domain.mixture, "forward", lambda: mixture)
        (direct_by_autograd,) = torch.autograd.grad(loss(), [mixture])

    # the same network, its mixed weights as variables of their own
    with torch.no_grad():
        mixed = bank.mix(mixture)
    leaves = BlockWeights(*(value.clone().requires_grad_() for value in mixed))
    monkeypatch.setattr(bank, "mix", lambda mixture: leaves)
    loss().backward()
    direct = torch.zeros_like(mixture)
    for layer in range(LAYERS):
        for template in range(TEMPLATES):
            for name, value in named(leaves):
                if name in KERNELS or mixed_batch_norm:
                    assert value.grad is not None
                    theta = getattr(bank, name)[template]
                    direct[layer, template] += (value.grad[layer] * theta).sum()
    torch.testing.assert_close(direct_by_autograd, direct)
    through_softmax = torch.zeros_like(mixture)
    for layer in range(LAYERS):
        m, g = mixture[layer].detach(), direct[layer]
        through_softmax[layer] = m * (g - (m * g).sum())
    torch.testing.assert_close(by_autograd, through_softmax.detach())
    assert by_autograd.abs().min() > 0


def test_template_of_the_paper_has_8520_weights() -> None:
    """At C = 24, E = 6, without squeeze-excite; beta stands for the convolutions' biases."""
    bank = TemplateBank(4, 16, 24, 24 * 6, 36, True, torch.Generator())
    parts = (bank.expand, bank.depthwise, bank.project, bank.beta)
    assert sum(part[0].numel() for part in parts) == 8_520


@pytest.mark.parametrize(("mixed_batch_norm", "rows"), [(True, TEMPLATES), (False, LAYERS)])
def test_norms_belong_to_templates_or_to_layers(mixed_batch_norm: bool, rows: int) -> None:
    bank = make_bank(mixed_batch_norm)
    assert len(bank.gamma) == len(bank.beta) == rows


def test_mixture_of_another_bank_is_refused() -> None:
    with pytest.raises(ValueError, match="weighs 3 templates, this bank holds 2"):
        make_bank().mix(torch.full((LAYERS, 3), 1 / 3))


def test_domains_with_the_same_xi_share_their_weights() -> None:
    bank = make_bank()
    xi = torch.randn(LAYERS, TEMPLATES)
    first, second = (Domain(name, MixtureWeights(xi), 1) for name in ("a", "b"))
    for one, other in zip(
        bank.mix(first.mixture()).layers(), bank.mix(second.mixture()).layers(), strict=True
    ):
        assert all(value.equal(getattr(other, name)) for name, value in named(one))


def named(weights: BlockWeights) -> list[tuple[str, Tensor]]:
    return list(weights._asdict().items())
