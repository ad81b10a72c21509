"""Random weights throughout: a 4x4 map of 24 channels, of 32 pixels, behind the tiny network."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms.functional import normalize as imagenet_normalize

from da_compose import (
    Backbone,
    CompositionalNetwork,
    load_adapter,
    load_backbone,
    save_adapter,
)
from da_compose.images import normalize
from da_compose.knowledge import collect_knowledge
from da_compose.model.batched import features_many
from da_compose.model.plain import materialize
from da_compose.model.trunk import Trunk
from da_compose.storage.export import export
from da_compose.storage.trunk_weights import load_trunk_weights
from da_compose.training.trainer import PretrainConfig, Pretrainer

MODEL, LAST = "mobilenet_v3_small", "features.3"
TRUNK: dict[str, Any] = {"trunk": f"{MODEL}.{LAST}", "image_size": 32, "patch_size": 1}
CLASSES = ("zero", "one", "two")
MakeTrunked = Callable[..., CompositionalNetwork]


@pytest.fixture
def make_trunked(make_network) -> MakeTrunked:
    """A network on a trunk whose own batch-norm statistics are random too."""

    def make(**changes: Any) -> CompositionalNetwork:
        network = make_network(**(TRUNK | changes))
        assert isinstance(network.trunk, Trunk)
        load_trunk_weights(network, weights_of(network.trunk.model_name))
        return network

    return make


def weights_of(model_name: str = MODEL, seed: int = 0) -> dict[str, Tensor]:
    """Every weight of a torchvision model, random statistics included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = models.get_model(model_name, weights=None).state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, value in weights.items():
        if name.endswith(("running_mean", "running_var")):
            value += 0.5 * torch.rand(value.shape, generator=generator)
    return weights


def pixels(count: int = 4, size: int = 32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def images(count: int = 4, size: int = 32) -> Tensor:
    return normalize(pixels(count, size))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(v.equal(second[n]) for n, v in first.items())


@pytest.mark.parametrize(
    ("name", "last", "count"), [("resnet18", "layer1", 5), (MODEL, "features", 1)]
)
def test_trunk_computes_what_the_model_s_first_modules_do(
    make_trunked: MakeTrunked, name: str, last: str, count: int
) -> None:
    network = make_trunked(trunk=f"{name}.{last}")
    model = models.get_model(name, weights=None).eval()
    model.load_state_dict(weights_of(name))
    expected = imagenet_normalize(pixels(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for module in list(model.children())[:count]:
        expected = module(expected)
    torch.testing.assert_close(network.trunk(images()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [64, 96, 224])
def test_every_size_of_images_has_its_map(make_network, size: int) -> None:
    network = make_network(**TRUNK | {"image_size": size, "patch_size": 2})
    block = network.block_features(images(1, size), network.domains["a"])
    assert block.shape == (1, 4, size // 16, size // 16)


def test_trunk_has_no_parameters_to_train_or_count(make_trunked: MakeTrunked) -> None:
    network = make_trunked()
    assert not list(network.trunk.parameters())
    assert not any(name.startswith("trunk") for name, _ in network.named_parameters())
    network.requires_grad_(True)
    network(images(), network.domains["a"].use_batch_statistics()).sum().backward()
    assert not any(value.requires_grad for value in network.trunk.state_dict().values())
    assert all(parameter.grad is not None for parameter in network.input_adapter.parameters())


def test_trunk_uses_and_keeps_its_own_statistics_in_training(make_trunked: MakeTrunked) -> None:
    network = make_trunked()
    expected, before = network.trunk(images()), state(network.trunk)
    for copy in (network, deepcopy(network)):
        copy.train()
        statistics = copy.domains["a"].mean.clone()
        copy(images(), copy.domains["a"].use_batch_statistics())
        assert not copy.domains["a"].mean.equal(statistics)
        assert same(before, state(copy.trunk))
        assert copy.trunk(images()).equal(expected)


def test_prediction_does_not_depend_on_the_batch(make_trunked: MakeTrunked) -> None:
    network = make_trunked()
    together = network(images(5), network.domains["a"])
    for row in range(5):
        alone = network(images(5)[row : row + 1], network.domains["a"])
        torch.testing.assert_close(together[:, row : row + 1], alone, rtol=1e-5, atol=1e-5)


def test_trunk_depends_on_the_seed_alone(make_config) -> None:
    before = torch.get_rng_state()
    first, again, other = (
        CompositionalNetwork(make_config(**TRUNK), seed=seed) for seed in (0, 0, 1)
    )
    assert torch.get_rng_state().equal(before)
    assert same(state(first), state(again))
    assert not same(state(first.trunk), state(other.trunk))


def test_pretraining_leaves_the_trunk_alone(make_trunked: MakeTrunked, make_images) -> None:
    network = make_trunked()
    sources = {name: make_images(12, seed, 32) for seed, name in enumerate("ab")}
    before = state(network)
    trainer = Pretrainer(network, sources, PretrainConfig(steps=3, batch_size=6))
    for _ in range(3):
        trainer.step()
    trainer.finish()
    changed = {name for name, value in state(network).items() if not value.equal(before[name])}
    assert changed == {name for name in before if not name.startswith(("trunk.", "domains._extra"))}


def test_saved_and_loaded_backbone_is_bit_exact(
    make_trunked: MakeTrunked, make_images, tmp_path: Path
) -> None:
    network = make_trunked()
    knowledge = collect_knowledge(network, {"a": make_images(9, size=32)}, per_class=2)
    backbone = Backbone(network, CLASSES, knowledge)
    backbone.save(tmp_path / "backbone.safetensors")
    loaded = load_backbone(tmp_path / "backbone.safetensors")
    assert loaded.network.config == network.config
    assert same(state(network), state(loaded.network))
    assert loaded.fingerprint == backbone.fingerprint
    assert not any(module.training for module in loaded.network.modules())
    for found, domain in zip(loaded.network.domains, network.domains, strict=True):
        assert loaded.network(images(), found).equal(network(images(), domain))


def test_fingerprint_is_that_of_one_trunk_with_one_set_of_weights(
    make_trunked: MakeTrunked, tmp_path: Path
) -> None:
    network, other = make_trunked(), make_trunked()
    backbone, again = Backbone(network, CLASSES, {}), Backbone(other, CLASSES, {})
    save_adapter(tmp_path / "adapter", backbone, backbone.network.domains["b"], {})
    assert again.fingerprint == backbone.fingerprint
    load_trunk_weights(other, weights_of(seed=1))
    with pytest.raises(ValueError, match="belongs to backbone"):
        load_adapter(tmp_path / "adapter", again)


def test_fingerprint_tells_cuts_apart_that_hold_the_same_weights(make_trunked: MakeTrunked) -> None:
    networks = [make_trunked(trunk=f"resnet18.{last}") for last in ("bn1", "relu")]
    assert same(*map(state, networks))
    assert len({Backbone(network, CLASSES, {}).fingerprint for network in networks}) == 2


@pytest.mark.parametrize("own_adapter", [False, True])
def test_plain_network_equals_the_mixed_one(make_trunked: MakeTrunked, own_adapter: bool) -> None:
    network = make_trunked()
    domain = network.domains["b"]
    if own_adapter:
        domain.input_adapter = make_trunked(seed=1).input_adapter
    plain = materialize(network, domain)
    expected = network(images(), domain)
    torch.testing.assert_close(plain(images()), expected, rtol=1e-5, atol=1e-5)
    load_trunk_weights(network, weights_of(seed=1))  # the plain one shares nothing with it
    torch.testing.assert_close(plain(images()), expected, rtol=1e-5, atol=1e-5)


def test_export_computes_the_same(make_trunked: MakeTrunked, tmp_path: Path) -> None:
    network = make_trunked(trunk=f"{MODEL}.features.1", num_layers=1)
    path = tmp_path / "b.onnx"
    assert export(Backbone(network, CLASSES, {}), network.domains["b"], path) <= 1e-4  # it runs it
    assert path.stat().st_size > 0


def test_many_domains_in_one_pass_equal_a_pass_a_domain(make_trunked: MakeTrunked) -> None:
    network = make_trunked(patch_size=2)
    network.domains["b"].input_adapter = make_trunked(patch_size=2, seed=1).input_adapter
    network.double()
    batch = images(6).double().view(2, 3, 3, 32, 32)
    block, embedding = features_many(network, list(network.domains), batch)
    for place, domain in enumerate(network.domains):
        expected = network.features(batch[place], domain)
        torch.testing.assert_close(block[place], expected[0])
        torch.testing.assert_close(embedding[place], expected[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trunk": "resnett18.layer3"}, r"MODEL\.MODULE.*did you mean resnet18 or"),
        ({"trunk": "resnet18.layer33"}, "no module 'layer33' .did you mean layer3 or.*avgpool, fc"),
        ({"trunk": "resnet18"}, "no module ''; its parts: conv1, bn1"),
        ({"trunk": "vit_b_16.encoder"}, "got model 'vit_b_16'"),
        ({"trunk": "resnet18.fc"}, r"gives \(1, 1000\) for an image, expected a map"),
        ({"trunk": "alexnet.features"}, "does not fit images of 32 pixels .* take larger images"),
        ({"patch_size": 3}, "makes 4x4 of 32 pixels, expected a multiple of patch_size 3"),
        ({"image_channels": 1}, "3 channels, got 1"),
    ],
    ids=str,
)
def test_unfit_trunk_is_refused(make_config, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompositionalNetwork(make_config(**TRUNK | changes))


@pytest.mark.parametrize("kind", ["state dict", "file", "without later modules", "download"])
def test_weights_come_from_any_of_their_places(
    make_network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    network, weights = make_network(**TRUNK), weights_of()
    given: Any = weights | {"classifier.3.weight": torch.zeros(7, 1024)}  # of another data set
    if kind == "file":
        given = tmp_path / "weights.safetensors"
        save_file(weights, given)
    elif kind == "without later modules":
        given = {n: v for n, v in weights.items() if not n.startswith("classifier")}
    elif kind == "download":
        given = "download"
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(
            torch.hub,
            "download_url_to_file",
            lambda url, path, prefix, progress: torch.save(weights, path),
        )
    load_trunk_weights(network, given)
    found = state(network.trunk)
    assert found
    assert all(value.equal(weights[name.removeprefix("model.")]) for name, value in found.items())


def test_published_densenet_names_are_those_of_today(
    make_network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(**TRUNK | {"trunk": "densenet121.features.denseblock1"})
    weights = weights_of("densenet121")
    old = {n.replace("norm1", "norm.1").replace("conv2", "conv.2"): v for n, v in weights.items()}
    assert old.keys() != weights.keys()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda url, path, *_, **__: torch.save(old, path)
    )
    load_trunk_weights(network, "download")
    name = "features.denseblock1.denselayer1.norm1.running_mean"
    assert network.trunk.state_dict()[f"model.{name}"].equal(weights[name])


def test_no_network_is_said(make_network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(OSError, match=r"could not download .*mobilenet_v3_small.*safetensors file"):
        load_trunk_weights(make_network(**TRUNK), "download")


def test_weights_of_another_model_are_refused_and_change_nothing(make_network) -> None:
    network, weights = make_network(**TRUNK), weights_of()
    before = state(network.trunk)
    first, name = "features.0.0.weight", "features.2.block.0.0.weight"
    wrong = weights | {name: torch.zeros(1), "features.99.weight": torch.zeros(1)}
    del wrong[first]
    message = f"missing: {first}; unexpected: features.99.weight; of another shape: {name}$"
    with pytest.raises(ValueError, match=message):
        load_trunk_weights(network, wrong)
    with pytest.raises(ValueError, match=r"missing: .*; unexpected: conv1\.weight"):
        load_trunk_weights(network, weights_of("resnet18"))
    assert same(before, state(network.trunk))


def test_unusable_files_of_weights_are_refused(make_network, tmp_path: Path) -> None:
    network = make_network(**TRUNK)
    with pytest.raises(ValueError, match=r"must be a \.safetensors file"):
        load_trunk_weights(network, tmp_path / "resnet18.pth")
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        load_trunk_weights(network, str(tmp_path / "none.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x01" * 20)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_trunk_weights(network, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="has no trunk"):
        load_trunk_weights(make_network(), weights_of())
