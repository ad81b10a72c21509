"""A backbone as one of its domains."""

from pathlib import Path

import pytest
import torch
from torch import nn

from da_compose import Backbone, DomainModel, load_adapter
from da_compose.knowledge import collect_knowledge

NAMES = ("dark", "grey", "light")


@pytest.fixture
def model(make_network, make_images) -> DomainModel:
    network = make_network()
    knowledge = collect_knowledge(network, {"a": make_images(9)})
    return DomainModel(Backbone(network, NAMES, knowledge), network.domains["a"])


def test_classes_are_the_most_probable_ones(model: DomainModel, make_images) -> None:
    images = make_images(12, colour=True).images
    table = model.predict_proba(images)
    assert table.shape == (12, 3)
    torch.testing.assert_close(table.sum(dim=1), torch.ones(12))
    assert model.predict(images).equal(table.argmax(dim=1))
    assert model.class_names == NAMES


def test_its_module_is_an_ordinary_one(model: DomainModel, make_images) -> None:
    """It takes pixels in [0, 1], of any batch size, wherever PyTorch takes a module."""
    images = make_images(6, colour=True).images
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    plain, expected = model.model(), model.predict_proba(images)
    assert not plain.training and not any(p.requires_grad for p in plain.parameters())
    exported = torch.export.export(plain, (pixels,)).module()
    compiled = torch.compile(plain, backend="eager")
    with torch.no_grad():
        for module in (plain, exported, compiled, nn.DataParallel(plain)):
            torch.testing.assert_close(module(pixels), expected, rtol=0, atol=1e-5)
        assert plain(pixels[:1, :1]).shape == (1, 3)  # grey, too


def test_it_is_saved_as_an_adapter(model: DomainModel, make_images, tmp_path: Path) -> None:
    model.notes["made"] = "by hand"
    model.save(tmp_path / "a.safetensors")
    domain, notes = load_adapter(tmp_path / "a.safetensors", model.backbone)
    images = make_images(4).images
    found = DomainModel(model.backbone, domain).predict_proba(images)
    assert notes == {"made": "by hand"} and found.equal(model.predict_proba(images))


def test_it_is_exported(model: DomainModel, tmp_path: Path) -> None:
    assert model.export(tmp_path / "a.pt2") < 1e-4
    assert (tmp_path / "a.pt2").stat().st_size > 0
