"""The domain that a command or a report speaks of."""

from pathlib import Path

import numpy as np

from adapters import load_adaptation
from da_compose import Backbone, Domain
from da_compose.starts import make_start, plain_start_name


def chosen_domain(backbone: Backbone, adapter: Path | None, name: str | None = None) -> Domain:
    """The adapter's domain, the backbone's domain of this name, or the plain source-only one."""
    if adapter is not None and name is not None:
        raise ValueError("--adapter and --domain both name a domain; leave one of the two out")
    if adapter is not None:
        return load_adaptation(adapter, backbone).domain
    if name is not None:
        return backbone.network.domains[name]
    if not backbone.knowledge:
        raise ValueError(
            "this backbone knows no source domain, so there is no source-only model; expected "
            f"--adapter, or as --domain one of its own: {', '.join(backbone.network.domains.names)}"
        )
    size, plain = backbone.network.config.image_size, plain_start_name(backbone)
    start = make_start(backbone, plain, plain, np.zeros((1, size, size), dtype=np.uint8))
    start.use_statistics(0.0)  # none of that black image's
    return start.target
