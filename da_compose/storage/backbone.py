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
from da_compose.options import check_device
from da_compose.pixel_range import warn_of_range
from da_compose.storage.backbone_schema import (
    LARGEST_IMAGE,
    PRETRAINED,
    SCHEMA,
    check_knowledge,
    check_rehearsal,
)
from da_compose.storage.files import (
    load_metadata,
    load_tensors,
    save_tensors,
    understood,
)
from da_compose.storage.schema import (
    FINGERPRINT,
    check_class_names,
    check_metadata,
    check_tensors,
    made_of,
)

FORMAT = 2  # of the files; 1 was that of version 0.1.0, and had no number
# Of NetworkConfig, in version 0.1.0
FIRST_FIELDS = (
    "num_layers", "num_templates", "channels", "expansion", "squeeze", "patch_size", "image_size",
    "image_channels", "hidden", "embedding", "num_classes", "mixed_batch_norm", "signature",
)  # fmt: skip
EXTRA_STATE = "network.domains._extra_state"  # names of domains, which the metadata say too
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
        check_class_names(self.class_names)
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
                held = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(held.numpy().data)
        return digest.hexdigest()[:16]

    def class_names_of(self, domain: Domain) -> tuple[str, ...]:
        """Names of the classes that a domain predicts: its own heads', else the backbone's."""
        return self.class_names if domain.class_names is None else domain.class_names

    def doubt_range(self, images: NDArray[np.uint8]) -> None:
        """Warn where images (M, ...) are far brighter, darker or flatter than every source's."""
        warn_of_range([known.pixels for known in self.knowledge.values()], images)

    def save(self, path: str | Path) -> None:
        """Write the backbone to `path` (.safetensors), whole or not at all.

        A network of half precision, or of double, is as such when it is loaded.
        Raises ValueError for a network on a module that no name rebuilds, and where a weight is not
        finite.
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


def check_backbone(given: Any) -> None:
    """Raise ValueError for what is no backbone, such as the path of its file."""
    if not isinstance(given, Backbone):
        raise ValueError(
            f"expected a backbone, as load_backbone(path) reads it; got a {type(given).__name__}"
        )


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
        metadata = load_metadata(Path(path), "backbone")
        check_metadata({"fingerprint": metadata["fingerprint"]}, {"fingerprint": FINGERPRINT})
        return metadata["fingerprint"]


@undisturbed()
def load_backbone(path: str | Path, device: str = "cpu") -> Backbone:
    """Read a backbone that `Backbone.save` wrote; raises ValueError where it is not one."""
    check_device(device)
    path = Path(path)
    tensors, metadata = read_backbone(path)
    with understood(path):
        network, num_images = _saved_network(tensors, metadata), metadata["num_images"]
        # In the order of the domains, as before saving: random draws of adaptation go by it
        known = {
            name: {part: tensors[f"knowledge.{name}.{part}"] for part in KNOWN}
            for name in metadata["domains"]
            if name in num_images
        }
        ranges = {name: one and tuple(one) for name, one in metadata.get("pixels", {}).items()}
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
        rehearsal = None
        if "rehearsal.figures" in tensors:
            rehearsal = Rehearsal(*(tensors[f"rehearsal.{one.name}"] for one in fields(Rehearsal)))
        backbone = Backbone(
            network, tuple(metadata["class_names"]), knowledge, metadata["notes"], rehearsal
        )
    if backbone.fingerprint != metadata["fingerprint"]:
        raise ValueError(f"{path} was changed after it was written: its fingerprint differs")
    return backbone


def read_backbone(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a backbone's file, that fit each other; nothing is built of them.

    Raises ValueError where they do not: shapes are those of a network of this configuration.
    """
    tensors, metadata = load_tensors(path, "backbone")
    check_format(path, metadata)
    with understood(path):
        check_metadata(metadata, SCHEMA)
        with torch.device("meta"):  # shapes alone, in no memory
            blank = _blank_network(metadata)
        start = {"first_xi": blank.get_buffer("first_xi")}
        expected = {f"network.{name}": value for name, value in blank.state_dict().items()} | start
        kinds = ("knowledge.", "rehearsal.")
        found = {name: tensors[name] for name in tensors if not name.startswith(kinds)}
        found |= {EXTRA_STATE: expected[EXTRA_STATE]}
        check_tensors(found, expected, one_precision=True)
        known, rehearsed = ({n: t for n, t in tensors.items() if n.startswith(k)} for k in kinds)
        check_knowledge(known, metadata, blank.config)
        check_rehearsal(rehearsed)
    return tensors, metadata


def network_state(tensors: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """The state dict of a network among the tensors of a file, for `network` to load.

    What domains there are is said by the network, which has them already.
    """
    prefix = "network."
    state = {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
    return state | {"domains._extra_state": network.domains.get_extra_state()}


def _kind(network: Network) -> dict[str, str]:
    """What a file says of the kind of network: nothing of that of version 0.1.0."""
    return {"network": PRETRAINED} if isinstance(network, PretrainedNetwork) else {}


def _blank_network(metadata: Mapping[str, Any]) -> Network:
    """A network as a file's metadata say, of random weights."""
    if metadata.get("network") == PRETRAINED:
        config = made_of(PretrainedConfig, metadata["config"])
        _check_size(config)
        network = PretrainedNetwork(build_module(config.name, config.image_size), config)
    else:
        config = made_of(NetworkConfig, metadata["config"])
        _check_size(config)
        network = CompositionalNetwork(config)
    for name in metadata["domains"]:
        network.domains.add(network.blank_domain(name, metadata.get("own_parts", {}).get(name, {})))
    return network


def _check_size(config: Shape) -> None:
    if config.image_size > LARGEST_IMAGE:
        raise ValueError(f"image_size is {config.image_size}, expected {LARGEST_IMAGE} at most")


def _saved_network(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Network:
    network = _blank_network(metadata).to(tensors["network.heads.0.weight"].dtype)
    network.load_state_dict(network_state(tensors, network))
    network.get_buffer("first_xi").copy_(tensors["first_xi"])  # it depends on the network's seed
    return network


def check_format(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError where a newer version than this one wrote a file."""
    later = isinstance(metadata.get("format", 1), int) and metadata.get("format", 1) > FORMAT
    if later:
        raise ValueError(
            f"{path} is of format {metadata['format']}, this version of da-compose reads up to "
            f"{FORMAT}; install a newer one"
        )


def versions() -> dict[str, str]:
    """Versions that a result or a file was made with."""
    return {"da-compose": version("da-compose"), "torch": str(torch.__version__)}
