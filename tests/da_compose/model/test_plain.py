from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from da_compose.model.plain import materialize

VARIANTS = {
    "mixed norms": {},
    "own norms": {"mixed_batch_norm": False},
    "unshared": {"num_templates": 3, "signature": (2, 0, 1)},
    "patch 3, one image channel": {"patch_size": 3, "image_size": 9, "image_channels": 1},
    "patch 1": {"patch_size": 1},
    "expansion 1": {"expansion": 1},
    "one channel": {"channels": 1, "expansion": 1},
}


def images(config: Any, count: int = 5) -> Tensor:
    shape = (count, config.image_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("own_parts", [(), ("input_adapter", "heads")], ids=["shared", "own"])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_plain_network_equals_the_mixed_one(
    make_network, changes: dict[str, Any], own_parts: tuple[str, ...]
) -> None:
    network = make_network(**changes)
    other, domain = make_network(seed=1, **changes), network.domains["b"]
    for part in own_parts:
        setattr(domain, part, getattr(other, part))
    plain = materialize(network, domain)
    with torch.no_grad():
        expected = network(images(network.config), domain)
        torch.testing.assert_close(plain(images(network.config)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mixed_batch_norm", [True, False])
def test_plain_network_equals_the_mixed_one_in_float64(
    make_network, mixed_batch_norm: bool
) -> None:
    network = make_network(mixed_batch_norm=mixed_batch_norm).double()
    domain, batch = network.domains["a"], images(network.config).double()
    torch.testing.assert_close(materialize(network, domain)(batch), network(batch, domain))


def test_materialized_network_is_plain(make_network) -> None:
    network = make_network()
    plain = materialize(network, network.domains["a"])
    kinds = {type(module) for module in plain.modules() if not list(module.children())}
    assert kinds == {nn.Conv2d, nn.Linear}
    assert not any(parameter.requires_grad for parameter in plain.parameters())
    assert not plain.training
    assert not list(plain.buffers())
    assert not plain(images(network.config)).requires_grad


def test_materialized_network_shares_nothing_with_its_origin(make_network) -> None:
    network = make_network(num_templates=1)
    domain = network.domains["a"]
    domain.heads = deepcopy(network.heads)
    plain = materialize(network, domain)
    before = plain(images(network.config))
    with torch.no_grad():
        for value in network.state_dict().values():
            value += 1
    assert plain(images(network.config)).equal(before)


def test_materializing_changes_neither_network_nor_domain(make_network) -> None:
    network = make_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    plain = materialize(network, network.domains["a"])
    plain(images(network.config))
    assert torch.get_rng_state().equal(random_state)
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_plain_network_leaves_its_input_alone(make_network) -> None:
    network = make_network()
    batch = images(network.config).contiguous(memory_format=torch.channels_last)
    before = batch.clone()
    materialize(network, network.domains["a"])(batch)
    assert batch.equal(before)
