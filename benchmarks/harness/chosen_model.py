"""The domain that a command or a report speaks of, as a model."""

from pathlib import Path

import numpy as np

from adapters import load_adaptation
from da_compose import Backbone, DomainModel
from da_compose.starts import make_start, plain_start_name


def chosen_model(backbone: Backbone, adapter: Path | None, name: str | None = None) -> DomainModel:
    """The adapter's domain, the backbone's domain of this name, or the plain source-only one."""
    if adapter is not None and name is not None:
        raise ValueError("--adapter and --domain both name a domain; leave one of the two out")
    if adapter is not None:
        return load_adaptation(adapter, backbone)
    if name is not None:
        return DomainModel(backbone, backbone.network.domains[name])
    if not backbone.knowledge:
        raise ValueError(
            "this backbone knows no source domain, so there is no source-only model; expected "
            f"--adapter, or as --domain one of its own: {', '.join(backbone.network.domains.names)}"
        )
    size, plain = backbone.network.config.image_size, plain_start_name(backbone)
    # with a source's statistics, none of that black image's
    start = make_start(backbone, plain, plain, np.zeros((1, size, size), dtype=np.uint8))
    return DomainModel(backbone, start.target)
