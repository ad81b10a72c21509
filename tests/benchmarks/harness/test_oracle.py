import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks.harness.oracle import train_oracle
from da_compose import Backbone, Domain
from da_compose.images import ImageSet, to_pixels

TRAINS = ["mixture_weights", "input_adapter", "batch_norm", "all"]


@pytest.fixture
def target() -> ImageSet:
    generator = np.random.default_rng(7)
    images = generator.integers(0, 256, (24, 32, 32), dtype=np.uint8)
    return ImageSet(images, np.arange(24, dtype=np.int64) % 10)


def state(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.network.state_dict().items()}


@torch.no_grad()
def loss(backbone: Backbone, domain: Domain, data: ImageSet) -> float:
    logits = backbone.network(to_pixels(data.images), domain)
    labels = torch.from_numpy(data.labels)
    return float(functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits))))


@pytest.mark.parametrize("trains", TRAINS)
def test_every_oracle_leaves_the_backbone_bit_identical(backbone, target, trains):
    before, fingerprint = state(backbone), backbone.fingerprint
    train_oracle(backbone, target, trains, steps=3, seed=0)
    after = backbone.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert backbone.fingerprint == fingerprint
    assert not any(p.requires_grad or p.grad is not None for p in backbone.network.parameters())


@pytest.mark.parametrize(("trains", "own"), [(t, t != "all") for t in TRAINS])
def test_only_the_oracle_of_all_weights_returns_another_backbone(backbone, target, trains, own):
    returned, _, _ = train_oracle(backbone, target, trains, steps=1, seed=0)
    assert (returned is backbone) == own
    if not own:
        assert returned.fingerprint != backbone.fingerprint


def test_learned_counts_are_those_of_the_formulas(backbone, target):
    learned = {t: train_oracle(backbone, target, t, steps=1, seed=0)[2] for t in TRAINS}
    config = backbone.network.config
    kernel = config.channels * config.image_channels * config.patch_size**2
    assert learned["mixture_weights"] == config.num_layers * config.num_templates
    assert learned["input_adapter"] == kernel + 3 * config.channels  # bias, gamma, beta
    assert learned["batch_norm"] == 2 * config.num_statistics
    shared = sum(p.numel() for p in backbone.network.shared_parameters())
    assert learned["all"] == shared + learned["mixture_weights"]


def test_all_weights_of_an_unshared_network_are_its_shared_ones(unshared_backbone, target):
    learned = train_oracle(unshared_backbone, target, "all", steps=1, seed=0)[2]
    assert learned == sum(p.numel() for p in unshared_backbone.network.shared_parameters())


def test_an_unshared_network_has_no_mixture_weights_to_train(unshared_backbone, target):
    with pytest.raises(ValueError, match="no mixture weights"):
        train_oracle(unshared_backbone, target, "mixture_weights", steps=1, seed=0)


@pytest.mark.parametrize("trains", TRAINS)
def test_oracles_fit_the_labels(backbone, target, trains):
    before = train_oracle(backbone, target, trains, steps=0, seed=0)
    after = train_oracle(backbone, target, trains, steps=40, seed=0)
    assert loss(*after[:2], target) < loss(*before[:2], target)


@pytest.mark.parametrize("trains", TRAINS)
def test_an_oracle_is_a_function_of_its_seed(backbone, target, trains):
    first, second, other = (
        train_oracle(backbone, target, trains, steps=2, seed=seed)[1].state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert trains == "all" or any(not torch.equal(first[name], other[name]) for name in first)


def test_an_oracle_moves_only_what_it_trains(backbone, target):
    start = train_oracle(backbone, target, "mixture_weights", steps=0, seed=0)[1].state_dict()
    end = train_oracle(backbone, target, "mixture_weights", steps=2, seed=0)[1].state_dict()
    assert [name for name in start if not torch.equal(start[name], end[name])] == ["mixture.xi"]
