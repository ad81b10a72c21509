"""A pretrained network with what ships with it, as one file.

A safetensors file whose header carries JSON: no pickle, and nothing half-written.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from da_compose.context import undisturbed
from da_compose.knowledge import Rehearsal, SourceKnowledge, embed
from da_compose.model.config import NetworkConfig
from da_compose.model.contract import Network, Shape
from da_compose.model.domain import Domain
from da_compose.model.network import CompositionalNetwork
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.pretrained_config import PretrainedConfig, check_rebuilt
from da_compose.model.zoo import build_module
from da_compose.pixel_range import warn_of_range
from da_compose.storage.files import load_metadata, load_tensors, save_tensors, understood

FORMAT = 2  # of the files; 1 was that of version 0.1.0, and had no number
# Of NetworkConfig, in version 0.1.0
FIRST_FIELDS = (
    "num_layers", "num_templates", "channels", "expansion", "squeeze", "patch_size", "image_size",
    "image_channels", "hidden", "embedding", "num_classes", "mixed_batch_norm", "signature",
)  # fmt: skip
PRETRAINED = "pretrained"  # of a file's `network`
KNOWN = ("first", "second", "block_features", "labels")  # of a source, in the file


@dataclass(frozen=True)
class Backbone:
    """A frozen pretrained network, its source domains and what it knows of them."""

    network: Network
    class_names: tuple[str, ...]
    knowledge: dict[str, SourceKnowledge]
    notes: dict[str, Any] = field(default_factory=dict)  # recipe, data, seed: provenance only
    rehearsal: Rehearsal | None = None  # what estimates of accuracy rest on, where it was rehearsed

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
        digest = hashlib.sha256(_identity(self.network.config).encode())
        network = getattr(self.network, "_orig_mod", self.network)  # of torch.compile
        for name, tensor in sorted(network.state_dict().items()):
            if not name.startswith("domains."):
                digest.update(name.encode())
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def class_names_of(self, domain: Domain) -> tuple[str, ...]:
        """Names of the classes that a domain predicts: its own heads', else the backbone's."""
        return self.class_names if domain.class_names is None else domain.class_names

    def doubt_range(self, images: NDArray[np.uint8]) -> None:
        """Warn where images (M, ...) are far brighter, darker or flatter than every source's."""
        warn_of_range([known.pixels for known in self.knowledge.values()], images)

    def save(self, path: str | Path) -> None:
        """Write the backbone to `path` (.safetensors), whole or not at all.

        Raises ValueError for a network on a module that no name rebuilds.
        """
        check_rebuilt(self.network.config)
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for source, known in self.knowledge.items():
            for part in KNOWN:
                tensors[f"knowledge.{source}.{part}"] = getattr(known, part)
        if self.rehearsal is not None:
            tensors |= {f"rehearsal.{part}": value for part, value in vars(self.rehearsal).items()}
        tensors["first_xi"] = self.network.get_buffer("first_xi")
        metadata = {
            "kind": "backbone",
            "format": FORMAT,
            **_kind(self.network),
            "config": asdict(self.network.config),
            "domains": self.network.domains.names,
            "own_parts": {domain.name: domain.own_parts for domain in self.network.domains},
            "num_images": {name: known.num_images for name, known in self.knowledge.items()},
            "pixels": {name: known.pixels for name, known in self.knowledge.items()},
            "class_names": self.class_names,
            "fingerprint": self.fingerprint,
            "versions": versions(),
            "notes": self.notes,
        }
        save_tensors(Path(path), tensors, metadata)


def _identity(config: Shape) -> str:
    """A configuration as text: a field that is added later changes nothing at its default.

    Of NetworkConfig the first fields are written as in the files of version 0.1.0, whose
    fingerprints still hold. Where a pretrained network's weights came from is no part of it.
    """
    if isinstance(config, PretrainedConfig):
        given = {
            one.name: getattr(config, one.name)
            for one in fields(config)
            if one.name != "weights" and getattr(config, one.name) != one.default
        }
        return f"PretrainedConfig{json.dumps(given, sort_keys=True)}"
    assert isinstance(config, NetworkConfig)
    first = ", ".join(f"{name}={getattr(config, name)!r}" for name in FIRST_FIELDS)
    later = {
        one.name: getattr(config, one.name)
        for one in fields(config)
        if one.name not in (*FIRST_FIELDS, "trunk") and getattr(config, one.name) != one.default
    }
    added = json.dumps(later, sort_keys=True) if later else ""
    return f"NetworkConfig({first}){config.trunk or ''}{added}"


def saved_fingerprint(path: str | Path) -> str:
    """The fingerprint of the backbone in a file, which is not loaded."""
    with understood(Path(path)):
        return load_metadata(Path(path), "backbone")["fingerprint"]


@undisturbed()
def load_backbone(path: str | Path, device: str = "cpu") -> Backbone:
    """Read a backbone that `Backbone.save` wrote; raises ValueError where it is not one."""
    tensors, metadata = load_tensors(Path(path), "backbone")
    check_format(Path(path), metadata)
    with understood(Path(path)):
        network, num_images = _saved_network(tensors, metadata), metadata["num_images"]
        # In the order of the domains, as before saving: random draws of adaptation go by it
        known = {
            name: {part: tensors[f"knowledge.{name}.{part}"] for part in KNOWN}
            for name in metadata["domains"]
            if name in num_images
        }
        ranges = {name: one and tuple(one) for name, one in metadata.get("pixels", {}).items()}
        class_names, notes = tuple(metadata["class_names"]), metadata["notes"]
        fingerprint = metadata["fingerprint"]
        rehearsal = None
        if "rehearsal.figures" in tensors:
            parts = (tensors[f"rehearsal.{one.name}"] for one in fields(Rehearsal))
            rehearsal = Rehearsal(*parts)
    network.to(device)
    knowledge = {}
    for name, parts in known.items():
        embeddings = embed(network, parts["block_features"], network.domains[name])
        knowledge[name] = SourceKnowledge(
            **parts,
            embeddings=embeddings,
            num_images=num_images[name],
            pixels=ranges.get(name),
        )
    backbone = Backbone(network, class_names, knowledge, notes, rehearsal)
    if backbone.fingerprint != fingerprint:
        raise ValueError(f"{path} was changed after it was written: its fingerprint differs")
    return backbone


def network_state(tensors: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """The state dict of a network among the tensors of a file, for `network` to load.

    Files of before format 2 do not name the domains in it; `network` has them already.
    """
    prefix = "network."
    state = {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
    return {"domains._extra_state": network.domains.get_extra_state()} | state


def _kind(network: Network) -> dict[str, str]:
    """What a file says of the kind of network: nothing of that of version 0.1.0."""
    return {"network": PRETRAINED} if isinstance(network, PretrainedNetwork) else {}


def _saved_network(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Network:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in metadata["config"].items()
    }
    if metadata.get("network") == PRETRAINED:
        config = PretrainedConfig(**values)
        network = PretrainedNetwork(build_module(config.name, config.image_size), config)
    else:
        network = CompositionalNetwork(NetworkConfig(**values))
    for name in metadata["domains"]:
        network.domains.add(network.blank_domain(name, metadata.get("own_parts", {}).get(name, {})))
    network.load_state_dict(network_state(tensors, network))
    if "first_xi" in tensors:  # where new domains start; it depends on the network's seed
        network.get_buffer("first_xi").copy_(tensors["first_xi"])
    return network


def check_format(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError where a newer version than this one wrote a file."""
    if metadata.get("format", 1) > FORMAT:
        raise ValueError(
            f"{path} is of format {metadata['format']}, this version of da-compose reads up to "
            f"{FORMAT}; install a newer one"
        )


def versions() -> dict[str, str]:
    """Versions that a result or a file was made with."""
    return {"da-compose": version("da-compose"), "torch": str(torch.__version__)}
