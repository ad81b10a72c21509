from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da_compose import Backbone, load_adapter, save_adapter
from da_compose.model.mixture import FixedSignature, MixtureWeights
from da_compose.model.signature import (
    SIGNATURES,
    format_signature,
    harden,
    make_signature,
    num_runs,
    parse_signature,
    sharpness,
    signature_of,
    signature_xi,
)

shapes = given(num_layers=st.integers(1, 40), num_templates=st.integers(1, 20))
few = settings(deadline=None, max_examples=50)


def runs(signature: tuple[int, ...]) -> list[tuple[int, int]]:
    """(template, length) of each contiguous run."""
    return [(template, len(list(run))) for template, run in groupby(signature)]


@pytest.mark.parametrize(
    ("kind", "num_layers", "text"),
    [
        ("sequential", 8, "1,1,2,2,3,3,4,4"),
        ("sequential", 6, "1,1,2,3,3,4"),
        ("cyclic", 6, "1,2,3,4,1,2"),
        ("progressive", 12, "1,2,2,3,3,3,3,4,4,4,4,4"),
        ("progressive", 5, "1,2,3,4,4"),
        ("progressive", 4, "1,2,3,4"),
    ],
)
def test_kinds_of_signature_are_those_of_the_paper(kind: str, num_layers: int, text: str) -> None:
    assert format_signature(make_signature(kind, num_layers, num_templates=4)) == text


@few
@given(
    kind=st.sampled_from(SIGNATURES),
    num_layers=st.integers(1, 40),
    num_templates=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_text_of_a_signature_is_read_back(
    kind: str, num_layers: int, num_templates: int, seed: int
) -> None:
    if kind == "progressive":
        num_layers = max(num_layers, num_templates)
    signature = make_signature(kind, num_layers, num_templates, seed)
    assert len(signature) == num_layers
    assert set(signature) <= set(range(num_templates))
    assert parse_signature(kind, num_layers, num_templates, seed) == signature
    assert parse_signature(format_signature(signature), num_layers, num_templates) == signature


@few
@shapes
def test_sequential_runs_are_in_order_and_equal_but_for_one_layer(
    num_layers: int, num_templates: int
) -> None:
    found = runs(make_signature("sequential", num_layers, num_templates))
    templates, lengths = zip(*found, strict=True)
    assert list(templates) == sorted(set(templates))
    assert len(templates) == min(num_layers, num_templates)
    assert max(lengths) - min(lengths) <= 1


@few
@shapes
def test_progressive_runs_never_shrink_and_use_every_template(
    num_layers: int, num_templates: int
) -> None:
    num_layers += num_templates - 1
    found = runs(make_signature("progressive", num_layers, num_templates))
    templates, lengths = zip(*found, strict=True)
    assert templates == tuple(range(num_templates))
    assert list(lengths) == sorted(lengths)
    if num_layers > num_templates > 1:
        assert lengths[-1] > lengths[0]


def test_random_signature_depends_on_its_seed_alone() -> None:
    first = make_signature("random", 40, 4, seed=1)
    torch.manual_seed(7)
    assert first == make_signature("random", 40, 4, seed=1)
    assert first != make_signature("random", 40, 4, seed=2)
    assert set(first) == set(range(4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cylic", "'cylic' is neither one of sequential, cyclic, .* nor .* such as 1,2,2,3"),
        ("", "'' is neither"),
        ("1,2,", "'1,2,' is neither"),
        ("1,2", "names 2 templates, expected one for each of the 3 layers"),
        ("0,1,3", r"names templates \[0, 3\], there are 1\.\.2"),
    ],
)
def test_text_that_is_no_signature_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_signature(text, num_layers=3, num_templates=2)


def test_blanks_between_template_numbers_are_allowed() -> None:
    assert parse_signature("1, 2, 2", num_layers=3, num_templates=2) == (0, 1, 1)


def test_signatures_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ValueError, match=r"each of the 4 templates, .* got 3; take more layers"):
        make_signature("progressive", 3, 4)
    with pytest.raises(ValueError, match="no kind of signature 'spiral'; there are: sequential"):
        make_signature("spiral", 3, 4)
    with pytest.raises(ValueError, match="got 3 and 0"):
        make_signature("cyclic", 3, 0)


def test_runs_are_counted() -> None:
    assert num_runs((0, 0, 1, 0)) == 3
    assert num_runs(make_signature("progressive", 12, 4)) == 4
    assert num_runs(make_signature("cyclic", 12, 4)) == 12


def test_signature_and_sharpness_are_the_place_and_size_of_the_largest_weight() -> None:
    mixture = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0], [0.25, 0.25, 0.5]])
    assert signature_of(mixture) == (1, 0, 2)
    assert sharpness(mixture).tolist() == pytest.approx([0.5, 0.9, 0.5])


@few
@given(
    signature=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    share=st.floats(0.26, 1, exclude_max=True),
)
def test_xi_of_a_signature_has_the_share_it_was_given(signature: list[int], share: float) -> None:
    mixture = signature_xi(signature, 4, share).softmax(dim=1)
    assert signature_of(mixture) == tuple(signature)
    torch.testing.assert_close(sharpness(mixture), torch.full((len(signature),), share))
    others = mixture.sort(dim=1).values[:, :-1]
    torch.testing.assert_close(others, torch.full_like(others, (1 - share) / 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_templates", [1, 4])
def test_xi_of_share_1_is_finite_and_exactly_one_hot(
    dtype: torch.dtype, num_templates: int
) -> None:
    signature = make_signature("cyclic", 6, num_templates)
    xi = signature_xi(signature, num_templates).to(dtype)
    assert xi.isfinite().all()
    expected = FixedSignature(signature, num_templates)().to(dtype)
    assert MixtureWeights(xi)().equal(expected)


@pytest.mark.parametrize("share", [-1.0, 0.25, 1.01, torch.nan])
def test_share_that_does_not_show_the_signature_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must be above 1/K = 0.25"):
        signature_xi((0, 1), 4, share)


def test_hardened_domain_predicts_as_the_network_of_its_signature(make_network) -> None:
    network = make_network()
    domain = network.domains["a"]
    before = {name: value.clone() for name, value in domain.state_dict().items()}
    hardened = harden(domain)
    signature = signature_of(domain.mixture())
    assert isinstance(hardened.mixture, MixtureWeights)
    assert hardened.mixture().equal(FixedSignature(signature, 2)())
    assert not domain.mixture().equal(hardened.mixture())
    assert all(value.equal(before[name]) for name, value in domain.state_dict().items())
    assert hardened.mean.equal(domain.mean) and hardened.var.equal(domain.var)

    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fixed = make_network(signature=signature)
    fixed.load_state_dict(network.state_dict(), strict=False)  # all but what it has no place for
    assert network(images, hardened).equal(fixed(images, fixed.domains["a"]))


def test_hardening_twice_changes_nothing_more(make_network) -> None:
    once = harden(make_network().domains["a"])
    twice = harden(once).state_dict()
    assert all(value.equal(twice[name]) for name, value in once.state_dict().items())


def test_hardened_domain_is_saved_and_loaded(make_network, tmp_path) -> None:
    backbone = Backbone(make_network(), ("x", "y", "z"), {})
    hardened = harden(backbone.network.domains["a"])
    save_adapter(tmp_path / "a.safetensors", backbone, hardened, {})
    loaded, _ = load_adapter(tmp_path / "a.safetensors", backbone)
    assert loaded.mixture().equal(hardened.mixture())


def test_domain_of_a_fixed_signature_is_copied(make_network) -> None:
    domain = make_network(("a",), signature=(1, 0, 1)).domains["a"]
    hardened = harden(domain)
    assert hardened is not domain
    assert isinstance(hardened.mixture, FixedSignature)
    assert hardened.mixture().equal(domain.mixture())
    hardened.mean += 1
    assert not hardened.mean.equal(domain.mean)
