"""Adaptation on a frozen torchvision trunk, with random weights."""

from dataclasses import replace

import pytest
import torch

from adapters import STRATEGIES, adapt, adapt_many
from adapters.strategies.adversarial import Adversarial
from da_compose import Backbone, NetworkConfig
from da_compose.starts import MEAN, make_start

SIZE = 32


@pytest.fixture
def trunked(make_backbone, tiny_config: NetworkConfig) -> Backbone:
    trunk = "mobilenet_v3_small.features.3"
    return make_backbone(replace(tiny_config, trunk=trunk, image_size=SIZE, patch_size=1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_move_the_target_s_xi_alone(
    trunked: Backbone, make_pixels, take_steps, strategy: str
) -> None:
    images = make_pixels(20, size=SIZE)
    before = {name: value.clone() for name, value in trunked.network.state_dict().items()}
    start = make_start(trunked, MEAN, "target", images).target.state_dict()
    target, _ = take_steps(trunked, strategy, images=images, steps=Adversarial.WARM_UP + 2)
    found = target.state_dict()
    assert {name for name in found if not found[name].equal(start[name])} == {"mixture.xi"}
    after = trunked.network.state_dict()
    assert after.keys() == before.keys()
    assert all(value.equal(before[name]) for name, value in after.items())


@pytest.mark.parametrize(
    ("trains", "learned"), [("mixture_weights", 3 * 2), ("input_adapter", 24 * 4 + 3 * 4)]
)
def test_adaptation_leaves_the_backbone_alone(
    trunked: Backbone, make_pixels, trains: str, learned: int
) -> None:
    fingerprint = trunked.fingerprint
    found = adapt(trunked, make_pixels(20, size=SIZE), trains=trains, steps=3, batch_size=8)
    assert found.learned_parameters == learned
    assert not any("trunk" in name for name in found.domain.state_dict())
    assert trunked.fingerprint == fingerprint


def test_many_targets_are_adapted_as_each_alone(trunked: Backbone, make_pixels) -> None:
    targets = {"site-1": make_pixels(15, size=SIZE), "site-2": make_pixels(20, size=SIZE, seed=1)}
    options = {"strategy": "moment_matching", "steps": 3, "batch_size": 8}
    found = adapt_many(trunked, targets, together=True, **options)
    for name, images in targets.items():
        alone = adapt(trunked, images, name=name, **options)
        assert alone.notes["kept_step"] == 3
        torch.testing.assert_close(found[name].domain.state_dict(), alone.domain.state_dict())
