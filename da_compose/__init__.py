"""The compositional network: templates, mixture weights, blocks, training, checkpoints."""

from da_compose.model.config import PRESETS, NetworkConfig
from da_compose.model.domain import Domain
from da_compose.model.network import CompositionalNetwork, probabilities
from da_compose.storage.adapter import load_adapter, save_adapter
from da_compose.storage.backbone import Backbone, load_backbone
from da_compose.training.tasks import Task, train_tasks

__all__ = [
    "PRESETS",
    "Backbone",
    "CompositionalNetwork",
    "Domain",
    "NetworkConfig",
    "Task",
    "load_adapter",
    "load_backbone",
    "probabilities",
    "save_adapter",
    "train_tasks",
]
