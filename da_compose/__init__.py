"""The compositional network: templates, mixture weights, blocks, training, checkpoints."""

from da_compose.backbone import Backbone, load_adapter, load_backbone, save_adapter
from da_compose.domain import Domain
from da_compose.network import PRESETS, CompositionalNetwork, NetworkConfig, probabilities

__all__ = [
    "PRESETS",
    "Backbone",
    "CompositionalNetwork",
    "Domain",
    "NetworkConfig",
    "load_adapter",
    "load_backbone",
    "probabilities",
    "save_adapter",
]
