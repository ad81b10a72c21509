"""A pretrained network with what ships with it, as one file; and one domain's adapter as another.

Both are safetensors files whose header carries JSON: no pickle, and nothing half-written.
"""

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from da_compose.knowledge import SourceKnowledge, embed
from da_compose.model.config import NetworkConfig
from da_compose.model.domain import Domain
from da_compose.model.network import CompositionalNetwork
from da_compose.storage.files import load_metadata, load_tensors, save_tensors, understood

KNOWN = ("first", "second", "block_features", "labels")  # of a source, in the file


@dataclass(frozen=True)
class Backbone:
    """A frozen pretrained network, its source domains and what it knows of them."""

    network: CompositionalNetwork
    class_names: tuple[str, ...]
    knowledge: dict[str, SourceKnowledge]
    notes: dict[str, Any] = field(default_factory=dict)  # recipe, data, seed: provenance only

    def __post_init__(self) -> None:
        if len(self.class_names) != self.network.config.num_classes:
            raise ValueError(
                f"{len(self.class_names)} class names for a network with "
                f"{self.network.config.num_classes} classes"
            )
        self.network.requires_grad_(False)
        self.network.eval()

    @property
    def fingerprint(self) -> str:
        """Hash of every shared weight: an adapter fits the backbone it was made with, no other."""
        config = self.network.config
        digest = hashlib.sha256((repr(config) + (config.trunk or "")).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            if not name.startswith("domains."):
                digest.update(name.encode())
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def class_names_of(self, domain: Domain) -> tuple[str, ...]:
        """Names of the classes that a domain predicts: its own heads', else the backbone's."""
        return self.class_names if domain.class_names is None else domain.class_names

    def save(self, path: str | Path) -> None:
        """Write the backbone to `path` (.safetensors), whole or not at all."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for source, known in self.knowledge.items():
            for part in KNOWN:
                tensors[f"knowledge.{source}.{part}"] = getattr(known, part)
        tensors["first_xi"] = self.network.get_buffer("first_xi")
        metadata = {
            "kind": "backbone",
            "config": asdict(self.network.config),
            "domains": self.network.domains.names,
            "own_parts": {domain.name: _own_parts(domain) for domain in self.network.domains},
            "num_images": {name: known.num_images for name, known in self.knowledge.items()},
            "class_names": self.class_names,
            "fingerprint": self.fingerprint,
            "versions": versions(),
            "notes": self.notes,
        }
        save_tensors(Path(path), tensors, metadata)


def saved_fingerprint(path: str | Path) -> str:
    """The fingerprint of the backbone in a file, which is not loaded."""
    with understood(Path(path)):
        return load_metadata(Path(path), "backbone")["fingerprint"]


def load_backbone(path: str | Path, device: str = "cpu") -> Backbone:
    """Read a backbone that `Backbone.save` wrote; raises ValueError where it is not one."""
    tensors, metadata = load_tensors(Path(path), "backbone")
    with understood(Path(path)):
        network, num_images = _saved_network(tensors, metadata), metadata["num_images"]
        # In the order of the domains, as before saving: random draws of adaptation go by it
        known = {
            name: {part: tensors[f"knowledge.{name}.{part}"] for part in KNOWN}
            for name in metadata["domains"]
            if name in num_images
        }
        class_names, notes = tuple(metadata["class_names"]), metadata["notes"]
        fingerprint = metadata["fingerprint"]
    network.to(device)
    knowledge = {}
    for name, parts in known.items():
        embeddings = embed(network, parts["block_features"], network.domains[name])
        knowledge[name] = SourceKnowledge(
            **parts, embeddings=embeddings, num_images=num_images[name]
        )
    backbone = Backbone(network, class_names, knowledge, notes)
    if backbone.fingerprint != fingerprint:
        raise ValueError(f"{path} was changed after it was written: its fingerprint differs")
    return backbone


def _saved_network(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> CompositionalNetwork:
    values = dict(metadata["config"])
    if values["signature"] is not None:
        values["signature"] = tuple(values["signature"])
    network = CompositionalNetwork(NetworkConfig(**values))
    for name in metadata["domains"]:
        network.domains.add(
            _blank_domain(network, name, metadata.get("own_parts", {}).get(name, {}))
        )
    prefix = "network."
    network.load_state_dict(
        {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    )
    if "first_xi" in tensors:  # where new domains start; it depends on the network's seed
        network.get_buffer("first_xi").copy_(tensors["first_xi"])
    return network


def save_adapter(
    path: str | Path, backbone: Backbone, domain: Domain, notes: dict[str, Any]
) -> None:
    """Write one domain alone: xi, statistics and any part of its own, to fit on `backbone`."""
    metadata = {
        "kind": "adapter",
        "domain": domain.name,
        **_own_parts(domain),
        "fingerprint": backbone.fingerprint,
        "class_names": backbone.class_names_of(domain),
        "versions": versions(),
        "notes": notes,
    }
    save_tensors(Path(path), domain.state_dict(), metadata)


def load_adapter(path: str | Path, backbone: Backbone) -> tuple[Domain, dict[str, Any]]:
    """A domain that `save_adapter` wrote, and its notes; refused on any backbone but its own."""
    tensors, metadata = load_tensors(Path(path), "adapter")
    with understood(Path(path)):
        if metadata["fingerprint"] != backbone.fingerprint:
            raise ValueError(
                f"{path} belongs to backbone {metadata['fingerprint']}, this one is "
                f"{backbone.fingerprint}; load the backbone it was adapted on, or adapt again"
            )
        domain = _blank_domain(backbone.network, metadata["domain"], metadata)
        domain.load_state_dict(tensors)
        notes = metadata["notes"]
    return domain.requires_grad_(False), notes


def _own_parts(domain: Domain) -> dict[str, Any]:
    """Which of the network's parts this domain replaces by its own."""
    return {
        "input_adapter": domain.input_adapter is not None,
        "heads": domain.heads is not None,
        "batch_norm": domain.gamma is not None,
        "own_classes": domain.class_names,
    }


def _blank_domain(network: CompositionalNetwork, name: str, parts: Mapping[str, Any]) -> Domain:
    """A domain with `parts` of its own (`_own_parts`), for a saved state to be loaded into."""
    domain = network.new_domain(name)
    if parts.get("input_adapter"):
        domain.input_adapter = deepcopy(network.input_adapter)
    if parts.get("own_classes"):
        network.own_heads(domain, tuple(parts["own_classes"]))
    elif parts.get("heads"):
        domain.heads = deepcopy(network.heads)
    if parts.get("batch_norm"):
        network.own_batch_norm(domain)
    return domain.to(network.device)


def versions() -> dict[str, str]:
    """Versions that a result or a file was made with."""
    return {"da-compose": version("da-compose"), "torch": str(torch.__version__)}
