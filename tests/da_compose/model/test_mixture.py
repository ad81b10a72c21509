import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da_compose.model.mixture import FixedSignature, MixtureWeights, initial_xi


@settings(deadline=None, max_examples=25)
@given(
    layers=st.integers(1, 5),
    templates=st.integers(1, 5),
    scale=st.floats(0, 50),
    seed=st.integers(0, 99),
)
def test_rows_of_a_mixture_are_probabilities(
    layers: int, templates: int, scale: float, seed: int
) -> None:
    xi = initial_xi(layers, templates, scale, torch.Generator().manual_seed(seed))
    mixture = MixtureWeights(xi)()
    assert mixture.shape == (layers, templates)
    assert (mixture >= 0).all()
    torch.testing.assert_close(mixture.sum(dim=1), torch.ones(layers))


def test_mixture_keeps_a_copy_of_the_xi_it_starts_from() -> None:
    xi = torch.zeros(3, 2)
    mixture = MixtureWeights(xi)
    xi += 1
    assert mixture.xi.equal(torch.zeros(3, 2))


@pytest.mark.parametrize("shape", [(), (4,), (1, 2, 3)])
def test_xi_that_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(layers, templates\), got"):
        MixtureWeights(torch.zeros(shape))


def test_signature_is_one_hot_and_has_nothing_to_learn_or_to_save() -> None:
    signature = FixedSignature([2, 0, 2], num_templates=3)
    assert signature().tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1]]
    assert not list(signature.parameters())
    assert not signature.state_dict()


@pytest.mark.parametrize("wrong", [-1, 3])
def test_signature_of_unknown_templates_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"\[{wrong}\], there are 0\.\.2"):
        FixedSignature([0, wrong], num_templates=3)


def test_initial_xi_depends_on_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = initial_xi(3, 2, 1.0, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    assert first.equal(initial_xi(3, 2, 1.0, torch.Generator().manual_seed(5)))
    assert not first.equal(initial_xi(3, 2, 1.0, torch.Generator().manual_seed(6)))
