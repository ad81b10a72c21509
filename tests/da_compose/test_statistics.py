import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from da_compose.statistics import (
    Statistics,
    average_statistics,
    blend_statistics,
    estimate_statistics,
    shrunk_share,
)


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))


def random_statistics(seed: int) -> Statistics:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, generator=generator), torch.rand(6, generator=generator)


@pytest.mark.parametrize("sizes", [(7,), (4, 3), (4, 4, 2), (1, 5, 1)])
def test_estimate_equals_the_direct_computation_at_the_first_norm(
    make_network, sizes: tuple[int, ...]
) -> None:
    network = make_network()
    batches = list(images(sum(sizes)).split(sizes))
    mean, var = estimate_statistics(network, network.domains["a"], batches)
    with torch.no_grad():
        outputs = [network.input_adapter.conv(2 * batch - 1) for batch in batches]
    together = torch.cat(outputs)
    torch.testing.assert_close(mean[:4], together.mean(dim=(0, 2, 3)))
    doubled = [out if len(out) > 1 else out.repeat(2, 1, 1, 1) for out in outputs]
    variances = torch.stack([out.var(dim=(0, 2, 3)) for out in doubled])
    weights = torch.tensor([len(out) / sum(sizes) for out in outputs])
    torch.testing.assert_close(var[:4], weights @ variances)
    if len(sizes) == 1:
        torch.testing.assert_close(var[:4], together.var(dim=(0, 2, 3)))


def test_estimate_of_one_batch_reproduces_training_mode(make_network) -> None:
    """At every norm, the last ones included: training normalizes by the same moments."""
    network = make_network().double()
    domain, batch = network.domains["a"], images(64).double()
    domain.momentum = 1.0
    network(batch, domain.use_batch_statistics())
    expected = domain.mean.clone(), domain.var.clone()
    domain.momentum = 0.1
    estimated = estimate_statistics(network, domain, [batch])
    torch.testing.assert_close(estimated, expected)


def test_estimate_leaves_the_domain_as_it_was(make_network) -> None:
    network = make_network()
    domain = network.domains["a"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    estimate_statistics(network, domain, [images(4), images(3)])
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert not domain.batch_statistics
    assert domain.momentum == 0.1


def test_failing_batch_leaves_the_domain_as_it_was(make_network) -> None:
    network = make_network()
    domain = network.domains["a"].use_batch_statistics()
    before = domain.mean.clone()
    with pytest.raises(ValueError, match="images must have shape"):
        estimate_statistics(network, domain, [images(4), torch.zeros(2, 3, 4, 4)])
    assert domain.mean.equal(before)
    assert domain.momentum == 0.1
    assert domain.batch_statistics


def test_one_image_gives_finite_statistics(make_network) -> None:
    network = make_network()
    mean, var = estimate_statistics(network, network.domains["a"], [images(1)])
    assert mean.isfinite().all()
    assert var.isfinite().all()
    assert (var >= 0).all()


@pytest.mark.parametrize("batches", [[], [images(0)]])
def test_no_images_are_refused(make_network, batches: list[Tensor]) -> None:
    network = make_network()
    with pytest.raises(ValueError, match="no images"):
        estimate_statistics(network, network.domains["a"], batches)


def test_empty_batches_among_others_count_nothing(make_network) -> None:
    network = make_network()
    domain = network.domains["a"]
    expected = estimate_statistics(network, domain, [images(4)])
    found = estimate_statistics(network, domain, [images(0), images(4), images(0)])
    torch.testing.assert_close(found, expected)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), count=st.integers(1, 4), samples=st.integers(2, 9))
def test_average_is_that_of_an_equal_mixture(seed: int, count: int, samples: int) -> None:
    """Variances include the spread of the means."""
    generator = torch.Generator().manual_seed(seed)
    domains = torch.randn(count, samples, 5, generator=generator, dtype=torch.float64)
    domains += 3 * torch.randn(count, 1, 5, generator=generator, dtype=torch.float64)
    moments = [(domain.mean(0), domain.var(0, unbiased=False)) for domain in domains]
    mean, var = average_statistics(moments)
    pooled = domains.flatten(0, 1)
    torch.testing.assert_close(mean, pooled.mean(0))
    torch.testing.assert_close(var, pooled.var(0, unbiased=False))


@settings(deadline=None, max_examples=20)
@given(first=st.integers(0, 1000), second=st.integers(0, 1000), share=st.floats(0, 1))
def test_blend_is_linear_and_exact_at_its_ends(first: int, second: int, share: float) -> None:
    source, target = random_statistics(first), random_statistics(second)
    for found, end in ((0.0, source), (1.0, target)):
        mean, var = blend_statistics(source, target, found)
        assert mean.equal(end[0])
        assert var.equal(end[1])
    mean, var = blend_statistics(source, target, share)
    torch.testing.assert_close(mean, (1 - share) * source[0] + share * target[0])
    torch.testing.assert_close(var, (1 - share) * source[1] + share * target[1])


def test_blending_changes_neither_side() -> None:
    source, target = random_statistics(1), random_statistics(2)
    kept = source[0].clone(), target[0].clone()
    blend_statistics(source, target, 0.5)[0].add_(1)
    assert source[0].equal(kept[0])
    assert target[0].equal(kept[1])


def test_more_images_earn_a_larger_share() -> None:
    assert shrunk_share(16, 16) == 0.5
    assert shrunk_share(0, 16) == 0
    shares = [shrunk_share(count, 16) for count in (1, 10, 100, 1000)]
    assert shares == sorted(shares)
    assert shares[-1] < 1
