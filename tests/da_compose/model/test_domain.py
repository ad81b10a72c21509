import pytest
import torch

from da_compose import Domain
from da_compose.model.mixture import MixtureWeights
from da_compose.model.norms import NormCursor


def make_domain(name: str = "a", num_statistics: int = 5) -> Domain:
    return Domain(name, MixtureWeights(torch.zeros(3, 2)), num_statistics)


@pytest.mark.parametrize("name", ["", " ", "two words", "a/b", ".hidden", "-x", "ä", "a\n"])
def test_names_that_are_no_plain_word_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"domain name .*use letters"):
        make_domain(name)


@pytest.mark.parametrize("name", ["pop", "items", "keys", "forward", "train", "0", "a.b-c_d"])
def test_any_plain_word_is_a_name(name: str, make_network) -> None:
    network = make_network(domains=("a", name))
    assert network.domains.names == ("a", name)
    assert network.domains[name].name == name
    assert name in network.domains
    assert network(torch.zeros(1, 3, 8, 8), network.domains[name]).shape == (2, 1, 3)


def test_second_domain_of_a_name_is_refused(make_network) -> None:
    network = make_network()
    with pytest.raises(ValueError, match="domain 'a' exists already; choose another name"):
        network.domains.add(network.new_domain("a"))
    assert network.domains.names == ("a", "b")


def test_unknown_domain_is_refused_with_the_names_there_are(make_network) -> None:
    with pytest.raises(ValueError, match="no domain 'c'; there are: a, b"):
        make_network().domains["c"]
    with pytest.raises(ValueError, match="no domain 'c'; there are: none"):
        make_network(()).domains["c"]


def test_names_in_an_error_are_few_where_the_domains_are_many(make_network) -> None:
    table = make_network(()).domains
    for number in range(25):
        table.add(make_domain(f"site-{number}"))
    with pytest.raises(ValueError, match=r"there are: site-0, .*, site-19, and 5 more$"):
        table["other"]


def test_table_keeps_the_order_of_addition(make_network) -> None:
    network = make_network(domains=("z", "a", "m"))
    assert [domain.name for domain in network.domains] == ["z", "a", "m"]
    assert len(network.domains) == 3


@pytest.mark.parametrize("wrong", [(5, 4), (4, 5), (1, 1)])
def test_statistics_of_another_network_are_refused(wrong: tuple[int, int]) -> None:
    domain = make_domain()
    with pytest.raises(ValueError, match=r"must have shape \(5,\)"):
        domain.set_statistics(torch.zeros(wrong[0]), torch.ones(wrong[1]))
    assert domain.mean.equal(torch.zeros(5))


def test_set_statistics_copies() -> None:
    domain, mean, var = make_domain(), torch.full((5,), 2.0), torch.full((5,), 3.0)
    domain.set_statistics(mean, var)
    mean += 1
    assert domain.mean.tolist() == [2.0] * 5
    assert domain.var.tolist() == [3.0] * 5


def test_norm_equals_its_formula_and_walks_through_the_statistics() -> None:
    domain = make_domain().eval()
    domain.set_statistics(torch.arange(5.0), torch.arange(5.0) + 1)
    features, gamma, beta = torch.randn(4, 2, 3, 3), torch.randn(2), torch.randn(2)
    norms = NormCursor(domain)
    norms.skip(3)
    normed = norms.norm(features, gamma, beta)
    for channel in range(2):
        expected = (features[:, channel] - (3 + channel)) / (4 + channel + 1e-5) ** 0.5
        expected = expected * gamma[channel] + beta[channel]
        torch.testing.assert_close(normed[:, channel], expected)


def test_training_updates_the_statistics_of_that_domain_alone(make_network) -> None:
    network = make_network(domains=("a", "b", "c"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(4, 3, 8, 8), network.domains["b"].use_batch_statistics())
    changed = {
        name for name, value in network.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {"domains._domains.1.mean", "domains._domains.1.var"}
    moved = network.domains["b"].mean != before["domains._domains.1.mean"]
    assert moved.all()  # every batch norm's slice was reached, none left out


def test_evaluation_updates_no_statistics(make_network) -> None:
    network = make_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(4, 3, 8, 8), network.domains["a"])
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
