"""One domain of a backbone as a file of its own, in the same form as a backbone's."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from da_compose.context import undisturbed
from da_compose.model.domain import Domain
from da_compose.model.mixture import Coefficients
from da_compose.storage.backbone import FORMAT, Backbone, check_backbone, check_format, versions
from da_compose.storage.files import load_tensors, save_tensors, understood
from da_compose.storage.offsets import packed, unpacked
from da_compose.storage.schema import (
    CLASSES,
    DOMAIN,
    FINGERPRINT,
    FLAG,
    MAPPING,
    OWN_PARTS,
    TEXT,
    check_metadata,
    check_tensors,
    mapping_of,
    one_of,
    optional,
    short,
    whole,
)

SCHEMA = {
    "kind": one_of("adapter"),
    "format": optional(whole(1)),
    "domain": DOMAIN,
    "coefficients": optional(FLAG),
    **OWN_PARTS,
    "fingerprint": FINGERPRINT,
    "class_names": CLASSES,
    "versions": mapping_of(TEXT),
    "notes": MAPPING,
}
NOTES = {"learned_parameters": optional(whole(0, 2**48))}  # of the notes, what is read again


def save_adapter(
    path: str | Path, backbone: Backbone, domain: Domain, notes: dict[str, Any]
) -> None:
    """Write one domain alone: xi, statistics and any part of its own, to fit on `backbone`."""
    metadata = {
        "kind": "adapter",
        "format": FORMAT,
        "domain": domain.name,
        "coefficients": isinstance(domain.mixture, Coefficients),  # for `inspect`: else logits
        **domain.own_parts,
        "fingerprint": backbone.fingerprint,
        "class_names": backbone.class_names_of(domain),
        "versions": versions(),
        "notes": notes,
    }
    save_tensors(Path(path), packed(domain.state_dict(), backbone.network.heads), metadata)


@undisturbed()
def load_adapter(path: str | Path, backbone: Backbone) -> tuple[Domain, dict[str, Any]]:
    """A domain that `save_adapter` wrote, and its notes; refused on any backbone but its own."""
    check_backbone(backbone)
    path = Path(path)
    tensors, metadata = read_adapter(path)
    if metadata["fingerprint"] != backbone.fingerprint:
        raise ValueError(
            f"{path} belongs to backbone {metadata['fingerprint']}, this one is "
            f"{backbone.fingerprint}; load the backbone it was adapted on, or adapt again"
        )
    with understood(path):
        domain = backbone.network.blank_domain(metadata["domain"], metadata)
        tensors = unpacked(tensors, backbone.network.heads)
        check_tensors(tensors, domain.state_dict())
        domain.load_state_dict(tensors)
        if tuple(metadata["class_names"]) != backbone.class_names_of(domain):
            warnings.warn(
                f"{path} names its classes {short(', '.join(metadata['class_names']))}, its "
                f"backbone {short(', '.join(backbone.class_names_of(domain)))}; the latter hold",
                stacklevel=3,
            )
    return domain.requires_grad_(False), metadata["notes"]


def read_adapter(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of an adapter's file, as far as they are right without its backbone."""
    tensors, metadata = load_tensors(path, "adapter")
    check_format(path, metadata)
    with understood(path):
        check_metadata(metadata, SCHEMA)
        check_metadata({n: v for n, v in metadata["notes"].items() if n in NOTES}, NOTES)
        own, head = metadata["own_classes"], tensors.get("heads.0.bias", torch.empty(0))
        if own is not None and len(head) != len(own):
            raise ValueError(f"heads are of {len(head)} classes, {len(own)} are named")
    return tensors, metadata
