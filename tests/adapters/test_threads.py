"""Threads, forks, interruptions: each call gives what it gives alone, and changes nothing else."""

import os
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from adapters import Adaptation, adapt
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import begun
from adapters.strategies.information_maximization import InformationMaximization
from da_compose import CompositionalNetwork, NetworkConfig, load_backbone
from da_compose.pictures import read_picture
from da_compose.reading import read_images
from da_compose.training.picture_augmentation import PictureAugmentation

OPTIONS: list[dict[str, Any]] = [
    {"strategy": "information_maximization"},
    {"strategy": "information_maximization", "bfloat16": True},
    {"strategy": "adversarial", "trains": "input_adapter"},
    {"strategy": "adversarial", "seed": 3},
    {"strategy": "moment_matching", "trains": "batch_norm"},
    {"strategy": "classifier_discrepancy"},
    {"strategy": "consensus", "seed": 5},
    {"strategy": "shot"},
]


def state(adaptation: Adaptation) -> dict[str, torch.Tensor]:
    return adaptation.domain.state_dict()


def test_eight_threads_on_one_backbone_give_what_each_gives_alone(backbone, make_pixels):
    images = make_pixels(40)

    def run(options: dict[str, Any]) -> dict[str, torch.Tensor]:
        return state(adapt(backbone, images, steps=24, guard=False, prior_images=0, **options))

    alone = [run(options) for options in OPTIONS]
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate()
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(run, OPTIONS))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert torch.get_rng_state().equal(before[0])
    assert random.getstate() == before[1] and list(warnings.filters) == filters


def test_what_is_made_at_random_in_threads_is_of_its_own_seed(tmp_path: Path):
    config = NetworkConfig(num_layers=1, channels=4, image_size=8, hidden=4, embedding=4)
    pixels = torch.rand(3, 3, 16, 16)

    def make(seed: int) -> list[torch.Tensor]:
        network = CompositionalNetwork(config, seed=seed)
        network.own_heads(domain := network.new_domain("a"), ("x", "y"), seed)
        changed = PictureAugmentation().apply(pixels, torch.Generator().manual_seed(seed))
        return [*network.state_dict().values(), *domain.state_dict().values(), changed]

    alone = [make(seed) for seed in range(8)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(make, range(8)))
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    assert torch.get_rng_state().equal(before)


def test_shuffling_loaders_in_threads_are_read_in_order(make_pixels):
    images = torch.from_numpy(make_pixels(24)).permute(0, 3, 1, 2) / 255
    expected, before = read_images(images, 8), torch.get_rng_state()

    def read(_: int) -> np.ndarray:
        return read_images(DataLoader(TensorDataset(images), batch_size=5, shuffle=True), 8)

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(read, range(16)):
            assert np.array_equal(found, expected)
    assert torch.get_rng_state().equal(before)


def test_a_picture_is_too_large_whatever_another_thread_does_to_filters(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # up to twice as many Pillow warns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = list(warnings.filters)
        with pytest.raises(ValueError, match="exceeds limit of 1000 pixels"):
            read_picture(tmp_path / "x.png", 8)
        assert list(warnings.filters) == before


def test_an_interrupted_adaptation_leaves_the_backbone(backbone, make_pixels):
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}

    class Interrupted:
        def prepare(self, task):
            self.inner = begun(InformationMaximization(), task)

        def step(self, images):
            self.inner.step(images)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(backbone, make_pixels(20), Interrupted(), trains="input_adapter")
    torch.testing.assert_close(backbone.network.state_dict(), before, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())


def test_a_forked_process_predicts_as_its_parent(backbone, make_pixels):
    """It does not learn: torch has no gradients in a fork of a process that took some."""
    images = make_pixels(20)
    adaptation = adapt(backbone, images, "batch_norm")
    expected = adaptation.predict_proba(images)
    child = os.fork()
    if child == 0:
        same = adaptation.predict_proba(images).equal(expected)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_defaults_of_the_caller_change_nothing(backbone, make_pixels, tmp_path: Path):
    images = make_pixels(20)
    backbone.save(tmp_path / "backbone")
    expected = state(adapt(backbone, images, steps=3, guard=False))
    torch.set_default_dtype(torch.float64)
    try:
        found = state(adapt(load_backbone(tmp_path / "backbone"), images, steps=3, guard=False))
        made = CompositionalNetwork(NetworkConfig(), seed=1).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(made, CompositionalNetwork(NetworkConfig(), seed=1).state_dict())
    with torch.device("meta"):
        found = state(adapt(load_backbone(tmp_path / "backbone"), images, steps=3, guard=False))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_precisions_that_learning_takes(make_backbone, make_pixels):
    images, backbone = make_pixels(20), make_backbone()
    expected = adapt(backbone, images, steps=3, guard=False).predict_proba(images)
    backbone.network.double()
    found = adapt(backbone, images, steps=3, guard=False)
    torch.testing.assert_close(found.predict_proba(images), expected, rtol=0, atol=1e-3)
    for strategy in STRATEGIES:
        assert adapt(backbone, images, strategy, steps=22).scores
    assert found.model()(torch.rand(2, 3, 8, 8)).dtype == torch.float32
    found.update(images, chunk=10)
    backbone.network.bfloat16()
    with pytest.raises(ValueError, match=r"of torch.bfloat16, too coarse to learn in; make it"):
        adapt(backbone, images)
