from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from da_compose import CompositionalNetwork, Domain, probabilities
from da_compose.model.batched import (
    FEW_ROWS,
    depthwise_grouped,
    features_many,
    forward_many,
    predict_rows,
)
from da_compose.model.mixture import MixtureWeights


@pytest.fixture
def network(make_network) -> CompositionalNetwork:
    """Three domains with xi and statistics of their own; `b` also has its own adapter and heads."""
    network = make_network(("a", "b", "c")).double().eval()
    generator = torch.Generator().manual_seed(3)
    for domain in network.domains:
        domain.set_statistics(
            torch.randn(domain.mean.shape, generator=generator).double(),
            torch.rand(domain.var.shape, generator=generator).double() + 0.5,
        )
        with torch.no_grad():
            domain.mixture.xi += torch.randn(domain.mixture.xi.shape, generator=generator)
    own = network.domains["b"]
    own.input_adapter = deepcopy(network.input_adapter)
    own.heads = deepcopy(network.heads)
    with torch.no_grad():
        for parameter in (*own.input_adapter.parameters(), *own.heads.parameters()):
            parameter += 0.3
    return network


def images_of(*leading: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(*leading, 3, 8, 8, generator=generator, dtype=torch.float64)


def test_one_pass_equals_a_pass_a_domain(network: CompositionalNetwork) -> None:
    domains, images = list(network.domains), images_of(3, 4)
    block, embedding = features_many(network, domains, images)
    logits = forward_many(network, domains, images)
    for place, domain in enumerate(domains):
        expected = network.features(images[place], domain)
        torch.testing.assert_close(block[place], expected[0])
        torch.testing.assert_close(embedding[place], expected[1])
        torch.testing.assert_close(logits[:, place], network(images[place], domain))


@pytest.mark.parametrize("shape", ["unshared", "own gamma and beta"])
def test_other_networks_too(make_network, shape: str) -> None:
    changes = {"mixed_batch_norm": False} if shape != "unshared" else {}
    network = make_network(("a", "b"), **changes).eval()
    if shape == "unshared":
        network = CompositionalNetwork(network.config.unshared()).eval()
        for name in ("a", "b"):
            network.domains.add(network.new_domain(name))
    images = images_of(2, 3).float()
    found = forward_many(network, list(network.domains), images)
    for place, domain in enumerate(network.domains):
        torch.testing.assert_close(found[:, place], network(images[place], domain))


def test_gradients_of_every_xi_are_those_of_its_own_domain(network: CompositionalNetwork) -> None:
    domains, images = list(network.domains), images_of(3, 4)

    def xi(domain: Domain) -> Tensor:
        assert isinstance(domain.mixture, MixtureWeights)
        return domain.mixture.xi

    together = torch.autograd.grad(
        forward_many(network, domains, images).square().sum(), [xi(domain) for domain in domains]
    )
    for place, domain in enumerate(domains):
        loss = network(images[place], domain).square().sum()
        torch.testing.assert_close(together[place], torch.autograd.grad(loss, [xi(domain)])[0])


def test_grouped_depthwise_convolution_equals_one_a_domain() -> None:
    image, kernel, bias = torch.randn(2, 3, 4, 4, 5), torch.randn(2, 5, 1, 3, 3), torch.randn(2, 5)
    found = depthwise_grouped(image, kernel, bias)
    for place in range(2):
        expected = functional.conv2d(
            image[place].permute(0, 3, 1, 2), kernel[place], bias[place], padding=1, groups=5
        )
        torch.testing.assert_close(found[place], expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("most", [2, FEW_ROWS + 1])
def test_rows_of_many_domains_are_predicted_as_their_own_domain_does(
    network: CompositionalNetwork, most: int
) -> None:
    names = ["c", "a", "b", *["a"] * (most - 1), "c"]
    images = images_of(len(names))
    found = predict_rows(network, images, names)
    for row, name in enumerate(names):
        expected = probabilities(network(images[row : row + 1], network.domains[name]))[0]
        torch.testing.assert_close(found[row], expected)
    assert not found.requires_grad


def test_no_rows_give_no_predictions(network: CompositionalNetwork) -> None:
    assert predict_rows(network, images_of(0), []).shape == (0, network.config.num_classes)


def test_unknown_domain_and_wrong_number_of_names_are_refused(
    network: CompositionalNetwork,
) -> None:
    with pytest.raises(ValueError, match="no domain 'd'; there are: a, b, c"):
        predict_rows(network, images_of(1), ["d"])
    with pytest.raises(ValueError, match="2 images and 1 names"):
        predict_rows(network, images_of(2), ["a"])


def test_normalized_images_are_refused(network: CompositionalNetwork) -> None:
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\], got values from -1 to 1;"):
        predict_rows(network, images_of(2).round() * 2 - 1, ["a", "b"])
