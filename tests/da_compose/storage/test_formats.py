"""Files of earlier versions, committed as they were written, are read as they were meant."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from adapters import load_adaptation
from da_compose import NetworkConfig, load_backbone
from da_compose.storage import backbone as backbone_file
from da_compose.storage.files import load_tensors, save_tensors

FILES = Path(__file__).parents[2] / "files"


def test_files_of_version_0_1_0_predict_as_they_did() -> None:
    backbone = load_backbone(FILES / "backbone-0.1.0.safetensors")
    adaptation = load_adaptation(FILES / "adapter-0.1.0.safetensors", backbone)
    with np.load(FILES / "expected-0.1.0.npz") as expected:
        found = adaptation.predict_proba(expected["images"]).numpy()
        np.testing.assert_allclose(found, expected["probabilities"], atol=1e-5)
    assert adaptation.domain.name == "site-7"
    assert adaptation.notes["trains"] == "input_adapter"


def test_a_field_added_to_the_configuration_keeps_fingerprints(monkeypatch) -> None:
    before = load_backbone(FILES / "backbone-0.1.0.safetensors").fingerprint

    @dataclass(frozen=True, kw_only=True)
    class Later(NetworkConfig):
        added: int = 0

    monkeypatch.setattr(backbone_file, "NetworkConfig", Later)
    backbone = load_backbone(FILES / "backbone-0.1.0.safetensors")
    assert type(backbone.network.config) is Later
    assert backbone.fingerprint == before
    changed = backbone_file._identity(Later(added=1))
    assert changed != backbone_file._identity(Later())


@pytest.mark.parametrize("kind", ["backbone", "adapter"])
def test_a_file_of_a_later_format_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    backbone = load_backbone(FILES / "backbone-0.1.0.safetensors")
    tensors, metadata = load_tensors(FILES / f"{kind}-0.1.0.safetensors", kind)
    save_tensors(tmp_path / "later", tensors, metadata | {"format": 99})
    with pytest.raises(ValueError, match=r"is of format 99, .* reads up to 2; install a newer one"):
        load_backbone(tmp_path / "later") if kind == "backbone" else load_adaptation(
            tmp_path / "later", backbone
        )


def test_a_state_dict_loads_into_a_network_without_domains() -> None:
    network = load_backbone(FILES / "backbone-0.1.0.safetensors").network
    domain = network.new_domain("own")
    network.own_batch_norm(domain)
    network.own_heads(domain, ("a", "b"))
    network.domains.add(domain)
    new = type(network)(network.config)
    new.load_state_dict(network.state_dict())
    assert new.domains.names == network.domains.names
    pixels = torch.rand(3, 3, 8, 8)
    for name in network.domains.names:
        assert new(pixels, new.domains[name]).equal(network(pixels, network.domains[name]))
    assert new.domains["own"].class_names == ("a", "b")


def test_a_state_of_other_domains_is_refused() -> None:
    network = load_backbone(FILES / "backbone-0.1.0.safetensors").network
    other = type(network)(network.config)
    other.domains.add(other.new_domain("elsewhere"))
    with pytest.raises(ValueError, match="left, middle, right, this network has elsewhere"):
        other.load_state_dict(network.state_dict())
