"""A compositional network on an ordinary one: exact properties, on tiny modules."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from da_compose import predict_rows, probabilities
from da_compose.model.batched import features_many
from da_compose.model.plain import materialize
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.statistics import estimate_statistics
from tests.tiny_modules import (
    CLASSES,
    KINDS,
    SIZE,
    TinyTransformer,
    tiny_module,
    tiny_pretrained,
)

every_kind = pytest.mark.parametrize("kind", KINDS)


def pixels(count: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, SIZE, SIZE, generator=generator, dtype=dtype)


def normalized(images: Tensor, network: PretrainedNetwork) -> Tensor:
    return (images - network.mean) / network.std


@every_kind
@pytest.mark.parametrize("num_templates", [0, 2])
def test_at_xi_zero_it_is_the_plain_module(kind: str, num_templates: int):
    module, network = tiny_module(kind), tiny_pretrained(kind, num_templates)
    images = pixels()
    with torch.no_grad():
        block, embedding = network.features(images, network.new_domain("new"))
        expected = module.embed(normalized(images, network))
    torch.testing.assert_close(embedding, expected, rtol=1e-6, atol=1e-6)
    assert block.shape == (5, network.config.channels, *block.shape[2:])


@every_kind
def test_the_given_module_stays_as_it_is(kind: str):
    module = tiny_module(kind).train()
    before = deepcopy(module.state_dict())
    network = PretrainedNetwork.of(module, num_classes=CLASSES, image_size=SIZE)
    estimate_statistics(network, network.new_domain("new"), [pixels()])
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_shape_and_directions_are_those_of_the_module():
    network = tiny_pretrained(num_templates=4)
    config = network.config
    assert config.blocks == ("blocks.0", "blocks.1", "blocks.2")
    assert (config.num_layers, config.num_templates, config.channels) == (3, 4, 6)
    assert (config.embedding, config.num_statistics) == (10, 6 + 3 * 12 + 10)
    assert network.templates.directions.shape == (4, 3 * 24)
    assert set(network.values_of(network.new_domain("new"))) == {
        f"blocks.{layer}.{norm}.{part}"
        for layer in range(3)
        for norm in ("norm1", "norm2")
        for part in ("weight", "bias")
    }
    assert sum(p.numel() for p in network.input_adapter.parameters()) == 27 * 6 + 12


def test_kernels_move_along_directions_where_they_are_named():
    network = PretrainedNetwork.of(
        tiny_module(), num_classes=CLASSES, image_size=SIZE, displaced=["*.first.weight"]
    )
    count = 3 * (24 + 6 * 6 * 9)
    network = network.with_directions(torch.ones(1, count))
    domain = network.new_domain("new", torch.tensor([[0.0], [0.5], [0.0]]))
    module = tiny_module()
    with torch.no_grad():
        for part in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "first.weight"):
            module.blocks.get_parameter(f"1.{part}").add_(0.5)
        expected = module.embed(normalized(pixels(), network))
        torch.testing.assert_close(network.features(pixels(), domain)[1], expected)
    with pytest.raises(ValueError, match=r"no weight of the blocks is named 'nothing'"):
        PretrainedNetwork.of(
            tiny_module(), num_classes=CLASSES, image_size=SIZE, displaced=["nothing"]
        )


def test_weights_after_the_blocks_move_with_the_last_one():
    network = PretrainedNetwork.of(
        tiny_module(), num_classes=CLASSES, image_size=SIZE, displaced=["*"]
    )
    layers = dict(zip(network.templates.names, network.templates.shapes, strict=True))
    assert layers["last.weight"] == (10, 6, 1, 1) and layers["last_norm.bias"] == (10,)
    count = network.templates.directions.shape[1]
    network = network.with_directions(torch.ones(1, count))
    domain = network.new_domain("new", torch.tensor([[0.0], [0.0], [0.5]]))
    module, images = tiny_module(), pixels()
    with torch.no_grad():
        for part in map(module.get_submodule, ("blocks.2", "last", "last_norm")):
            for parameter in part.parameters():
                parameter.add_(0.5)
        block, embedding = network.features(images, domain)
        torch.testing.assert_close(embedding, module.embed(normalized(images, network)))
        torch.testing.assert_close(network.embed_block_features(block, domain), embedding)
        network.own_batch_norm(domain)
        torch.testing.assert_close(network.features(images, domain)[1], embedding)
        plain = materialize(network, domain)
        torch.testing.assert_close(plain(images), network(images, domain), rtol=1e-5, atol=1e-4)


class Nested(TinyTransformer):
    """A part of torch's own that holds weights in parts of its own."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 6, 0.0, batch_first=True)
        self.blocks = nn.ModuleList([nn.Sequential(layer), nn.Sequential(deepcopy(layer))])


def test_weights_inside_parts_of_torch_move():
    module = Nested().eval()
    network = PretrainedNetwork.of(
        module,
        num_classes=CLASSES,
        image_size=SIZE,
        blocks=["blocks.0", "blocks.1"],
        displaced=["*.self_attn.out_proj.weight"],
    )
    count = network.templates.directions.shape[1]
    network = network.with_directions(torch.ones(1, count))
    domain = network.new_domain("new", torch.full((2, 1), 0.5))
    with torch.no_grad():
        for name in network.templates.names:
            module.get_parameter(name).add_(0.5)
        found = network.features(pixels(), domain)[1]
        torch.testing.assert_close(found, module.embed(normalized(pixels(), network)))


@every_kind
def test_a_layer_goes_along_its_own_directions_alone(kind: str):
    network = tiny_pretrained(kind, num_templates=2)
    xi = torch.zeros(network.config.num_layers, 2)
    xi[1, 0], xi[1, 1] = 0.7, -2.0
    own = network.values_of(network.new_domain("moved", xi))
    plain = network.values_of(network.new_domain("plain"))
    directions = network.templates.by_name(torch.tensor([0.7, -2.0]) @ network.templates.directions)
    for name, value in own.items():
        change = directions[name] if name.startswith("blocks.1.") else 0
        torch.testing.assert_close(value, plain[name] + change)


def test_a_prediction_depends_on_one_image_alone():
    network = tiny_pretrained(domains=("a",))
    images, domain = pixels(), network.domains["a"]
    with torch.no_grad():
        together = network(images, domain)
        alone = torch.cat([network(image[None], domain) for image in images], dim=1)
    torch.testing.assert_close(together, alone)


def test_batch_statistics_are_those_of_the_batch_and_move_the_stored_ones():
    network = tiny_pretrained(domains=("a",))
    module, domain = tiny_module().train(), network.new_domain("new")
    domain.use_batch_statistics().momentum = 0.1
    with torch.no_grad():
        _, embedding = network.features(pixels(), domain)
        expected = module.embed(normalized(pixels(), network))
    torch.testing.assert_close(embedding, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(domain.mean[:6], module.get_buffer("norm.running_mean"))
    torch.testing.assert_close(domain.var[-10:], module.get_buffer("last_norm.running_var"))


@every_kind
def test_gradient_of_xi_is_that_of_finite_differences(kind: str):
    network = tiny_pretrained(kind).double()
    xi = 0.3 * torch.randn(network.config.num_layers, 2, dtype=torch.float64)

    def loss(xi: Tensor) -> Tensor:
        domain = network.new_domain("new", xi)
        domain.mixture.xi = nn.Parameter(xi)
        return network(pixels(dtype=torch.float64), domain).square().mean()

    start = nn.Parameter(xi)
    domain = network.new_domain("new")
    domain.mixture.xi = start
    (gradient,) = torch.autograd.grad(
        network(pixels(dtype=torch.float64), domain).square().mean(), [start]
    )
    for place in ((0, 0), (1, 1)):
        step = torch.zeros_like(xi)
        step[place] = 1e-5
        with torch.no_grad():
            slope = (loss(xi + step) - loss(xi - step)) / 2e-5
        torch.testing.assert_close(gradient[place], slope, rtol=1e-5, atol=1e-8)


@every_kind
def test_the_embedding_follows_from_the_block_features(kind: str):
    network = tiny_pretrained(kind, domains=("a",))
    domain = network.domains["a"]
    with torch.no_grad():
        block, embedding = network.features(pixels(), domain)
        assert torch.equal(network.block_features(pixels(), domain), block)
        torch.testing.assert_close(network.embed_block_features(block, domain), embedding)
        torch.testing.assert_close(network.embed_block_features(block, domain), embedding)


def test_own_batch_norm_and_input_adapter_start_as_the_networks():
    network = tiny_pretrained(domains=("a",))
    domain = network.domains["a"]
    with torch.no_grad():
        before = network(pixels(), domain)
        domain.input_adapter = deepcopy(network.input_adapter)
        torch.testing.assert_close(network(pixels(), domain), before)
        network.own_batch_norm(domain)
        torch.testing.assert_close(network(pixels(), domain), before)
        assert domain.gamma is not None
        domain.gamma.add_(0.5)
        assert not torch.allclose(network(pixels(), domain), before)
        domain.input_adapter.get_parameter("conv.weight").mul_(2)
        own = domain.input_adapter.get_parameter("conv.weight")
        assert not torch.equal(own, network.input_adapter.get_parameter("conv.weight"))


@every_kind
@pytest.mark.parametrize("own", [False, True])
def test_the_materialized_network_predicts_the_same(kind: str, own: bool):
    network = tiny_pretrained(kind, domains=("a",))
    domain = network.domains["a"]
    if own:
        network.own_batch_norm(domain)
        domain.input_adapter = deepcopy(network.input_adapter)
        with torch.no_grad():
            for parameter in domain.parameters():
                parameter += 0.1
    plain = materialize(network, domain)
    with torch.no_grad():
        torch.testing.assert_close(plain(pixels()), network(pixels(), domain))
        torch.testing.assert_close(plain(pixels()[:, :1]), network(pixels()[:, :1], domain))


def test_threads_predict_as_one_does():
    network = tiny_pretrained(domains=("a", "b"))
    batches = [pixels(seed=seed) for seed in range(20)]

    def predict(name: str) -> list[Tensor]:
        with torch.no_grad():
            return [network(batch, network.domains[name]) for batch in batches]

    alone = [predict("a"), predict("b")]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(predict, ["a", "b"]))
    for expected, found in zip(alone, together, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_rows_of_many_domains_are_as_of_each_alone():
    network = tiny_pretrained(domains=("a", "b"))
    names = ["a", "b", "b", "a", "b"]
    found = predict_rows(network, pixels(), names)
    with torch.no_grad():
        for row, name in enumerate(names):
            alone = network(pixels()[row : row + 1], network.domains[name])
            torch.testing.assert_close(found[row : row + 1], probabilities(alone))
        both = torch.stack([pixels(), pixels(seed=1)])
        block, embedding = features_many(network, [*network.domains], both)
        torch.testing.assert_close(block[1], network.features(both[1], network.domains["b"])[0])
        assert embedding.shape == (2, 5, 10)


def test_xi_of_another_shape_is_refused():
    network = tiny_pretrained()
    with pytest.raises(ValueError, match=r"xi must have shape \(3, 2\)"):
        network.new_domain("new", torch.zeros(2, 3))
    with pytest.raises(ValueError, match="was it saved with another backbone"):
        network.templates.mix(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="expected directions of 72 numbers each"):
        network.with_directions(torch.zeros(2, 71))


def test_directions_are_not_replaced_under_domains_that_moved():
    network = tiny_pretrained(domains=("a",))
    with pytest.raises(ValueError, match="a: moved along other directions"):
        network.with_directions(network.templates.directions)


def test_efficientnet_lite0_has_64_numbers_and_computes_what_timm_does():
    timm: Any = pytest.importorskip("timm")
    module: Any = timm.create_model("tf_efficientnet_lite0", num_classes=5).eval()
    network = PretrainedNetwork.of(
        module, num_classes=7, image_size=32, mean=[0.5] * 3, std=[0.5] * 3
    ).with_directions(torch.zeros(4, 39_392))
    assert network.get_buffer("first_xi").numel() == 64
    assert network.config.num_statistics == 21_008
    assert sum(p.numel() for p in network.input_adapter.parameters()) == 928
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        _, embedding = network.features(images, network.new_domain("new"))
        expected = module.forward_head(module.forward_features(2 * images - 1), pre_logits=True)
    torch.testing.assert_close(embedding, expected, rtol=1e-5, atol=1e-6)
