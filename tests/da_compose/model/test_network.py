from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from da_compose import PRESETS, CompositionalNetwork, Domain, NetworkConfig, probabilities
from da_compose.model.mixture import FixedSignature


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_domain_of_the_digits_network_has_64_mixture_weights() -> None:
    network = CompositionalNetwork(NetworkConfig())
    domain = network.new_domain("target")
    assert sum(parameter.numel() for parameter in domain.parameters()) == 64


def test_input_adapter_of_the_digits_network_has_1224_parameters() -> None:
    network = CompositionalNetwork(NetworkConfig())
    assert sum(p.numel() for p in network.input_adapter.parameters()) == 1_224


def test_shared_parameters_are_all_but_the_domains(make_network) -> None:
    network = make_network()
    shared = {id(parameter) for parameter in network.shared_parameters()}
    domains = {id(parameter) for parameter in network.domains.parameters()}
    assert shared.isdisjoint(domains)
    assert shared | domains == {id(parameter) for parameter in network.parameters()}


@pytest.mark.parametrize("mixed_batch_norm", [True, False])
def test_unshared_network_gives_each_block_its_own_template(
    make_config, mixed_batch_norm: bool
) -> None:
    config = make_config(mixed_batch_norm=mixed_batch_norm).unshared()
    network = CompositionalNetwork(config)
    domain = network.new_domain("a")
    assert type(network) is CompositionalNetwork
    assert config.num_templates == config.num_layers == 3
    assert isinstance(domain.mixture, FixedSignature)
    assert domain.mixture().equal(torch.eye(3))
    assert not list(domain.parameters())
    for layer, weights in enumerate(network.templates.mix(domain.mixture()).layers()):
        for name, value in weights._asdict().items():
            assert value.equal(getattr(network.templates, name)[layer]), name


def test_xi_for_a_fixed_signature_is_refused(make_config) -> None:
    network = CompositionalNetwork(make_config().unshared())
    with pytest.raises(ValueError, match="fixed signature"):
        network.new_domain("a", torch.zeros(3, 3))


def test_repeated_signature_repeats_a_template(make_config) -> None:
    network = CompositionalNetwork(make_config(signature=(1, 1, 0)))
    weights = network.templates.mix(network.new_domain("a").mixture()).layers()
    assert weights[0].expand.equal(weights[1].expand)
    assert weights[2].expand.equal(network.templates.expand[0])


@pytest.mark.parametrize("mixed_batch_norm", [True, False])
def test_network_equals_a_slow_float64_reference(make_network, mixed_batch_norm: bool) -> None:
    network = make_network(mixed_batch_norm=mixed_batch_norm).double()
    domain, batch = network.domains["b"], images(4).double()
    torch.testing.assert_close(network(batch, domain), slow_logits(network, domain, batch))


def slow_logits(network: CompositionalNetwork, domain: Domain, batch: Tensor) -> Tensor:
    """The network in evaluation, image by image and, where it matters, channel by channel."""
    means, variances = iter(domain.mean.tolist()), iter(domain.var.tolist())

    def norm(features: list[Tensor], gamma: Tensor, beta: Tensor) -> list[Tensor]:
        return [
            (f - next(means)) / (next(variances) + 1e-5) ** 0.5 * g + b
            for f, g, b in zip(features, gamma, beta, strict=True)
        ]

    def maps(features: list[Tensor], kernel: Tensor) -> list[Tensor]:
        return [
            torch.stack([w * f for w, f in zip(row.flatten(), features, strict=True)]).sum(0)
            for row in kernel
        ]

    def forward(image: Tensor) -> Tensor:
        adapter, output = network.input_adapter, network.output_adapter
        patch, biases = network.config.patch_size, adapter.conv.bias
        assert biases is not None
        features = []
        for kernel, bias in zip(adapter.conv.weight, biases, strict=True):
            tiles = (
                (2 * image - 1).unfold(1, patch, patch).unfold(2, patch, patch)
            )  # (3, S, S, p, p)
            features.append((tiles * kernel[:, None, None]).sum((0, 3, 4)) + bias)
        features = [f.relu() for f in norm(features, adapter.gamma, adapter.beta)]
        for w in network.templates.mix(domain.mixture()).layers():
            e, c = len(w.expand), len(w.project)
            gammas, betas = w.gamma.split([e, e, c]), w.beta.split([e, e, c])
            hidden = [f.relu() for f in norm(maps(features, w.expand), gammas[0], betas[0])]
            hidden = [
                functional.conv2d(f[None, None], k[None], padding=1)[0, 0]
                for f, k in zip(hidden, w.depthwise, strict=True)
            ]
            hidden = [f.relu() for f in norm(hidden, gammas[1], betas[1])]
            pooled = torch.stack([f.mean() for f in hidden])
            gate = w.excite @ (w.squeeze @ pooled + w.squeeze_bias).relu() + w.excite_bias
            hidden = [f / (1 + (-g).exp()) for f, g in zip(hidden, gate, strict=True)]
            residual = norm(maps(hidden, w.project), gammas[2], betas[2])
            features = [f + r for f, r in zip(features, residual, strict=True)]
        hidden = norm(maps(features, output.before.weight), output.before_gamma, output.before_beta)
        pooled = torch.stack([f.relu().mean() for f in hidden])
        after = list(output.after.weight @ pooled)
        embedding = torch.stack(norm(after, output.after_gamma, output.after_beta)).relu()
        assert next(means, None) is None  # every statistic was used
        heads = [head for head in network.heads if isinstance(head, nn.Linear)]
        return torch.stack([head.weight @ embedding + head.bias for head in heads])

    logits = []
    for image in batch:
        means, variances = iter(domain.mean.tolist()), iter(domain.var.tolist())
        logits.append(forward(image))
    return torch.stack(logits, dim=1)


def test_prediction_does_not_depend_on_the_rest_of_the_batch(make_network) -> None:
    network = make_network()
    domain, batch = network.domains["a"], images(6)
    together = network(batch, domain)
    among_others = network(torch.cat([100 * images(3, seed=1), batch[:1]]), domain)
    for position in range(6):
        alone = network(batch[position : position + 1], domain)
        torch.testing.assert_close(alone[:, 0], together[:, position])
    torch.testing.assert_close(among_others[:, -1], together[:, 0])


def test_empty_batch_gives_no_predictions(make_network) -> None:
    network = make_network()
    assert network(images(0), network.domains["a"]).shape == (2, 0, 3)


def test_domains_with_other_statistics_or_xi_predict_differently(make_network) -> None:
    network = make_network()
    first = network(images(2), network.domains["a"])
    assert not torch.allclose(first, network(images(2), network.domains["b"]))


def test_parts_of_the_network_compose_to_the_whole(make_network) -> None:
    network = make_network()
    domain = network.domains["a"]
    block, embedding = network.features(images(4), domain)
    assert network.block_features(images(4), domain).equal(block)
    assert network.embed_block_features(block, domain).equal(embedding)
    assert network.classify(embedding, domain).equal(network(images(4), domain))
    assert block.shape == (4, 4, 2, 2)
    assert embedding.shape == (4, 5)


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (2, 3, 8, 4), (2, 3, 12, 12), (3, 8, 8)])
def test_images_of_the_wrong_shape_are_refused(make_network, shape: tuple[int, ...]) -> None:
    network = make_network()
    with pytest.raises(ValueError, match=r"must have shape \(batch, 3, 8, 8\), got"):
        network(torch.zeros(shape), network.domains["a"])


def test_grey_pixels_are_as_many_equal_channels(make_network) -> None:
    network = make_network()
    grey, domain = torch.rand(4, 1, 8, 8), network.domains["a"]
    assert network(grey, domain).equal(network(grey.repeat(1, 3, 1, 1), domain))


def test_whole_numbers_are_no_pixels(make_network) -> None:
    network = make_network()
    with pytest.raises(ValueError, match=r"float pixels in \[0, 1\], got torch.uint8"):
        network(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), network.domains["a"])


def test_modes_of_the_network_do_not_choose_how_a_domain_computes(make_network) -> None:
    network = make_network().train()
    new = network.new_domain("new").train()
    network.domains.add(new)
    for domain in (new, network.domains["a"]):
        before = domain.mean.clone()
        expected = network(images(4), domain)
        assert network.eval()(images(4), domain).equal(expected)
        assert domain.mean.equal(before)
        network.train()


@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 3), (1, 3, 2)])
def test_xi_of_the_wrong_shape_is_refused(make_network, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"xi must have shape \(3, 2\) .* got"):
        make_network().new_domain("c", torch.zeros(shape))


def test_new_domain_on_a_frozen_network_leaves_everything_else_bit_identical(make_network) -> None:
    network = make_network().requires_grad_(False)
    before = snapshot(network)
    del before["domains._extra_state"]  # the names of the domains
    predicted = [network(images(4), domain) for domain in network.domains]
    domain = network.new_domain("target", torch.zeros(3, 2))
    network.domains.add(domain)
    optimizer = torch.optim.Adam(domain.parameters(), lr=0.1)
    for step in range(3):
        loss = network(images(4, seed=step), domain.use_batch_statistics()).square().sum()
        loss.backward()
        optimizer.step()
    after = network.state_dict()
    assert all(after[name].equal(value) for name, value in before.items())
    assert not domain.mixture.xi.equal(torch.zeros(3, 2))
    assert {name for name in after if name not in before} == {
        "domains._extra_state",
        *(f"domains._domains.2.{part}" for part in ("mean", "var", "mixture.xi")),
    }
    for old, known in zip(predicted, network.domains, strict=False):
        assert network(images(4), known).equal(old)


def test_own_input_adapter_and_heads_take_the_place_of_the_networks(make_network) -> None:
    network, other = make_network(), make_network(seed=1)
    domain = network.domains["a"]
    domain.input_adapter, domain.heads = other.input_adapter, other.heads
    own = network(images(4), domain)
    network.input_adapter, network.heads = other.input_adapter, other.heads
    domain.input_adapter = domain.heads = None
    assert network(images(4), domain).equal(own)


def test_seed_decides_the_weights_and_global_random_state_is_left_alone(make_config) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, same, other = (CompositionalNetwork(make_config(), seed=s) for s in (0, 0, 1))
    assert torch.rand(1).equal(expected)
    state = first.state_dict()
    assert all(value.equal(state[name]) for name, value in same.state_dict().items())
    assert not other.templates.expand.equal(first.templates.expand)


def test_statistics_count_every_batch_norm() -> None:
    config = NetworkConfig(channels=24, expansion=4, hidden=128, embedding=256, num_layers=16)
    assert config.num_statistics == 24 + 16 * (96 + 96 + 24) + 128 + 256


def test_presets_have_the_papers_sizes() -> None:
    assert (PRESETS["small"].channels, PRESETS["small"].embedding) == (24, 256)
    assert (PRESETS["large"].channels, PRESETS["large"].embedding) == (40, 1280)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"squeeze": 0}, "squeeze must be at least 1"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"image_size": 30}, "image_size 30 must be a multiple of patch_size 4"),
        ({"signature": (0, 1)}, "signature has 2 entries for 16 layers"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**changes)


def test_probabilities_average_the_softmaxes_of_both_heads() -> None:
    logits = torch.randn(2, 4, 3)
    expected = torch.stack([(row.exp() / row.exp().sum()) for row in logits.reshape(8, 3)])
    torch.testing.assert_close(probabilities(logits), expected.view(2, 4, 3).mean(dim=0))
