"""One domain of a backbone as a file of its own, in the same form as a backbone's."""

from pathlib import Path
from typing import Any

from da_compose.context import undisturbed
from da_compose.model.domain import Domain
from da_compose.model.mixture import Coefficients
from da_compose.storage.backbone import FORMAT, Backbone, check_format, versions
from da_compose.storage.files import load_tensors, save_tensors, understood


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
    save_tensors(Path(path), domain.state_dict(), metadata)


@undisturbed()
def load_adapter(path: str | Path, backbone: Backbone) -> tuple[Domain, dict[str, Any]]:
    """A domain that `save_adapter` wrote, and its notes; refused on any backbone but its own."""
    tensors, metadata = load_tensors(Path(path), "adapter")
    check_format(Path(path), metadata)
    with understood(Path(path)):
        if metadata["fingerprint"] != backbone.fingerprint:
            raise ValueError(
                f"{path} belongs to backbone {metadata['fingerprint']}, this one is "
                f"{backbone.fingerprint}; load the backbone it was adapted on, or adapt again"
            )
        domain = backbone.network.blank_domain(metadata["domain"], metadata)
        domain.load_state_dict(tensors)
        notes = metadata["notes"]
    return domain.requires_grad_(False), notes
