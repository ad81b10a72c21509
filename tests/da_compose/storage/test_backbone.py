import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from da_compose import (
    Backbone,
    CompositionalNetwork,
    Domain,
    NetworkConfig,
    load_adapter,
    load_backbone,
    save_adapter,
)
from da_compose.knowledge import collect_knowledge
from da_compose.storage import files
from da_compose.storage.backbone import saved_fingerprint

CLASSES = ("zero", "one", "two")


@pytest.fixture
def make_backbone(make_network, make_images) -> Callable[..., Backbone]:
    def make(domains: tuple[str, ...] = ("b", "a"), **changes: Any) -> Backbone:
        network = make_network(domains, **changes)
        sources = {name: make_images(9, seed=seed) for seed, name in enumerate(domains)}
        knowledge = collect_knowledge(network, sources, per_class=2)
        return Backbone(network, CLASSES, knowledge, {"recipe": "paper", "seconds": 1.5})

    return make


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def make_target(backbone: Backbone, *own_parts: str) -> Domain:
    """A domain whose every number is random, with the named parts of its own."""
    network = backbone.network
    generator = torch.Generator().manual_seed(4)
    domain = network.new_domain("target")
    for part in own_parts:
        setattr(domain, part, deepcopy(getattr(network, part)))
    with torch.no_grad():
        for value in (*domain.parameters(), domain.mean, domain.var):
            value += torch.rand(value.shape, generator=generator)
    return domain


def assert_equal_states(first: nn.Module, second: nn.Module) -> None:
    expected, found = first.state_dict(), second.state_dict()
    assert expected.keys() == found.keys()
    assert all(value.equal(found[name]) for name, value in expected.items())


@pytest.mark.parametrize(
    "changes",
    [{}, {"mixed_batch_norm": False}, {"num_templates": 3, "signature": (2, 0, 1)}],
    ids=["mixed norms", "own norms", "unshared"],
)
def test_saved_and_loaded_backbone_is_bit_exact(
    make_backbone, tmp_path: Path, changes: dict[str, Any]
) -> None:
    backbone = make_backbone(seed=3, **changes)
    backbone.save(tmp_path / "runs" / "backbone.safetensors")
    loaded = load_backbone(tmp_path / "runs" / "backbone.safetensors")
    assert loaded.network.config == backbone.network.config
    assert loaded.network.domains.names == ("b", "a")
    assert_equal_states(backbone.network, loaded.network)
    assert (loaded.class_names, loaded.notes) == (backbone.class_names, backbone.notes)
    assert loaded.fingerprint == backbone.fingerprint
    for name, known in backbone.knowledge.items():
        for part in ("first", "second", "block_features", "embeddings", "labels"):
            assert getattr(loaded.knowledge[name], part).equal(getattr(known, part)), part
        assert loaded.knowledge[name].num_images == known.num_images
    for domain in backbone.network.domains:
        expected = backbone.network(images(), domain)
        assert loaded.network(images(), loaded.network.domains[domain.name]).equal(expected)


def test_loaded_knowledge_keeps_its_order(make_backbone, tmp_path: Path) -> None:
    """Adaptation draws from the sources in turn: another order would give another result."""
    make_backbone(domains=("z", "a", "m")).save(tmp_path / "backbone")
    assert list(load_backbone(tmp_path / "backbone").knowledge) == ["z", "a", "m"]


def test_loaded_backbone_starts_new_domains_where_the_saved_one_does(
    make_backbone, tmp_path: Path
) -> None:
    backbone = make_backbone(seed=5)
    backbone.save(tmp_path / "backbone")
    assert_equal_states(
        load_backbone(tmp_path / "backbone").network.new_domain("new"),
        backbone.network.new_domain("new"),
    )


def test_backbone_with_a_domain_that_has_parts_of_its_own_round_trips(
    make_backbone, tmp_path: Path
) -> None:
    backbone = make_backbone(domains=("items", "keys"))
    target = make_target(backbone, "input_adapter", "heads")
    backbone.network.domains.add(target)
    backbone.save(tmp_path / "backbone")
    loaded = load_backbone(tmp_path / "backbone")
    assert_equal_states(backbone.network, loaded.network)
    expected = backbone.network(images(), target)
    assert loaded.network(images(), loaded.network.domains["target"]).equal(expected)


def test_backbone_is_frozen_and_in_evaluation(make_backbone, tmp_path: Path) -> None:
    make_backbone().save(tmp_path / "backbone")
    network = load_backbone(tmp_path / "backbone").network
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize(
    "own_parts", [(), ("input_adapter",), ("heads",), ("input_adapter", "heads")], ids=str
)
def test_saved_and_loaded_adapter_is_bit_exact(
    make_backbone, tmp_path: Path, own_parts: tuple[str, ...]
) -> None:
    backbone = make_backbone()
    domain, path = make_target(backbone, *own_parts), tmp_path / "target.safetensors"
    save_adapter(path, backbone, domain, {"strategy": "none"})
    backbone.save(tmp_path / "backbone")
    for same in (backbone, load_backbone(tmp_path / "backbone")):
        loaded, notes = load_adapter(path, same)
        assert notes == {"strategy": "none"}
        assert loaded.name == "target"
        assert_equal_states(domain, loaded)
        assert not loaded.batch_statistics
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        assert same.network(images(), loaded).equal(backbone.network(images(), domain))


def test_a_shape_of_numpys_numbers_is_read_again(make_network, tmp_path: Path) -> None:
    """As of `num_classes=labels.max() + 1`."""
    counted: dict[str, Any] = {"num_classes": np.int64(3), "hidden": np.int32(6)}
    network = make_network(signature=[0, np.int64(1), 0], **counted)
    Backbone(network, ("a", "b", "c"), {}).save(tmp_path / "backbone")
    assert load_backbone(tmp_path / "backbone").network.config == network.config


def test_notes_of_any_kind_are_written_and_no_missing_device_is_called_damage(
    make_backbone, tmp_path: Path
) -> None:
    backbone, path = make_backbone(), tmp_path / "a.safetensors"
    notes = {"numpy": np.float32(0.5), "tensor": torch.arange(2), "folder": tmp_path}
    save_adapter(path, backbone, make_target(backbone), notes)
    known = {"numpy": 0.5, "tensor": [0, 1], "folder": str(tmp_path)}
    assert load_adapter(path, backbone)[1] == known
    with pytest.raises(ValueError, match="device 'meta' cannot be used here"):
        load_backbone(path, "meta")


def test_loading_an_adapter_leaves_the_backbone_alone(make_backbone, tmp_path: Path) -> None:
    backbone = make_backbone()
    before = deepcopy(backbone.network)
    save_adapter(tmp_path / "adapter", backbone, make_target(backbone, "heads"), {})
    load_adapter(tmp_path / "adapter", backbone)
    assert_equal_states(before, backbone.network)


def test_adapter_of_an_unshared_network_round_trips(make_backbone, tmp_path: Path) -> None:
    backbone = make_backbone(num_templates=3, signature=(0, 1, 2))
    domain = make_target(backbone, "input_adapter")
    save_adapter(tmp_path / "adapter", backbone, domain, {})
    assert_equal_states(domain, load_adapter(tmp_path / "adapter", backbone)[0])


def test_adapter_of_another_backbone_is_refused(make_backbone, tmp_path: Path) -> None:
    backbone, other = make_backbone(), make_backbone(seed=1)
    save_adapter(tmp_path / "adapter", backbone, make_target(backbone), {})
    with pytest.raises(ValueError, match=f"{backbone.fingerprint}, this one is .*adapt again"):
        load_adapter(tmp_path / "adapter", other)


def test_adapter_of_the_digits_network_is_at_most_64_kilobytes(tmp_path: Path) -> None:
    network = CompositionalNetwork(NetworkConfig())
    backbone = Backbone(network, tuple(map(str, range(10))), {})
    save_adapter(tmp_path / "adapter", backbone, network.new_domain("target"), {})
    assert (tmp_path / "adapter").stat().st_size <= 64 * 1024


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_refused(make_backbone, tmp_path: Path, fraction: float) -> None:
    backbone = make_backbone()
    backbone.save(tmp_path / "backbone")
    save_adapter(tmp_path / "adapter", backbone, make_target(backbone), {})
    for name in ("backbone", "adapter"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: math.floor(fraction * len(content))])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_backbone(tmp_path / "backbone")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_adapter(tmp_path / "adapter", backbone)


def test_files_of_another_kind_are_refused(make_backbone, tmp_path: Path) -> None:
    backbone = make_backbone()
    backbone.save(tmp_path / "backbone")
    save_adapter(tmp_path / "adapter", backbone, make_target(backbone), {})
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="holds an adapter, expected a backbone"):
        load_backbone(tmp_path / "adapter")
    with pytest.raises(ValueError, match="holds a backbone, expected an adapter"):
        load_adapter(tmp_path / "backbone", backbone)
    with pytest.raises(ValueError, match="holds a foreign file, expected a backbone"):
        load_backbone(tmp_path / "foreign")
    with pytest.raises(FileNotFoundError, match=r"no backbone file at .*missing"):
        load_backbone(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="no adapter file at"):
        load_adapter(tmp_path, backbone)


def test_the_fingerprint_of_a_saved_backbone_is_read_alone(make_backbone, tmp_path: Path) -> None:
    backbone = make_backbone()
    backbone.save(tmp_path / "backbone")
    assert saved_fingerprint(tmp_path / "backbone") == backbone.fingerprint


@pytest.mark.parametrize("kind", ["backbone", "adapter"])
def test_a_file_without_its_parts_is_refused(make_backbone, tmp_path: Path, kind: str) -> None:
    files.save_tensors(tmp_path / "file", {}, {"kind": kind})
    with pytest.raises(ValueError, match=r"file is damaged, or of another version of da-compose"):
        if kind == "backbone":
            load_backbone(tmp_path / "file")
        else:
            load_adapter(tmp_path / "file", make_backbone())


def test_changed_weights_in_a_file_are_noticed(make_backbone, tmp_path: Path) -> None:
    make_backbone().save(tmp_path / "backbone")
    tensors, metadata = files.load_tensors(tmp_path / "backbone", "backbone")
    tensors["network.templates.expand"][0] += 1
    files.save_tensors(tmp_path / "backbone", tensors, metadata)
    with pytest.raises(ValueError, match="its fingerprint differs"):
        load_backbone(tmp_path / "backbone")


def test_failing_write_keeps_the_old_backbone(
    make_backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, other = make_backbone(), make_backbone(seed=1)
    backbone.save(tmp_path / "backbone")

    def full_disk(tensors: dict, path: Path, metadata: dict) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        other.save(tmp_path / "backbone")
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]
    assert load_backbone(tmp_path / "backbone").fingerprint == backbone.fingerprint


def test_fingerprint_changes_with_every_shared_weight_and_the_shape(make_backbone) -> None:
    backbone = make_backbone()
    prints = {backbone.fingerprint}
    shared = [*backbone.network.shared_parameters()]
    for parameter in shared:
        value = parameter.view(-1)[-1].clone()
        parameter.view(-1)[-1] += 0.01
        prints.add(backbone.fingerprint)
        parameter.view(-1)[-1] = value
    assert len(prints) == len(shared) + 1
    assert backbone.fingerprint in prints
    other_shape = make_backbone(image_size=16, patch_size=4, domains=())
    other_shape.network.load_state_dict(make_backbone(domains=()).network.state_dict())
    assert other_shape.fingerprint != make_backbone(domains=()).fingerprint


def test_fingerprint_does_not_depend_on_domains(make_backbone) -> None:
    backbone = make_backbone()
    before = backbone.fingerprint
    domain = make_target(backbone, "heads")
    backbone.network.domains.add(domain)
    domain.set_statistics(domain.mean + 1, domain.var + 1)
    assert backbone.fingerprint == before


def test_wrong_number_of_class_names_is_refused(make_network) -> None:
    with pytest.raises(ValueError, match="2 class names for a network with 3 classes"):
        Backbone(make_network(), ("zero", "one"), {})
