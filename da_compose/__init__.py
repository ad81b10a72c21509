"""The compositional network: templates, mixture weights, blocks, training, checkpoints."""

from da_compose.backbone import Backbone, load_adapter, load_backbone, save_adapter
from da_compose.domain import Domain
from da_compose.network import PRESETS, CompositionalNetwork, NetworkConfig, probabilities
from da_compose.tasks import Task, train_tasks
from da_compose.transfer import Transfer, transfer

__all__ = [
    "PRESETS",
    "Backbone",
    "CompositionalNetwork",
    "Domain",
    "NetworkConfig",
    "Task",
    "Transfer",
    "load_adapter",
    "load_backbone",
    "probabilities",
    "save_adapter",
    "train_tasks",
    "transfer",
]
