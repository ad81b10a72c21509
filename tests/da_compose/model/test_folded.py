import pytest
import torch
from torch import Tensor

from da_compose.model.blocks import isometric_block
from da_compose.model.config import NetworkConfig
from da_compose.model.folded import FoldedWeights, fold, folded_block
from da_compose.model.network import CompositionalNetwork


def network_of(mixed_batch_norm: bool = True) -> CompositionalNetwork:
    config = NetworkConfig(
        num_layers=2, num_templates=3, channels=4, expansion=2, image_size=8, patch_size=2,
        hidden=6, embedding=5, num_classes=3, mixed_batch_norm=mixed_batch_norm,
    )  # fmt: skip
    network = CompositionalNetwork(config).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    domain = network.new_domain("a").double()
    domain.set_statistics(
        torch.randn(domain.mean.shape, generator=generator).double(),
        torch.rand(domain.var.shape, generator=generator).double() + 0.5,
    )
    network.domains.add(domain)
    return network


def features_of(batch: int = 3) -> Tensor:
    shape = (batch, 4, 4, 4)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return features.contiguous(memory_format=torch.channels_last)


def folded_of(network: CompositionalNetwork) -> FoldedWeights:
    domain, config = network.domains["a"], network.config
    statistics = [
        values[config.channels :][: config.num_layers * config.block_statistics].view(
            config.num_layers, config.block_statistics
        )
        for values in (domain.mean, domain.var)
    ]
    return fold(network.templates.mix(domain.mixture()), *statistics)


class _Statistics:
    """The norms of one block, as `isometric_block` takes them, from stored statistics."""

    def __init__(self, network: CompositionalNetwork, layer: int) -> None:
        self.domain = network.domains["a"].eval()
        self.position = network.config.channels + layer * network.config.block_statistics

    def norm(self, features: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        here = slice(self.position, self.position + features.shape[1])
        self.position += features.shape[1]
        mean, var = (v[here].view(1, -1, 1, 1) for v in (self.domain.mean, self.domain.var))
        scaled = (features - mean) / (var + 1e-5).sqrt()
        return scaled * gamma.view(1, -1, 1, 1) + beta.view(1, -1, 1, 1)


@pytest.mark.parametrize("mixed_batch_norm", [True, False])
@pytest.mark.parametrize("layer", [0, 1])
def test_folded_block_equals_the_block_with_batch_norm(layer: int, mixed_batch_norm: bool) -> None:
    network = network_of(mixed_batch_norm)
    weights = network.templates.mix(network.domains["a"].mixture()).layers()[layer]
    norms = _Statistics(network, layer)
    expected = isometric_block(features_of(), weights, norms)  # pyright: ignore[reportArgumentType]
    found = folded_block(features_of(), folded_of(network).layers()[layer])
    torch.testing.assert_close(found, expected)


def test_gradients_of_the_folded_block_equal_finite_differences() -> None:
    weights = [part.detach().requires_grad_() for part in folded_of(network_of()).layers()[0]]
    features = features_of(2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda image, *parts: folded_block(image, FoldedWeights(*parts)), (features, *weights)
    )


def test_gradients_of_the_folded_network_equal_those_through_batch_norm() -> None:
    network = network_of()
    domain = network.domains["a"].eval()
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    learned = [domain.mixture.xi, *network.input_adapter.parameters()]
    found = torch.autograd.grad(network(images, domain).square().sum(), learned)

    features = torch.relu(
        torch.nn.functional.batch_norm(
            network.input_adapter.conv(2 * images - 1), domain.mean[:4], domain.var[:4],
            network.input_adapter.gamma, network.input_adapter.beta,
        )
    )  # fmt: skip
    for layer, weights in enumerate(network.templates.mix(domain.mixture()).layers()):
        norms = _Statistics(network, layer)
        features = isometric_block(features, weights, norms)  # pyright: ignore[reportArgumentType]
    logits = network.classify(network.embed_block_features(features, domain), domain)
    expected = torch.autograd.grad(logits.square().sum(), learned)
    torch.testing.assert_close(found, expected)


def test_gradients_are_those_asked_for_whatever_else_is_frozen() -> None:
    parts = [part.detach() for part in folded_of(network_of()).layers()[0]]
    features = features_of().requires_grad_()
    (alone,) = torch.autograd.grad(
        folded_block(features, FoldedWeights(*parts)).square().sum(), [features]
    )
    learned = [part.clone().requires_grad_() for part in parts]
    together = torch.autograd.grad(
        folded_block(features, FoldedWeights(*learned)).square().sum(), [features, *learned]
    )
    of_weights = torch.autograd.grad(
        folded_block(features.detach(), FoldedWeights(*learned)).square().sum(), learned
    )
    torch.testing.assert_close(alone, together[0])
    torch.testing.assert_close(of_weights, together[1:])


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_any_memory_layout_and_batch_size_gives_the_same(batch: int) -> None:
    weights = folded_of(network_of()).layers()[0]
    features = features_of(batch)
    found = folded_block(features.contiguous(), weights)
    torch.testing.assert_close(found, folded_block(features, weights))
    assert found.shape == features.shape


def test_bfloat16_blocks_are_close_and_only_within_their_context() -> None:
    network, images = network_of().float(), torch.randn(5, 3, 8, 8)
    domain = network.domains["a"].eval()
    xi = domain.get_parameter("mixture.xi")

    def outcome() -> tuple[Tensor, Tensor]:
        features, embedding = network.features(images, domain)
        assert features.dtype == embedding.dtype == torch.float32
        (gradient,) = torch.autograd.grad(embedding.square().mean(), xi)
        return features.detach(), gradient

    plain, slope = outcome()
    with network.computing(torch.bfloat16):
        rounded, other = outcome()
    assert not torch.equal(rounded, plain)
    assert (rounded - plain).norm() < 0.02 * plain.norm()
    assert torch.cosine_similarity(other.flatten(), slope.flatten(), dim=0) > 0.99
    assert torch.equal(outcome()[0], plain)


def test_an_error_within_leaves_the_precision_as_it_was() -> None:
    network = network_of()
    with pytest.raises(RuntimeError), network.computing(torch.bfloat16):
        raise RuntimeError
    assert network.block_precision is None
